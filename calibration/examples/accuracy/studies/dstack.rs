//! dstack's rate sweeps of vLLM with Llama-3.1-405B on eight H100.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;

use super::lengths::{Quantiles, Uniform};
use super::{Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given};
use crate::data::{Data, Row};
use crate::replica::{Due, Load};

const ABOUT: &str = "dstackai/benchmarks 06c957a: Llama-3.1-405B FP8 on eight H100, vLLM of November 2024, benchmark_serving with a thousand \
    ShareGPT prompts at 16, 32 and 1000 requests/s, all of which saturate it. Compared are the runs with chunked prefill and \
    one step at a time; runs with several scheduler steps at once, and without chunked prefill, are other schedulers. Lengths come from \
    the quantiles of the requests of one run (`raw_data/8xH100SXM5-serving`, 16 requests/s), in which 379 of 1000 answers are empty, \
    mostly those to long prompts: they are taken as answers of one token. That client counts a time to first token of 0 for each of them, so \
    that those times are not compared. Nine of the runs differ only in the length up to which graphs are captured.";

/// Prompts that were answered by nothing, of those that were answered, and the answers, in tokens.
const UNANSWERED: Quantiles = Quantiles([
    44, 77, 132, 176, 221, 245, 270, 304, 325, 342, 363, 390, 439, 472, 503, 553, 612, 681, 761,
    771,
]);
const ANSWERED: Quantiles = Quantiles([
    5, 7, 9, 10, 12, 14, 15, 17, 20, 24, 28, 33, 41, 53, 73, 107, 178, 294, 546, 768,
]);
const ANSWERS: Quantiles = Quantiles([
    1, 7, 14, 21, 29, 42, 62, 102, 121, 154, 178, 206, 234, 261, 291, 318, 347, 392, 478, 599,
]);

const UNANSWERED_SHARE: f64 = 0.379;

const FIGURES: [(Figure, &str); 3] = [
    (Figure::TpotMean, "mean_tpot_ms"),
    (Figure::TpotP50, "median_tpot_ms"),
    (Figure::TpotP99, "p99_tpot_ms"),
];

pub(super) fn study(data: &Data) -> Result<Study> {
    let rows = data.table("dstack_8xh100_405b_qps.csv")?;
    let is_like_ours = |row: &&Row| {
        row.text("num-scheduler-step") == "1" && row.text("enable-chunked-prefill") == "True"
    };
    let cases = rows.iter().filter(is_like_ours).map(case);
    Ok(Study {
        title: "Llama-3.1-405B fp8, eight H100, vLLM of 2024, saturated".to_owned(),
        about: ABOUT,
        family: None,
        start: Start {
            gpu: gpu("h100")?,
            request: None,
        },
        cases: cases.collect::<Result<_>>()?,
        folds: Vec::new(),
    })
}

fn case(row: &Row) -> Result<Case> {
    let rate: f64 = row.number("request_rate")?;
    let count: usize = row.number("completed")?;
    let (seqs, tokens) = (
        row.number("max-num-seqs")?,
        row.number("max-num-batched-tokens")?,
    );
    let load = Load {
        requests: requests(count, rate),
        in_flight_max: count,
    };
    let mut measured = Vec::new();
    for (figure, column) in FIGURES {
        measured.push((figure, row.number::<f64>(column)? / 1e3, false));
    }
    let per_second = row.number("request_throughput")?;
    measured.push((Figure::RequestsPerSecond, per_second, false));
    Ok(Case {
        name: format!("{rate} requests/s, {seqs} sequences and {tokens} tokens a step"),
        server: None,
        engine: Engine {
            shape: shape("llama-3.1-405b")?,
            precision: Precision::Fp8,
            kv_precision: Precision::Bf16,
            world_size: 8,
            max_num_seqs: seqs,
            max_batched_tokens: tokens,
            memory_share: 0.9,
        },
        given: Given::Load(load, 0..count),
        measured,
    })
}

fn requests(count: usize, rate: f64) -> Vec<Due> {
    let mut uniform = Uniform::new(&format!("accuracy.dstack.{rate}"));
    let mut at_s = 0.0;
    let due = (0..count).map(|_| {
        at_s += uniform.exponential() / rate;
        let (prompt, output) = if uniform.next() < UNANSWERED_SHARE {
            (UNANSWERED.at(uniform.next()), 1)
        } else {
            (ANSWERED.at(uniform.next()), ANSWERS.at(uniform.next()))
        };
        Due {
            at_s,
            prompt,
            output,
        }
    });
    due.collect()
}
