//! Real traffic at a real endpoint, timed honestly.
//!
//! ```text
//! workload, dataset ─ schedule ─> Planned… ─ bodies ─> run: sends each when it is due ─> Exchange… ─> records
//!                                                        │                        ^
//!                                                        v                        │
//!                                                     client: connections, TLS, HTTP/1.1 and 2, streams
//! ```
//!
//! The schedule is computed ahead: when a request is sent never depends on how
//! an earlier one was answered, and latency counts from when it was to be sent.

pub mod bodies;
pub mod client;
pub mod clock;
pub mod dataset;
pub mod exchange;
pub mod plan;
pub mod record;
pub mod run;
pub mod schedule;
pub mod scrape;
pub mod search;
pub mod watch;
