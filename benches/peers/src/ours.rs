//! foresail's side: the simulator as the command runs it, measurements included,
//! and every request's record kept besides, because the peer keeps its own.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use foresail_core::batching;
use foresail_core::step_time::{
    DecodeRow, PrefillRow, Profile, ProfilePrecision, ProfileTable, Provenance,
};
use foresail_reports::measurements::Measurements;
use foresail_reports::records::{Change, Gaps, Outcome, RecordSink, RequestRecord};
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::scenario::{Scenario, StepTimeModel};
use foresail_scenarios::workload::{Content, Request, WorkloadError};
use foresail_simulator::simulate;

use crate::Deployment;
use crate::measure::{Latency, Run, Stopwatch};
use crate::step_cost::{PAST_TOKEN_PS, STEP_PS, TOKEN_PS};
use crate::workload::Row;

/// Longer than any request: neither side refuses one.
const MODEL_LEN_MAX: u32 = 1 << 20;
/// The step time is stated, so the names of the catalogue only fill the scenario.
const MODEL: &str = "llama-3-8b";
const GPU: &str = "h200";

/// Runs the rows.
pub(crate) fn run(rows: &[Row], deployment: &Deployment) -> Result<Run> {
    let scenario = scenario(deployment)?;
    let options = foresail_simulator::Options {
        seed: scenario.seed,
        leaps: deployment.leaps,
    };

    let watch = Stopwatch::start();
    let mut sink = (Measurements::new(&[]), Kept::default());
    let totals = simulate(
        &scenario,
        rows.iter().map(request),
        options,
        &mut sink,
        |_| ControlFlow::Continue(()),
    )?;
    let elapsed = watch.elapsed();

    Ok(Run {
        elapsed,
        iterations: totals.steps,
        latencies: latencies(&sink.1.0, rows.len())?,
    })
}

fn request(row: &Row) -> Result<Request, WorkloadError> {
    Ok(Request {
        due: row.due_ns,
        prompt_tokens: row.prompt_tokens,
        output_tokens: row.output_tokens,
        session: None,
        adapter: None,
        content: Content::Unique,
    })
}

/// Every request's record, in the order of their ends.
#[derive(Default)]
struct Kept(Vec<RequestRecord>);

impl RecordSink for Kept {
    fn request(&mut self, record: &RequestRecord) {
        self.0.push(record.clone());
    }

    fn gaps(&mut self, _: Gaps) {}

    fn change(&mut self, _: &Change) {}
}

/// A fixed number of replicas that are ready from the start.
fn scenario(deployment: &Deployment) -> Result<Scenario> {
    let replicas = deployment.replicas;
    let text = format!(
        r#"
        [deployment]
        model = "{MODEL}"
        gpu = "{GPU}"
        min_replica_count = {replicas}
        max_replica_count = {replicas}
        initial_replica_count = {replicas}

        [autoscaler]
        policy = "fixed"

        [router]
        policy = "round-robin"

        [workload]
        requests = 1
        prompt_tokens = {{ fixed = 1 }}
        output_tokens = {{ fixed = 1 }}
        arrivals = {{ process = "constant", rate_per_s = 1 }}
        "#
    );
    let mut scenario = format::parse("peers.toml", &text, Path::new(""), &Overrides::default())?;
    scenario.deployment.batching = batching(deployment);
    scenario.deployment.step_time = step_time(deployment)?;
    Ok(scenario)
}

fn batching(deployment: &Deployment) -> batching::Config {
    batching::Config {
        block_size: deployment.block_size,
        num_blocks: deployment.blocks,
        max_num_seqs: deployment.max_num_seqs,
        max_batched_tokens: deployment.max_batched_tokens,
        max_model_len: MODEL_LEN_MAX,
        prefill_chunk: deployment.max_batched_tokens,
        max_loras: 0,
        watermark: 0,
        prefix_caching: false,
    }
}

/// A profile whose rows lie on the plane that the costs describe: between and
/// beyond its rows a profile is linear, so it has that cost everywhere.
fn step_time(deployment: &Deployment) -> Result<StepTimeModel> {
    let batches = [1, deployment.max_num_seqs];
    let chunks = [1, deployment.max_batched_tokens];
    let table = ProfileTable {
        schema: ProfileTable::SCHEMA.to_owned(),
        provenance: provenance(),
        decode: grid(batches, |batch, past_tokens| DecodeRow {
            batch,
            past_tokens,
            seconds: seconds(batch, past_tokens),
        }),
        prefill: grid(chunks, |tokens, past_tokens| PrefillRow {
            tokens,
            past_tokens,
            seconds: seconds(tokens, past_tokens),
        }),
        measured: None,
    };
    let profile = Profile::new(&table, deployment.max_num_seqs)?;
    Ok(StepTimeModel::Profile(Box::new(profile)))
}

fn provenance() -> Provenance {
    Provenance {
        engine: "none".to_owned(),
        model: MODEL.to_owned(),
        gpu: GPU.to_owned(),
        world_size: 1,
        precision: ProfilePrecision::Bf16,
        measured_on: "never".to_owned(),
        source: "stated in step_cost.rs, not measured".to_owned(),
    }
}

/// A row for each of the counts, with and without tokens in the KV cache.
fn grid<Row>(counts: [u32; 2], row: impl Fn(u32, u64) -> Row) -> Vec<Row> {
    let pasts = [0, 1_000_000];
    let cells = counts.map(|count| pasts.map(|past| row(count, past)));
    cells.into_iter().flatten().collect()
}

fn seconds(tokens: u32, past: u64) -> f64 {
    (STEP_PS + TOKEN_PS * u64::from(tokens) + PAST_TOKEN_PS * past) as f64 / 1e12
}

/// In the order of the rows; records come in the order of their ends.
fn latencies(records: &[RequestRecord], requests: usize) -> Result<Vec<Latency>> {
    ensure!(
        records.len() == requests,
        "foresail recorded {} of {requests} requests",
        records.len()
    );
    let mut by_row: Vec<&RequestRecord> = records.iter().collect();
    by_row.sort_by_key(|record| record.id);
    by_row.into_iter().map(latency).collect()
}

fn latency(record: &RequestRecord) -> Result<Latency> {
    let id = record.id;
    ensure!(
        record.outcome == Outcome::Completed && record.preemptions == 0,
        "foresail ended request {id} as {:?}, preempted {} times",
        record.outcome,
        record.preemptions
    );
    let first_token_ns = record.first_token_ns.context("no first token")?;
    Ok(Latency {
        ttft_ms: (first_token_ns - record.due_ns) as f64 / 1e6,
        e2e_ms: (record.end_ns - record.due_ns) as f64 / 1e6,
        output_tokens: record.output_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Means;
    use crate::peer;
    use crate::step_cost::milliseconds;
    use crate::workload::Traffic;

    const DEPLOYMENT: Deployment = Deployment {
        replicas: 1,
        max_num_seqs: 128,
        max_batched_tokens: 2_048,
        block_size: 64,
        blocks: 16_384,
        leaps: true,
        peer_prefix_caching: false,
    };

    fn row(due_ns: u64, prompt_tokens: u32, output_tokens: u32) -> Row {
        Row {
            due_ns,
            prompt_tokens,
            output_tokens,
        }
    }

    fn step_ms(computed: u64, past: u64) -> f64 {
        milliseconds(STEP_PS + TOKEN_PS * computed + PAST_TOKEN_PS * past)
    }

    fn assert_ms(actual: f64, expected: f64) {
        // A profile keeps whole picoseconds, a record whole nanoseconds.
        assert!(
            (actual - expected).abs() < 1e-4,
            "{actual} is not {expected}"
        );
    }

    #[test]
    fn a_request_alone_takes_the_step_times_that_were_stated() {
        let run = run(&[row(0, 100, 3)], &DEPLOYMENT).unwrap();
        let alone = run.latencies[0];
        assert_ms(alone.ttft_ms, step_ms(100, 0));
        assert_ms(
            alone.e2e_ms,
            step_ms(100, 0) + step_ms(1, 100) + step_ms(1, 101),
        );
        assert_eq!((alone.output_tokens, run.iterations), (3, 3));
    }

    #[test]
    fn a_long_prompt_is_computed_in_chunks_of_the_token_budget() {
        let run = run(&[row(0, 5_000, 1)], &DEPLOYMENT).unwrap();
        assert_ms(
            run.latencies[0].ttft_ms,
            step_ms(2_048, 0) + step_ms(2_048, 2_048) + step_ms(904, 4_096),
        );
    }

    #[test]
    fn a_step_with_prompts_and_a_decode_pays_the_fixed_part_once() {
        let rows = [row(0, 1_000, 2), row(1_000, 500, 1), row(1_000, 200, 1)];
        let run = run(&rows, &DEPLOYMENT).unwrap();
        let mixed_ms = step_ms(1 + 500 + 200, 1_000);
        assert_ms(run.latencies[0].e2e_ms, step_ms(1_000, 0) + mixed_ms);
        assert_ms(
            run.latencies[1].ttft_ms,
            step_ms(1_000, 0) + mixed_ms - 0.001,
        );
    }

    #[test]
    fn both_simulators_predict_the_same() {
        let traffic = Traffic {
            requests: 2_000,
            rate_per_s: 32.0,
            seed: 1,
        };
        let eight = Deployment {
            replicas: 8,
            ..DEPLOYMENT
        };
        let rows = traffic.rows();
        let ours = Means::of(&run(&rows, &eight).unwrap().latencies);
        let peer = Means::of(&peer::run(&rows, &eight).unwrap().latencies);
        for (ours, peer) in [
            (ours.ttft_ms, peer.ttft_ms),
            (ours.tpot_ms, peer.tpot_ms),
            (ours.e2e_ms, peer.e2e_ms),
        ] {
            assert!((ours / peer - 1.0).abs() < 0.03, "{ours} beside {peer}");
        }
    }
}
