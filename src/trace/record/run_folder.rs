//! The requests of a run's folder, simulated or measured.

use std::path::Path;

use foresail_reports::files::{read_requests, read_summary};
use foresail_reports::records::{Outcome, RequestRecord};
use foresail_reports::summary::{Load, Summary};
use foresail_scenarios::workload::{Content, Request};

use super::Recorded;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

pub(super) fn read(
    folder: &Path,
    adapters: &[String],
    interrupt: &Interrupt,
) -> Result<Recorded, Failure> {
    let refuse = |error: &dyn ToString| Failure::Input(error.to_string());
    let summary = read_summary(folder).map_err(|error| refuse(&error))?;
    let mut recorded = Recorded {
        is_of_sends: is_closed_loop(&summary),
        ..Recorded::default()
    };
    for record in read_requests(folder).map_err(|error| refuse(&error))? {
        interrupt.check()?;
        recorded.add(&record.map_err(|error| refuse(&error))?, adapters)?;
    }
    Ok(recorded)
}

/// In a closed loop nothing is due at any time: what is asked next depends on the answers.
fn is_closed_loop(summary: &Summary) -> bool {
    let measured = summary.measured.as_ref();
    measured.is_some_and(|measured| matches!(measured.load, Load::Closed { .. }))
}

impl Recorded {
    fn add(&mut self, record: &RequestRecord, adapters: &[String]) -> Result<(), Failure> {
        let is_whole = record.outcome == Outcome::Completed
            && record.prompt_tokens > 0
            && record.output_tokens > 0;
        if !is_whole {
            self.incomplete += 1;
            return Ok(());
        }
        self.shared_prefixes |= record.cached_tokens > 0;
        let sent_ns = record.wire.as_ref().and_then(|wire| wire.sent_ns);
        let request = Request {
            due: sent_ns
                .filter(|_| self.is_of_sends)
                .unwrap_or(record.due_ns),
            prompt_tokens: record.prompt_tokens,
            output_tokens: record.output_tokens,
            session: record.session,
            adapter: record.adapter,
            content: Content::Unique,
        };
        let name = record.adapter.map(|adapter| name(adapter, adapters));
        self.requests.push((request, name.transpose()?));
        Ok(())
    }
}

fn name(adapter: u32, adapters: &[String]) -> Result<String, Failure> {
    let name = adapters.get(adapter as usize);
    name.cloned().ok_or_else(|| {
        Failure::Input(format!(
            "the run has adapters, and its records only their numbers, such as {adapter}; \
             name them all in the order of the scenario: --adapter NAME --adapter NAME"
        ))
    })
}

#[cfg(test)]
mod tests {
    use foresail_reports::records::{TokensFrom, Wire};

    use super::*;

    fn record(id: u64, outcome: Outcome) -> RequestRecord {
        RequestRecord {
            id,
            due_ns: id * 1_000,
            prompt_tokens: 100,
            output_tokens: 10,
            session: Some(7),
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome,
            first_token_ns: Some(id * 1_000 + 500),
            end_ns: id * 1_000 + 900,
            parts: None,
            wire: Some(Wire {
                sent_ns: Some(id * 1_000 + 100),
                last_output_ns: None,
                status: Some(200),
                chunks: 10,
                tokens_from: TokensFrom::Usage,
                is_connection_reused: false,
                body_bytes: 0,
                is_in_window: true,
            }),
        }
    }

    #[test]
    fn what_completed_is_kept_with_its_time_and_session() {
        let mut recorded = Recorded::default();
        for (id, outcome) in [
            (2, Outcome::Completed),
            (1, Outcome::Completed),
            (3, Outcome::FailedReset),
        ] {
            recorded
                .add(&record(id, outcome), &[])
                .expect("no adapters");
        }
        recorded.sort();
        let due: Vec<u64> = recorded
            .requests
            .iter()
            .map(|(request, _)| request.due)
            .collect();
        assert_eq!(due, [1_000, 2_000]);
        assert_eq!(recorded.requests[0].0.session, Some(7));
        assert_eq!(recorded.requests[0].0.content, Content::Unique);
        assert_eq!(recorded.incomplete, 1);
        insta::assert_snapshot!(recorded.notes().join("\n"), @"requests left out because they did not complete, so that nobody knows how much output they asked for: 1");
    }

    #[test]
    fn a_closed_loop_has_the_times_of_its_sends() {
        let mut recorded = Recorded {
            is_of_sends: true,
            ..Recorded::default()
        };
        recorded
            .add(&record(1, Outcome::Completed), &[])
            .expect("no adapters");
        assert_eq!(recorded.requests[0].0.due, 1_100);
        insta::assert_snapshot!(recorded.notes().join("\n"), @"the run was a closed loop: times are those of the sends");
    }

    #[test]
    fn adapters_need_their_names() {
        let with_adapter = RequestRecord {
            adapter: Some(1),
            ..record(1, Outcome::Completed)
        };
        let names = ["law".to_owned(), "code".to_owned()];
        let mut recorded = Recorded::default();
        recorded.add(&with_adapter, &names).expect("it has a name");
        assert_eq!(recorded.requests[0].1.as_deref(), Some("code"));
        let error = recorded.add(&with_adapter, &names[..1]).unwrap_err();
        insta::assert_snapshot!(error, @"the run has adapters, and its records only their numbers, such as 1; name them all in the order of the scenario: --adapter NAME --adapter NAME");
    }
}
