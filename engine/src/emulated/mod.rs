//! A device that is none: steps take as long as a model of step times says, and
//! tokens come from a counter.
//!
//! With it a whole server can be exercised without weights and without a GPU:
//! load tests, gateways, dashboards, autoscalers. It runs behind the same
//! [`Driver`](crate::driver::Driver) as every other backend, with the memory
//! that the simulator would give the replica, so that an emulated run and a
//! simulated one of the same requests are the same steps, to the nanosecond of
//! the model (`engine/tests/agreement/`).
//!
//! What it emulates is time and memory. Tokens mean nothing: each is the one
//! after the last, whatever the sampling parameters say, though never one that
//! is banned or that ends a text. The `n`-th likeliest token has a probability
//! of `2^-n`. Adapters take slots and make steps longer; loading one takes no time.
//! What an emulated server takes for a request beside its steps is waited for on the way in ([`Entrance`]).

mod clock;
mod entrance;
mod hardware;
mod vocabulary;

use foresail_core::step_time::{AdapterOverhead, StepTime};
use foresail_core::time::Moment;

use crate::backend::{Backend, RowOutput, StepError, StepInput};
use crate::weights::Adapter;

pub use clock::{Clock, RealClock, SpeedError, VirtualClock};
pub use entrance::{Entrance, Passage};
pub use hardware::{Emulation, EmulationError, Hardware};
pub use vocabulary::{Vocabulary, VocabularyError};

/// A backend without a device.
pub struct EmulatedBackend {
    model: Box<dyn StepTime + Send>,
    overhead: AdapterOverhead,
    clock: Box<dyn Clock>,
    vocabulary: Vocabulary,
    /// Slots with an adapter.
    slots: Vec<bool>,
    /// When the last step ended, or should have.
    end: Moment,
}

impl std::fmt::Debug for EmulatedBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("EmulatedBackend");
        debug.field("end", &self.end).finish_non_exhaustive()
    }
}

impl EmulatedBackend {
    /// A device with these step times and slots for so many adapters.
    #[must_use]
    pub fn new(
        model: Box<dyn StepTime + Send>,
        overhead: AdapterOverhead,
        max_loras: usize,
        vocabulary: Vocabulary,
        clock: Box<dyn Clock>,
    ) -> Self {
        Self {
            model,
            overhead,
            clock,
            vocabulary,
            slots: vec![false; max_loras],
            end: Moment::at(0),
        }
    }

    /// Waits until the step would have been computed.
    ///
    /// A step that continues begins when the one before should have ended, as on
    /// a GPU that is given its next step while it computes: what the driver does
    /// in between then takes no time of the device, and no lateness adds up.
    fn spend(&mut self, input: &StepInput<'_>) {
        let begin = if input.continues {
            self.end
        } else {
            Moment::at(self.clock.now())
        };
        let duration = self.model.step(&input.load) + self.overhead.of(input.adapters);
        self.end = begin.plus(duration);
        self.clock.wait_until(self.end.nanos);
    }
}

impl Backend for EmulatedBackend {
    fn step(&mut self, input: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let outputs = input.rows.iter().map(|row| self.vocabulary.output(row));
        let outputs = outputs.collect();
        self.spend(input);
        Ok(outputs)
    }

    fn load_adapter(&mut self, slot: usize, _adapter: &Adapter) -> Result<(), StepError> {
        match self.slots.get_mut(slot) {
            Some(taken) if !*taken => {
                *taken = true;
                Ok(())
            }
            Some(_) => Err(StepError(format!("slot {slot} is taken"))),
            None => Err(StepError(format!("there is no slot {slot}"))),
        }
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.slots[slot] = false;
    }
}
