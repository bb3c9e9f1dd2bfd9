//! What a run has come to so far: one line on a terminal, that is written over; a
//! line every ten seconds in a pipe or a log.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use foresail_core::time::{Nanos, SECOND, seconds};
use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::Terminal;

/// How often the line of a terminal is written.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(250);
/// How often there is a line in a pipe.
const PIPE_INTERVAL: Duration = Duration::from_secs(10);
/// Rates are of the last so long, so that they show what is going on now.
const RATE_SPAN: Nanos = 5 * SECOND;

/// What a run has come to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// Time of the run (ns).
    pub(super) at: Nanos,
    /// When its last request is due (ns), if that is known.
    pub(super) ends_at: Option<Nanos>,
    /// Requests that were due; `None` in a closed loop.
    pub(super) due: Option<u64>,
    /// Requests that were sent.
    pub(super) sent: u64,
    /// Those that completed.
    pub(super) completed: u64,
    /// Those that did not, refused ones among them.
    pub(super) errors: u64,
    pub(super) in_flight: u64,
    /// Median and 99th percentile of the time to first token (ns).
    pub(super) ttft: Option<(Nanos, Nanos)>,
}

/// Shows snapshots as they come.
pub(super) struct Live {
    shown: Shown,
    /// Recent snapshots, oldest first.
    recent: Vec<Snapshot>,
    next: Nanos,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines,
}

impl Live {
    pub(super) fn new(terminal: &Terminal) -> Self {
        let shown = match (terminal.quiet, io::stderr().is_terminal()) {
            (true, _) => Shown::Nothing,
            (false, true) => Shown::Bar(bar()),
            (false, false) => Shown::Lines,
        };
        Self {
            shown,
            recent: Vec::new(),
            next: 0,
        }
    }

    /// A snapshot of now. It is shown if it is time for that.
    pub(super) fn tell(&mut self, now: Snapshot, terminal: &Terminal) {
        if matches!(self.shown, Shown::Nothing) {
            return;
        }
        self.remember(now);
        if now.at < self.next {
            return;
        }
        let text = line(&self.recent[0], &now);
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_message(text);
                bar.tick();
                self.next = now.at + TERMINAL_INTERVAL.as_nanos() as Nanos;
            }
            // There is nothing to say at the very beginning.
            Shown::Lines if self.next > 0 => {
                terminal.note(&text);
                self.next = now.at + PIPE_INTERVAL.as_nanos() as Nanos;
            }
            Shown::Lines => self.next = PIPE_INTERVAL.as_nanos() as Nanos,
            Shown::Nothing => {}
        }
    }

    fn remember(&mut self, now: Snapshot) {
        self.recent.push(now);
        // The oldest one that is kept is the last from before the span.
        let begin = now.at.saturating_sub(RATE_SPAN);
        let before = self.recent.partition_point(|snapshot| snapshot.at <= begin);
        self.recent.drain(..before.saturating_sub(1));
    }
}

/// The line is cleared however the run ends, so that what follows stands alone.
impl Drop for Live {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // A template that is wrong leaves the default style, which is no harm.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// A snapshot in a line, with rates since an earlier one.
fn line(before: &Snapshot, now: &Snapshot) -> String {
    let rate = |from: u64, to: u64| match now.at.saturating_sub(before.at) {
        0 => 0.0,
        span => (to - from) as f64 / seconds(span),
    };
    let sent = rate(before.sent, now.sent);
    let rates = match (before.due, now.due) {
        (Some(from), Some(to)) => format!("asked {:.1}/s, sent {sent:.1}/s", rate(from, to)),
        _ => format!("sent {sent:.1}/s"),
    };
    let ttft = match now.ttft {
        Some((p50, p99)) => format!("TTFT p50 {}, p99 {}", latency(p50), latency(p99)),
        None => "no first token yet".to_owned(),
    };
    let mut text = format!(
        "{} · {rates} · {} in flight · {} done · {ttft} · {}",
        clock(now.at),
        now.in_flight,
        now.completed,
        errors(now.errors),
    );
    if let Some(ends_at) = now.ends_at {
        text += &match ends_at.saturating_sub(now.at) {
            0 => " · waiting for the last answers".to_owned(),
            left => format!(" · {} left", clock(left)),
        };
    }
    text
}

fn errors(count: u64) -> String {
    match count {
        0 => "no errors".to_owned(),
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    }
}

/// Minutes and seconds.
fn clock(nanos: Nanos) -> String {
    let whole = nanos / SECOND;
    format!("{:02}:{:02}", whole / 60, whole % 60)
}

fn latency(nanos: Nanos) -> String {
    let seconds = seconds(nanos);
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64, sent: u64) -> Snapshot {
        Snapshot {
            at: second * SECOND,
            ends_at: Some(60 * SECOND),
            due: Some(sent + 2),
            sent,
            completed: sent / 2,
            errors: 1,
            in_flight: 7,
            ttft: Some((21_400_000, 1_350_000_000)),
        }
    }

    #[test]
    fn a_line_has_rates_of_now_and_what_is_left() {
        let before = Snapshot::default();
        let before = Snapshot {
            due: Some(0),
            ..before
        };
        insta::assert_snapshot!(line(&before, &at(5, 40)), @"00:05 · asked 8.4/s, sent 8.0/s · 7 in flight · 20 done · TTFT p50 21 ms, p99 1.35 s · 1 error · 00:55 left");
        let closed = Snapshot {
            due: None,
            ends_at: None,
            errors: 0,
            ttft: None,
            ..at(70, 40)
        };
        insta::assert_snapshot!(line(&before, &closed), @"01:10 · sent 0.6/s · 7 in flight · 20 done · no first token yet · no errors");
        assert!(line(&before, &at(61, 40)).ends_with("waiting for the last answers"));
    }

    #[test]
    fn rates_are_of_the_last_seconds_only() {
        let mut live = Live {
            shown: Shown::Lines,
            recent: Vec::new(),
            next: 0,
        };
        for second in 0..30 {
            // 10 a second at first, then 20.
            let sent = if second < 15 {
                10 * second
            } else {
                20 * second - 150
            };
            live.remember(at(second, sent));
        }
        assert_eq!(live.recent.len(), 6, "as long as a span");
        let text = line(&live.recent[0], live.recent.last().unwrap());
        assert!(text.contains("sent 20.0/s"), "{text}");
    }
}
