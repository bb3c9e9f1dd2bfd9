//! Those who send the requests: how long they wait, and what they send again.

use std::collections::BTreeMap;

use foresail_core::control::retry::Retry;
use foresail_core::time::Nanos;
use foresail_reports::records::Outcome;
use foresail_scenarios::clients::{ClientRetry, Clients as Behaviour, RetryOn};
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::random::numbered_stream;

use crate::agenda::{Awaits, What};
use crate::cold_start::nanos;
use crate::conservation::InSystem;
use crate::fleet::Seat;
use crate::passage::Passage;
use crate::scene::Scene;

/// Why an attempt came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A 503: no replica was ready.
    Unavailable,
    /// Its client did not wait any longer.
    Timeout,
    /// Its replica crashed.
    Crash,
    /// Its replica's time to drain was up.
    Drain,
}

impl Cause {
    /// How the request ends if it is not sent again.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Unavailable => Outcome::RejectedScalingUp,
            Self::Timeout => Outcome::FailedTimeout,
            Self::Crash => Outcome::FailedCrash,
            Self::Drain => Outcome::FailedDrain,
        }
    }

    fn is_retried(self, on: RetryOn) -> bool {
        match self {
            Self::Unavailable => on.unavailable,
            Self::Timeout => on.timeout,
            Self::Crash | Self::Drain => on.failure,
        }
    }
}

/// The clients of a run. Nothing is kept, or drawn, of a request whose client
/// waits for ever.
pub(crate) struct Clients<'a> {
    behaviour: &'a Behaviour,
    have_timeouts: bool,
    seed: u64,
    /// Requests that a client's timeout is running for. One that has ended is
    /// forgotten when its timeout comes.
    watched: BTreeMap<u64, Watched>,
    /// Requests whose clients are going to send them again.
    waiting: BTreeMap<u64, Passage>,
    /// Those, integrated over time.
    waiting_over_time: InSystem,
}

/// A request that a client's timeout is running for.
#[derive(Clone, Copy, Debug)]
struct Watched {
    sends: u32,
    /// Where it is served; `None` while it is held.
    seat: Option<Seat>,
}

impl<'a> Clients<'a> {
    pub(crate) fn new(behaviour: &'a Behaviour, seed: u64) -> Self {
        Self {
            behaviour,
            have_timeouts: behaviour.have_timeouts(),
            seed,
            watched: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_over_time: InSystem::default(),
        }
    }

    /// A request is sent: its client's timeouts begin to run.
    #[inline]
    pub(crate) fn sent<S>(&mut self, passage: &Passage, scene: &mut Scene<'_, S>) {
        if self.have_timeouts {
            self.watch(passage, scene);
        }
    }

    fn watch<S>(&mut self, passage: &Passage, scene: &mut Scene<'_, S>) {
        let (request, sends) = (passage.id(), passage.sends());
        let timeouts = [
            (
                "first_token",
                Awaits::FirstToken,
                &self.behaviour.first_token_timeout,
            ),
            ("last_token", Awaits::LastToken, &self.behaviour.timeout),
        ];
        for (name, awaits, timeout) in timeouts {
            if let Some(timeout) = timeout {
                // The same for every send of a request: it is the same client.
                let at = scene.now.saturating_add(self.draw(name, timeout, request));
                let what = What::ClientTimeout {
                    request,
                    sends,
                    awaits,
                };
                scene.agenda.add(at, what);
            }
        }
        self.watched.insert(request, Watched { sends, seat: None });
    }

    fn draw(&self, name: &str, timeout: &Distribution, request: u64) -> Nanos {
        let name = format!("clients.{name}_timeout");
        nanos(timeout, &mut numbered_stream(self.seed, &name, request))
    }

    /// A request is served there from now on, or held.
    #[inline]
    pub(crate) fn seated(&mut self, request: u64, seat: Option<Seat>) {
        if self.watched.is_empty() {
            return;
        }
        if let Some(watched) = self.watched.get_mut(&request) {
            watched.seat = seat;
        }
    }

    /// Whether a client may still wait for what it sent for the `sends`th time, and
    /// where that is served.
    pub(crate) fn awaited(&self, request: u64, sends: u32) -> Option<Option<Seat>> {
        let watched = self.watched.get(&request)?;
        (watched.sends == sends).then_some(watched.seat)
    }

    /// Nobody waits for this request any more.
    pub(crate) fn forget(&mut self, request: u64) {
        self.watched.remove(&request);
    }

    /// How long the client waits before it sends a request again; `None` if it does not.
    pub(crate) fn wait(&self, passage: &Passage, cause: Cause) -> Option<Nanos> {
        let ClientRetry {
            config,
            jitter,
            retry_on,
        } = self.behaviour.retry.as_ref()?;
        if !cause.is_retried(*retry_on) {
            return None;
        }
        let sends = passage.sends();
        let mut rng = numbered_stream(self.seed, "clients.jitter", passage.id());
        let jitter = (0..sends).map(|_| jitter.sample(&mut rng)).last();
        match config.after(sends, jitter.unwrap_or(1.0)) {
            Retry::After(wait) => Some(wait),
            Retry::GiveUp => None,
        }
    }

    /// A client is going to send this request again after a wait.
    pub(crate) fn send_later<S>(
        &mut self,
        passage: Passage,
        wait: Nanos,
        scene: &mut Scene<'_, S>,
    ) {
        let request = passage.id();
        scene
            .agenda
            .add(scene.now.saturating_add(wait), What::Resend { request });
        self.waiting.insert(request, passage);
        self.waiting_over_time
            .set(scene.now, self.waiting.len() as u64);
    }

    /// The request that a client now sends again.
    pub(crate) fn send_again(&mut self, request: u64, now: Nanos) -> Option<Passage> {
        let passage = self.waiting.remove(&request)?;
        self.waiting_over_time.set(now, self.waiting.len() as u64);
        Some(passage.send_again(now))
    }

    /// The requests that were with their clients between two sends, integrated over time.
    pub(crate) fn waiting_by(&self, now: Nanos) -> u128 {
        self.waiting_over_time.integral_by(now)
    }
}
