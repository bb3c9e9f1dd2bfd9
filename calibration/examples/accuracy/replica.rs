//! One replica under other people's load generators, in virtual time.
//!
//! They either send at given times or keep so many requests in flight; most that send at given times
//! keep no more than so many in flight either. So one description serves all: when each is due, and how many
//! at once.

use foresail_core::batching::{BlockHash, Config, Content, Request, Scheduler, SequenceId};
use foresail_core::step_time::StepTime;
use foresail_core::time::Picos;

use crate::Result;

/// A request of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    /// When it is to be sent, if there is room for it (s).
    pub(crate) at_s: f64,
    pub(crate) prompt: u32,
    pub(crate) output: u32,
}

/// What a load generator sends.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// In order of time.
    pub(crate) requests: Vec<Due>,
    pub(crate) in_flight_max: usize,
}

/// What became of a request (s).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    pub(crate) sent_s: f64,
    pub(crate) first_s: f64,
    pub(crate) end_s: f64,
    pub(crate) output: u32,
}

impl Served {
    pub(crate) fn ttft_s(&self) -> f64 {
        self.first_s - self.sent_s
    }

    pub(crate) fn e2e_s(&self) -> f64 {
        self.end_s - self.sent_s
    }

    pub(crate) fn tpot_s(&self) -> f64 {
        (self.end_s - self.first_s) / f64::from(self.output.max(2) - 1)
    }
}

/// No request shares its prompt with another.
struct Unshared;

impl Content for Unshared {
    fn hash(&mut self, _: SequenceId, _: u32) -> Option<BlockHash> {
        None
    }
}

const PICOS: f64 = 1e12;

/// Serves the load. `request_s` is what a request takes before the scheduler sees it.
pub(crate) fn serve(
    load: &Load,
    config: Config,
    model: &impl StepTime,
    request_s: f64,
) -> Result<Vec<Served>> {
    let mut replica = Replica {
        scheduler: Scheduler::new(config)?,
        of_sequence: Vec::new(),
        served: vec![Served::default(); load.requests.len()],
        now: 0,
    };
    let delay = (request_s * PICOS) as Picos;
    let due = |index: usize| {
        let of = load.requests.get(index);
        of.map(|of| (of.at_s * PICOS) as Picos)
    };
    // Sent, in this order, but not yet with the scheduler: when they will be.
    let (mut sent, mut entered, mut ended) = (0, 0, 0);
    let mut enters: Vec<Picos> = Vec::with_capacity(load.requests.len());
    // When there was last no room: what was due before is sent then.
    let mut full_until = 0;
    while ended < load.requests.len() {
        while sent - ended < load.in_flight_max
            && let Some(at) = due(sent)
            && at <= replica.now
        {
            let at = at.max(full_until);
            replica.served[sent].sent_s = at as f64 / PICOS;
            enters.push(at + delay);
            sent += 1;
        }
        while entered < sent && enters[entered] <= replica.now {
            replica.enter(entered, load.requests[entered])?;
            entered += 1;
        }
        let is_full = sent - ended == load.in_flight_max;
        let next_sent = due(sent).filter(|_| !is_full);
        let next = [enters.get(entered).copied(), next_sent];
        let next = next.into_iter().flatten().min();
        if replica.scheduler.is_idle() {
            replica.now = next.ok_or("a replica waits for nothing")?.max(replica.now);
            continue;
        }
        let just_ended = replica.step(model, next);
        if is_full && just_ended > 0 {
            full_until = replica.now;
        }
        ended += just_ended;
    }
    Ok(replica.served)
}

struct Replica {
    scheduler: Scheduler,
    of_sequence: Vec<usize>,
    served: Vec<Served>,
    now: Picos,
}

impl Replica {
    fn enter(&mut self, index: usize, due: Due) -> Result<()> {
        let id = self.scheduler.add(Request {
            prompt: due.prompt,
            max_new: due.output,
            adapter: None,
            cacheable: false,
        })? as usize;
        if self.of_sequence.len() <= id {
            self.of_sequence.resize(id + 1, usize::MAX);
        }
        self.of_sequence[id] = index;
        self.served[index].output = due.output;
        Ok(())
    }

    /// Computes a step, or equal ones up to the next event, and says how many requests have ended.
    fn step(&mut self, model: &impl StepTime, next: Option<Picos>) -> usize {
        let horizon = self.scheduler.horizon();
        if horizon > 0 {
            let (batch, past) = self.scheduler.decoding();
            let piece = model.decode(batch, past);
            let time = |steps| piece.leap(batch, past, steps);
            let steps = match next {
                // As many as end before it, and the one in which it comes.
                Some(next) => fewest(horizon, |steps| self.now + time(steps) >= next),
                None => horizon,
            };
            self.now += time(steps);
            self.scheduler.leap(steps, &mut Unshared);
            return self.end();
        }
        let step = self.scheduler.schedule(&mut Unshared);
        if step.is_empty() {
            return 0;
        }
        self.now += model.step(&step.load());
        let first: Vec<SequenceId> = step
            .chunk_sequences
            .iter()
            .zip(&step.chunks)
            .filter(|(_, chunk)| chunk.sample)
            .map(|(id, _)| *id)
            .collect();
        for id in first {
            let served = &mut self.served[self.of_sequence[id as usize]];
            if served.first_s == 0.0 {
                served.first_s = self.now as f64 / PICOS;
            }
        }
        self.scheduler.commit_to_length();
        self.end()
    }

    fn end(&mut self) -> usize {
        for id in self.scheduler.finished() {
            self.served[self.of_sequence[*id as usize]].end_s = self.now as f64 / PICOS;
        }
        self.scheduler.finished().len()
    }
}

/// The fewest steps, from 1 to `most`, for which that is so; `most` if it is for none.
fn fewest(most: u32, is_so: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (1, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_so(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
