//! A barrier that can be broken, and mended.
//!
//! [`std::sync::Barrier`] waits for ever for a thread that will not come. Here
//! whoever cannot come says so, and those who wait are told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How often a thread looks before it sleeps. The ranks of a world end an
/// operation within microseconds of each other when each has a core of its own;
/// where they share cores, whoever spins keeps the others from coming.
const LOOKS_MAX: u32 = 500;

/// Set in the round that threads look at when they wait in vain.
const BROKEN: u64 = 1 << 63;

/// A place where a fixed number of threads meet, again and again.
#[derive(Debug)]
pub(super) struct Rendezvous {
    members: usize,
    state: Mutex<State>,
    /// The round of `state` and whether it is broken, to be looked at without the lock.
    round: AtomicU64,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many have come in this round.
    arrived: usize,
    /// How often all have met.
    round: u64,
    /// Whether somebody failed since the last [`Rendezvous::mend`].
    broken: bool,
    /// Whether somebody left for good.
    left: bool,
}

/// Somebody will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Rendezvous {
    pub(super) fn new(members: usize) -> Self {
        Self {
            members,
            state: Mutex::default(),
            round: AtomicU64::new(0),
            changed: Condvar::new(),
        }
    }

    /// How often all have met. It cannot change while the caller has not come.
    pub(super) fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire) & !BROKEN
    }

    /// Waits until all have come.
    pub(super) fn meet(&self) -> Result<(), Broken> {
        let mut state = self.lock();
        if state.broken || state.left {
            return Err(Broken);
        }
        let round = state.round;
        state.arrived += 1;
        if state.arrived < self.members {
            drop(state);
            return self.wait(round);
        }
        state.arrived = 0;
        state.round += 1;
        self.publish(&state);
        Ok(())
    }

    fn wait(&self, round: u64) -> Result<(), Broken> {
        for _ in 0..LOOKS_MAX {
            if self.round.load(Ordering::Acquire) != round {
                break;
            }
            std::hint::spin_loop();
        }
        let state = self.lock();
        let in_round = |state: &mut State| state.round == round && !state.broken && !state.left;
        let waited = self.changed.wait_while(state, in_round);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        // Whoever met has met, even if somebody failed right after it.
        if state.round == round {
            return Err(Broken);
        }
        Ok(())
    }

    /// Tells those who wait, and those who come, that somebody failed.
    pub(super) fn break_up(&self) {
        let mut state = self.lock();
        state.broken = true;
        self.publish(&state);
    }

    /// Tells those who wait, and those who ever come, that somebody left for good.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.left = true;
        self.publish(&state);
    }

    /// Forgets that somebody failed. Nobody may be waiting.
    pub(super) fn mend(&self) {
        let mut state = self.lock();
        state.broken = false;
        state.arrived = 0;
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        let broken = if state.broken || state.left {
            BROKEN
        } else {
            0
        };
        self.round.store(state.round | broken, Ordering::Release);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Long enough for the slowest machine; a test that waits so long has failed.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_goes_on_before_all_have_come() {
        let place = Rendezvous::new(4);
        let come = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 1..=200 {
                        come.fetch_add(1, Ordering::SeqCst);
                        place.meet().unwrap();
                        assert!(come.load(Ordering::SeqCst) >= 4 * round);
                        place.meet().unwrap();
                    }
                });
            }
        });
        assert_eq!(place.round(), 400);
    }

    /// What a thread that waits alone is told once `then` has happened.
    fn told(then: impl FnOnce(&Rendezvous)) -> Result<(), Broken> {
        let place = Arc::new(Rendezvous::new(2));
        let (sender, receiver) = mpsc::channel();
        let waits = Arc::clone(&place);
        std::thread::spawn(move || sender.send(waits.meet()));
        while place.lock().arrived == 0 {
            std::thread::yield_now();
        }
        then(&place);
        receiver.recv_timeout(PATIENCE).expect("it waits in vain")
    }

    #[test]
    fn who_waits_is_told_of_a_failure_or_of_one_who_left() {
        assert_eq!(told(Rendezvous::break_up), Err(Broken));
        assert_eq!(told(Rendezvous::leave), Err(Broken));
        assert_eq!(told(|place| place.meet().unwrap()), Ok(()));
    }

    #[test]
    fn a_failure_is_mended_and_a_departure_is_not() {
        let place = Rendezvous::new(1);
        place.meet().unwrap();
        place.break_up();
        assert_eq!(place.meet(), Err(Broken));
        assert_eq!(place.round(), 1);
        place.mend();
        place.meet().unwrap();
        place.leave();
        place.mend();
        assert_eq!(place.meet(), Err(Broken));
    }
}
