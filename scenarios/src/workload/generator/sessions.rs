//! Multi-turn conversations, in an open loop.
//!
//! Conversations start by the arrival process. Turn `k`'s prompt is the shared
//! prefix, then everything said before (prompts and answers), then what the
//! user adds now; so it begins with the whole prompt of turn `k - 1`.
//!
//! Everything that a conversation draws, it draws when it starts: its number
//! of turns, their lengths and think times do not depend on how conversations
//! interleave. Only live conversations are in memory.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use foresail_core::time::Nanos;
use rand::Rng;

use super::super::error::WorkloadError;
use super::super::trace::seconds_nanos;
use super::super::{Content, Request};
use super::lengths::{LengthDraws, describe_distribution, validate_distribution};
use super::{ArrivalTimes, Generator};
use crate::distribution::Distribution;
use crate::random::{Stream, stream};

/// Most turns of one conversation: its draws are in memory while it lives.
const TURNS_MAX: f64 = 1e6;

/// Multi-turn conversations. The next turn comes a think time after the one
/// before it was sent (open loop: it does not wait for the answer).
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    /// Turns of a conversation, rounded half up, at least 1.
    pub turns: Distribution,
    /// Time from one turn's send to the next (s).
    pub think_time_s: Distribution,
    /// How many different shared prefixes there are, at least 1; each
    /// conversation has one of them, all equally likely.
    pub groups: u64,
    /// Tokens of the shared prefix (a system prompt); 0 for none.
    pub shared_tokens: u32,
    /// Largest context, prompt and answer; a conversation ends before the turn
    /// that would exceed it, and is counted. `None` for 4294967295.
    pub max_context_tokens: Option<u32>,
}

impl Sessions {
    pub(super) fn validate(&self) -> Result<(), WorkloadError> {
        validate_distribution(&self.turns, "sessions.turns")?;
        validate_distribution(&self.think_time_s, "sessions.think_time")?;
        if self.groups == 0 {
            return Err(WorkloadError::option("sessions.groups", "at least 1", 0));
        }
        let room = self
            .max_context_tokens
            .unwrap_or(u32::MAX)
            .saturating_sub(self.shared_tokens);
        if room < 2 {
            let expected = "room for the shared prefix and at least 2 tokens";
            let found = format!("{:?}", self.max_context_tokens);
            return Err(WorkloadError::option(
                "sessions.max_context_tokens",
                expected,
                found,
            ));
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        let mut text = format!(
            "conversations of {} turns, {} s apart",
            describe_distribution(&self.turns),
            describe_distribution(&self.think_time_s)
        );
        if self.shared_tokens > 0 {
            let (tokens, groups) = (self.shared_tokens, self.groups);
            text += &format!(", behind {tokens} tokens shared by each of {groups} groups");
        }
        if let Some(max) = self.max_context_tokens {
            text += &format!(", ended at a context of {max} tokens");
        }
        text
    }
}

/// One turn to come.
#[derive(Clone, Copy, Debug)]
struct Turn {
    due: Nanos,
    /// Tokens that the user adds.
    added_tokens: u32,
    output_tokens: u32,
}

/// A conversation that is not over.
#[derive(Debug)]
struct Session {
    id: u64,
    group: u64,
    /// The shared prefix and everything said so far.
    context_tokens: u64,
    turns: VecDeque<Turn>,
}

impl Session {
    fn key(&self) -> (Nanos, u64) {
        (
            self.turns.front().map_or(Nanos::MAX, |turn| turn.due),
            self.id,
        )
    }
}

impl Ord for Session {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Session {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Session {}

/// What conversations are made of, each part from its own stream.
#[derive(Debug)]
struct Draws {
    sessions: Sessions,
    turns: Stream,
    think_times: Stream,
    groups: Stream,
    prompts: LengthDraws,
    outputs: LengthDraws,
    next_id: u64,
}

impl Draws {
    fn new(generator: &Generator, sessions: &Sessions, seed: u64) -> Self {
        Self {
            sessions: sessions.clone(),
            turns: stream(seed, "workload.sessions.turns"),
            think_times: stream(seed, "workload.sessions.think_time"),
            groups: stream(seed, "workload.sessions.group"),
            prompts: LengthDraws::new(&generator.prompt_tokens, "prompt_tokens", seed),
            outputs: LengthDraws::new(&generator.output_tokens, "output_tokens", seed),
            next_id: 0,
        }
    }

    /// A whole conversation that starts at `start`. Turns later than the largest
    /// time (584 years) do not happen.
    fn session(&mut self, start: Nanos) -> Result<Session, WorkloadError> {
        let count = libm::floor(self.sessions.turns.sample(&mut self.turns) + 0.5);
        if count > TURNS_MAX {
            let expected = format!("at most {TURNS_MAX} turns in a conversation");
            return Err(WorkloadError::option("sessions.turns", expected, count));
        }
        let mut turns = VecDeque::new();
        let mut due = Some(start);
        for _ in 0..count.max(1.0) as u32 {
            let (added_tokens, output_tokens) = (self.prompts.draw()?, self.outputs.draw()?);
            let think = seconds_nanos(self.sessions.think_time_s.sample(&mut self.think_times));
            if let Some(due) = due {
                turns.push_back(Turn {
                    due,
                    added_tokens,
                    output_tokens,
                });
            }
            due = due.and_then(|due| due.checked_add(think?));
        }
        // Multiplication maps 64 random bits evenly onto 0..groups.
        let group = (u128::from(self.groups.next_u64()) * u128::from(self.sessions.groups)) >> 64;
        let id = self.next_id;
        self.next_id += 1;
        let context_tokens = u64::from(self.sessions.shared_tokens);
        Ok(Session {
            id,
            group: group as u64,
            context_tokens,
            turns,
        })
    }
}

/// The turns of all conversations of a generator, in order.
#[derive(Debug)]
pub(crate) struct SessionRequests {
    starts: ArrivalTimes,
    next_start: Option<Nanos>,
    live: BinaryHeap<Reverse<Session>>,
    draws: Draws,
    duration: Nanos,
    left: u64,
    ended_early: u64,
}

impl SessionRequests {
    pub(crate) fn new(
        generator: &Generator,
        sessions: &Sessions,
        rate_scale: f64,
        seed: u64,
    ) -> Self {
        let mut starts = ArrivalTimes::new(
            generator.arrivals,
            generator.shape.clone(),
            rate_scale,
            seed,
        );
        Self {
            next_start: starts.next_time(),
            starts,
            live: BinaryHeap::new(),
            draws: Draws::new(generator, sessions, seed),
            duration: generator.duration.unwrap_or(Nanos::MAX),
            left: generator.requests.unwrap_or(u64::MAX),
            ended_early: 0,
        }
    }

    pub(crate) fn redrawn(&self) -> u64 {
        self.draws.prompts.redrawn() + self.draws.outputs.redrawn()
    }

    /// How many conversations ended because of the largest context.
    pub(crate) fn ended_early(&self) -> u64 {
        self.ended_early
    }

    pub(crate) fn next_request(&mut self) -> Result<Option<Request>, WorkloadError> {
        while self.left > 0 {
            self.start_sessions()?;
            let Some(Reverse(mut session)) = self.live.pop() else {
                break;
            };
            let Some(turn) = session.turns.pop_front() else {
                continue;
            };
            if turn.due >= self.duration {
                break;
            }
            let Some(request) = self.request(&mut session, turn) else {
                self.ended_early += 1;
                continue;
            };
            if !session.turns.is_empty() {
                self.live.push(Reverse(session));
            }
            self.left -= 1;
            return Ok(Some(request));
        }
        self.left = 0;
        Ok(None)
    }

    /// Starts every conversation whose first turn is not after the earliest one waiting.
    fn start_sessions(&mut self) -> Result<(), WorkloadError> {
        while let Some(start) = self.next_start.filter(|&start| start < self.duration) {
            if self
                .live
                .peek()
                .is_some_and(|Reverse(earliest)| earliest.key().0 < start)
            {
                break;
            }
            self.live.push(Reverse(self.draws.session(start)?));
            self.next_start = self.starts.next_time();
        }
        Ok(())
    }

    /// The turn as a request, or `None` if it exceeds the largest context.
    fn request(&self, session: &mut Session, turn: Turn) -> Option<Request> {
        let sessions = &self.draws.sessions;
        let prompt_tokens = session.context_tokens + u64::from(turn.added_tokens);
        session.context_tokens = prompt_tokens + u64::from(turn.output_tokens);
        let max = sessions.max_context_tokens.unwrap_or(u32::MAX);
        if session.context_tokens > u64::from(max) {
            return None;
        }
        Some(Request {
            due: turn.due,
            prompt_tokens: u32::try_from(prompt_tokens).ok()?,
            output_tokens: turn.output_tokens,
            session: Some(session.id),
            adapter: None,
            content: Content::Session {
                group: session.group,
                shared_tokens: sessions.shared_tokens,
                session: session.id,
            },
        })
    }
}
