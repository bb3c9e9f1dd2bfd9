//! The folder of a run of ours, measured or simulated.

use std::path::Path;

use foresail_reports::files::{read_requests, read_summary};
use foresail_reports::records::{Outcome, RequestRecord, TokensFrom};
use foresail_reports::summary::{Load, Server, Source, Summary};
use foresail_reports::validation::Times;
use foresail_scenarios::workload::{Content, Request};

use super::{Measured, MeasuredRequest, TokenRatios};
use crate::failure::Failure;

/// The server and the records may differ by this share without a word: requests at the edges of
/// the run are counted by one and not by the other.
const TOKENS_DIFFER_FROM: f64 = 0.005;

pub(super) fn read(folder: &Path) -> Result<Measured, Failure> {
    let refuse = |error: &dyn ToString| Failure::Input(error.to_string());
    let summary = read_summary(folder).map_err(|error| refuse(&error))?;
    let gate = gate(&summary);
    let mut measured = Measured {
        format: match summary.source {
            Source::Measured => "a measured run",
            Source::Simulated => "a simulated run",
        },
        ..Measured::default()
    };
    let mut tokens = Tokens::default();
    for record in read_requests(folder).map_err(|error| refuse(&error))? {
        let record = record.map_err(|error| refuse(&error))?;
        tokens.add(&record);
        match request(record, gate.is_some()) {
            Ok(request) => measured.requests.push(request),
            Err(record) => {
                measured.failed += 1;
                measured.failed_spans.push((record.due_ns, record.end_ns));
            }
        }
    }
    if let Some(of) = &summary.measured {
        measured.degraded.clone_from(&of.degraded);
        measured.server_tokens = of.server.as_ref().and_then(|server| tokens.ratios(server));
    }
    if let Some(gate) = gate {
        measured.throughput_is_given =
            Some(format!("of {gate}, throughput is what its sends were"));
        measured.notes.push(format!(
            "the run was {gate}: its requests count from when they were sent, and are simulated as sent then, although \
             other latencies would have had others"
        ));
    }
    measured.notes.extend(tokens.note());
    measured.summary = Some(Box::new(summary));
    Ok(measured)
}

/// What made sends wait for answers, in words: when a request is sent then depends on those before, and what it
/// waited at the client is nothing that a server did.
fn gate(summary: &Summary) -> Option<&'static str> {
    match summary.measured.as_ref()?.load {
        Load::Open => None,
        Load::Capped { .. } => Some("a run with a limit of requests in flight"),
        Load::Closed { .. } => Some("a closed loop"),
    }
}

/// A request that completed; or else the record again.
fn request(
    mut record: RequestRecord,
    is_gated: bool,
) -> Result<MeasuredRequest, Box<RequestRecord>> {
    let planned_ns = record.due_ns;
    let sent_ns = record.wire.and_then(|wire| wire.sent_ns);
    if let (true, Some(sent_ns)) = (is_gated, sent_ns) {
        record.due_ns = sent_ns;
    }
    let times = Times::of(&record, record.output_tokens);
    let is_whole = record.prompt_tokens > 0 && record.output_tokens > 0;
    let Some(times) = times.filter(|_| is_whole) else {
        return Err(Box::new(record));
    };
    Ok(MeasuredRequest {
        id: record.id,
        planned_ns,
        request: Request {
            due: record.due_ns,
            prompt_tokens: record.prompt_tokens,
            output_tokens: record.output_tokens,
            session: record.session,
            adapter: record.adapter,
            content: content(record.session),
        },
        // What the simulator knew of itself is nothing that was measured.
        times: Times {
            service_s: None,
            ..times
        },
        is_in_window: record.wire.is_none_or(|wire| wire.is_in_window),
    })
}

/// A conversation only ever grows, so that its prompts share what went before.
fn content(session: Option<u64>) -> Content {
    session.map_or(Content::Unique, |session| Content::Session {
        group: session,
        shared_tokens: 0,
        session,
    })
}

/// What the records say of tokens.
#[derive(Debug, Default)]
struct Tokens {
    prompt: u64,
    output: u64,
    completed: u64,
    /// Completed requests whose output tokens nobody counted.
    assumed: u64,
    failed: u64,
}

impl Tokens {
    fn add(&mut self, record: &RequestRecord) {
        if record.outcome != Outcome::Completed {
            self.failed += 1;
            return;
        }
        self.completed += 1;
        self.prompt += u64::from(record.prompt_tokens);
        self.output += u64::from(record.output_tokens);
        let from = record.wire.map(|wire| wire.tokens_from);
        self.assumed += u64::from(from.is_some_and(|from| from != TokensFrom::Usage));
    }

    /// How the server's counts differ, if they do. It counts requests that failed too, so that after many
    /// failures nothing can be said.
    fn ratios(&self, server: &Server) -> Option<TokenRatios> {
        if self.failed * 100 > self.completed {
            return None;
        }
        let ratio = |counted: Option<u64>, recorded: u64| {
            let ratio = counted.filter(|_| recorded > 0)? as f64 / recorded as f64;
            (ratio > 0.0).then_some(ratio)
        };
        let ratios = TokenRatios {
            prompt: ratio(server.prompt_tokens, self.prompt).unwrap_or(1.0),
            output: ratio(server.output_tokens, self.output).unwrap_or(1.0),
        };
        let differs = |ratio: f64| (ratio - 1.0).abs() > TOKENS_DIFFER_FROM;
        (differs(ratios.prompt) || differs(ratios.output)).then_some(ratios)
    }

    fn note(&self) -> Option<String> {
        (self.assumed > 0).then(|| {
            format!(
                "the server did not count the output tokens of {} of {} requests: chunks were taken for tokens, so that \
                 TPOT and lengths may be wrong",
                self.assumed, self.completed
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use foresail_reports::records::Wire;
    use foresail_reports::summary::Measured as Facts;

    use super::*;

    /// Due at 1 s, held back by the client for 2 s, and answered in one.
    fn record() -> RequestRecord {
        RequestRecord {
            id: 7,
            due_ns: 1_000_000_000,
            prompt_tokens: 5,
            output_tokens: 3,
            session: None,
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: Some(3_500_000_000),
            end_ns: 4_000_000_000,
            parts: None,
            wire: Some(Wire {
                sent_ns: Some(3_000_000_000),
                last_output_ns: None,
                status: Some(200),
                chunks: 3,
                tokens_from: TokensFrom::Usage,
                is_connection_reused: false,
                body_bytes: 0,
                is_in_window: true,
            }),
        }
    }

    #[test]
    fn what_waited_at_the_client_counts_from_when_it_was_sent() {
        let of = |load| {
            let measured = Facts {
                load,
                ..Facts::default()
            };
            let summary = Summary {
                measured: Some(Box::new(measured)),
                ..foresail_reports::Measurements::new(&[])
                    .summary(&Default::default(), &Default::default())
            };
            request(record(), gate(&summary).is_some()).unwrap()
        };
        let open = of(Load::Open);
        assert!((open.times.ttft_s - 2.5).abs() < 1e-9);
        for load in [
            Load::Capped { in_flight_max: 4 },
            Load::Closed { concurrency: 4 },
        ] {
            let held = of(load);
            assert_eq!(held.request.due, 3_000_000_000);
            assert!((held.times.ttft_s - 0.5).abs() < 1e-9);
            // By the plan it is found again.
            assert_eq!((held.id, held.planned_ns), (7, open.planned_ns));
        }
    }
}
