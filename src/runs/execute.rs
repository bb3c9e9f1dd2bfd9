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
use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord};
use foresail_reports::{Measurements, RecordFiles, SealedFiles, Summary};
use foresail_scenarios::duration;
use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::{Request, Requests, Skipped};
use foresail_simulator::{Options, SimulationError, foresee, simulate};

use super::plan::Job;
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

/// A run that has ended well.
#[derive(Debug)]
pub(crate) struct Run {
    /// What messages call it.
    pub(crate) name: String,
    pub(crate) summary: Summary,
    /// Its records, until they are put in place.
    pub(super) files: Option<SealedFiles>,
    /// What is good to know about its requests.
    pub(crate) notes: Vec<String>,
}

/// Does all jobs, in their order as far as threads allow. The runs come in the
/// order of the jobs. If some fail, the failure is that of the first of them,
/// as with one thread.
pub(crate) fn all(
    jobs: Vec<Job>,
    threads: usize,
    context: &Context<'_>,
) -> Result<Vec<Run>, Failure> {
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
    fn work(&self) -> Vec<(usize, Result<Run, Failure>)> {
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

fn run(mut job: Job, context: &Context<'_>, is_in_vain: impl Fn() -> bool) -> Result<Run, Failure> {
    let cannot_write = Cell::new(false);
    let files = job.folder.as_ref().map(RecordFiles::create).transpose()?;
    let files = files.map(|files| WatchedFiles::new(files, &cannot_write));
    let mut requests = job
        .open()
        .map_err(|source| failure(&job, source.into(), None))?;
    let mut sink = (
        Measurements::new(&description::objectives(&job.scenario)),
        files,
    );
    let options = Options {
        seed: job.seed,
        leaps: context.leaps,
    };
    let is_to_stop = || is_in_vain() || cannot_write.get();
    let watch = watch(&job.name, context.progress, is_to_stop);
    let started = Instant::now();
    let scenario =
        with_foresight(&job, is_to_stop).map_err(|source| failure(&job, source, None))?;
    let mut tokens_max = 0;
    let offered = requests.by_ref().inspect(|request| {
        let tokens = request.as_ref().map_or(0, tokens);
        tokens_max = tokens_max.max(tokens);
    });
    let ended = simulate(&scenario, offered, options, &mut sink, watch);
    let wall_s = started.elapsed().as_secs_f64();
    let (measurements, files) = (sink.0, sink.1.map(|watched| watched.files));
    let totals = match ended {
        Ok(totals) => totals,
        Err(source) => return Err(failure(&job, source, files)),
    };
    let workload = requests.describe();
    let described = description::of_run(&job.scenario, job.seed, workload, &job.settings);
    let summary = measurements.summary(&described, &totals);
    let files = files.map(|files| files.seal(&summary)).transpose()?;
    let mut notes = notes(&requests, totals.offered);
    notes.extend(too_long(
        &job,
        summary.requests.rejected_too_long,
        tokens_max,
    ));
    Ok(Run {
        name: job.name,
        summary: summary.with_wall_s(wall_s),
        files,
        notes,
    })
}

/// The scenario of a job, of which an oracle knows what will come.
fn with_foresight(
    job: &Job,
    is_to_stop: impl Fn() -> bool,
) -> Result<Arc<Scenario>, SimulationError> {
    let mut scenario = Arc::clone(&job.scenario);
    if let AutoscalerConfig::Oracle(_) = scenario.deployment.autoscaler {
        // These requests are not counted: they are the same as those of the run.
        foresee(Arc::make_mut(&mut scenario), job.seed, |_| {
            if is_to_stop() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
    }
    Ok(scenario)
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
fn failure(job: &Job, source: SimulationError, files: Option<RecordFiles>) -> Failure {
    match files.and_then(RecordFiles::into_error) {
        Some(error) => error.into(),
        None => Failure::Simulation {
            run: job.name.clone(),
            source,
        },
    }
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
fn too_long(job: &Job, rejected: u64, tokens_max: u64) -> Option<String> {
    let context = job.scenario.deployment.batching.max_model_len;
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
