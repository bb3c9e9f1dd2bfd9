//! The access log: a line of JSON for each request, when it is over.
//!
//! It says when, what, how long and how many tokens. It never has a prompt, an
//! output, a key, or a path as the client wrote it: routes are ours, and a
//! model is named only if it is one that is served.
//!
//! Lines are written by a thread of their own, as a pipe that nobody reads
//! must not hold up requests. Where it cannot keep up, lines are left out and
//! counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use foresail_reports::calendar::date;
use serde::Serialize;

/// Lines that wait to be written. The longest has some 600 bytes.
const LINES_MAX: usize = 4096;

/// Where lines go. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    left_out: Arc<AtomicU64>,
}

/// A line of the log.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// When the request was over, as RFC 3339 has it.
    pub(crate) time: String,
    /// What kind of line this is.
    pub(crate) event: &'static str,
    pub(crate) id: &'a str,
    pub(crate) method: &'a str,
    /// The route, not the path.
    pub(crate) route: &'a str,
    /// The status that was answered, if it came to that.
    pub(crate) status: Option<u16>,
    pub(crate) model: Option<&'a str>,
    pub(crate) stream: bool,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) queue_ms: Option<f64>,
    pub(crate) ttft_ms: Option<f64>,
    pub(crate) duration_ms: f64,
    /// The client went away before it had everything.
    pub(crate) client_gone: bool,
    /// The name of the error, if the answer was one.
    pub(crate) error: Option<&'a str>,
}

impl AccessLog {
    /// No log.
    #[must_use]
    pub fn none() -> Self {
        Self {
            lines: None,
            left_out: Arc::default(),
        }
    }

    /// A log that is written here. The thread ends when the last clone is gone.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn to(mut writer: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (lines, waiting) = mpsc::sync_channel::<Vec<u8>>(LINES_MAX);
        let left_out = Arc::<AtomicU64>::default();
        let lost = Arc::clone(&left_out);
        let write = move || {
            while let Ok(line) = waiting.recv() {
                if writer
                    .write_all(&line)
                    .and_then(|()| writer.flush())
                    .is_err()
                {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(write)?;
        let lines = Some(lines);
        Ok(Self { lines, left_out })
    }

    /// Lines that could not be written.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, line: &impl Serialize) {
        let Some(lines) = &self.lines else {
            return;
        };
        // Lines are of strings and numbers, which always have a JSON form.
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(text) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Now, as RFC 3339 has it: `2026-02-03T04:05:06.789Z`.
pub(crate) fn now() -> String {
    // A clock before 1970 is a clock that was never set.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    timestamp(since.as_secs(), since.subsec_millis())
}

fn timestamp(seconds: u64, millis: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // date -u -d @N +%FT%T
        assert_eq!(timestamp(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(timestamp(1_772_323_199, 999), "2026-02-28T23:59:59.999Z");
        assert_eq!(timestamp(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    /// A writer that is stuck, as a pipe that nobody reads.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // It goes on when the sender is gone.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_is_stuck_holds_up_nobody() {
        let (release, stuck) = mpsc::channel();
        let log = AccessLog::to(Stuck(stuck)).expect("a thread starts");
        for _ in 0..LINES_MAX + 10 {
            log.write(&"line");
        }
        assert!((9..=10).contains(&log.left_out()), "{}", log.left_out());
        drop(release);
    }
}
