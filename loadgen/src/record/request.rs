//! From what was sent and what came back to the records of a request.
//!
//! | record | from | to |
//! |---|---|---|
//! | `due_ns` | the plan | intended send of the first attempt; latencies count from here |
//! | `first_token_ns` | last attempt | first chunk that carried output; none of an answer that came whole |
//! | `end_ns` | last attempt | last byte, or the failure |
//! | gaps (ITL) | last attempt, if it completed | between successive chunks that carried output: a chunk of several tokens is one gap |
//! | `output_tokens` | last attempt | what the server counted (`usage`), else the chunks, else (not streamed) what was asked for |

use foresail_core::time::{Nanos, PICOS_PER_NANO};
use foresail_reports::records::{AttemptRecord, Gaps, Outcome, RequestRecord, TokensFrom, Wire};

use super::outcome::{detail, outcome};
use crate::exchange::{Connection, Ending, Exchange};
use crate::plan::Planned;

/// A request as it was asked for, without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its position in the whole plan.
    pub id: u64,
    /// Its intended send time.
    pub due_ns: Nanos,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens to be generated.
    pub output_tokens: u32,
    /// The conversation that it belongs to.
    pub session: Option<u64>,
    /// The adapter that it asks for.
    pub adapter: Option<u32>,
    /// Whether the answer is to come as a stream.
    pub is_streamed: bool,
}

impl Asked {
    /// A planned request that is to be sent then.
    #[must_use]
    pub fn of(planned: &Planned, due_ns: Nanos, is_streamed: bool) -> Self {
        let request = &planned.request;
        Self {
            id: planned.id,
            due_ns,
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            session: request.session,
            adapter: request.adapter,
            is_streamed,
        }
    }
}

/// A request that has ended, and everything that was received of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// What was asked for.
    pub asked: Asked,
    /// Every attempt, in order. None if it was never sent.
    pub attempts: Vec<Exchange>,
    /// When it ended: when its last attempt did, or when it was found that it would not be sent.
    pub end_ns: Nanos,
}

impl Ended {
    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.attempts.last().map_or(Outcome::Unsent, outcome)
    }

    /// When its first output came, if the answer was a stream.
    #[must_use]
    pub fn first_token_ns(&self) -> Option<Nanos> {
        let last = self.attempts.last().filter(|_| self.asked.is_streamed)?;
        last.output_ns.first().copied()
    }

    /// The output tokens, and who counted them.
    #[must_use]
    pub fn output_tokens(&self) -> (u32, TokensFrom) {
        let Some(last) = self.attempts.last() else {
            return (0, TokensFrom::Chunks);
        };
        let is_whole = last.ending == Ending::Complete && !self.asked.is_streamed;
        match last.usage {
            Some(usage) => (usage.completion_tokens, TokensFrom::Usage),
            None if is_whole => (self.asked.output_tokens, TokensFrom::Asked),
            None => (chunks(last), TokensFrom::Chunks),
        }
    }

    /// The record of the request.
    #[must_use]
    pub fn record(&self, is_in_window: bool) -> RequestRecord {
        let asked = &self.asked;
        let last = self.attempts.last();
        let usage = last.and_then(|last| last.usage);
        let (output_tokens, tokens_from) = self.output_tokens();
        RequestRecord {
            id: asked.id,
            due_ns: asked.due_ns,
            prompt_tokens: usage.map_or(asked.prompt_tokens, |usage| usage.prompt_tokens),
            output_tokens,
            session: asked.session,
            adapter: asked.adapter,
            attempts: self.attempts.len() as u32,
            replica: None,
            cached_tokens: usage.and_then(|usage| usage.cached_tokens).unwrap_or(0),
            preemptions: 0,
            outcome: self.outcome(),
            first_token_ns: self.first_token_ns(),
            end_ns: self.end_ns,
            parts: None,
            wire: Some(Wire {
                sent_ns: last.and_then(sent_ns),
                last_output_ns: last
                    .filter(|_| asked.is_streamed)
                    .and_then(|last| last.output_ns.last().copied()),
                status: last.and_then(|last| last.status),
                chunks: last.map_or(0, chunks),
                tokens_from,
                is_connection_reused: last
                    .is_some_and(|last| last.connection == Some(Connection::Reused)),
                body_bytes: last.map_or(0, |last| last.body_bytes),
                is_in_window,
            }),
        }
    }

    /// The gaps between its chunks; none unless it completed, as latencies are those of completed requests.
    pub fn gaps(&self) -> impl Iterator<Item = Gaps> {
        let last = self.attempts.last();
        let completed = last.filter(|last| last.ending == Ending::Complete);
        let output_ns = completed.map_or(&[][..], |last| &last.output_ns);
        output_ns.windows(2).map(|pair| Gaps {
            first_ps: pair[1].saturating_sub(pair[0]) * PICOS_PER_NANO,
            growth_ps: 0,
            steps: 1,
            tokens: 1,
        })
    }

    /// Its attempts, one by one, if there is more to say of them than its record does: it was
    /// sent more than once, or it failed.
    pub fn attempts(&self) -> impl Iterator<Item = AttemptRecord> {
        let is_told = self.attempts.len() > 1 || self.outcome() != Outcome::Completed;
        let told = if is_told { &self.attempts[..] } else { &[] };
        let id = self.asked.id;
        (1..)
            .zip(told)
            .map(move |(attempt, exchange)| AttemptRecord {
                id,
                attempt,
                sent_ns: sent_ns(exchange),
                connect_ns: match exchange.connection {
                    Some(Connection::Opened { took_ns }) => Some(took_ns),
                    Some(Connection::Reused) | None => None,
                },
                status: exchange.status,
                first_token_ns: exchange.output_ns.first().copied(),
                end_ns: exchange.end_ns,
                outcome: outcome(exchange),
                retry_after_ns: exchange.retry_after_ns,
                detail: detail(&exchange.ending).to_owned(),
            })
    }
}

/// When it was handed to a connection; none if there was no connection.
fn sent_ns(exchange: &Exchange) -> Option<Nanos> {
    exchange.connection.map(|_| exchange.sent_ns)
}

fn chunks(exchange: &Exchange) -> u32 {
    u32::try_from(exchange.output_ns.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use foresail_core::time::MILLISECOND;

    use super::super::testing::{asked, ended, exchange};
    use super::*;
    use crate::exchange::Usage;

    #[test]
    fn latencies_count_from_the_intended_send_of_the_first_attempt() {
        let mut refused = exchange(Ending::Refused {
            message: "slow down".into(),
        });
        (refused.status, refused.end_ns) = (Some(429), 2_000);
        let request = Ended {
            asked: asked(4, 1_000),
            attempts: vec![refused, exchange(Ending::Complete)],
            end_ns: exchange(Ending::Complete).end_ns,
        };
        let record = request.record(true);
        assert_eq!((record.due_ns, record.attempts), (1_000, 2));
        assert_eq!(record.outcome, Outcome::Completed);
        let attempts: Vec<_> = request.attempts().collect();
        assert_eq!(attempts.len(), 2);
        assert_eq!(attempts[0].outcome, Outcome::RejectedRateLimited);
        assert_eq!(attempts[0].detail, "slow down");
        assert_eq!((attempts[1].attempt, attempts[1].id), (2, 4));
    }

    #[test]
    fn a_request_that_completed_at_once_has_no_more_to_tell() {
        assert_eq!(ended(0, 0, Ending::Complete).attempts().count(), 0);
        assert_eq!(ended(0, 0, Ending::Truncated).attempts().count(), 1);
    }

    #[test]
    fn tokens_are_what_the_server_counted_and_gaps_are_between_chunks() {
        let mut request = ended(0, 0, Ending::Complete);
        let last = request.attempts.last_mut().unwrap();
        last.output_ns = [50, 55, 55, 61].iter().map(|at| at * MILLISECOND).collect();
        assert_eq!(request.output_tokens(), (4, TokensFrom::Chunks));
        let last = request.attempts.last_mut().unwrap();
        last.usage = Some(Usage {
            prompt_tokens: 7,
            completion_tokens: 12,
            cached_tokens: Some(3),
        });
        let record = request.record(false);
        assert_eq!((record.prompt_tokens, record.output_tokens), (7, 12));
        assert_eq!(record.cached_tokens, 3);
        assert_eq!(record.last_token_ns(), 61 * MILLISECOND);
        assert_eq!(record.first_token_ns, Some(50 * MILLISECOND));
        let wire = record.wire.unwrap();
        assert_eq!((wire.chunks, wire.tokens_from), (4, TokensFrom::Usage));
        assert!(!wire.is_in_window);
        let gaps: Vec<_> = request.gaps().map(|gaps| gaps.first_ps).collect();
        assert_eq!(gaps, [5_000_000_000, 0, 6_000_000_000]);
    }

    #[test]
    fn an_answer_that_came_whole_has_no_first_token() {
        let mut request = ended(0, 0, Ending::Complete);
        request.asked.is_streamed = false;
        let last = request.attempts.last_mut().unwrap();
        last.output_ns.truncate(1);
        let record = request.record(true);
        assert_eq!(record.first_token_ns, None);
        assert_eq!(record.output_tokens, request.asked.output_tokens);
        assert_eq!(record.wire.unwrap().tokens_from, TokensFrom::Asked);
    }

    #[test]
    fn what_broke_off_has_the_tokens_that_came_and_no_gaps() {
        let mut request = ended(
            0,
            0,
            Ending::Reset {
                message: "gone".into(),
            },
        );
        request.attempts[0].output_ns = vec![5, 6, 7];
        assert_eq!(request.record(true).output_tokens, 3);
        assert_eq!(request.gaps().count(), 0);
    }

    #[test]
    fn what_was_not_sent_has_no_attempt() {
        let request = Ended {
            attempts: Vec::new(),
            ..ended(9, 5, Ending::Complete)
        };
        let record = request.record(false);
        assert_eq!((record.outcome, record.attempts), (Outcome::Unsent, 0));
        assert_eq!(record.wire.unwrap().sent_ns, None);
    }

    #[test]
    fn a_request_without_a_connection_was_not_sent() {
        let mut request = ended(
            0,
            0,
            Ending::NotConnected {
                message: String::new(),
            },
        );
        request.attempts[0].connection = None;
        assert_eq!(request.record(true).wire.unwrap().sent_ns, None);
    }
}
