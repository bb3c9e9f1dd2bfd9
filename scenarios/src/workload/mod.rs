//! Requests over time: from a recorded trace, or generated.

mod request;

pub use request::{Content, Request};

/// What to send, and when: a source and what is done to it.
#[derive(Clone, Debug)]
pub struct Workload {}
