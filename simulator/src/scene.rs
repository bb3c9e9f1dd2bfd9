//! What everything that happens needs: when it is, what is to come, and who takes note.

use foresail_core::time::Nanos;

use crate::agenda::Agenda;
use crate::conservation::Tap;
use crate::pool::Share;

/// The clock, the agenda, the sink of records, and the deployment's share of
/// the GPUs if they are limited.
pub(crate) struct Scene<'a, S> {
    /// Virtual time.
    pub(crate) now: Nanos,
    pub(crate) agenda: Agenda,
    pub(crate) sink: Tap<'a, S>,
    pub(crate) share: Option<Share>,
}

impl<'a, S> Scene<'a, S> {
    /// The beginning: nothing has happened, and nothing is to come.
    pub(crate) fn new(sink: &'a mut S, share: Option<Share>) -> Self {
        Self {
            now: 0,
            agenda: Agenda::default(),
            sink: Tap::new(sink),
            share,
        }
    }
}
