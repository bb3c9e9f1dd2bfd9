//! One run, ready to be started: what is sent, what is judged, how it is sent.

use std::fmt::Write as _;
use std::sync::Arc;

use foresail_core::control::retry::RetryConfig;
use foresail_core::time::{Nanos, SECOND, Span};
use foresail_loadgen::bodies::{self, Bodies, Counting, Form};
use foresail_loadgen::dataset::{Dataset, Selection};
use foresail_loadgen::exchange::Patience;
use foresail_loadgen::record::WindowSettings;
use foresail_loadgen::run::Settings;
use foresail_loadgen::schedule::{Plan, Shard};
use foresail_loadgen::watch::limits;
use foresail_reports::summary::Load;
use foresail_scenarios::clients::{ClientRetry, Clients, RetryOn};
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::workload::Workload;

use super::arguments::{Arguments, ClientArguments};
use super::subject::Subject;
use super::traffic;
use crate::failure::Failure;

/// For a connection; longer than that, nothing is there.
const CONNECT_PATIENCE: Nanos = 30 * SECOND;

/// So many connections are opened ahead at most: enough for a load to begin with.
const WARM_CONNECTIONS_MAX: u64 = 16;

/// What is sent of a workload under a seed.
pub(super) struct Job {
    pub(super) plan: Arc<Plan>,
    pub(super) settings: Settings,
    /// The seed that reports are of.
    pub(super) seed: u64,
    pub(super) workload_seed: u64,
    /// Whether all requests are due at once, so that no rate is asked for.
    pub(super) is_at_once: bool,
}

/// What all jobs of a command have in common.
pub(super) struct Common<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) subject: &'a Subject,
    pub(super) counting: &'a Counting,
    pub(super) form: Form,
    pub(super) dataset: Option<&'a Dataset>,
}

impl Common<'_> {
    /// The job of this workload, `repeat` seeds from the subject's own.
    pub(super) fn job(&self, workload: &Workload, repeat: u64) -> Result<Job, Failure> {
        let seed = self.subject.seed.wrapping_add(repeat);
        let workload_seed = self.subject.workload_seed.wrapping_add(repeat);
        let is_at_once = traffic::is_at_once(workload);
        let mut plan = self.plan(workload, workload_seed)?;
        if is_at_once {
            plan.description = traffic::without_rate(&plan.description);
        }
        let settings = self.settings(&plan, workload_seed);
        Ok(Job {
            plan: Arc::new(plan),
            settings,
            seed,
            workload_seed,
            is_at_once,
        })
    }

    fn plan(&self, workload: &Workload, seed: u64) -> Result<Plan, Failure> {
        let mut plan = Plan::new(workload, seed, self.shard()?)?;
        if let Some(count) = self.arguments.traffic.num_prompts {
            plan.requests.retain(|planned| planned.id < count.get());
            plan.requests_total = plan.requests_total.min(count.get());
        }
        if let Some(dataset) = self.dataset {
            let selection = Selection {
                output_tokens: self
                    .arguments
                    .prompts
                    .random_output_len
                    .map(|tokens| tokens.get()),
                ..Selection::usual(dataset.format)
            };
            plan = plan
                .with_dataset(dataset, &selection, (self.counting, self.form), seed)
                .map_err(|error| Failure::Input(error.to_string()))?;
            if let Some(path) = &self.arguments.prompts.dataset_path {
                plan.description = traffic::with_prompts_of(&plan.description, path);
            }
        }
        if plan.requests.is_empty() {
            return Err(Failure::Input(
                "there is nothing to send: the traffic has no requests, or this shard has none of them"
                    .to_owned(),
            ));
        }
        Ok(plan)
    }

    pub(super) fn shard(&self) -> Result<Shard, Failure> {
        match self.arguments.run.shard {
            None => Ok(Shard::WHOLE),
            Some(shard) => Shard::new(shard.index, shard.count)
                .map_err(|error| Failure::Input(format!("--shard: {error}"))),
        }
    }

    fn settings(&self, plan: &Plan, seed: u64) -> Settings {
        let (arguments, run) = (self.arguments, &self.arguments.run);
        let threads = run.threads.get();
        Settings {
            threads,
            load: load(arguments),
            duration_ns: arguments.traffic.duration,
            drain_ns: run.drain_timeout,
            is_streamed: !arguments.prompts.no_stream,
            patience: patience(&arguments.clients),
            clients: clients(&self.subject.clients, &arguments.clients),
            seed,
            warm_connections: (connections(arguments, plan).min(WARM_CONNECTIONS_MAX) as usize)
                .div_ceil(threads),
            window: WindowSettings {
                warm_up_ns: run.warmup,
                cool_down_ns: run.cooldown.unwrap_or(0),
            },
            ..Settings::default()
        }
    }

    /// The bodies of a job. `model` is what requests call it, `salt` what makes its texts those of this run.
    pub(super) fn bodies(&self, job: &Job, model: &str, salt: u64) -> Result<Bodies, Failure> {
        let prompts = &self.arguments.prompts;
        let settings = bodies::Settings {
            model: model.to_owned(),
            form: self.form,
            is_streamed: !prompts.no_stream,
            is_eos_ignored: prompts.ignore_eos || (self.dataset.is_none() && !prompts.stop_at_eos),
            temperature: prompts.temperature,
            extra: prompts
                .extra_body
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            seed: job.workload_seed,
            salt,
            ..bodies::Settings::default()
        };
        Bodies::new(&settings, &job.plan.adapters, self.counting)
            .map_err(|error| Failure::Input(error.to_string()))
    }
}

fn load(arguments: &Arguments) -> Load {
    let traffic = &arguments.traffic;
    match (traffic.concurrency, traffic.max_concurrency) {
        (Some(users), _) => Load::Closed {
            concurrency: users.get().into(),
        },
        (None, Some(cap)) => Load::Capped {
            in_flight_max: cap.get().into(),
        },
        (None, None) => Load::Open,
    }
}

fn patience(arguments: &ClientArguments) -> Patience {
    Patience {
        connect_ns: Some(CONNECT_PATIENCE),
        first_output_ns: arguments.first_token_timeout,
        stall_ns: arguments.stall_timeout,
        total_ns: arguments.timeout,
    }
}

/// The scenario's clients, unless the arguments say how often they send again.
fn clients(of_scenario: &Clients, arguments: &ClientArguments) -> Clients {
    let retry = match arguments.retries {
        None => of_scenario.retry.clone(),
        Some(0) => None,
        Some(retries) => Some(ClientRetry {
            config: RetryConfig {
                attempts_max: retries.saturating_add(1),
                ..RetryConfig::CLIENT
            },
            jitter: Distribution::Fixed { value: 1.0 },
            retry_on: RetryOn::ALL,
        }),
    };
    Clients {
        retry,
        ..of_scenario.clone()
    }
}

/// How many connections may be needed at once.
pub(super) fn connections(arguments: &Arguments, plan: &Plan) -> u64 {
    let requests = plan.requests.iter().map(|planned| &planned.request);
    let estimate = match load(arguments) {
        Load::Closed { concurrency } => concurrency,
        Load::Capped { in_flight_max } => in_flight_max,
        Load::Open => limits::concurrency_estimate(
            requests.map(|request| (request.due, request.output_tokens)),
        ),
    };
    let estimate = estimate.min(plan.requests.len() as u64);
    match arguments.endpoint.connections {
        Some(most) => estimate.min(most.get() as u64 * arguments.run.threads.get() as u64),
        None => estimate,
    }
}

/// What two shards of one plan have in common, and no others: 64 bits of FNV-1a
/// (Fowler, Noll and Vo; draft-eastlake-fnv) over what the plan was made from.
pub(super) fn plan_digest(plan: &Plan, seed: u64) -> String {
    let mut text = plan.description.clone();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "|{seed}|{}|{:?}",
        plan.requests_total, plan.duration_ns
    );
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// What the run will be, in a line.
pub(super) fn describe(job: &Job) -> String {
    let requests = &job.plan.requests;
    match job.settings.load {
        Load::Closed { concurrency } => {
            format!(
                "sending up to {} from {concurrency} users",
                counted(requests.len())
            )
        }
        Load::Open | Load::Capped { .. } => {
            let ends = job.settings.duration_ns.unwrap_or(Nanos::MAX);
            let offered = requests.partition_point(|planned| planned.request.due < ends);
            let last = requests[..offered]
                .last()
                .map_or(0, |planned| planned.request.due);
            let whole_seconds = last.div_ceil(SECOND) * SECOND;
            format!(
                "sending {} within {}",
                counted(offered),
                Span(whole_seconds)
            )
        }
    }
}

fn counted(requests: usize) -> String {
    match requests {
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    }
}
