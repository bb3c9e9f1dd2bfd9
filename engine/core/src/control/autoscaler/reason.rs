//! Why a target changed, in plain words and with its numbers.

use std::fmt;

use super::load::{Load, Signal};
use super::{Foreseen, IdleFrom, WindowSemantics};
use crate::time::Nanos;
pub(super) use crate::time::Span;

/// Why a target changed, or did not. Its text is the reason in the timeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// What a policy says, with its numbers.
    Words(Box<str>),
    /// The target is what the load calls for, or waits for a window.
    Unchanged {
        /// What the load calls for, before it is rounded up; `None` without a load.
        replicas: Option<f64>,
    },
    /// More load than the replicas should have.
    LoadHigher(LoadChange),
    /// So little load that fewer replicas do.
    LoadLower(LoadChange),
    /// Nothing to do for the whole scale-to-zero window.
    Idle {
        /// The scale-to-zero window.
        window: Nanos,
        /// What it counted from.
        from: IdleFrom,
    },
    /// A request came while there was no replica.
    WokenByRequest,
    /// The deployment began with a number of replicas that its limits do not allow.
    OutsideLimits {
        /// Fewest replicas.
        min: u32,
        /// Most replicas.
        max: u32,
    },
    /// Somebody asked for so many.
    Scaled {
        /// How many.
        replicas: u32,
    },
    /// The policy `fixed` says so.
    Fixed {
        /// How many.
        replicas: u32,
    },
    /// The policy `oracle` knows what comes.
    Foreseen(Foreseen),
    /// The policy `scripted` says so.
    Script {
        /// From when the script says so.
        from: Nanos,
    },
}

/// The load that changed a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadChange {
    /// The load at the moment of the decision, after smoothing.
    pub load: Load,
    /// The target before.
    pub replicas: u32,
    /// The target after.
    pub target: u32,
    /// The window that was waited for.
    pub window: Nanos,
    /// What waiting means.
    pub semantics: WindowSemantics,
}

impl Reason {
    /// The reason in these words.
    pub(super) fn words(words: impl Into<Box<str>>) -> Self {
        Reason::Words(words.into())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reason::Words(ref words) => f.write_str(words),
            Reason::Unchanged {
                replicas: Some(replicas),
            } => {
                write!(f, "unchanged; the load calls for {}", Decimal(replicas))
            }
            Reason::Unchanged { replicas: None } => f.write_str("unchanged; no load is known"),
            Reason::LoadHigher(change) => change.fmt_higher(f),
            Reason::LoadLower(change) => change.fmt_lower(f),
            Reason::Idle { window, from } => match from {
                IdleFrom::LastReceived => write!(f, "no request for {}", Span(window)),
                IdleFrom::LastActive => {
                    write!(f, "no request received or in flight for {}", Span(window))
                }
            },
            Reason::WokenByRequest => f.write_str("request at zero replicas"),
            Reason::OutsideLimits { min, max } => {
                write!(f, "limits are {min} to {}", Replicas(max))
            }
            Reason::Scaled { replicas } => write!(f, "scaled to {}", Replicas(replicas)),
            Reason::Fixed { replicas } => write!(f, "fixed at {}", Replicas(replicas)),
            Reason::Foreseen(step) => {
                let calls = format!("calls for {}", Replicas(step.replicas));
                match step.needed_at.saturating_sub(step.at) {
                    0 => write!(f, "the load from now on {calls}"),
                    ahead => write!(f, "the load in {} {calls}", Span(ahead)),
                }
            }
            Reason::Script { from } => write!(f, "the script says so from {}", Span(from)),
        }
    }
}

impl LoadChange {
    fn fmt_higher(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_with(f, ">", self.replicas, "at least")
    }

    /// Fewer than c replicas do exactly when c - 1 of them do.
    fn fmt_lower(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_with(f, "<=", self.replicas.saturating_sub(1), "at most")
    }

    fn fmt_with(
        &self,
        f: &mut fmt::Formatter<'_>,
        comparison: &str,
        replicas: u32,
        bound: &str,
    ) -> fmt::Result {
        let (window, load) = (Span(self.window), Compared(self.load, comparison, replicas));
        let target = Replicas(self.target);
        match self.semantics {
            WindowSemantics::Sustained => write!(f, "{load} for {window}"),
            WindowSemantics::Stabilized => {
                write!(f, "load called for {bound} {target} for {window}")
            }
            WindowSemantics::Average => {
                write!(f, "mean load of {window} called for {target}")
            }
            WindowSemantics::Cooldown => write!(f, "{load}, no change for {window}"),
            WindowSemantics::Oneshot => write!(f, "{load}, {window} after it first was"),
        }
    }
}

/// A load beside what so many replicas should have.
struct Compared<'a>(Load, &'a str, u32);

impl fmt::Display for Compared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compared(load, comparison, replicas) = self;
        let unit = match load.signal {
            Signal::BatchOccupancy => "full batches",
            Signal::TokensGeneratedPerSecond => "output tokens/s",
            Signal::PromptTokensPerSecond => "prompt tokens/s",
            Signal::RequestsPerSecond => "requests/s",
            Signal::ConcurrentRequests => "concurrent requests",
        };
        let (total, target) = (Decimal(load.total), Decimal(load.target));
        let replicas = Replicas(*replicas);
        write!(f, "load {total} {unit} {comparison} {replicas} x {target}")
    }
}

/// Three decimals at most.
pub(super) struct Decimal(pub(super) f64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.3}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

struct Replicas(u32);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} replica{plural}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{HOUR, MILLISECOND, SECOND};

    fn change(semantics: WindowSemantics) -> LoadChange {
        LoadChange {
            load: Load {
                signal: Signal::BatchOccupancy,
                total: 3.4,
                target: 0.8,
            },
            replicas: 2,
            target: 5,
            window: 30 * SECOND,
            semantics,
        }
    }

    #[test]
    fn a_reason_says_why_with_its_numbers() {
        let higher = |semantics| Reason::LoadHigher(change(semantics)).to_string();
        assert_eq!(
            higher(WindowSemantics::Sustained),
            "load 3.4 full batches > 2 replicas x 0.8 for 30s"
        );
        assert_eq!(
            higher(WindowSemantics::Stabilized),
            "load called for at least 5 replicas for 30s"
        );
        assert_eq!(
            higher(WindowSemantics::Average),
            "mean load of 30s called for 5 replicas"
        );
        assert_eq!(
            higher(WindowSemantics::Cooldown),
            "load 3.4 full batches > 2 replicas x 0.8, no change for 30s"
        );
        assert_eq!(
            higher(WindowSemantics::Oneshot),
            "load 3.4 full batches > 2 replicas x 0.8, 30s after it first was"
        );
    }

    #[test]
    fn a_lower_load_is_compared_with_one_replica_less() {
        let lower = LoadChange {
            load: Load {
                signal: Signal::RequestsPerSecond,
                total: 1.25,
                target: 2.0,
            },
            target: 1,
            window: 600 * SECOND,
            ..change(WindowSemantics::Sustained)
        };
        assert_eq!(
            Reason::LoadLower(lower).to_string(),
            "load 1.25 requests/s <= 1 replica x 2 for 10m"
        );
    }

    #[test]
    fn spans_are_written_as_people_write_them() {
        let text = |nanos| Span(nanos).to_string();
        assert_eq!(text(0), "0s");
        assert_eq!(text(500 * MILLISECOND), "0.5s");
        assert_eq!(text(90 * SECOND), "1m30s");
        assert_eq!(text(HOUR), "1h");
        assert_eq!(text(168 * HOUR + 5 * SECOND), "168h5s");
    }
}
