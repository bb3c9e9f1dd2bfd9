//! What everything that happens needs: when it is, what is to come, and who takes note.

use foresail_core::time::Nanos;

use crate::agenda::Agenda;
use crate::conservation::Tap;
use crate::provider::Share;

/// The clock, the agenda, the sink of records, and the way to the provider.
pub(crate) struct Scene<'a, S> {
    /// Virtual time.
    pub(crate) now: Nanos,
    /// Whether the ends of steps at just this time are over: what comes now cannot
    /// join a step that begins with one of them.
    pub(crate) steps_are_over: bool,
    pub(crate) agenda: Agenda,
    pub(crate) sink: Tap<'a, S>,
    pub(crate) share: Share,
}

impl<'a, S> Scene<'a, S> {
    /// What comes now can join the steps that begin at or after this time.
    pub(crate) fn joins_from(&self) -> Nanos {
        self.now + Nanos::from(self.steps_are_over)
    }

    /// The beginning: nothing has happened, and nothing is to come.
    pub(crate) fn new(sink: &'a mut S, share: Share) -> Self {
        Self {
            now: 0,
            steps_are_over: false,
            agenda: Agenda::default(),
            sink: Tap::new(sink),
            share,
        }
    }
}
