//! Which requests count: a run begins with an empty server and ends with one that is
//! running dry, and neither is what was asked about.
//!
//! **Warm-up**, unless a time is given: until as many requests have ended as are in flight. An
//! empty system that is fed at a constant rate fills up for as long as a request lasts:
//! the mean number in flight after a time t is `rate * E[min(S, t)]`, S being how long
//! requests last (Eick, Massey and Whitt, "The physics of the M_t/G/∞ queue", Operations
//! Research 41(4), 1993). As many have ended as are in flight once t is twice that
//! long, so everything in flight by then was sent into a system that was full. In a closed loop it is
//! about one request a user. The rule needs no look ahead, so a run of any length is
//! recorded as it goes: what is held back until then is never more than is in flight.
//!
//! **Cool-down**: after the last intended send, and as long before that as was asked for. Requests
//! count by when they were due, so those of the window are followed to their end.
//!
//! If the rule finds no end of the warm-up before the last intended send, everything
//! counts, and that is said.

use foresail_core::time::{Nanos, Span};

/// How the window is to be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSettings {
    /// How long the warm-up lasts; `None` for the rule.
    pub warm_up_ns: Option<Nanos>,
    /// How long before the last intended send the cool-down begins.
    pub cool_down_ns: Nanos,
}

/// The window of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Requests count that were due from here on.
    pub from_ns: Nanos,
    /// Up to here, exclusive.
    pub until_ns: Nanos,
    /// How the two were chosen, in words.
    pub rule: String,
}

impl Found {
    /// Whether a request counts that was due then.
    #[must_use]
    pub fn holds(&self, due: Nanos) -> bool {
        (self.from_ns..self.until_ns).contains(&due)
    }
}

/// Finds the end of the warm-up, told of sends and ends in the order in which they happened.
#[derive(Clone, Debug)]
pub struct WarmUp {
    settings: WindowSettings,
    /// After the last intended send of the plan; `None` where nobody knows it (a closed loop).
    last_due: Option<Nanos>,
    in_flight: u64,
    ended: u64,
    from: Option<Nanos>,
}

impl WarmUp {
    /// A run whose last request is due then, if that is known.
    #[must_use]
    pub fn new(settings: WindowSettings, last_due: Option<Nanos>) -> Self {
        Self {
            settings,
            last_due,
            in_flight: 0,
            ended: 0,
            from: settings.warm_up_ns,
        }
    }

    /// A request was sent.
    pub fn sent(&mut self) {
        self.in_flight += 1;
    }

    /// A request that had been sent ended at this time.
    pub fn ended(&mut self, at: Nanos) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ended += 1;
        let is_over = self.ended >= self.in_flight;
        if self.from.is_none() && is_over && self.last_due.is_none_or(|last| at < last) {
            self.from = Some(at);
        }
    }

    /// Whether the window is known: then requests need not be held back any longer.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.from.is_some()
    }

    /// The window, once nothing more is sent: as far as is known until then. `last_due` is
    /// when the last request was due.
    #[must_use]
    pub fn window(&self, last_due: Nanos) -> Found {
        let after_last = last_due.saturating_add(1);
        let until_ns = after_last.saturating_sub(self.settings.cool_down_ns);
        let from_ns = self.from.unwrap_or(0);
        Found {
            from_ns,
            until_ns,
            rule: format!("{}; {}", self.warm_up_rule(), self.cool_down_rule()),
        }
    }

    fn warm_up_rule(&self) -> String {
        match (self.settings.warm_up_ns, self.from) {
            (Some(0), _) => "no warm-up".into(),
            (Some(given), _) => format!("warm-up of {} as asked", Span(given)),
            (None, Some(_)) => "warm-up until as many requests had ended as were in flight".into(),
            (None, None) => "no warm-up excluded: when the last request was due, fewer had ended \
                             than were in flight"
                .into(),
        }
    }

    fn cool_down_rule(&self) -> String {
        match self.settings.cool_down_ns {
            0 => "cool-down after the last intended send".into(),
            given => format!(
                "cool-down from {} before the last intended send",
                Span(given)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use foresail_core::time::{MILLISECOND, SECOND};

    use super::*;

    /// Requests each so often, each so long; until when the warm-up lasts.
    fn warm_up(every: Nanos, lasts: Nanos, count: u64) -> WarmUp {
        let mut warm_up = WarmUp::new(WindowSettings::default(), Some(count * every));
        let sends = (0..count).map(|index| (index * every, true));
        let ends = (0..count).map(|index| (index * every + lasts, false));
        let mut events: Vec<_> = sends.chain(ends).collect();
        events.sort_unstable();
        for (at, is_send) in events {
            match is_send {
                true => warm_up.sent(),
                false => warm_up.ended(at),
            }
        }
        warm_up
    }

    #[test]
    fn warm_up_is_twice_as_long_as_a_request() {
        let window = warm_up(10 * MILLISECOND, SECOND, 1_000).window(10 * SECOND);
        let expected = 2 * SECOND - 30 * MILLISECOND..2 * SECOND + 30 * MILLISECOND;
        assert!(expected.contains(&window.from_ns), "{window:?}");
        assert_eq!(window.until_ns, 10 * SECOND + 1);
        assert!(window.holds(10 * SECOND) && !window.holds(SECOND));
        insta::assert_snapshot!(window.rule, @"warm-up until as many requests had ended as were in flight; cool-down after the last intended send");
    }

    #[test]
    fn a_run_that_never_fills_counts_as_a_whole_and_says_so() {
        let window = warm_up(10 * MILLISECOND, 20 * SECOND, 1_000).window(10 * SECOND);
        assert_eq!(window.from_ns, 0);
        insta::assert_snapshot!(window.rule, @"no warm-up excluded: when the last request was due, fewer had ended than were in flight; cool-down after the last intended send");
    }

    #[test]
    fn a_closed_loop_is_warm_after_about_one_request_a_user() {
        let mut warm_up = WarmUp::new(WindowSettings::default(), None);
        (0..8).for_each(|_| warm_up.sent());
        for end in 1..=7 {
            assert!(!warm_up.is_over(), "before the end {end}");
            warm_up.ended(end * SECOND);
            warm_up.sent();
        }
        assert!(warm_up.is_over());
        // Seven have ended then, and seven are in flight.
        assert_eq!(warm_up.window(60 * SECOND).from_ns, 7 * SECOND);
    }

    #[test]
    fn times_that_were_given_are_taken() {
        let settings = WindowSettings {
            warm_up_ns: Some(3 * SECOND),
            cool_down_ns: 2 * SECOND,
        };
        let warm_up = WarmUp::new(settings, Some(60 * SECOND));
        assert!(
            warm_up.is_over(),
            "from the beginning: nothing is held back"
        );
        let window = warm_up.window(60 * SECOND);
        assert_eq!(
            (window.from_ns, window.until_ns),
            (3 * SECOND, 58 * SECOND + 1)
        );
        insta::assert_snapshot!(window.rule, @"warm-up of 3s as asked; cool-down from 2s before the last intended send");
    }

    #[test]
    fn a_window_may_be_empty() {
        let settings = WindowSettings {
            warm_up_ns: Some(3 * SECOND),
            cool_down_ns: 0,
        };
        let window = WarmUp::new(settings, Some(SECOND)).window(SECOND);
        assert!(!window.holds(0) && !window.holds(3 * SECOND));
    }
}
