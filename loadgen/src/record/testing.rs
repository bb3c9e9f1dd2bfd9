//! What tests of records are made of.

use foresail_core::time::Nanos;

use super::{Asked, Ended};
use crate::exchange::{Connection, Ending, Exchange};

/// An attempt that began an answer of three chunks and ended so.
pub(crate) fn exchange(ending: Ending) -> Exchange {
    Exchange {
        sent_ns: 1_100,
        connection: Some(Connection::Reused),
        status: None,
        head_ns: None,
        retry_after_ns: None,
        output_ns: vec![3_000, 4_000, 5_000],
        usage: None,
        end_ns: 6_000,
        body_bytes: 10,
        ending,
    }
}

pub(crate) fn asked(id: u64, due_ns: Nanos) -> Asked {
    Asked {
        id,
        due_ns,
        prompt_tokens: 5,
        output_tokens: 3,
        session: None,
        adapter: None,
        is_streamed: true,
    }
}

/// A request that was due then, and ended 6 µs later.
pub(crate) fn ended(id: u64, due_ns: Nanos, ending: Ending) -> Ended {
    let exchange = Exchange {
        sent_ns: due_ns + 1_100,
        output_ns: vec![due_ns + 3_000, due_ns + 4_000, due_ns + 5_000],
        end_ns: due_ns + 6_000,
        ..exchange(ending)
    };
    Ended {
        asked: asked(id, due_ns),
        end_ns: exchange.end_ns,
        attempts: vec![exchange],
    }
}
