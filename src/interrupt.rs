//! Ctrl-C, and the other signals that ask a program to end.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// Whether the command was asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. The first signal asks, so that what was begun can
    /// be removed; the second one does not wait for that.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&asked);
        let handler = move || {
            if flag.swap(true, Ordering::Relaxed) {
                process::exit(ExitCode::Interrupted as i32);
            }
        };
        ctrlc::set_handler(handler)
            .map_err(|error| Failure::Defect(format!("cannot listen for signals: {error}")))?;
        Ok(Self(asked))
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails once the command was asked to stop.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_requested() {
            Err(Failure::Interrupted)
        } else {
            Ok(())
        }
    }
}
