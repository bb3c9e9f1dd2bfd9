//! What a client holds of a request that was taken.

use std::sync::mpsc::Sender;

use tokio::sync::mpsc::UnboundedReceiver;

use super::core::RequestKey;
use super::replica::Command;
use crate::generation::{Event, GenerationError};

/// A request that a replica has taken, and what becomes of it.
///
/// Dropping it gives the request up: its KV blocks are free before the next step begins.
#[derive(Debug)]
pub struct Ticket {
    key: RequestKey,
    events: UnboundedReceiver<Event>,
    commands: Sender<Command>,
    ended: bool,
}

impl Ticket {
    pub(super) fn new(
        key: RequestKey,
        events: UnboundedReceiver<Event>,
        commands: Sender<Command>,
    ) -> Self {
        Self {
            key,
            events,
            commands,
            ended: false,
        }
    }

    /// What happens next: the last is [`Event::Finished`] or [`Event::Failed`],
    /// and after it comes `None`. If the replica ends before the request does,
    /// for whatever reason, the last is `Failed(ShutDown)`.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await;
        Some(self.note(event))
    }

    /// As [`Ticket::next`], for a thread that may block.
    ///
    /// # Panics
    /// On a thread that drives asynchronous tasks.
    pub fn next_blocking(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.blocking_recv();
        Some(self.note(event))
    }

    /// What has happened already, if there is something: after [`Ticket::next`],
    /// for those who would rather send several tokens at once.
    pub fn try_next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.try_recv().ok()?;
        Some(self.note(Some(event)))
    }

    fn note(&mut self, event: Option<Event>) -> Event {
        let event = event.unwrap_or(Event::Failed(GenerationError::ShutDown));
        self.ended = matches!(event, Event::Finished(_) | Event::Failed(_));
        event
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            // If nobody hears it, the replica has ended, and the request with it.
            let _ = self.commands.send(Command::Cancel(self.key));
        }
    }
}
