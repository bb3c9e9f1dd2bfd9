//! Several software devices exchange values through memory, each on a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use half::bf16;

use crate::cuda::gpu::GpuError;

/// One device of a group.
pub(super) struct Member {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// Where all come together, exchange by exchange.
struct Meeting {
    world_size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What each rank has brought to this exchange.
    brought: Vec<Option<Vec<u8>>>,
    /// What all have brought, until the last has taken it.
    complete: Option<Arc<Vec<Vec<u8>>>>,
    taken: usize,
    /// Whether one of them will not come any more.
    left: bool,
}

impl Member {
    /// All of a group.
    pub(super) fn group(world_size: usize) -> Vec<Self> {
        let meeting = Arc::new(Meeting {
            world_size,
            state: Mutex::new(State {
                brought: vec![None; world_size],
                complete: None,
                taken: 0,
                left: false,
            }),
            changed: Condvar::new(),
        });
        (0..world_size)
            .map(|rank| Self {
                rank,
                meeting: Arc::clone(&meeting),
            })
            .collect()
    }

    pub(super) fn world_size(&self) -> usize {
        self.meeting.world_size
    }

    /// This one will not come any more: others that wait for it fail.
    pub(super) fn leave(&self) {
        self.meeting.lock().left = true;
        self.meeting.changed.notify_all();
    }

    /// The sum over the ranks of bf16 values, in their order, in f32, rounded once.
    pub(super) fn all_reduce(&self, values: &mut [u8]) -> Result<(), GpuError> {
        let all = self.meeting.exchange(self.rank, values.to_vec())?;
        for (place, value) in values.chunks_exact_mut(2).enumerate() {
            let term = |of_rank: &Vec<u8>| {
                let bytes = of_rank.get(2 * place..2 * place + 2).ok_or(DIFFERENT)?;
                Ok(bf16::from_ne_bytes([bytes[0], bytes[1]]).to_f32())
            };
            let sum: f32 = all
                .iter()
                .map(term)
                .sum::<Result<f32, &str>>()
                .map_err(failed)?;
            value.copy_from_slice(&bf16::from_f32(sum).to_ne_bytes());
        }
        Ok(())
    }

    /// What all ranks bring, one after the other.
    pub(super) fn all_gather(&self, own: Vec<u8>) -> Result<Vec<u8>, GpuError> {
        let bytes = own.len();
        let all = self.meeting.exchange(self.rank, own)?;
        if all.iter().any(|of_rank| of_rank.len() != bytes) {
            return Err(failed(DIFFERENT));
        }
        Ok(all.concat())
    }
}

const DIFFERENT: &str = "the ranks exchange different numbers of values";

fn failed(why: &str) -> GpuError {
    GpuError::Lost(format!("exchange between ranks: {why}"))
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings something, and waits for what all others bring to the same exchange.
    fn exchange(&self, rank: usize, own: Vec<u8>) -> Result<Arc<Vec<Vec<u8>>>, GpuError> {
        const LEFT: &str = "another rank has left";
        let mut state = self.lock();
        // The exchange before may still be going on for others.
        while state.complete.is_some() && !state.left {
            state = self.wait(state);
        }
        if state.left {
            return Err(failed(LEFT));
        }
        state.brought[rank] = Some(own);
        if state.brought.iter().all(Option::is_some) {
            let all = state.brought.iter_mut().filter_map(Option::take).collect();
            state.complete = Some(Arc::new(all));
            state.taken = 0;
            self.changed.notify_all();
        }
        loop {
            if let Some(all) = state.complete.clone() {
                state.taken += 1;
                if state.taken == self.world_size {
                    state.complete = None;
                    self.changed.notify_all();
                }
                return Ok(all);
            }
            if state.left {
                return Err(failed(LEFT));
            }
            state = self.wait(state);
        }
    }
}
