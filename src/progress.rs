//! A progress bar for runs that take long enough to wonder.

use std::sync::Once;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Most runs are over before this; for them there is nothing to see.
const QUIET_DURATION: Duration = Duration::from_millis(500);

/// How much a command has done so far, over all runs: requests simulated, or steps measured.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    is_wanted: bool,
    shown: Once,
}

impl Progress {
    /// Nothing is drawn yet. `expected` is about how many requests there will
    /// be, if that is known.
    pub(crate) fn new(expected: Option<u64>, is_wanted: bool) -> Self {
        Self::of("requests", expected, is_wanted)
    }

    /// The same of other things than requests.
    pub(crate) fn of(things: &str, expected: Option<u64>, is_wanted: bool) -> Self {
        let bar = ProgressBar::with_draw_target(expected, ProgressDrawTarget::hidden());
        let template = match expected {
            Some(_) => {
                format!(
                    "{{wide_bar}} {{percent:>3}} % · {{human_pos}} {things} · {{eta}} left · {{msg}}"
                )
            }
            None => format!("{{spinner}} {{human_pos}} {things} · {{msg}}"),
        };
        // A template that is wrong leaves the default style, which is no harm.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self {
            bar,
            started: Instant::now(),
            is_wanted,
            shown: Once::new(),
        }
    }

    /// So many more requests. `message` is what else there is to say.
    pub(crate) fn advance(&self, requests: u64, message: String) {
        if !self.is_wanted || self.started.elapsed() < QUIET_DURATION {
            self.bar.inc(requests);
            return;
        }
        // Draws only on a terminal.
        self.shown
            .call_once(|| self.bar.set_draw_target(ProgressDrawTarget::stderr()));
        self.bar.set_message(message);
        self.bar.inc(requests);
    }
}

/// The line is cleared however the run ends, so that what follows stands alone.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
