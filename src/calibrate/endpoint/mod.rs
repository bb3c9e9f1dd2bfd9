//! `foresail calibrate endpoint`: a profile of any endpoint, from what its requests take.
//!
//! ```text
//! arguments ── probe ──> sizes ── design ──> runs, shuffled ── measure ──┐  first half
//!                                            the same, shuffled again ───┤  second half: noise, drift
//!                                                                        v
//!    profile, text, picture <── fit by simulating the same requests <── findings: batch limit, prefix cache
//! ```
//!
//! Everything that can be wrong is said before anything is measured, as far as it can be known; and what
//! was measured and is not to be trusted becomes no profile.

mod arguments;
mod burst;
mod design;
mod findings;
mod measure;
mod probe;
mod profile;
mod show;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use foresail_core::step_time::CalibratedProfile;
use foresail_loadgen::bodies::Form;
use foresail_scenarios::random::stream;

pub(crate) use arguments::Arguments;
use burst::BatchLimit;
use design::{Job, Kind, Sizes};
use findings::{FitRun, Noise, PrefixCache};
use measure::{Client, Done, FIRST_TOKEN_PATIENCE_NS};
use probe::Probed;
use profile::{Engine, Facts};
use show::Shown;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::load::{endpoint, models, tokenizer};
use crate::output_file::NamedFile;
use crate::progress::Progress;
use crate::terminal::{OutputFormat, Terminal};

/// With a larger share of requests that fail, nothing is known of the load.
const FAILED_SHARE_MAX: f64 = 0.1;
/// So many requests say whether that is so.
const FAILED_OF_MIN: usize = 20;
/// Answers are so long (tokens), the longest for which there is time.
const OUTPUT_TOKENS: [u32; 4] = [64, 48, 32, 24];
/// The share of the budget that a half may take by what is expected.
const HALF_SHARE: f64 = 0.45;
/// So many times the budget is more than about as long.
const LATE_MIN: f64 = 1.1;

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let engine = Engine::of(&arguments.known)?;
    let (path, api) = endpoint::api(&arguments.endpoint)?;
    let counting = tokenizer::counting(&arguments.prompts.of_load())?;
    let target = endpoint::target(&arguments.endpoint, &path)?;
    // First of all, so that a place that cannot be written is known before it is measured.
    let out = NamedFile::create("--out", &arguments.output.out)?;
    let picture = arguments.output.picture.as_deref();
    let picture = picture.map(|path| NamedFile::create("--picture", path));
    let picture = picture.transpose()?;
    let interrupt = Interrupt::listen()?;
    let client = Client {
        target: &target,
        model: models::name(&arguments.endpoint, &path)?,
        form: match api {
            endpoint::Api::Completions => Form::Completions,
            endpoint::Api::Chat => Form::Chat,
        },
        counting: &counting,
        interrupt: &interrupt,
    };
    let measured = measure_all(&client, arguments, terminal)?;
    let said = measured.said(&client, arguments);
    let mut runs = measured.fit_runs();
    let noise = findings::noise(&runs);
    findings::with_noise(&mut runs, &noise);
    let batch_limit = burst::batch_limit(measured.sound().map(|(_, done)| done));
    let notes = notes(&measured, &noise, arguments);
    let mut facts = Facts {
        known: &arguments.known,
        engine: &engine,
        model: &client.model,
        url: &endpoint::shown(&arguments.endpoint),
        seed: arguments.measurement.seed,
        batch_limit: &batch_limit,
        noise: &noise,
        said,
    };
    let fit = profile::fit(&runs, &facts)?;
    if fit.limits.max_num_seqs.is_none() {
        facts.said.extend(of_batch_limit(&batch_limit, arguments));
    }
    interrupt.check()?;
    let profile = profile::profile(&fit, facts);
    let shown = Shown {
        profile: &profile,
        fit: &fit,
        runs: &runs,
        notes: &notes,
        out: arguments.output.out.display().to_string(),
    };
    write(&shown, out, picture)?;
    let text = match arguments.output.format {
        OutputFormat::Text => show::text(&shown),
        OutputFormat::Json => {
            show::json(&shown).map_err(|error| Failure::Defect(error.to_string()))?
        }
    };
    terminal.print(&text)?;
    Ok(ExitCode::Success)
}

fn write(shown: &Shown<'_>, out: NamedFile, picture: Option<NamedFile>) -> Result<(), Failure> {
    let profile: &CalibratedProfile = shown.profile;
    let text = serde_json::to_string_pretty(profile)
        .map_err(|error| Failure::Defect(error.to_string()))?;
    if let Some(picture) = picture {
        picture.write(&show::picture(shown))?;
    }
    out.write(&(text + "\n"))
}

/// Everything that was measured.
struct Measured {
    /// The runs, each with the half that it is of.
    done: Vec<(usize, Done)>,
    probed: Probed,
    /// Runs of the plan for which there was no time.
    skipped: usize,
    /// How long it took in all.
    took: Duration,
}

impl Measured {
    /// The runs that are fitted, in the order of the design.
    fn sound(&self) -> impl Iterator<Item = (usize, &Done)> {
        let sound = self
            .done
            .iter()
            .filter(|(_, done)| findings::is_sound(done));
        sound.map(|(half, done)| (*half, done))
    }

    fn fit_runs(&self) -> Vec<FitRun> {
        self.sound()
            .flat_map(|(half, done)| findings::fit_runs(done, half))
            .collect()
    }

    /// What has to be known of the profile beside the fit.
    fn said(&self, client: &Client<'_>, arguments: &Arguments) -> Vec<String> {
        let mut said = Vec::new();
        let is_counted = self.done.iter().all(|(_, done)| findings::is_counted(done));
        let is_exact = matches!(
            client.counting,
            foresail_loadgen::bodies::Counting::Exact(_)
        );
        if !is_counted {
            said.push(
                "The endpoint does not count tokens (`usage`): each chunk of an answer was taken for one.".to_owned(),
            );
        }
        if !is_counted && !is_exact {
            said.push(
                "Prompts are about as long as was planned and not exactly, as nobody counted their tokens; \
                 --tokenizer would."
                    .to_owned(),
            );
        }
        if self.probed.prompt_tokens_max < arguments.prompts.prompt_tokens_max.get() {
            said.push(format!(
                "The endpoint refused prompts of more than about {} tokens: longer ones are extrapolated.",
                self.probed.prompt_tokens_max
            ));
        }
        said.push(of_prefix_cache(findings::prefix_cache(
            self.sound().map(|(_, done)| done),
        )));
        said
    }
}

fn of_prefix_cache(found: PrefixCache) -> String {
    match found {
        PrefixCache::Seen(share) => format!(
            "There is a prefix cache: a prompt that came again took {:.0} % of the time. No fitted run used it.",
            share * 100.0
        ),
        PrefixCache::NotSeen(share) => format!(
            "No prefix cache was seen: the same prompt took {:.0} % of the time again.",
            share * 100.0
        ),
        PrefixCache::NotMeasured => {
            "Whether there is a prefix cache is open: the run that looks for one was held up, or failed.".to_owned()
        }
    }
}

fn of_batch_limit(limit: &BatchLimit, arguments: &Arguments) -> Option<String> {
    if arguments.known.max_num_seqs.is_some() {
        return None;
    }
    match limit {
        BatchLimit::Found(_) => None,
        BatchLimit::AtLeast(least) => Some(format!(
            "The batch limit is at least {least}: all of a burst of so many began at once; --burst sends more."
        )),
        BatchLimit::Prompts(least) => Some(format!(
            "The batch limit is at least {least}: so many of a burst were computed at once, and nothing shows that the \
             others waited for a place, and not for each other's prompts; --max-num-seqs takes it if it is known."
        )),
        BatchLimit::Between(least, most) => Some(format!(
            "The batch limit is from {least} to {most}: bursts differed."
        )),
        BatchLimit::Unknown => {
            Some("The batch limit is open: no burst came through whole.".to_owned())
        }
    }
}

/// What is good to know, but for what the profile says itself.
fn notes(measured: &Measured, noise: &Noise, arguments: &Arguments) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(drift) = noise.drift {
        notes.push(format!(
            "the second half took {:+.1} % as long as the first: something drifted, and the fit is of both",
            drift * 100.0
        ));
    }
    for (half, done) in &measured.done {
        let which = ["first", "second"][*half];
        if let Some(reason) = done.degraded.first() {
            notes.push(format!(
                "{} ({which} half) is not fitted: {reason}",
                done.job.name
            ));
        } else if !findings::is_sound(done) {
            let (failed, sent) = (done.failed(), done.records.len());
            notes.push(format!(
                "{} ({which} half) is not fitted: {failed} of {sent} requests failed",
                done.job.name
            ));
        }
    }
    let budget = Duration::from_nanos(arguments.measurement.budget);
    if measured.took > budget.mul_f64(LATE_MIN) {
        notes.push(format!(
            "measuring took {:.0} s where --budget has {:.0} s: the first half is always measured whole, and was slower \
             than single requests had promised",
            measured.took.as_secs_f64(),
            budget.as_secs_f64()
        ));
    }
    if measured.skipped > 0 {
        notes.push(format!(
            "there was no time for {} runs of the second half; a longer --budget has it",
            measured.skipped
        ));
    }
    notes
}

/// Probes, and does all runs, in random order, a half after the other.
fn measure_all(
    client: &Client<'_>,
    arguments: &Arguments,
    terminal: &Terminal,
) -> Result<Measured, Failure> {
    let began = Instant::now();
    let budget = Duration::from_nanos(arguments.measurement.budget);
    let probed = probe::probe(client, arguments.prompts.prompt_tokens_max, terminal)?;
    let jobs = jobs(&probed, arguments)?;
    let progress = Progress::of("runs", Some(2 * jobs.len() as u64), !terminal.quiet);
    let mut random = stream(arguments.measurement.seed, "calibrate.endpoint.order");
    let mut measured = Measured {
        done: Vec::new(),
        probed,
        skipped: 0,
        took: Duration::ZERO,
    };
    // Of many at once, the last may have to wait for as long as measuring takes.
    let patience_ns = FIRST_TOKEN_PATIENCE_NS.max(arguments.measurement.budget);
    for half in 0..2 {
        let mut order: Vec<&Job> = jobs.iter().collect();
        design::shuffle(&mut order, &mut random);
        for job in order {
            let is_needed = half == 0 || job.kind != Kind::Prefix;
            if half == 1 && began.elapsed() + expected(&measured, job) > budget {
                measured.skipped += usize::from(is_needed);
            } else if is_needed {
                let done = client.run(job, patience_ns)?;
                progress.advance(1, job.name.clone());
                measured.done.push((half, done));
                refuse_failing(&measured.done)?;
            }
        }
    }
    drop(progress);
    measured.took = began.elapsed();
    refuse_degraded(&measured.done)?;
    // In the order of the design, whatever the order in which they were done.
    let place = |name: &str| jobs.iter().position(|job| job.name == name);
    measured
        .done
        .sort_by_key(|(half, done)| (*half, place(&done.job.name)));
    Ok(measured)
}

/// How long a run took the first time.
fn expected(measured: &Measured, job: &Job) -> Duration {
    let first = measured
        .done
        .iter()
        .find(|(_, done)| done.job.name == job.name);
    first.map_or(Duration::ZERO, |(_, done)| done.took)
}

/// The runs of a half, with answers as long as there is time for.
fn jobs(probed: &Probed, arguments: &Arguments) -> Result<Vec<Job>, Failure> {
    let measurement = &arguments.measurement;
    let concurrency_max = measurement.concurrency_max.get();
    let burst = measurement
        .burst
        .map_or(concurrency_max.saturating_mul(4), |burst| burst.get());
    let budget_s = measurement.budget as f64 * 1e-9;
    let mut needed_s = 0.0;
    for output_tokens in OUTPUT_TOKENS {
        let sizes = Sizes {
            prompt_tokens_min: probed.prompt_tokens_min,
            prompt_tokens_max: probed.prompt_tokens_max,
            concurrency_max,
            burst,
            output_tokens,
        };
        let mut jobs = design::half(&sizes, measurement.seed);
        jobs.push(design::prefix(&sizes));
        let expected_s: f64 = jobs
            .iter()
            .map(|job| design::estimate_s(job, &probed.alone))
            .sum();
        if expected_s <= HALF_SHARE * budget_s {
            return Ok(jobs);
        }
        needed_s = expected_s / HALF_SHARE;
    }
    Err(Failure::Input(format!(
        "--budget: at this endpoint, measuring takes about {needed_s:.0} s; give it more, or lower --concurrency-max, \
         --burst or --prompt-tokens-max"
    )))
}

/// Ends it as soon as it is plain that requests fail.
fn refuse_failing(done: &[(usize, Done)]) -> Result<(), Failure> {
    let sent: usize = done.iter().map(|(_, done)| done.records.len()).sum();
    let failed: usize = done.iter().map(|(_, done)| done.failed()).sum();
    if sent < FAILED_OF_MIN || failed as f64 <= FAILED_SHARE_MAX * sent as f64 {
        return Ok(());
    }
    let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, count) in done.iter().flat_map(|(_, done)| &done.failures) {
        *failures.entry(what).or_default() += count;
    }
    let mut failures: Vec<(&str, u64)> = failures.into_iter().collect();
    failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let told = failures
        .iter()
        .take(4)
        .map(|(what, count)| format!("{count} {what}"));
    Err(Failure::Degraded(format!(
        "{failed} of {sent} requests failed, so that nothing is known of the load; no profile was written. What came \
         back: {}",
        told.collect::<Vec<_>>().join("; ")
    )))
}

/// Where the client was the limit more often than not, the endpoint was not measured.
fn refuse_degraded(done: &[(usize, Done)]) -> Result<(), Failure> {
    let degraded: Vec<&Done> = (done.iter())
        .map(|(_, done)| done)
        .filter(|done| !done.degraded.is_empty())
        .collect();
    if 2 * degraded.len() <= done.len() {
        return Ok(());
    }
    let reason = degraded.first().and_then(|done| done.degraded.first());
    Err(Failure::Degraded(format!(
        "the client was the limit in {} of {} runs; no profile was written. In the first of them, {}",
        degraded.len(),
        done.len(),
        reason.map_or("", |reason| reason.as_str())
    )))
}

#[cfg(test)]
mod tests {
    use foresail_reports::records::{Outcome, RequestRecord};

    use super::*;

    fn done(failed: usize, sent: usize, degraded: bool) -> (usize, Done) {
        let record = |index: usize| RequestRecord {
            id: index as u64,
            due_ns: 0,
            prompt_tokens: 1,
            output_tokens: 1,
            session: None,
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome: match index < failed {
                true => Outcome::FailedStatus,
                false => Outcome::Completed,
            },
            first_token_ns: Some(1),
            end_ns: 1,
            parts: None,
            wire: None,
        };
        let sizes = Sizes {
            prompt_tokens_min: 32,
            prompt_tokens_max: 128,
            concurrency_max: 1,
            burst: 1,
            output_tokens: 2,
        };
        let done = Done {
            job: design::prefix(&sizes),
            records: (0..sent).map(record).collect(),
            degraded: degraded
                .then(|| "it had no time".to_owned())
                .into_iter()
                .collect(),
            failures: BTreeMap::from([("failed status with status 500".to_owned(), failed as u64)]),
            took: Duration::ZERO,
        };
        (0, done)
    }

    #[test]
    fn many_failures_end_it_and_a_few_do_not() {
        assert!(refuse_failing(&[done(2, 20, false)]).is_ok());
        // Too few were sent to say.
        assert!(refuse_failing(&[done(4, 8, false)]).is_ok());
        let failure = refuse_failing(&[done(1, 10, false), done(9, 30, false)]).unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::Degraded);
        insta::assert_snapshot!(failure, @"10 of 40 requests failed, so that nothing is known of the load; no profile was written. What came back: 10 failed status with status 500");
    }

    #[test]
    fn a_client_that_was_the_limit_measured_nothing() {
        let sound = || done(0, 10, false);
        let degraded = || done(0, 10, true);
        assert!(refuse_degraded(&[sound(), degraded()]).is_ok());
        let failure = refuse_degraded(&[sound(), degraded(), degraded()]).unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::Degraded);
        insta::assert_snapshot!(failure, @"the client was the limit in 2 of 3 runs; no profile was written. In the first of them, it had no time");
    }
}
