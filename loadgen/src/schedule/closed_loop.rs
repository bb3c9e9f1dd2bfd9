//! A fixed number of users, each of whom waits for an answer before asking again.
//!
//! A closed loop measures how fast an endpoint is with so many requests in
//! flight. It does not show what users meet at a given rate: an endpoint that
//! stalls is asked less, so its stalls are underreported (coordinated omission).

use std::collections::BTreeMap;

use foresail_core::time::Nanos;

use super::Plan;

/// The index of no turn.
const NONE: u32 = u32::MAX;

/// Says who sends what next in a closed loop. It knows the order of a plan, and
/// does nothing itself: it is told what has ended, and when.
///
/// A user holds one conversation at a time, from its first turn to its last. The next
/// turn comes once the answer is there and the user has thought for as long as
/// lies between the two turns in the plan. Then the user takes the next
/// conversation of the plan, at once. A request without a session is a
/// conversation of one turn.
#[derive(Clone, Debug)]
pub struct ClosedLoop {
    /// For each request, the next turn of its conversation and how long the user thinks first.
    next_turns: Vec<u32>,
    thinks_ns: BTreeMap<u32, Nanos>,
    /// First turns, in order.
    starts: Vec<u32>,
    started: usize,
    users: usize,
}

/// What a user sends, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The request, by its index in [`Plan::requests`].
    pub index: usize,
    /// When it is due.
    pub due_ns: Nanos,
}

impl ClosedLoop {
    /// So many users with the conversations of this plan.
    ///
    /// # Panics
    /// If the plan has more than 4294967295 requests, which no memory holds.
    #[must_use]
    pub fn new(plan: &Plan, concurrency: usize) -> Self {
        assert!(plan.requests.len() < NONE as usize, "a plan fits in memory");
        let mut loops = Self {
            next_turns: vec![NONE; plan.requests.len()],
            thinks_ns: BTreeMap::new(),
            starts: Vec::new(),
            started: 0,
            users: concurrency,
        };
        let mut last_turns: BTreeMap<u64, u32> = BTreeMap::new();
        for (index, planned) in plan.requests.iter().enumerate() {
            let index = index as u32;
            let session = planned.request.session;
            match session.and_then(|session| last_turns.insert(session, index)) {
                None => loops.starts.push(index),
                Some(last) => {
                    loops.next_turns[last as usize] = index;
                    let think = planned.request.due - plan.requests[last as usize].request.due;
                    loops.thinks_ns.insert(index, think);
                }
            }
        }
        loops
    }

    /// What all users send first.
    pub fn start(&mut self, now: Nanos) -> Vec<Turn> {
        let users = self.users;
        std::iter::from_fn(|| self.begin(now)).take(users).collect()
    }

    /// What the user sends next whose request has ended just now, however it
    /// ended; `None` if that user has nothing left to do.
    ///
    /// # Panics
    /// If the index is not one of the plan's.
    pub fn ended(&mut self, index: usize, now: Nanos) -> Option<Turn> {
        match self.next_turns[index] {
            NONE => self.begin(now),
            next => {
                let think = self.thinks_ns.get(&next).copied().unwrap_or(0);
                let due_ns = now.saturating_add(think);
                Some(Turn {
                    index: next as usize,
                    due_ns,
                })
            }
        }
    }

    /// The first turn of the next conversation.
    fn begin(&mut self, now: Nanos) -> Option<Turn> {
        let index = *self.starts.get(self.started)? as usize;
        self.started += 1;
        Some(Turn { index, due_ns: now })
    }
}

#[cfg(test)]
mod tests {
    use foresail_scenarios::workload::{Content, Request};
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Planned, Prompt};

    /// A plan of requests due at these times, each of a conversation or alone.
    fn plan(turns: &[(Nanos, Option<u64>)]) -> Plan {
        let planned = |(id, &(due, session)): (usize, &(Nanos, Option<u64>))| Planned {
            id: id as u64,
            request: Request {
                due,
                prompt_tokens: 1,
                output_tokens: 1,
                session,
                adapter: None,
                content: Content::Unique,
            },
            prompt: Prompt::Synthetic,
        };
        Plan {
            requests: turns.iter().enumerate().map(planned).collect(),
            requests_total: turns.len() as u64,
            adapters: Vec::new(),
            duration_ns: None,
            description: String::new(),
            skipped: Default::default(),
            repeated_prompts: 0,
        }
    }

    fn turn(index: usize, due_ns: Nanos) -> Turn {
        Turn { index, due_ns }
    }

    #[test]
    fn users_take_the_next_request_when_theirs_has_ended() {
        let plan = plan(&[(0, None), (0, None), (5, None), (9, None)]);
        let mut users = ClosedLoop::new(&plan, 2);
        assert_eq!(users.start(3), [turn(0, 3), turn(1, 3)]);
        assert_eq!(users.ended(1, 10), Some(turn(2, 10)));
        assert_eq!(users.ended(2, 11), Some(turn(3, 11)));
        assert_eq!(users.ended(0, 12), None);
        assert_eq!(users.ended(3, 13), None);
    }

    #[test]
    fn a_user_holds_a_conversation_and_thinks_between_its_turns() {
        let plan = plan(&[(0, Some(7)), (4, None), (30, Some(7)), (35, Some(7))]);
        let mut users = ClosedLoop::new(&plan, 1);
        assert_eq!(users.start(0), [turn(0, 0)]);
        assert_eq!(users.ended(0, 100), Some(turn(2, 130)));
        assert_eq!(users.ended(2, 200), Some(turn(3, 205)));
        assert_eq!(users.ended(3, 300), Some(turn(1, 300)));
        assert_eq!(users.ended(1, 400), None);
    }

    #[test]
    fn more_users_than_conversations_are_idle() {
        let plan = plan(&[(0, Some(1)), (1, Some(1))]);
        assert_eq!(ClosedLoop::new(&plan, 5).start(0), [turn(0, 0)]);
    }

    proptest! {
        #[test]
        fn all_is_sent_once_in_the_order_of_each_conversation_and_never_by_too_many(
            sessions in prop::collection::vec(prop::option::of(0..5_u64), 0..60),
            concurrency in 1..8_usize,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let turns: Vec<(Nanos, Option<u64>)> = (0..).zip(sessions.iter().copied()).collect();
            let mut users = ClosedLoop::new(&plan(&turns), concurrency);
            let mut in_flight = users.start(0);
            let mut sent = Vec::new();
            for pick in picks {
                prop_assert!(in_flight.len() <= concurrency);
                if in_flight.is_empty() { break }
                let ended = in_flight.swap_remove(pick.index(in_flight.len()));
                sent.push(ended.index);
                in_flight.extend(users.ended(ended.index, ended.due_ns + 1));
            }
            for session in 0..5 {
                let of_session = sent.iter().filter(|index| sessions[**index] == Some(session));
                prop_assert!(of_session.is_sorted());
            }
            sent.sort_unstable();
            prop_assert_eq!(sent, (0..sessions.len()).collect::<Vec<_>>());
        }
    }
}
