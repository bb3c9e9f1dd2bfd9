//! A request is sent, perhaps again, and perhaps in vain.

use foresail_core::step_time::StepTime;
use foresail_reports::records::RecordSink;
use foresail_scenarios::failures::OnCrash;
use foresail_scenarios::scenario::AtZero;

use super::World;
use crate::SimulationError;
use crate::agenda::Awaits;
use crate::clients::Cause;
use crate::passage::Passage;
use crate::replica::Lost;

impl<M: StepTime, S: RecordSink> World<'_, M, S> {
    /// A client sends a request, for the first time or again.
    #[inline]
    pub(super) fn send(&mut self, passage: Passage) -> Result<(), SimulationError> {
        self.clients.sent(&passage, &mut self.scene);
        self.receive(passage, Cause::Unavailable)
    }

    /// The next of the requests that are on their way comes into its replica's engine.
    pub(super) fn enter(&mut self) -> Result<(), SimulationError> {
        match self.fleet.enter(&self.models, &mut self.scene)? {
            Some((request, Some(seat))) => self.clients.seated(request, Some(seat)),
            Some((_, None)) => {
                self.settle();
                self.release_held();
            }
            None => {}
        }
        self.tell_news()
    }

    /// The deployment receives a request, and serves, holds or refuses it.
    #[inline]
    fn receive(&mut self, passage: Passage, if_refused: Cause) -> Result<(), SimulationError> {
        if let Some(refusal) = self.scene.share.on_request(self.scene.now) {
            self.refuse(passage, refusal);
            return Ok(());
        }
        self.received.sends += 1;
        self.received.prompt_tokens += u64::from(passage.request.prompt_tokens);
        let none_ready = self.fleet.counts().ready == 0;
        if let Some(decision) = self.governor.on_request(self.scene.now) {
            self.scale(decision.target, &decision.reason)?;
        }
        if none_ready && self.scenario.deployment.at_zero == AtZero::Reject {
            self.fail(Lost { passage, tokens: 0 }, if_refused, None);
            return Ok(());
        }
        self.received.while_unready += u64::from(none_ready && passage.attempts() == 1);
        self.dispatch(passage);
        Ok(())
    }

    /// An attempt came to nothing: its client sends the request again later, or it
    /// has ended.
    fn fail(&mut self, lost: Lost, cause: Cause, replica: Option<u32>) {
        let Lost { passage, tokens } = lost;
        self.clients.forget(passage.id());
        match self.clients.wait(&passage, cause) {
            Some(wait) => {
                self.lost_tokens += u64::from(tokens);
                self.clients.send_later(passage, wait, &mut self.scene);
            }
            None => {
                let record = passage.record(self.scene.now, cause.outcome(), tokens, replica);
                self.scene.sink.request(&record);
                self.settle();
            }
        }
    }

    /// A client sends a request again.
    pub(super) fn resend(&mut self, request: u64) -> Result<(), SimulationError> {
        match self.clients.send_again(request, self.scene.now) {
            Some(passage) => self.send(passage),
            None => Ok(()),
        }
    }

    /// A client's patience is at its end, unless what it awaits has come.
    pub(super) fn client_timeout(
        &mut self,
        request: u64,
        sends: u32,
        awaits: Awaits,
    ) -> Result<(), SimulationError> {
        let Some(seat) = self.clients.awaited(request, sends) else {
            return Ok(());
        };
        let Some(seat) = seat else {
            let unready_ns = self.fleet.unready_ns(self.scene.now);
            match self.front.withdraw(request, unready_ns) {
                Some(passage) => self.fail(Lost { passage, tokens: 0 }, Cause::Timeout, None),
                None => self.clients.forget(request),
            }
            return Ok(());
        };
        match self.fleet.served(seat, request) {
            Some(passage) if awaits == Awaits::FirstToken && passage.has_begun() => {}
            Some(_) => {
                if let Some(lost) = self.fleet.withdraw(seat, request, &mut self.scene)? {
                    self.fail(lost, Cause::Timeout, Some(seat.replica));
                }
            }
            None => self.clients.forget(request),
        }
        Ok(())
    }

    /// A replica crashes: its requests are served again, or fail.
    pub(super) fn crash(&mut self, replica: u32) -> Result<(), SimulationError> {
        let crash = self.scenario.deployment.failures.crash.as_ref();
        let retries_max = match crash.map(|crash| crash.on_crash) {
            Some(OnCrash::Retry { retries_max }) => retries_max,
            Some(OnCrash::Fail) | None => 0,
        };
        for lost in self.fleet.crash(replica, &mut self.scene)? {
            if lost.passage.served_again() >= retries_max {
                self.fail(lost, Cause::Crash, Some(replica));
                continue;
            }
            self.lost_tokens += u64::from(lost.tokens);
            self.clients.seated(lost.passage.id(), None);
            let passage = lost.passage.serve_again(self.scene.now);
            self.receive(passage, Cause::Crash)?;
        }
        Ok(())
    }

    /// A replica that drains has had its time: its requests fail.
    pub(super) fn drain_timeout(&mut self, replica: u32) -> Result<(), SimulationError> {
        for lost in self.fleet.drain_timeout(replica, &mut self.scene)? {
            self.fail(lost, Cause::Drain, Some(replica));
        }
        Ok(())
    }
}
