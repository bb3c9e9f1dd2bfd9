//! What is sent and when, all of it before anything is sent.
//!
//! ```text
//! scenario, trace, flags (Traffic) ─> Workload ─ seed ─> Plan ──── open loop: each at its due time
//!                            dataset ─ texts ─────────────^  └───── closed loop: ClosedLoop says who is next
//! ```
//!
//! In an open loop, the default, nothing that the endpoint does delays a request:
//! a server that is slow meets the same load as one that is fast. The turns of a
//! conversation come at their planned times too, so a turn may be sent before
//! the answer to the one before it is there; what its prompt repeats of that
//! answer is then not what was answered but planned text of the planned length.
//!
//! The requests are those that a simulation of the same workload under the same seed
//! gets, and a request has the same id in both: its position.
//!
//! A plan is in memory, about [`PLANNED_BYTES`] a request (ten million: 1.1 GB) and the
//! texts of a dataset; a shard holds its own requests only. That a trace is read
//! to its end first is on purpose: a line that is wrong is found before the run, not in its
//! second hour.

mod closed_loop;
mod shard;
mod traffic;

use foresail_core::time::Nanos;
use foresail_scenarios::workload::{Requests, Skipped, Workload, WorkloadError};

pub use closed_loop::{ClosedLoop, Turn};
pub use shard::{Shard, ShardError};
pub use traffic::{Pattern, RampUp, Rate, Traffic, TrafficError};

use crate::plan::{Planned, Prompt};

/// Memory of a planned request without what it points to: blocks of a recorded
/// prompt (8 bytes each) and texts of a dataset.
pub const PLANNED_BYTES: usize = std::mem::size_of::<Planned>();

/// So many requests at most are reserved on an expectation; beyond it, a plan grows as it is made.
const RESERVED_MAX: u64 = 1 << 20;

/// Everything that a run, or a shard of it, will send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The requests of this shard in the order of their due times.
    pub requests: Vec<Planned>,
    /// How many requests all shards have together.
    pub requests_total: u64,
    /// Names of the adapters, by the number in a request.
    pub adapters: Vec<String>,
    /// How long the workload lasts by its own word; `None` if it ends with its last request.
    pub duration_ns: Option<Nanos>,
    /// What the workload is, in one line for people.
    pub description: String,
    /// Rows of a trace that were no requests.
    pub skipped: Skipped,
    /// Requests whose text is that of an earlier one, because the dataset has fewer
    /// than are sent: a prefix cache answers them faster.
    pub repeated_prompts: u64,
}

impl Plan {
    /// The requests of a workload under a seed, or those of a shard.
    ///
    /// # Errors
    /// What is wrong with the workload, wherever in it: a file that cannot be
    /// read, a line that does not fit, options out of range.
    pub fn new(workload: &Workload, seed: u64, shard: Shard) -> Result<Self, WorkloadError> {
        let mut source = workload.open(seed)?;
        let expected = source.len_hint().unwrap_or(0).min(RESERVED_MAX);
        let mut requests = Vec::with_capacity((expected / u64::from(shard.count())) as usize);
        let mut adapters = Vec::new();
        let mut id = 0;
        while let Some(request) = source.next().transpose()? {
            add_name(&mut adapters, &source, request.adapter);
            if shard.sends(id, request.session) {
                let prompt = Prompt::Synthetic;
                requests.push(Planned {
                    id,
                    request,
                    prompt,
                });
            }
            id += 1;
        }
        Ok(Self {
            requests,
            requests_total: id,
            adapters,
            duration_ns: workload.duration(),
            description: source.describe(),
            skipped: source.skipped(),
            repeated_prompts: 0,
        })
    }

    /// When the last request is due; 0 without requests.
    #[must_use]
    pub fn last_due_ns(&self) -> Nanos {
        self.requests
            .last()
            .map_or(0, |planned| planned.request.due)
    }
}

/// Adds the names of the adapters up to this one.
fn add_name(names: &mut Vec<String>, source: &Requests, adapter: Option<u32>) {
    let Some(adapter) = adapter else { return };
    for number in names.len() as u32..=adapter {
        let name = source.adapter_name(number);
        // A workload whose adapters nobody named has numbers only.
        names.push(name.map_or_else(|| number.to_string(), str::to_owned));
    }
}

#[cfg(test)]
mod tests;
