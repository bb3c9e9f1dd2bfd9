//! `foresail load`: real traffic at a real endpoint, measured.
//!
//! ```text
//! arguments ──check──> subject: scenario, trace or options ──> job: plan, settings ─┐
//!     └── endpoint: address, key, models ── target ───────────────────────────────┴─ once ─> result ─> summary, files, exit code
//!                                                        several: a sweep, or a search ──┘
//! ```
//!
//! Everything that can be wrong is said before the first request is sent: what
//! contradicts itself, a trace that is malformed in its last line, an endpoint
//! that is not there, too few file descriptors, a folder that cannot be written.

mod arguments;
pub(crate) mod endpoint;
mod exports;
mod job;
mod judge;
mod live;
pub(crate) mod models;
mod once;
mod result;
mod several;
mod show;
mod subject;
pub(crate) mod tokenizer;
mod traffic;

use std::path::Path;

use foresail_loadgen::bodies::Form;
use foresail_loadgen::client::Target;
use foresail_loadgen::dataset::{Dataset, Format};
use foresail_loadgen::scrape::{self, ReplicaCount, ScrapeTarget};
use foresail_loadgen::watch::limits::{self, Allowed};
use foresail_reports::MeasuredFiles;
use foresail_reports::summary::ScenarioFacts;
use foresail_scenarios::workload::Workload;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::terminal::Terminal;
pub(crate) use arguments::{Arguments, EndpointArguments, PromptArguments, value};
use arguments::{DatasetName, ServerArguments};
use endpoint::Api;
use exports::Records;
use job::{Common, Job};
use judge::Judged;
use once::{Done, Means, Start};
use result::Facts;

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    arguments.check()?;
    let subject = subject::of(arguments, terminal)?;
    let judged = Judged::of(arguments, &subject)?;
    let (path, api) = endpoint::api(&arguments.endpoint)?;
    let counting = tokenizer::counting(&arguments.prompts)?;
    let dataset = dataset(arguments)?;
    let common = Common {
        arguments,
        subject: &subject,
        counting: &counting,
        form: match api {
            Api::Completions => Form::Completions,
            Api::Chat => Form::Chat,
        },
        dataset: dataset.as_ref(),
    };
    let session = Session {
        common,
        judged,
        target: endpoint::target(&arguments.endpoint, &path)?,
        scrape: scrape(arguments)?,
        // Asked for once everything else is known to be sound, but for what follows from the plan.
        model: models::name(&arguments.endpoint, &path)?,
        interrupt: Interrupt::listen()?,
        terminal,
    };
    match arguments.rates.are_several() {
        true => several::run(&session),
        false => session.only_run(),
    }
}

/// What all runs of a command share.
struct Session<'a> {
    common: Common<'a>,
    judged: Judged,
    target: Target,
    scrape: Option<scrape::Settings>,
    model: String,
    interrupt: Interrupt,
    terminal: &'a Terminal,
}

impl Session<'_> {
    fn only_run(&self) -> Result<ExitCode, Failure> {
        let arguments = self.common.arguments;
        let job = self.common.job(&self.common.subject.workload, 0)?;
        let records = Records::of(&arguments.output);
        let done = self.once(&job, records.folder())?;
        show::notes(&done, self.terminal);
        let text = show::text(&done.summary, arguments.output.format, self.terminal)?;
        self.terminal.print(&text)?;
        if let Some(error) = done.not_written {
            return Err(error.into());
        }
        exports::write(arguments, &done.summary, &records)?;
        show::exit_code(&done, self.terminal)
    }

    /// A run of this job, with its records in this folder.
    fn once(&self, job: &Job, out: Option<&Path>) -> Result<Done, Failure> {
        let start_at = self.common.arguments.run.start_at;
        self.allow_connections(job)?;
        // What takes long is done before it is said when the run begins.
        let bodies = self.common.bodies(job, &self.model, once::salt(start_at))?;
        self.interrupt.check()?;
        let files = out.map(MeasuredFiles::create).transpose()?;
        let means = Means {
            target: &self.target,
            bodies,
            objectives: &self.judged.objectives,
            limits: &self.judged.limits,
            files,
            start: Start::at(start_at, self.scrape.as_ref().map(|scrape| scrape.timeout))?,
            scrape: self.scrape.clone(),
            facts: self.facts(job),
            interrupt: &self.interrupt,
            terminal: self.terminal,
        };
        self.terminal.note(&job::describe(job));
        once::run(job, means)
    }

    /// A run that meets the limit of open files midway has measured nothing.
    fn allow_connections(&self, job: &Job) -> Result<(), Failure> {
        let connections = job::connections(self.common.arguments, &job.plan);
        match limits::allow(connections) {
            Ok(Allowed::Enough { .. }) => Ok(()),
            Ok(Allowed::Raised { from, to }) => {
                self.terminal.note(&format!(
                    "raised this process's limit of open files from {from} to {to}, as up to \
                     {connections} requests may be in flight"
                ));
                Ok(())
            }
            Err(error) => Err(Failure::Input(error.to_string())),
        }
    }

    fn facts(&self, job: &Job) -> Facts {
        let (arguments, subject) = (self.common.arguments, self.common.subject);
        let model = match subject.facts.model.as_str() {
            "" => self.model.clone(),
            model => model.to_owned(),
        };
        let mut settings = subject.facts.settings.clone();
        settings.extend(arguments.limits_of_run());
        Facts {
            scenario: ScenarioFacts {
                model,
                settings,
                ..subject.facts.clone()
            },
            endpoint: endpoint::shown(&arguments.endpoint),
            billing: subject.billing,
            replicas: replica_count(&arguments.servers, subject.replicas),
            shard: arguments.run.shard.map(|shard| (shard.index, shard.count)),
            notes: self.notes(job),
        }
    }

    /// What the person may not expect of the requests.
    fn notes(&self, job: &Job) -> Vec<String> {
        let plan = &job.plan;
        let mut notes = Vec::new();
        if plan.skipped.rows > 0 {
            notes.push(format!(
                "rows of the trace that were skipped: {} ({})",
                plan.skipped.rows, plan.skipped.reason
            ));
        }
        if plan.repeated_prompts > 0 {
            notes.push(format!(
                "the dataset has fewer prompts than were sent: {} came again, which a prefix cache \
                 answers faster",
                plan.repeated_prompts
            ));
        }
        notes
    }
}

/// The dataset, if prompts come from one.
fn dataset(arguments: &Arguments) -> Result<Option<Dataset>, Failure> {
    let prompts = &arguments.prompts;
    let Some(path) = &prompts.dataset_path else {
        return Ok(None);
    };
    let dataset = Dataset::read(path).map_err(|error| Failure::Input(error.to_string()))?;
    let (wanted, named) = match prompts.dataset_name {
        Some(DatasetName::Sharegpt) => (Format::ShareGpt, "sharegpt"),
        Some(DatasetName::Custom) | Some(DatasetName::Random) | None => {
            (Format::JsonLines, "custom")
        }
    };
    if dataset.format != wanted {
        return Err(Failure::Input(format!(
            "{}: --dataset-name {named} expects {}, and this is {}",
            path.display(),
            wanted.name(),
            dataset.format.name()
        )));
    }
    Ok(Some(dataset))
}

/// How it is known how many replicas there are; a scenario may fix their number.
fn replica_count(servers: &ServerArguments, fixed: Option<u32>) -> Option<ReplicaCount> {
    if servers.replicas_metric.is_some() {
        Some(ReplicaCount::ByMetric)
    } else if servers.metrics_url.is_empty() {
        fixed.map(ReplicaCount::Fixed)
    } else {
        Some(ReplicaCount::ByTarget)
    }
}

/// What of the servers is asked for their metrics.
fn scrape(arguments: &Arguments) -> Result<Option<scrape::Settings>, Failure> {
    let (servers, endpoint) = (&arguments.servers, &arguments.endpoint);
    if servers.metrics_url.is_empty() {
        return Ok(None);
    }
    let targets = servers.metrics_url.iter().map(|url| {
        ScrapeTarget::resolve(url, &[], endpoint.ca_file.clone())
            .map_err(|error| Failure::Input(format!("--metrics-url {url}: {error}")))
    });
    let mut settings = scrape::Settings::new(targets.collect::<Result<_, _>>()?);
    settings.every = std::time::Duration::from_nanos(servers.metrics_interval);
    settings.replicas = servers.replicas_metric.clone();
    Ok(Some(settings))
}

/// The same traffic at another rate.
fn at_rate(workload: &Workload, rate_per_s: f64) -> Result<Workload, Failure> {
    let mut workload = workload.clone();
    match &mut workload.source {
        foresail_scenarios::workload::Source::Generated(generator) => {
            generator.arrivals.rate_per_s = rate_per_s;
            Ok(workload)
        }
        _ => Err(Failure::Input(
            "--rate and --ramp-until are for generated traffic; a trace has its own times: \
             --set workload.rate_scale=2 of a scenario makes it faster"
                .to_owned(),
        )),
    }
}
