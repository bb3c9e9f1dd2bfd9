use foresail_core::batching::Config;
use foresail_core::step_time::Calibrated;
use foresail_core::step_time::calibrated::{Factor, Formula, Terms};
use foresail_reports::records::Outcome;
use foresail_scenarios::workload::{Content, Request};
use foresail_simulator::replay::{Traffic, replay};

use super::super::findings::tests::{done, job, record};
use super::*;

/// Six at once of which so many begin at once, and each of the others when one has ended.
fn in_rounds(begun: u64) -> Done {
    let records = (0..6).map(|id| {
        let round = id / begun;
        record(id, 0, round * 100 + 10, round * 100 + 90, 9)
    });
    done(job(Kind::Burst, 6), records.collect())
}

/// A burst as an engine of these limits would answer it.
fn simulated(sent: u64, prompt_tokens: u32, max_num_seqs: u32, max_batched_tokens: u32) -> Done {
    let terms = Terms {
        launch_s: 1e-3,
        weights_s: 5e-3,
        token_s: 2e-5,
        ..Terms::default()
    };
    let formula = Formula {
        terms,
        token_factor: Factor::default(),
        kv_factor: Factor::default(),
        all_reduce: None,
    };
    let batching = Config {
        block_size: 16,
        num_blocks: 1_000_000,
        max_num_seqs,
        max_batched_tokens,
        max_model_len: 4096,
        prefill_chunk: max_batched_tokens,
        max_loras: 0,
        watermark: 0,
        prefix_caching: false,
    };
    let request = Request {
        due: 0,
        prompt_tokens,
        output_tokens: 64,
        session: None,
        adapter: None,
        content: Content::Unique,
    };
    let traffic = Traffic::Recorded(vec![request; sent as usize]);
    let model = Calibrated::of(formula, max_num_seqs);
    let replayed = replay(&traffic, batching, &model, |_| 0).unwrap();
    let records = replayed.requests.iter().zip(0..).map(|(each, id)| {
        // Clients see an answer a little later than it is sent, each by as much as it happens.
        let later = (id * 7919) % 40_000;
        record(
            id,
            0,
            each.first_token_ns + later,
            each.end_ns + later,
            each.output_tokens,
        )
    });
    done(job(Kind::Burst, sent as usize), records.collect())
}

fn of(bursts: &[Done]) -> BatchLimit {
    batch_limit(bursts.iter())
}

#[test]
fn a_burst_that_waits_shows_the_batch_limit() {
    assert_eq!(of(&[in_rounds(2), in_rounds(2)]), BatchLimit::Found(2));
    assert_eq!(of(&[in_rounds(6)]), BatchLimit::AtLeast(6));
    assert_eq!(of(&[in_rounds(3), in_rounds(4)]), BatchLimit::Between(3, 4));
    // What one was held at, another was not.
    assert_eq!(of(&[in_rounds(3), in_rounds(6)]), BatchLimit::AtLeast(6));
    assert_eq!(of(&[]), BatchLimit::Unknown);
    let mut failed = in_rounds(2);
    failed.records[3].outcome = Outcome::FailedStatus;
    assert_eq!(of(&[failed]), BatchLimit::Unknown);
}

#[test]
fn a_simulated_limit_is_found() {
    for limit in [1, 4, 16, 64, 150] {
        let burst = simulated(256, 32, limit, 2048);
        assert_eq!(of(&[burst]), BatchLimit::Found(limit), "{limit}");
    }
    assert_eq!(of(&[simulated(64, 32, 256, 512)]), BatchLimit::AtLeast(64));
}

#[test]
fn prompts_that_are_computed_slowly_are_no_limit() {
    // An engine of 256 sequences, which never has so many: prompts come too slowly.
    for (prompt_tokens, tokens_of_a_step) in [(128, 512), (32, 256), (128, 256), (600, 256)] {
        let limit = of(&[simulated(256, prompt_tokens, 256, tokens_of_a_step)]);
        assert!(
            matches!(limit, BatchLimit::Prompts(most) if most < 256),
            "{prompt_tokens} of {tokens_of_a_step}: {limit:?}"
        );
    }
}
