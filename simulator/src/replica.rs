//! One replica: the core's scheduler, driven through virtual time.

mod leaving;

use foresail_core::batching::{
    AdapterId, BlockHash, Config, ConfigError, Content, Reject, Request as Sequence, Scheduler,
    SequenceId,
};
use foresail_core::control::autoscaler::ReplicaLoad;
use foresail_core::step_time::{AdapterOverhead, Chunk, StepTime};
use foresail_core::time::{Moment, Nanos, PICOS_PER_NANO, Picos};
use foresail_reports::records::{Gaps, Outcome, RecordSink};
use foresail_scenarios::scenario::Adapters;
use foresail_scenarios::workload::Request;

use crate::adapters::{AdapterGate, AdapterTally};
use crate::clock::Stretch;
use crate::passage::Passage;
use leaving::Doomed;
pub(crate) use leaving::Lost;

/// Most steps of one leap. A longer stretch is several leaps with the same
/// records.
const LEAP_STEPS_MAX: u32 = 1 << 16;

/// The longest leap: 53 days, so that its time fits 64 bits of picoseconds however long its steps are.
const LEAP_TIME_MAX: Picos = u64::MAX / 4;

/// The sequence of a request, unless it waits for its adapter first, and when the
/// step in flight ends, if that is news.
type Taken = (Option<SequenceId>, Option<Nanos>);

/// Why a request is refused, and the request.
type Refused = (Reject, Box<Passage>);

/// A replica that takes requests, or finishes those it has.
#[derive(Debug)]
pub(crate) struct Replica<'a> {
    pub(crate) id: u32,
    scheduler: Scheduler,
    block_size: u32,
    blocks: u32,
    prefix_caching: bool,
    /// The adapters that it holds, and requests that wait for one.
    adapters: Option<AdapterGate<'a>>,
    overhead: AdapterOverhead,
    /// What is known of the scheduler's sequences, by their ids.
    passages: Vec<Option<Passage>>,
    /// When the last step ended.
    clock: Moment,
    flight: Flight,
    doomed: Doomed,
    /// Whether runs of equal steps are done at once, or one by one (the oracle).
    leaps: bool,
    pub(crate) tally: Tally,
}

/// What a replica has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Requests given to it.
    pub(crate) received: u64,
    /// Requests that have not ended.
    pub(crate) outstanding: u32,
    /// Tokens generated.
    pub(crate) tokens: u64,
    /// Steps computed.
    pub(crate) steps: u64,
    /// Time with a step in flight, up to the last boundary.
    pub(crate) busy_ns: Nanos,
}

/// What the device computes.
#[derive(Clone, Copy, Debug)]
enum Flight {
    /// Nothing.
    Idle,
    /// One step with this duration.
    Step(Picos),
    /// Decode steps of a batch that does not change.
    Leap(Stretch),
}

/// What the scheduler may know of the tokens.
struct Contents<'a> {
    passages: &'a [Option<Passage>],
    block_size: u32,
}

impl Content for Contents<'_> {
    fn hash(&mut self, sequence: SequenceId, block: u32) -> Option<BlockHash> {
        let request = &self.passages[sequence as usize].as_ref()?.request;
        request.block_hash(block, self.block_size)
    }
}

impl<'a> Replica<'a> {
    pub(crate) fn new(
        id: u32,
        config: Config,
        adapters: Option<&'a Adapters>,
        leaps: bool,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            id,
            scheduler: Scheduler::new(config)?,
            block_size: config.block_size,
            blocks: config.num_blocks,
            prefix_caching: config.prefix_caching,
            adapters: adapters.map(AdapterGate::new),
            overhead: adapters.map_or(AdapterOverhead::default(), |adapters| adapters.overhead),
            passages: Vec::new(),
            clock: Moment::at(0),
            flight: Flight::Idle,
            doomed: Doomed::default(),
            leaps,
            tally: Tally::default(),
        })
    }

    /// Takes a request at `now`, which can join the steps that begin at or after
    /// `joins_from`. Returns its sequence, and when the step in flight ends, if
    /// that is news.
    #[inline(always)]
    pub(crate) fn receive(
        &mut self,
        now: Nanos,
        joins_from: Nanos,
        passage: Passage,
        model: &impl StepTime,
    ) -> Result<Taken, Refused> {
        // A request without an adapter, as most are, is moved once.
        let sequence = if passage.request.adapter.is_none() {
            Some(self.join(passage)?)
        } else {
            self.admit(now, passage)?
        };
        self.tally.received += 1;
        self.tally.outstanding += 1;
        let end = match sequence {
            Some(_) => self.take_notice(now, joins_from, model),
            None => None,
        };
        Ok((sequence, end))
    }

    /// Takes a request with an adapter. Returns its sequence if it has joined
    /// the others, because its adapter is there.
    #[inline(never)]
    fn admit(&mut self, now: Nanos, passage: Passage) -> Result<Option<SequenceId>, Refused> {
        // What can never be served need not wait for its adapter first.
        let sequence = self.sequence(&passage.request);
        if let Err(reject) = self.scheduler.check_request(&sequence) {
            return Err((reject, Box::new(passage)));
        }
        let passage = match (&mut self.adapters, passage.request.adapter) {
            (Some(gate), Some(adapter)) => gate.admit(now, adapter, passage),
            _ => Some(passage),
        };
        match passage {
            Some(passage) => self.join(passage).map(Some),
            None => Ok(None),
        }
    }

    /// The adapter has been loaded: those who waited for it join. Returns when
    /// the step in flight ends, if that is news.
    pub(crate) fn adapter_loaded(
        &mut self,
        now: Nanos,
        adapter: AdapterId,
        model: &impl StepTime,
    ) -> Option<Nanos> {
        let served = self.adapters.as_mut()?.loaded(now, adapter);
        if served.is_empty() {
            return None;
        }
        for passage in served {
            let joined = self.join(passage);
            joined.expect("it was checked when it came");
        }
        // The end of a step comes before the end of a load at the same time, so
        // the step that begins then has begun without them.
        self.take_notice(now, now + 1, model)
    }

    /// What a request is to the scheduler.
    #[inline]
    fn sequence(&self, request: &Request) -> Sequence {
        Sequence {
            prompt: request.prompt_tokens,
            max_new: request.output_tokens,
            adapter: request.adapter,
            cacheable: self.prefix_caching && request.is_cacheable(self.block_size),
        }
    }

    /// Puts a request into the scheduler's queue.
    #[inline(always)]
    fn join(&mut self, passage: Passage) -> Result<SequenceId, Refused> {
        let sequence = self.sequence(&passage.request);
        let id = match self.scheduler.add(sequence) {
            Ok(id) => id,
            Err(reject) => return Err((reject, Box::new(passage))),
        };
        if id as usize == self.passages.len() {
            self.passages.push(None);
        }
        self.passages[id as usize] = Some(passage);
        Ok(id)
    }

    /// Something new waits: begin if idle, and end a leap that it might join, with
    /// the first step that ends at `joins_from` or later.
    fn take_notice(
        &mut self,
        now: Nanos,
        joins_from: Nanos,
        model: &impl StepTime,
    ) -> Option<Nanos> {
        if matches!(self.flight, Flight::Idle) {
            self.clock = Moment::at(now);
            return self.begin(model);
        }
        self.shorten_leap(joins_from)
    }

    /// What waits has changed. Ends a leap at or after this time, in case that
    /// makes a difference to the batch; returns when, if it is news.
    fn shorten_leap(&mut self, joins_from: Nanos) -> Option<Nanos> {
        let Flight::Leap(stretch) = &mut self.flight else {
            return None;
        };
        // The horizon is still that of the leap's start; only what waits has
        // changed. If it says nothing new, the leap stands.
        if self.scheduler.horizon() >= stretch.steps {
            return None;
        }
        let steps = stretch.steps;
        stretch.cut(joins_from);
        (stretch.steps < steps).then(|| stretch.end().nanos)
    }

    /// Starts the next step or leap, and returns when it ends.
    fn begin(&mut self, model: &impl StepTime) -> Option<Nanos> {
        loop {
            if let Some(end) = self.begin_leap(model) {
                return Some(end);
            }
            let mut contents = Contents {
                passages: &self.passages,
                block_size: self.block_size,
            };
            let step = self.scheduler.schedule(&mut contents);
            for id in &step.preempted {
                passage(&mut self.passages, *id).preempted(self.clock.nanos);
            }
            for (id, chunk) in step.admitted() {
                passage(&mut self.passages, id).admitted(self.clock.nanos, chunk.past);
            }
            if !step.is_empty() {
                let duration = model.step(&step.load());
                let adapters = self.scheduler.adapters_in_batch();
                let duration = duration + self.overhead.of(adapters);
                self.flight = Flight::Step(duration);
                return Some(self.clock.plus(duration).nanos);
            }
            if step.preempted.is_empty() {
                self.flight = Flight::Idle;
                return None;
            }
            // The last running sequence gave its own blocks up: now it can be admitted again.
        }
    }

    fn begin_leap(&mut self, model: &impl StepTime) -> Option<Nanos> {
        let horizon = if self.leaps {
            self.scheduler.horizon()
        } else {
            0
        };
        if horizon == 0 {
            return None;
        }
        let (batch, past) = self.scheduler.decoding();
        let piece = model.decode(batch, past);
        let piece = (self.overhead).on(piece, self.scheduler.adapters_in_batch());
        let in_piece = (piece.past_last - past) / u64::from(batch);
        let steps = u64::from(horizon.min(LEAP_STEPS_MAX)).min(in_piece.saturating_add(1)) as u32;
        let longest = piece.at(past + u64::from(batch) * u64::from(steps - 1));
        let fits = LEAP_TIME_MAX / longest.max(1);
        if fits == 0 {
            return None;
        }
        let stretch = Stretch {
            start: self.clock,
            piece,
            batch,
            past,
            steps: steps.min(u32::try_from(fits).unwrap_or(u32::MAX)),
        };
        self.flight = Flight::Leap(stretch);
        Some(stretch.end().nanos)
    }

    /// The step or leap in flight has ended: notes what came of it, and begins
    /// the next. Returns when that ends.
    pub(crate) fn advance(
        &mut self,
        model: &impl StepTime,
        sink: &mut impl RecordSink,
    ) -> Option<Nanos> {
        match self.flight {
            Flight::Idle => return None,
            Flight::Step(duration) => self.end_step(duration, sink),
            Flight::Leap(stretch) => self.end_leap(&stretch, sink),
        }
        self.begin(model)
    }

    fn end_step(&mut self, duration: Picos, sink: &mut impl RecordSink) {
        let start = self.clock.nanos;
        self.clock = self.clock.plus(duration);
        let now = self.clock.nanos;
        let step = self.scheduler.planned();
        let decodes = step.decodes - self.doomed.decodes();
        let mut sampled = u64::from(decodes);
        if decodes > 0 {
            sink.gaps(Gaps {
                first_ps: duration,
                growth_ps: 0,
                steps: 1,
                tokens: decodes,
            });
        }
        for (id, Chunk { sample, .. }) in step.chunk_sequences.iter().zip(&step.chunks) {
            if *sample && !self.doomed.contains(*id) {
                sampled += 1;
                if let Some(gap) = passage(&mut self.passages, *id).sampled(now) {
                    let first_ps = gap * PICOS_PER_NANO;
                    sink.gaps(Gaps {
                        first_ps,
                        growth_ps: 0,
                        steps: 1,
                        tokens: 1,
                    });
                }
            }
        }
        self.tally.tokens += sampled;
        self.tally.steps += 1;
        self.tally.busy_ns += now - start;
        self.scheduler.commit_to_length();
        self.end_finished(sink);
    }

    fn end_leap(&mut self, stretch: &Stretch, sink: &mut impl RecordSink) {
        self.clock = stretch.end();
        let tokens = stretch.batch - self.doomed.decodes();
        if tokens > 0 {
            sink.gaps(Gaps {
                first_ps: stretch.first(),
                growth_ps: stretch.growth(),
                steps: stretch.steps,
                tokens,
            });
        }
        self.tally.tokens += u64::from(tokens) * u64::from(stretch.steps);
        self.tally.steps += u64::from(stretch.steps);
        self.tally.busy_ns += self.clock.nanos - stretch.start.nanos;
        let mut contents = Contents {
            passages: &self.passages,
            block_size: self.block_size,
        };
        self.scheduler.leap(stretch.steps, &mut contents);
        self.end_finished(sink);
    }

    fn end_finished(&mut self, sink: &mut impl RecordSink) {
        for id in self.scheduler.finished() {
            let passage = self.passages[*id as usize]
                .take()
                .expect("a finished sequence was live");
            self.tally.outstanding -= 1;
            if let Some(gate) = &mut self.adapters {
                gate.release_of(self.clock.nanos, &passage);
            }
            let tokens = passage.request.output_tokens;
            sink.request(&passage.record(
                self.clock.nanos,
                Outcome::Completed,
                tokens,
                Some(self.id),
            ));
        }
        self.bury();
    }
}

/// What others may look at.
impl<'a> Replica<'a> {
    /// Sequences in the batch, and those that wait for it or for their adapter.
    pub(crate) fn load(&self) -> (u32, u32) {
        let for_adapters = self.adapters.as_ref().map_or(0, AdapterGate::waiting);
        let waiting = self.scheduler.waiting() + for_adapters;
        (self.scheduler.running(), waiting)
    }

    /// What its adapters have done so far.
    pub(crate) fn adapter_tally(&self) -> AdapterTally {
        (self.adapters.as_ref()).map_or(AdapterTally::default(), |gate| gate.tally)
    }

    /// The adapters that it holds, if the deployment has any.
    pub(crate) fn adapters(&mut self) -> Option<&mut AdapterGate<'a>> {
        self.adapters.as_mut()
    }

    /// Tokens generated by `now`, those of a leap in flight included.
    pub(crate) fn tokens_by(&self, now: Nanos) -> u64 {
        self.tally.tokens
            + self.leapt(now, |stretch, done| {
                u64::from(stretch.batch - self.doomed.decodes()) * u64::from(done)
            })
    }

    /// KV blocks in use, as stepping would have it: with those of the step in
    /// flight, when only steps that begin from `joins_from` on are to come.
    pub(crate) fn kv_blocks_used(&self, joins_from: Nanos) -> u32 {
        let steps = self.leapt(joins_from.saturating_sub(1), |stretch, done| {
            u64::from((done + 1).min(stretch.steps))
        });
        self.scheduler.blocks_used_after(steps as u32)
    }

    /// What an autoscaler sees that looks at each replica.
    pub(crate) fn observed(&self, now: Nanos) -> ReplicaLoad {
        let (running, waiting) = self.load();
        let (_, past) = self.scheduler.decoding();
        let leapt = self.leapt(now, |stretch, done| {
            u64::from(stretch.batch) * u64::from(done)
        });
        ReplicaLoad {
            replica: self.id,
            running,
            waiting,
            kv_blocks_used: self.kv_blocks_used(now),
            kv_blocks: self.blocks,
            kv_block_tokens: self.block_size,
            prompt_tokens_waiting: self.scheduler.prompt_tokens_waiting(),
            context_tokens: past + leapt,
            tokens_generated: self.tokens_by(now),
        }
    }

    /// Time with a step in flight, by `now`.
    pub(crate) fn busy_by(&self, now: Nanos) -> Nanos {
        match self.flight {
            Flight::Idle => self.tally.busy_ns,
            _ => self.tally.busy_ns + (now - self.clock.nanos),
        }
    }

    fn leapt(&self, now: Nanos, of: impl Fn(&Stretch, u32) -> u64) -> u64 {
        match &self.flight {
            Flight::Leap(stretch) => of(stretch, stretch.done_by(now)),
            _ => 0,
        }
    }
}

fn passage(passages: &mut [Option<Passage>], id: SequenceId) -> &mut Passage {
    passages[id as usize]
        .as_mut()
        .expect("a scheduled sequence is live")
}
