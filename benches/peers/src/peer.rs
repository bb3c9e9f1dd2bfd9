//! The peer's side: NVIDIA's `aisimulate-core`, the engine of Dynamo's simulator.
//!
//! It is given every advantage that its public interface offers: no prefix
//! cache, no captured events, a step time that promises not to fail (so that
//! admission keeps no rollback copy), and a clock that starts when its input has
//! been built and checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aisimulate_core::TimingModel;
use aisimulate_core::engine::{Backend, EngineConfig};
use aisimulate_core::replay::{
    PerRequestRecord, ReplayAdapters, ReplayCaptureOptions, ReplayDeterminism, ReplayEngineConfig,
    ReplayEngineFactory, ReplayRequest, ReplaySpec, ReplayTerminalStatus, ReplayTopology, Replayer,
    SlaThresholds,
};
use anyhow::{Context, Result, ensure};

use crate::Deployment;
use crate::measure::{Latency, Run, Stopwatch};
use crate::step_cost::{PAST_TOKEN_PS, STEP_PS, TOKEN_PS, milliseconds};
use crate::workload::Row;

/// Runs the rows.
pub(crate) fn run(rows: &[Row], deployment: &Deployment) -> Result<Run> {
    let timing = Arc::new(Timing::default());
    let factory = ReplayEngineFactory::with_timing_model(timing.clone());
    // Numbered request identities instead of random ones: a run can be repeated.
    let capture = ReplayCaptureOptions {
        determinism: ReplayDeterminism::CanonicalV1,
        ..ReplayCaptureOptions::default()
    };
    let replayer = Replayer::new(spec(rows, deployment)?, factory)?.with_capture_options(capture);

    let watch = Stopwatch::start();
    let report = replayer.run()?;
    let elapsed = watch.elapsed();

    Ok(Run {
        elapsed,
        iterations: timing.decode_passes.load(Ordering::Relaxed),
        latencies: latencies(&report.per_request, rows.len())?,
    })
}

fn spec(rows: &[Row], deployment: &Deployment) -> Result<ReplaySpec> {
    Ok(ReplaySpec {
        version: 1,
        topology: ReplayTopology::aggregated(deployment.replicas as usize),
        engine: serde_json::to_value(engine(deployment))?,
        adapters: ReplayAdapters::default(),
        max_sim_time_ms: None,
        max_in_flight: None,
        record_per_request: true,
        sla: SlaThresholds::default(),
        requests: rows.iter().enumerate().map(request).collect(),
    })
}

fn engine(deployment: &Deployment) -> ReplayEngineConfig {
    ReplayEngineConfig {
        rank: EngineConfig {
            num_gpu_blocks: deployment.blocks as usize,
            block_size: deployment.block_size as usize,
            max_num_seqs: deployment.max_num_seqs as usize,
            max_num_batched_tokens: deployment.max_batched_tokens as usize,
            enable_prefix_caching: deployment.peer_prefix_caching,
            enable_chunked_prefill: true,
            ..EngineConfig::for_backend(Backend::Vllm)
        },
        ..ReplayEngineConfig::default()
    }
}

/// The peer sorts its records by this text: leading zeros keep the order of the rows.
fn request((index, row): (usize, &Row)) -> ReplayRequest {
    ReplayRequest {
        id: format!("{index:010}"),
        arrival_time_ms: row.due_ns as f64 / 1e6,
        input_tokens: row.prompt_tokens as usize,
        input_token_ids: None,
        output_tokens: row.output_tokens as usize,
        output_token_ids: None,
        dp_rank: None,
        prefill_dp_rank: None,
        session_id: None,
        turn_index: None,
        metadata: serde_json::Value::Null,
    }
}

fn latencies(records: &[PerRequestRecord], requests: usize) -> Result<Vec<Latency>> {
    ensure!(
        records.len() == requests,
        "the peer recorded {} of {requests} requests",
        records.len()
    );
    records.iter().enumerate().map(latency).collect()
}

fn latency((index, record): (usize, &PerRequestRecord)) -> Result<Latency> {
    let id = record.request_id.as_deref().unwrap_or_default();
    ensure!(
        id.parse() == Ok(index),
        "record {index} of the peer is of request {id}"
    );
    ensure!(
        record.terminal_status == ReplayTerminalStatus::Completed,
        "the peer ended request {id} as {:?}",
        record.terminal_status
    );
    ensure!(
        record.readmission_count == 0,
        "the peer preempted request {id}: give it more KV blocks, so that the work is alike"
    );
    Ok(Latency {
        ttft_ms: record.ttft_ms.context("no first token")?,
        e2e_ms: record.e2e_latency_ms.context("no last token")?,
        output_tokens: u32::try_from(record.output_length)?,
    })
}

/// The step time in the peer's terms.
///
/// It asks for the prompts and the decodes of a mixed pass one after the other
/// and adds the answers, so the fixed part must be in one of them only: it is in
/// the decodes', because nearly every pass decodes. A pass without a decode is
/// cheaper here by the fixed part than in foresail.
#[derive(Default)]
struct Timing {
    decode_passes: AtomicU64,
}

impl TimingModel for Timing {
    fn prefill_batch_validation_can_fail(&self) -> bool {
        false
    }

    fn prefill_prediction_can_fail(&self) -> bool {
        false
    }

    fn predict_prefill_ms(
        &self,
        batch_size: usize,
        mean_isl: usize,
        mean_prefix: usize,
    ) -> Result<f64> {
        let computed = (batch_size * (mean_isl - mean_prefix)) as u64;
        let past = (batch_size * mean_prefix) as u64;
        Ok(milliseconds(TOKEN_PS * computed + PAST_TOKEN_PS * past))
    }

    fn predict_decode_ms(
        &self,
        batch_size: usize,
        active_kv_tokens: usize,
        _mean_context_length: usize,
        _total_kv_tokens: usize,
    ) -> Result<f64> {
        self.decode_passes.fetch_add(1, Ordering::Relaxed);
        let computed = batch_size as u64;
        // The peer counts the token that the pass computes as part of the context.
        let past = active_kv_tokens as u64 - computed;
        Ok(milliseconds(
            STEP_PS + TOKEN_PS * computed + PAST_TOKEN_PS * past,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn prompt_ms(computed: u64, past: u64) -> f64 {
        milliseconds(TOKEN_PS * computed + PAST_TOKEN_PS * past)
    }

    fn assert_ms(actual: f64, expected: f64) {
        // The peer rounds each pass to whole nanoseconds.
        assert!(
            (actual - expected).abs() < 1e-4,
            "{actual} is not {expected}"
        );
    }

    #[test]
    fn a_request_alone_takes_the_step_times_that_were_stated() {
        let run = run(&[row(0, 100, 3)], &DEPLOYMENT).unwrap();
        let decode_ms = |past| milliseconds(STEP_PS) + prompt_ms(1, past);
        let alone = run.latencies[0];
        assert_ms(alone.ttft_ms, prompt_ms(100, 0));
        assert_ms(
            alone.e2e_ms,
            prompt_ms(100, 0) + decode_ms(100) + decode_ms(101),
        );
        assert_eq!((alone.output_tokens, run.iterations), (3, 2));
    }

    #[test]
    fn a_long_prompt_is_computed_in_chunks_of_the_token_budget() {
        let run = run(&[row(0, 5_000, 1)], &DEPLOYMENT).unwrap();
        assert_ms(
            run.latencies[0].ttft_ms,
            prompt_ms(2_048, 0) + prompt_ms(2_048, 2_048) + prompt_ms(904, 4_096),
        );
    }

    #[test]
    fn a_pass_with_prompt_and_decode_pays_the_fixed_part_once() {
        // The second request comes while the first computes its only prompt pass.
        let rows = [row(0, 1_000, 2), row(1_000, 500, 1)];
        let run = run(&rows, &DEPLOYMENT).unwrap();
        let mixed_ms = milliseconds(STEP_PS) + prompt_ms(1, 1_000) + prompt_ms(500, 0);
        assert_ms(run.latencies[0].e2e_ms, prompt_ms(1_000, 0) + mixed_ms);
        assert_ms(
            run.latencies[1].ttft_ms,
            prompt_ms(1_000, 0) + mixed_ms - 0.001,
        );
    }

    #[test]
    fn a_preemption_is_an_error_because_the_work_would_differ() {
        let cramped = Deployment {
            blocks: 20,
            ..DEPLOYMENT
        };
        let rows = [row(0, 600, 200), row(0, 500, 200)];
        let error = run(&rows, &cramped).err().unwrap().to_string();
        assert!(error.contains("KV blocks"), "{error}");
    }
}
