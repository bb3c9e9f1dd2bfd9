//! How a run is to be done.

use std::time::Duration;

use foresail_core::time::{Nanos, SECOND};
use foresail_reports::summary::Load;
use foresail_scenarios::clients::Clients;

use crate::exchange::Patience;
use crate::record::WindowSettings;

/// How requests are sent, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Threads that send, each with connections of its own; at least 1.
    pub threads: usize,
    /// Open, capped or closed loop.
    pub load: Load,
    /// Nothing that is due then or later is sent, or offered; `None` for the whole plan.
    pub duration_ns: Option<Nanos>,
    /// How long what is in flight may take once nothing more is sent; then it is cancelled.
    pub drain_ns: Nanos,
    /// Whether answers are to come as streams.
    pub is_streamed: bool,
    /// How long to wait for what. Timeouts of `clients` come on top; the shorter one counts.
    pub patience: Patience,
    /// When clients give up, and what they send again.
    pub clients: Clients,
    /// The seed of what is drawn for clients: as in a simulation.
    pub seed: u64,
    /// Connections that each thread opens before the run begins.
    pub warm_connections: usize,
    /// How far ahead bodies are made, for each thread.
    pub ahead: Ahead,
    /// Which requests count.
    pub window: WindowSettings,
}

/// How far ahead of their sends bodies are made: up to the first of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Requests.
    pub requests: usize,
    /// Bytes of bodies.
    pub bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            load: Load::Open,
            duration_ns: None,
            drain_ns: 60 * SECOND,
            is_streamed: true,
            patience: Patience::default(),
            clients: Clients::default(),
            seed: 0,
            warm_connections: 0,
            ahead: Ahead::default(),
            window: WindowSettings::default(),
        }
    }
}

impl Default for Ahead {
    /// Several seconds of the highest rate that a thread reaches.
    fn default() -> Self {
        Self {
            requests: 8_192,
            bytes: 64 << 20,
        }
    }
}

/// How long before its start a run should be begun, so that threads run, connections are open and bodies are made.
pub const HEAD_START: Duration = Duration::from_millis(300);
