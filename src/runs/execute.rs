//! The runs themselves, shared by threads. What comes out does not depend on
//! how many there are.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_core::time::SECOND;
use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord, RunTotals};
use foresail_reports::{Measurements, RecordFiles, SealedFiles, Summary};
use foresail_scenarios::duration;
use foresail_scenarios::workload::{Request, Requests, Skipped, WorkloadError};
use foresail_simulator::{
    Deployed, Options, SimulationError, foresee, simulate, simulate_together,
};

use super::plan::{Job, Member};
use crate::description;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// What all runs have in common.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// Whether runs of equal steps are done at once.
    pub(crate) leaps: bool,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) progress: &'a Progress,
}

/// A run of a deployment that has ended well.
#[derive(Debug)]
pub(crate) struct Run {
    /// What messages call it.
    pub(crate) name: String,
    /// Whether its step times are a draw, not the best values.
    pub(crate) is_drawn: bool,
    pub(crate) summary: Summary,
    /// With the best step times and the same requests, if that was wanted and is another run.
    pub(crate) best: Option<Box<Summary>>,
    /// Its records, until they are put in place.
    pub(super) files: Option<SealedFiles>,
    /// What is good to know about its requests.
    pub(crate) notes: Vec<String>,
}

/// Does all jobs, in their order as far as threads allow. The runs come in the
/// order of the jobs, one for each deployment. If some fail, the failure is that of the first of them,
/// as with one thread.
pub(crate) fn all(
    jobs: Vec<Job>,
    threads: usize,
    context: &Context<'_>,
) -> Result<Vec<Vec<Run>>, Failure> {
    let threads = threads.min(jobs.len());
    let pool = Pool {
        queue: Mutex::new(jobs.into_iter().enumerate()),
        failed: AtomicUsize::new(usize::MAX),
        context,
    };
    let mut ended = BTreeMap::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| pool.work())).collect();
        for worker in workers {
            // A panic is a defect, and ends the command as one.
            ended.extend(
                worker
                    .join()
                    .unwrap_or_else(|defect| panic::resume_unwind(defect)),
            );
        }
    });
    context.interrupt.check()?;
    ended.into_values().collect()
}

/// Jobs that threads take one by one.
struct Pool<'a, J> {
    queue: Mutex<J>,
    /// The first job that is known to have failed; those after it are in vain.
    failed: AtomicUsize,
    context: &'a Context<'a>,
}

impl<J: Iterator<Item = (usize, Job)>> Pool<'_, J> {
    /// Does jobs until there are none left.
    fn work(&self) -> Vec<(usize, Result<Vec<Run>, Failure>)> {
        let mut ended = Vec::new();
        while let Some((index, job)) = self.next() {
            let result = run(job, self.context, || self.is_in_vain(index));
            if result.is_err() {
                self.failed.fetch_min(index, Ordering::Relaxed);
            }
            ended.push((index, result));
        }
        ended
    }

    fn next(&self) -> Option<(usize, Job)> {
        // Taking the next job does not panic, so the queue is sound even if a run did.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next().filter(|(index, _)| !self.is_in_vain(*index))
    }

    fn is_in_vain(&self, index: usize) -> bool {
        self.context.interrupt.is_requested() || self.failed.load(Ordering::Relaxed) < index
    }
}

/// A job, and where that is wanted its members again with the best step times.
fn run(
    job: Job,
    context: &Context<'_>,
    is_in_vain: impl Fn() -> bool,
) -> Result<Vec<Run>, Failure> {
    let differs = |member: &Member| member.is_drawn && member.is_best_wanted;
    let best = job.members.iter().any(differs).then(|| Job {
        seed: job.seed,
        name: job.name.clone(),
        members: job.members.iter().map(Member::best).collect(),
        is_list: job.is_list,
    });
    let mut runs = run_once(job, context, context.progress, &is_in_vain)?;
    if let Some(best) = best {
        // Nobody was told to expect these requests.
        let silent = Progress::new(None, false);
        let best = run_once(best, context, &silent, &is_in_vain)?;
        for (run, best) in runs.iter_mut().zip(best) {
            run.best = Some(Box::new(best.summary));
        }
    }
    Ok(runs)
}

fn run_once(
    mut job: Job,
    context: &Context<'_>,
    progress: &Progress,
    is_in_vain: impl Fn() -> bool,
) -> Result<Vec<Run>, Failure> {
    let cannot_write = Cell::new(false);
    let members = job.members.drain(..);
    let actors = members.map(|member| Actor::new(member, &cannot_write));
    let mut actors = actors.collect::<Result<Vec<_>, _>>()?;
    let is_to_stop = || is_in_vain() || cannot_write.get();
    let watch = watch(&job.name, progress, is_to_stop);
    let started = Instant::now();
    for actor in &mut actors {
        actor.foresee(is_to_stop)?;
    }
    let ended = play(&mut actors, &job, context.leaps, watch);
    let wall_s = started.elapsed().as_secs_f64();
    match ended {
        Ok(totals) => {
            let with_totals = actors.into_iter().zip(totals);
            with_totals
                .map(|(actor, totals)| actor.into_run(&totals, wall_s))
                .collect()
        }
        Err(source) => Err(failure(&job.name, source, actors)),
    }
}

/// Plays the deployments of a job, together if they are those of a list.
fn play(
    actors: &mut [Actor<'_>],
    job: &Job,
    leaps: bool,
    mut watch: impl FnMut(foresail_simulator::Progress) -> ControlFlow<()>,
) -> Result<Vec<RunTotals>, SimulationError> {
    let deployed = actors.iter_mut().map(Actor::deployed);
    if job.is_list {
        let seed = job.seed;
        return simulate_together(deployed.collect(), Options { seed, leaps }, watch);
    }
    let totals = deployed.map(|only| {
        let options = Options {
            seed: only.seed,
            leaps,
        };
        simulate(only.scenario, only.requests, options, only.sink, &mut watch)
    });
    totals.collect()
}

/// Where the records of a deployment go.
type Sink<'a> = (Measurements, Option<WatchedFiles<'a>>);

/// A deployment and all that its run takes.
struct Actor<'a> {
    member: Member,
    requests: Requests,
    /// Tokens of the longest request so far, prompt and output.
    tokens_max: u64,
    sink: Sink<'a>,
}

impl<'a> Actor<'a> {
    fn new(mut member: Member, cannot_write: &'a Cell<bool>) -> Result<Self, Failure> {
        if member.is_drawn {
            member.scenario = Arc::new(member.scenario.drawn(member.run_seed));
        }
        let files = files(&member)?;
        let files = files.map(|files| WatchedFiles::new(files, cannot_write));
        let requests = member.open();
        let requests = requests.map_err(|source| simulation(&member.name, source.into()))?;
        let objectives = description::objectives(&member.scenario);
        Ok(Self {
            member,
            requests,
            tokens_max: 0,
            sink: (Measurements::new(&objectives), files),
        })
    }

    /// If its policy is the oracle, tells it what will come.
    fn foresee(&mut self, is_to_stop: impl Fn() -> bool) -> Result<(), Failure> {
        let Member {
            scenario,
            seed,
            name,
            ..
        } = &mut self.member;
        let AutoscalerConfig::Oracle(_) = scenario.deployment.autoscaler else {
            return Ok(());
        };
        // These requests are not counted: they are the same as those of the run.
        let foreseen = foresee(Arc::make_mut(scenario), *seed, |_| {
            if is_to_stop() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        foreseen.map_err(|source| simulation(name, source))
    }

    fn deployed(
        &mut self,
    ) -> Deployed<'_, impl Iterator<Item = Result<Request, WorkloadError>>, Sink<'a>> {
        let Self {
            member,
            requests,
            tokens_max,
            sink,
        } = self;
        let requests = requests.inspect(|request| {
            let tokens = request.as_ref().map_or(0, tokens);
            *tokens_max = tokens.max(*tokens_max);
        });
        Deployed {
            scenario: &member.scenario,
            requests,
            sink,
            seed: member.seed,
        }
    }

    fn into_run(self, totals: &RunTotals, wall_s: f64) -> Result<Run, Failure> {
        let Self {
            member,
            requests,
            tokens_max,
            sink: (measurements, files),
        } = self;
        let workload = requests.describe();
        let described = description::of_run(
            &member.scenario,
            member.run_seed,
            workload,
            &member.settings,
        );
        let summary = measurements.summary(&described, totals);
        let files = files.map(|watched| watched.files.seal(&summary));
        let mut notes = member.scenario.deployment.notes.clone();
        notes.extend(self::notes(&requests, totals.offered));
        notes.extend(too_long(
            &member,
            summary.requests.rejected_too_long,
            tokens_max,
        ));
        Ok(Run {
            name: member.name,
            is_drawn: member.is_drawn,
            summary: summary.with_wall_s(wall_s),
            best: None,
            files: files.transpose()?,
            notes,
        })
    }
}

/// The files of a run, if its records are wanted.
fn files(member: &Member) -> Result<Option<RecordFiles>, Failure> {
    let Some(folder) = &member.folder else {
        return Ok(None);
    };
    let files = RecordFiles::create(folder)?;
    let overhead = member.scenario.deployment.request_overhead();
    Ok(Some(if overhead.is_none() {
        files
    } else {
        files.with_outside()?
    }))
}

/// Tells of progress now and then, and stops a run whose result nobody will see.
fn watch(
    name: &str,
    progress: &Progress,
    is_to_stop: impl Fn() -> bool,
) -> impl FnMut(foresail_simulator::Progress) -> ControlFlow<()> {
    let mut received = 0;
    move |now| {
        let message = format!(
            "{name} at {}",
            duration::format_nanos(now.now / SECOND * SECOND)
        );
        progress.advance(now.received - received, message);
        received = now.received;
        if is_to_stop() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Why a run ended: the simulator's word, or that of the files that made it stop.
fn failure(run: &str, source: SimulationError, actors: Vec<Actor<'_>>) -> Failure {
    let files = actors.into_iter().filter_map(|actor| actor.sink.1);
    let mut errors = files.filter_map(|watched| watched.files.into_error());
    match errors.next() {
        Some(error) => error.into(),
        None => simulation(run, source),
    }
}

fn simulation(run: &str, source: SimulationError) -> Failure {
    let run = run.to_owned();
    Failure::Simulation { run, source }
}

/// What was done to the requests on the way, which the person may not expect.
fn notes(requests: &Requests, offered: u64) -> Vec<String> {
    let mut notes = Vec::new();
    let skipped = requests.skipped();
    if skipped.rows > 0 {
        let Skipped { rows, reason } = skipped;
        notes.push(format!(
            "rows of the trace that were skipped: {rows} ({reason})"
        ));
    }
    // A few are what a `max` is for. Many make the lengths others than the
    // scenario says, a prompt and an answer to a request.
    let redrawn = requests.redrawn_lengths();
    if redrawn > offered / 50 {
        notes.push(format!(
            "lengths drawn again because they were above `max`: {redrawn}"
        ));
    }
    let ended_early = requests.sessions_ended_early();
    if ended_early > 0 {
        notes.push(format!(
            "conversations that the largest context cut short: {ended_early}"
        ));
    }
    notes
}

/// Prompt and output of a request.
fn tokens(request: &Request) -> u64 {
    u64::from(request.prompt_tokens) + u64::from(request.output_tokens)
}

/// What to do about requests that are longer than the context, if there are any.
fn too_long(member: &Member, rejected: u64, tokens_max: u64) -> Option<String> {
    let context = member.scenario.deployment.batching.max_model_len;
    (rejected > 0).then(|| {
        format!(
            "requests rejected because they are longer than the context of {context} tokens: \
             {rejected}; the longest has {tokens_max}: raise deployment.max_model_len if the model \
             allows more, or choose a model with a longer context"
        )
    })
}

/// Files that say at once that they cannot be written, so that a long run need
/// not go on to its end.
struct WatchedFiles<'a> {
    files: RecordFiles,
    has_failed: &'a Cell<bool>,
}

impl<'a> WatchedFiles<'a> {
    fn new(files: RecordFiles, has_failed: &'a Cell<bool>) -> Self {
        Self { files, has_failed }
    }
}

impl RecordSink for WatchedFiles<'_> {
    #[inline]
    fn request(&mut self, record: &RequestRecord) {
        self.files.request(record);
        self.has_failed.set(self.files.error().is_some());
    }

    fn gaps(&mut self, gaps: Gaps) {
        self.files.gaps(gaps);
    }

    fn change(&mut self, change: &Change) {
        self.files.change(change);
        self.has_failed.set(self.files.error().is_some());
    }
}
