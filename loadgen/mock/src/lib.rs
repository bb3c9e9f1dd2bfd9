//! An endpoint that answers as slowly and as badly as it is told.
//!
//! It speaks OpenAI's completions and chat over HTTP/1.1, takes exactly as long
//! as a [`Behaviour`] says, fails exactly as it says, remembers what it was sent,
//! and reports how late it was itself, so that a measurement in which the mock
//! was the limit can be thrown out.
//!
//! ```text
//! bytes ─ request ─> Asked ─┐
//!                           ├─ rules, script ─> steps: at t, write these bytes, then go on / close / reset
//! Behaviour ── templates ───┘                       │
//!                                                   v
//!                                  server: one thread, epoll, one heap of deadlines
//! ```
//!
//! What an answer is, is decided without a clock and without a socket
//! (`script`); `server` only keeps the appointments.
//!
//! ```
//! use std::time::Duration;
//! use foresail_mock_endpoint::{Behaviour, Fault, MockEndpoint, Rule, When};
//!
//! let mock = MockEndpoint::start(Behaviour {
//!     ttft: Duration::from_millis(50),
//!     itl: Duration::from_millis(5),
//!     rules: vec![Rule { fault: Fault::NeverAnswer, when: When::Every(10) }],
//!     ..Behaviour::default()
//! })?;
//! println!("load http://{}", mock.address());
//! # Ok::<(), std::io::Error>(())
//! ```

mod alarm;
mod behaviour;
mod connection;
mod endpoint;
mod pages;
mod request;
mod rules;
mod script;
mod server;
mod serving;
mod stats;
mod templates;

pub use behaviour::{
    Behaviour, EventStyle, Fault, Garbage, KeepAlive, LineEnd, Outage, OutageKind, Output, Rule,
    UsageReport, When, Writes,
};
pub use endpoint::MockEndpoint;
pub use request::prompt_hash;
pub use stats::{Received, Stats};
