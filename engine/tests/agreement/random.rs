//! Random small replicas and requests, memory so short that sequences are
//! preempted, and requests that come at the same time.

use foresail_core::batching::Config;
use foresail_scenarios::workload::{Content, Request};
use proptest::prelude::*;

use crate::{agree, library};

/// A step of these small batches takes some milliseconds.
const MICROSECOND: u64 = 1_000;

fn config() -> impl Strategy<Value = Config> {
    let sizes = (1..20_u32, 4..60_u32, 1..9_u32, 0..40_u32);
    let rest = (1..40_u32, 0..3_u32, any::<bool>());
    (sizes, rest).prop_map(|((block_size, num_blocks, max_num_seqs, more), rest)| {
        let (prefill_chunk, watermark, prefix_caching) = rest;
        Config {
            block_size,
            num_blocks,
            max_num_seqs,
            max_batched_tokens: max_num_seqs + more,
            max_model_len: 300,
            prefill_chunk,
            max_loras: 0,
            watermark,
            prefix_caching,
        }
    })
}

/// The system prompt of each group of conversations (tokens).
const SHARED_TOKENS: u32 = 30;

fn content() -> impl Strategy<Value = Content> {
    (0..2_u64, 0..4_u64).prop_map(|(group, session)| Content::Session {
        group,
        shared_tokens: SHARED_TOKENS,
        // A conversation is of one group, as workloads have it.
        session: group * 10 + session,
    })
}

/// Requests in order; several come at once, and some after a long silence.
fn requests() -> impl Strategy<Value = Vec<Request>> {
    let gap = prop_oneof![
        3 => Just(0_u64),
        5 => 0..20_000 * MICROSECOND,
        1 => Just(2_000_000 * MICROSECOND),
    ];
    let request = (gap, 1..90_u32, 1..60_u32, content());
    (any::<bool>(), prop::collection::vec(request, 1..25)).prop_map(|(unique, drawn)| {
        let mut due = 0;
        let mut requests = Vec::new();
        for (gap, prompt_tokens, output_tokens, content) in drawn {
            due += gap;
            let (shared, content) = match unique {
                true => (0, Content::Unique),
                false => (SHARED_TOKENS, content),
            };
            let prompt_tokens = shared + prompt_tokens;
            requests.push(Request {
                due,
                prompt_tokens,
                output_tokens,
                session: None,
                adapter: None,
                content,
            });
        }
        requests
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_requests_on_any_replica(config in config(), requests in requests()) {
        let mut scenario = library("chat", &[]);
        scenario.deployment.batching = config;
        agree(&scenario, &requests);
    }
}
