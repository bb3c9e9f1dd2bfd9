//! What is done a second.
//!
//! A run that was generated and ends with its traffic is counted over its span: from
//! the first intended send to the last completion. A window in the middle of
//! a longer run is counted by what completes inside it, whenever it was sent: its
//! span would have the wait for the last answer in it and no work beside that, which
//! makes 46.6 out of 50 requests a second (vLLM's `bench serve`, 10 s of E2E at the end of
//! a minute's run would make 43).
//!
//! Where most of what was due in the window completes after it (everything is sent at
//! once, or answers take longer than the window), the window shows how little was done while
//! requests were still arriving, and the span is the truer of the two.

use crate::records::RequestRecord;

/// What was done, by both counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    first_due_ns: u64,
    last_completion_ns: u64,
    /// Of the requests that count, whenever they completed.
    due: Done,
    /// The window, if there is one, and what completed in it.
    window: Option<(Window, Done)>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    from_ns: u64,
    until_ns: u64,
}

/// Completed requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) output_tokens: u64,
    /// Those within all limits.
    pub(crate) good: u64,
}

impl Done {
    fn add(&mut self, record: &RequestRecord, is_good: bool) {
        self.requests += 1;
        self.output_tokens += u64::from(record.output_tokens);
        self.good += u64::from(is_good);
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            first_due_ns: u64::MAX,
            last_completion_ns: 0,
            due: Done::default(),
            window: None,
        }
    }
}

impl Rate {
    /// What completes from one time up to another, exclusive, is counted as well (ns). A window
    /// without an end (`u64::MAX`), as that of a closed loop has none, is no other than the span.
    pub(crate) fn set_window(&mut self, from_ns: u64, until_ns: u64) {
        if until_ns == u64::MAX {
            return;
        }
        let window = Window { from_ns, until_ns };
        self.window = Some((window, Done::default()));
    }

    /// A request that counts was due then.
    #[inline]
    pub(crate) fn due(&mut self, due_ns: u64) {
        self.first_due_ns = self.first_due_ns.min(due_ns);
    }

    /// A request that counts completed.
    #[inline]
    pub(crate) fn completed(&mut self, record: &RequestRecord, is_good: bool) {
        self.last_completion_ns = self.last_completion_ns.max(record.end_ns);
        self.due.add(record, is_good);
        self.completed_at_all(record, is_good);
    }

    /// A request completed, whether it counts or not.
    #[inline]
    pub(crate) fn completed_at_all(&mut self, record: &RequestRecord, is_good: bool) {
        if let Some((window, done)) = &mut self.window
            && (window.from_ns..window.until_ns).contains(&record.end_ns)
        {
            done.add(record, is_good);
        }
    }

    /// Requests that count and completed within all limits, whenever that was.
    pub(crate) fn good(&self) -> u64 {
        self.due.good
    }

    /// What was done, and in how many seconds.
    pub(crate) fn done(&self) -> (Done, f64) {
        if let Some((window, done)) = &self.window
            && done.requests > 0
            && done.requests * 2 >= self.due.requests
        {
            return (*done, seconds(window.from_ns, window.until_ns));
        }
        (
            self.due,
            seconds(self.first_due_ns, self.last_completion_ns),
        )
    }
}

fn seconds(from_ns: u64, until_ns: u64) -> f64 {
    until_ns.saturating_sub(from_ns) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Outcome;

    const SECOND: u64 = 1_000_000_000;

    fn record(due_ns: u64, took_ns: u64) -> RequestRecord {
        RequestRecord {
            id: 0,
            due_ns,
            prompt_tokens: 1,
            output_tokens: 2,
            session: None,
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: None,
            end_ns: due_ns + took_ns,
            parts: None,
            wire: None,
        }
    }

    /// 10 requests a second for 60 s that take so long; those due from 10 s on count.
    fn steady(took_ns: u64, with_window: bool) -> f64 {
        let mut rate = Rate::default();
        if with_window {
            rate.set_window(10 * SECOND, 60 * SECOND);
        }
        for tenth in 0..600 {
            let record = record(tenth * SECOND / 10, took_ns);
            if tenth < 100 {
                rate.completed_at_all(&record, true);
            } else {
                rate.due(record.due_ns);
                rate.completed(&record, true);
            }
        }
        let (done, in_s) = rate.done();
        done.requests as f64 / in_s
    }

    #[test]
    fn a_window_has_no_tail_in_it() {
        assert!((steady(5 * SECOND, false) - 9.11).abs() < 0.01);
        for took_s in [0, 1, 5, 9] {
            let rate = steady(took_s * SECOND + 1, true);
            assert!((rate - 10.0).abs() < 0.03, "{took_s} s: {rate}");
        }
    }

    #[test]
    fn a_server_that_does_not_keep_up_is_not_flattered_by_what_it_ends_later() {
        // 10 requests a second come, 6 a second are served.
        let mut rate = Rate::default();
        rate.set_window(0, 60 * SECOND);
        for request in 0..600 {
            let (due_ns, end_ns) = (request * SECOND / 10, (request + 1) * SECOND / 6);
            rate.due(due_ns);
            rate.completed(&record(due_ns, end_ns - due_ns), false);
        }
        let (done, in_s) = rate.done();
        assert!((done.requests as f64 / in_s - 6.0).abs() < 0.02);
    }

    #[test]
    fn what_is_sent_all_at_once_is_counted_to_its_end() {
        let mut rate = Rate::default();
        rate.set_window(0, 100);
        for request in 0..100 {
            rate.due(request);
            rate.completed(&record(request, (request + 1) * SECOND / 10), true);
        }
        let (done, in_s) = rate.done();
        assert!((done.requests as f64 / in_s - 10.0).abs() < 0.01);
        assert_eq!((done.output_tokens, done.good), (200, 100));
    }

    #[test]
    fn a_window_without_an_end_is_the_span() {
        let mut rate = Rate::default();
        rate.set_window(0, u64::MAX);
        rate.due(0);
        rate.completed(&record(0, 2 * SECOND), true);
        let (done, in_s) = rate.done();
        assert_eq!((done.requests, in_s), (1, 2.0));
    }

    #[test]
    fn nothing_done_takes_no_time() {
        let (done, in_s) = Rate::default().done();
        assert_eq!((done.requests, in_s), (0, 0.0));
    }
}
