//! The thread that records: it takes what workers tell, and looks at the client once a second.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::worker::Message;
use crate::client::ConnectionCounts;
use crate::record::{Recorded, Recorder, Sink};
use crate::watch::{Watch, system};

/// How often the client is looked at.
const SAMPLE: Duration = Duration::from_secs(1);

/// How long nothing may come before it is seen whether a look is due.
const PATIENCE: Duration = Duration::from_millis(50);

/// Everything that the threads of a run had to tell.
#[derive(Debug)]
pub(super) struct Kept<S> {
    pub(super) recorded: Recorded<S>,
    pub(super) watch: Watch,
    pub(super) connections: ConnectionCounts,
    pub(super) not_warmed: Option<String>,
}

pub(super) struct Keeper<S> {
    pub(super) recorder: Recorder<S>,
    pub(super) messages: Receiver<Message>,
    pub(super) shared: Arc<Shared>,
    pub(super) planned_until_ns: Option<u64>,
}

impl<S: Sink> Keeper<S> {
    /// Records until every thread that tells something is gone.
    pub(super) fn keep(mut self) -> Kept<S> {
        let mut sampler = Sampler::new(Arc::clone(&self.shared));
        let mut watch = Watch::new();
        let mut connections = ConnectionCounts::default();
        let mut not_warmed = None;
        loop {
            match self.messages.recv_timeout(PATIENCE) {
                Ok(Message::Batch(batch)) => self.recorder.batch(batch),
                Ok(Message::Unsent(requests)) => self.recorder.unsent(requests),
                Ok(Message::Done(done)) => {
                    watch.add(&done.watch);
                    watch.local_errors(done.connections.failed_locally);
                    add(&mut connections, done.connections);
                    not_warmed = not_warmed.or(done.not_warmed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            sampler.look();
        }
        watch.add(&sampler.watch);
        let last_sent = self.shared.last_due();
        let last_due = match self.planned_until_ns {
            // A plan that was sent to its end ends when its last request was due, sent or not.
            Some(planned) if !self.shared.is_interrupted() => planned,
            _ => last_sent,
        };
        Kept {
            recorded: self.recorder.finish(last_due),
            watch,
            connections,
            not_warmed,
        }
    }
}

/// Looks at the client from the start of the run until all is sent: before and after it does nothing,
/// which would make it look idle.
struct Sampler {
    shared: Arc<Shared>,
    watch: Watch,
    descriptors_before: u64,
    next: Option<Instant>,
    is_over: bool,
}

impl Sampler {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            watch: Watch::new(),
            descriptors_before: system::descriptors_open().unwrap_or(0),
            next: None,
            is_over: false,
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        let is_begun = now >= self.shared.clock.instant(0);
        if self.is_over || !is_begun {
            return;
        }
        self.is_over = self.shared.sending.load(Ordering::SeqCst) == 0;
        if self.is_over || self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + SAMPLE);
            self.sample();
        }
    }

    fn sample(&mut self) {
        let gauges = &self.shared.workers;
        let cpu_ns = gauges
            .iter()
            .map(|gauges| gauges.cpu_ns.load(Ordering::Relaxed));
        let open = gauges
            .iter()
            .map(|gauges| gauges.connections.load(Ordering::Relaxed));
        let descriptors = self.descriptors_before + open.sum::<u64>();
        self.watch
            .sample(system::sample(cpu_ns.collect(), descriptors));
    }
}

fn add(sum: &mut ConnectionCounts, more: ConnectionCounts) {
    let ConnectionCounts {
        opened,
        reused,
        failed,
        failed_locally,
        lost,
        resent,
        open,
    } = more;
    sum.opened += opened;
    sum.reused += reused;
    sum.failed += failed;
    sum.failed_locally += failed_locally;
    sum.lost += lost;
    sum.resent += resent;
    sum.open += open;
}
