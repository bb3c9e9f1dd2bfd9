//! What is ready to be sent by one worker: made ahead by another thread, up to a bound.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use foresail_core::time::Nanos;
use tokio::sync::Notify;

use super::settings::Ahead;
use crate::exchange::Patience;
use crate::record::Asked;

/// A request that is ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    /// Its index in the plan of this shard.
    pub(super) index: usize,
    pub(super) asked: Asked,
    pub(super) body: Bytes,
    pub(super) patience: Patience,
    /// By how much its body was late; 0 if it was in time.
    pub(super) late_ns: Nanos,
}

/// A queue between the thread that makes bodies and a worker. Requests count against its bounds
/// until they are [sent](Lane::sent), not only until they are taken.
#[derive(Debug)]
pub(super) struct Lane {
    ahead: Ahead,
    state: Mutex<State>,
    room: Condvar,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Ready>,
    requests: usize,
    bytes: usize,
    /// Nothing more will come.
    is_complete: bool,
    /// Nothing more will be sent.
    is_abandoned: bool,
}

/// What a worker has taken, by when it is due.
#[derive(Debug, Default)]
pub(super) struct Upcoming {
    ready: BinaryHeap<Reverse<ByDue>>,
}

impl Lane {
    pub(super) fn new(ahead: Ahead) -> Self {
        Self {
            ahead,
            state: Mutex::default(),
            room: Condvar::new(),
            filled: Notify::new(),
        }
    }

    /// Adds a request as soon as there is room; gives it back if it will not be sent.
    pub(super) fn push(&self, ready: Ready) -> Result<(), Box<Ready>> {
        let is_full = |state: &mut State| {
            let is_beyond =
                state.requests >= self.ahead.requests || state.bytes >= self.ahead.bytes;
            // One is let through however large it is.
            is_beyond && state.requests > 0 && !state.is_abandoned
        };
        let guard = self.room.wait_while(self.lock(), is_full);
        let mut state = guard.unwrap_or_else(PoisonError::into_inner);
        if state.is_abandoned {
            return Err(Box::new(ready));
        }
        state.requests += 1;
        state.bytes += ready.body.len();
        state.queue.push_back(ready);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Nothing more will come.
    pub(super) fn complete(&self) {
        self.lock().is_complete = true;
        self.filled.notify_one();
    }

    /// Takes all there is; false if nothing is left and nothing more will come.
    pub(super) fn take(&self, upcoming: &mut Upcoming) -> bool {
        let mut state = self.lock();
        upcoming
            .ready
            .extend(state.queue.drain(..).map(|ready| Reverse(ByDue(ready))));
        !(state.is_complete && upcoming.ready.is_empty())
    }

    /// Ends when there may be something to take.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// A request of so many bytes was sent: there is room for others.
    pub(super) fn sent(&self, bytes: usize) {
        let mut state = self.lock();
        state.requests -= 1;
        state.bytes -= bytes;
        drop(state);
        self.room.notify_one();
    }

    /// Nothing more will be sent; gives back what was not taken.
    pub(super) fn abandon(&self) -> Vec<Ready> {
        let mut state = self.lock();
        state.is_abandoned = true;
        let rest = state.queue.drain(..).collect();
        drop(state);
        self.room.notify_all();
        rest
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upcoming {
    /// When the next is due.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.ready.peek().map(|next| next.0.0.asked.due_ns)
    }

    /// Takes the next.
    pub(super) fn pop(&mut self) -> Option<Ready> {
        self.ready.pop().map(|next| next.0.0)
    }
}

#[derive(Debug)]
struct ByDue(Ready);

impl ByDue {
    fn key(&self) -> (Nanos, u64) {
        (self.0.asked.due_ns, self.0.asked.id)
    }
}

impl PartialEq for ByDue {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByDue {}

impl PartialOrd for ByDue {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByDue {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::record::testing::asked;

    fn ready(id: u64, due: Nanos, bytes: usize) -> Ready {
        Ready {
            index: id as usize,
            asked: asked(id, due),
            body: vec![b'x'; bytes].into(),
            patience: Patience::default(),
            late_ns: 0,
        }
    }

    fn lane(requests: usize, bytes: usize) -> Arc<Lane> {
        Arc::new(Lane::new(Ahead { requests, bytes }))
    }

    #[test]
    fn requests_come_out_by_when_they_are_due() {
        let lane = lane(10, 100);
        for (id, due) in [(0, 9), (1, 3), (2, 3), (3, 1)] {
            lane.push(ready(id, due, 1)).unwrap();
        }
        let mut upcoming = Upcoming::default();
        assert!(lane.take(&mut upcoming));
        assert_eq!(upcoming.due(), Some(1));
        let ids: Vec<_> = std::iter::from_fn(|| upcoming.pop())
            .map(|ready| ready.asked.id)
            .collect();
        assert_eq!(ids, [3, 1, 2, 0]);
        assert!(lane.take(&mut upcoming), "more may come");
        lane.complete();
        assert!(!lane.take(&mut upcoming));
    }

    #[test]
    fn a_full_lane_waits_for_sends_and_takes_one_however_large() {
        for (requests, bytes) in [(2, 1_000), (9, 20)] {
            let lane = lane(requests, bytes);
            let pusher = thread::spawn({
                let lane = Arc::clone(&lane);
                move || (0..4).for_each(|id| lane.push(ready(id, id, 10)).unwrap())
            });
            let mut upcoming = Upcoming::default();
            let mut sent = 0;
            while sent < 4 {
                lane.take(&mut upcoming);
                if upcoming.pop().is_some() {
                    assert!(upcoming.ready.len() < 2, "no more than fit");
                    lane.sent(10);
                    sent += 1;
                }
            }
            pusher.join().unwrap();
        }
        lane(1, 1).push(ready(0, 0, 1_000)).unwrap();
    }

    #[test]
    fn a_lane_that_is_abandoned_gives_back_what_it_has_and_whoever_waits() {
        let lane = lane(1, 100);
        lane.push(ready(0, 0, 1)).unwrap();
        let pusher = thread::spawn({
            let lane = Arc::clone(&lane);
            move || lane.push(ready(1, 1, 1)).unwrap_err().asked.id
        });
        while pusher.is_finished() {}
        assert_eq!(lane.abandon().len(), 1);
        assert_eq!(pusher.join().unwrap(), 1);
    }
}
