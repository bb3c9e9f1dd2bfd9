//! What a run comes to, measured while it runs: constant work for each record
//! and flat memory however many there are.

use crate::histogram::Histogram;
use crate::objectives::{
    Latency, Objective, ObjectiveMetric, ObjectiveSpec, RequestLatencies, RequestLimits,
};
use crate::rate::{Done, Rate};
use crate::records::{
    Change, ChangeKind, DeploymentTotals, Gaps, MeasuredTotals, Outcome, RecordSink, RequestRecord,
    RunTotals,
};
use crate::series::Series;
use crate::summary::{
    Adapters, Cost, GpuSeconds, LatencySummary, LifecycleChange, MeasuredEndings, PartsMean,
    PartsSummary, Replicas, Requests, Run, RunDescription, SCHEMA, Summary, Throughput, Tokens,
};
use crate::tail::{PartsTotal, Tail};
use crate::why::{self, CountsLog};

/// The slowest share of requests that is explained: 1 in 100.
const SLOWEST_SHARE: u64 = 100;

/// Counts the records of a run.
///
/// Only completed requests have latencies; the others are counted beside
/// them. TPOT takes two output tokens or more.
#[derive(Clone, Debug)]
pub struct Measurements {
    objectives: Vec<ObjectiveSpec>,
    limits: RequestLimits,
    /// By [`Outcome`], in the order of [`Outcome::ALL`].
    outcomes: [u64; Outcome::ALL.len()],
    preemptions: u64,
    /// Completed requests with an adapter, and those that waited for it.
    with_adapter: u64,
    waited_for_adapter: u64,
    retried: u64,
    attempts: u64,
    lifecycle: Vec<LifecycleChange>,
    tokens: Tokens,
    rate: Rate,
    ttft: Histogram,
    itl: Histogram,
    tpot: Histogram,
    e2e: Histogram,
    queue: Histogram,
    tail: Tail,
    series: Series,
    counts: CountsLog,
}

impl Measurements {
    /// Nothing measured yet, to be judged by the objectives.
    #[must_use]
    pub fn new(objectives: &[ObjectiveSpec]) -> Self {
        Self {
            objectives: objectives.to_vec(),
            limits: RequestLimits::new(objectives),
            outcomes: [0; Outcome::ALL.len()],
            preemptions: 0,
            with_adapter: 0,
            waited_for_adapter: 0,
            retried: 0,
            attempts: 0,
            lifecycle: Vec::new(),
            tokens: Tokens::default(),
            rate: Rate::default(),
            ttft: Histogram::new(),
            itl: Histogram::new(),
            tpot: Histogram::new(),
            e2e: Histogram::new(),
            queue: Histogram::new(),
            tail: Tail::new(),
            series: Series::default(),
            counts: CountsLog::default(),
        }
    }

    /// The same with further limits for the goodput, which is counted request by
    /// request: they are no objectives, and nothing else is judged by them.
    #[must_use]
    pub fn with_request_limits(mut self, limits: &[ObjectiveSpec]) -> Self {
        self.limits = RequestLimits::new(&[&self.objectives, limits].concat());
        self
    }

    /// The histogram of a latency.
    #[must_use]
    pub fn histogram(&self, latency: Latency) -> &Histogram {
        match latency {
            Latency::Ttft => &self.ttft,
            Latency::Itl => &self.itl,
            Latency::Tpot => &self.tpot,
            Latency::E2e => &self.e2e,
            Latency::Queue => &self.queue,
        }
    }

    /// Rates are of what completes from one time up to another, exclusive (ns): the window
    /// of a measured run. Of requests that do not count, those are to be told to
    /// [`Measurements::beside`].
    pub fn set_window(&mut self, from_ns: u64, until_ns: u64) {
        self.rate.set_window(from_ns, until_ns);
    }

    /// A request that does not count: it was due outside the window. That the server
    /// completed it inside is its work all the same.
    pub fn beside(&mut self, record: &RequestRecord) {
        if record.outcome == Outcome::Completed {
            let is_good = self.limits.met_by(&latencies(record));
            self.rate.completed_at_all(record, is_good);
        }
    }

    /// Adds gaps that were counted elsewhere.
    pub(crate) fn add_itl(&mut self, itl: &Histogram) {
        self.itl.add(itl);
    }

    /// Output tokens of completed requests.
    pub(crate) fn output_tokens(&self) -> u64 {
        self.tokens.output
    }

    /// How many requests ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// How many requests ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    fn completed(&mut self, record: &RequestRecord) {
        let latencies = latencies(record);
        self.preemptions += u64::from(record.preemptions);
        self.with_adapter += u64::from(record.adapter.is_some());
        let waited_for_adapter = record.parts.is_some_and(|parts| parts.adapter_ns > 0);
        self.waited_for_adapter += u64::from(waited_for_adapter);
        self.tokens.prompt += u64::from(record.prompt_tokens);
        self.tokens.cached += u64::from(record.cached_tokens);
        self.tokens.output += u64::from(record.output_tokens);
        self.rate.completed(record, self.limits.met_by(&latencies));
        self.e2e.record(latencies.e2e_ns);
        self.queue.record(latencies.queue_ns);
        self.series.completion(record.end_ns, record.output_tokens);
        if let Some(tpot_ns) = latencies.tpot_ns {
            self.tpot.record(tpot_ns);
        }
        if let Some(ttft_ns) = latencies.ttft_ns {
            self.ttft.record(ttft_ns);
            self.series.first_token(record.due_ns, ttft_ns);
            self.tail.record(ttft_ns, record);
        }
    }

    /// What a simulated run came to, once it has ended.
    #[must_use]
    pub fn summary(&self, description: &RunDescription, totals: &RunTotals) -> Summary {
        let slowest = self.tail.slowest(self.slowest_count());
        let count_max = description.scenario.replica_count_max;
        let completed = self.count(Outcome::Completed);
        let cost = cost(totals.cost_nanodollars, completed, self.tokens.output);
        Summary {
            requests: Requests {
                waited_for_cold_start: totals.waited_for_cold_start,
                ..self.requests(totals.offered)
            },
            tokens: Tokens {
                output_of_retried: totals.output_tokens_retried,
                ..self.tokens
            },
            adapters: totals.adapters.map(|of_replicas| Adapters {
                requests: self.with_adapter,
                waited: self.waited_for_adapter,
                loads: of_replicas.loads,
                evictions: of_replicas.evictions,
            }),
            replicas: Some(replicas(totals)),
            gpu_seconds: Some(gpu_seconds(totals)),
            parts: Some(self.parts()),
            why: Some(why::explain(
                slowest,
                &self.counts,
                count_max,
                totals.end_ns,
            )),
            run: Run {
                steps: totals.steps,
                events: totals.events,
                ..Run::default()
            },
            ..self.of_any(description, totals.offered, totals.end_ns, Some(cost))
        }
    }

    /// What a measured run came to, once it has ended. The records are those of
    /// the requests that count.
    #[must_use]
    pub fn measured_summary(
        &self,
        description: &RunDescription,
        totals: &MeasuredTotals,
    ) -> Summary {
        let deployment = totals.deployment.as_ref();
        // What it cost is of the whole run, and so is what that is shared by.
        let whole_run = &totals.measured.window.whole_run;
        let (completed, tokens) = (whole_run.completed, whole_run.output_tokens);
        let cost =
            deployment.map(|deployment| cost(deployment.cost_nanodollars, completed, tokens));
        let of_any = self.of_any(description, totals.offered, totals.end_ns, cost);
        Summary {
            requests: Requests {
                measured: Some(self.measured_endings()),
                ..of_any.requests
            },
            queue_s: None,
            replicas: deployment.map(|deployment| measured_replicas(deployment, totals.end_ns)),
            gpu_seconds: deployment.map(measured_gpu_seconds),
            measured: Some(Box::new(totals.measured.clone())),
            ..of_any
        }
    }

    /// What is said of every run, simulated or measured.
    fn of_any(
        &self,
        description: &RunDescription,
        offered: u64,
        end_ns: u64,
        cost: Option<Cost>,
    ) -> Summary {
        let throughput = self.throughput();
        Summary {
            schema: SCHEMA.to_owned(),
            tool: description.tool.clone(),
            source: description.source,
            scenario: description.scenario.clone(),
            seed: description.seed,
            duration_s: end_ns as f64 / 1e9,
            objectives: self.judge(offered, &throughput, cost.as_ref()),
            requests: self.requests(offered),
            lifecycle: self.lifecycle.clone(),
            tokens: self.tokens,
            ttft_s: latency_summary(&self.ttft),
            itl_s: latency_summary(&self.itl),
            tpot_s: latency_summary(&self.tpot),
            e2e_s: latency_summary(&self.e2e),
            queue_s: latency_summary(&self.queue),
            throughput,
            goodput_per_s: self.limits.any().then(|| self.per_second(|done| done.good)),
            adapters: None,
            replicas: None,
            gpu_seconds: None,
            cost,
            parts: None,
            why: None,
            measured: None,
            series: self.series.clone().finish(end_ns),
            seeds: None,
            run: Run::default(),
        }
    }

    fn per_second(&self, count: fn(&Done) -> u64) -> f64 {
        let (done, in_s) = self.rate.done();
        if in_s > 0.0 {
            count(&done) as f64 / in_s
        } else {
            0.0
        }
    }

    pub(crate) fn throughput(&self) -> Throughput {
        Throughput {
            requests_per_s: self.per_second(|done| done.requests),
            output_tokens_per_s: self.per_second(|done| done.output_tokens),
        }
    }

    fn requests(&self, offered: u64) -> Requests {
        let measured = self.measured_endings();
        let [
            completed,
            rejected_too_long,
            rejected_never_fits,
            rejected_scaling_up,
            rejected_queue_full,
            rejected_deleted,
            rejected_paused,
            rejected_parked,
            failed_drain,
            failed_crash,
            failed_timeout,
            failed_unserved,
            ..,
        ] = self.outcomes;
        Requests {
            offered,
            completed,
            failed: failed_drain
                + failed_crash
                + failed_timeout
                + failed_unserved
                + measured.failed(),
            rejected: rejected_too_long
                + rejected_never_fits
                + rejected_scaling_up
                + rejected_queue_full
                + rejected_deleted
                + rejected_paused
                + rejected_parked
                + measured.rejected(),
            waited_for_cold_start: 0,
            rejected_too_long,
            rejected_never_fits,
            rejected_scaling_up,
            rejected_queue_full,
            rejected_deleted,
            rejected_paused,
            rejected_parked,
            failed_drain,
            failed_crash,
            failed_timeout,
            failed_unserved,
            measured: None,
            preemptions: self.preemptions,
            retried: self.retried,
            attempts: self.attempts,
        }
    }

    fn measured_endings(&self) -> MeasuredEndings {
        MeasuredEndings {
            rejected_rate_limited: self.count(Outcome::RejectedRateLimited),
            rejected_unavailable: self.count(Outcome::RejectedUnavailable),
            rejected_status: self.count(Outcome::RejectedStatus),
            failed_status: self.count(Outcome::FailedStatus),
            failed_connect: self.count(Outcome::FailedConnect),
            failed_reset: self.count(Outcome::FailedReset),
            failed_truncated: self.count(Outcome::FailedTruncated),
            failed_stalled: self.count(Outcome::FailedStalled),
            failed_garbage: self.count(Outcome::FailedGarbage),
            failed_error: self.count(Outcome::FailedError),
            failed_cancelled: self.count(Outcome::FailedCancelled),
            unsent: self.count(Outcome::Unsent),
        }
    }

    /// How many requests are the slowest: the share of them, at least one.
    fn slowest_count(&self) -> u64 {
        self.tail.all().requests.div_ceil(SLOWEST_SHARE)
    }

    fn parts(&self) -> PartsSummary {
        let all = self.tail.all();
        let slowest = self.tail.slowest_share(self.slowest_count());
        PartsSummary {
            all: parts_mean(&all),
            slowest: parts_mean(&slowest),
        }
    }

    fn judge(&self, offered: u64, throughput: &Throughput, cost: Option<&Cost>) -> Vec<Objective> {
        let observed = |metric| match metric {
            ObjectiveMetric::Latency(latency, statistic) => statistic.of(self.histogram(latency)),
            ObjectiveMetric::RequestsPerSecond => Some(throughput.requests_per_s),
            ObjectiveMetric::OutputTokensPerSecond => Some(throughput.output_tokens_per_s),
            ObjectiveMetric::SuccessRate => {
                (offered > 0).then(|| self.count(Outcome::Completed) as f64 / offered as f64)
            }
            ObjectiveMetric::Goodput => {
                (offered > 0 && self.limits.any()).then(|| self.rate.good() as f64 / offered as f64)
            }
            ObjectiveMetric::CostUsd => cost.map(|cost| cost.usd),
            ObjectiveMetric::CostUsdPerMillionOutputTokens => {
                cost.and_then(|cost| cost.usd_per_million_output_tokens)
            }
        };
        let judge = |spec: &ObjectiveSpec| Objective::judge(spec, observed(spec.metric));
        self.objectives.iter().map(judge).collect()
    }
}

impl RecordSink for Measurements {
    #[inline]
    fn request(&mut self, record: &RequestRecord) {
        self.outcomes[record.outcome as usize] += 1;
        self.retried += u64::from(record.attempts > 1);
        self.attempts += u64::from(record.attempts);
        self.rate.due(record.due_ns);
        if record.outcome != Outcome::Unsent {
            self.series.arrival(record.due_ns);
        }
        if record.outcome == Outcome::Completed {
            self.completed(record);
        } else {
            self.tokens.output_of_failed += u64::from(record.output_tokens);
        }
    }

    #[inline]
    fn gaps(&mut self, gaps: Gaps) {
        self.itl.record_gaps(gaps);
    }

    fn change(&mut self, change: &Change) {
        self.series.replicas(change.at_ns, change.replicas);
        self.counts.record(change.at_ns, change.replicas);
        self.counts.mishap(change.at_ns, change.kind);
        if change.kind == ChangeKind::Deployment {
            self.lifecycle.push(LifecycleChange {
                at_s: change.at_ns as f64 / 1e9,
                what: change.reason.clone(),
            });
        }
    }
}

#[inline]
fn latencies(record: &RequestRecord) -> RequestLatencies {
    let tpot_ns = match record.first_token_ns {
        Some(first_ns) if record.output_tokens >= 2 => {
            Some((record.last_token_ns() - first_ns) / u64::from(record.output_tokens - 1))
        }
        _ => None,
    };
    RequestLatencies {
        ttft_ns: record
            .first_token_ns
            .map(|first_ns| first_ns - record.due_ns),
        tpot_ns,
        e2e_ns: record.end_ns - record.due_ns,
        queue_ns: record.parts.map_or(0, |parts| parts.queue_ns),
    }
}

/// What a summary says of a latency; `None` if there were none.
#[must_use]
pub fn latency_summary(histogram: &Histogram) -> Option<LatencySummary> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let percentile = |percentile| histogram.percentile_ns(percentile).map(seconds);
    Some(LatencySummary {
        mean: histogram.mean_s()?,
        p50: percentile(50.0)?,
        p90: percentile(90.0)?,
        p95: percentile(95.0)?,
        p99: percentile(99.0)?,
        max: histogram.max_ns().map(seconds)?,
    })
}

/// The mean of something over the run, from its integral over time.
fn mean_over_time(integral_ns: u128, end_ns: u64) -> f64 {
    if end_ns == 0 {
        return 0.0;
    }
    // Whole ones and the rest apart: the integral has more digits than a float.
    let end_ns = u128::from(end_ns);
    (integral_ns / end_ns) as f64 + (integral_ns % end_ns) as f64 / end_ns as f64
}

/// What a run costs, and a part of it for each of so many requests and tokens.
fn cost(cost_nanodollars: u128, completed: u64, output_tokens: u64) -> Cost {
    let usd = cost_nanodollars as f64 / 1e9;
    let per = |count: u64, unit: f64| (count > 0).then(|| usd / count as f64 * unit);
    Cost {
        usd,
        usd_per_million_output_tokens: per(output_tokens, 1e6),
        usd_per_request: per(completed, 1.0),
    }
}

/// What only the provider knows, such as failed starts, is 0 of a measured run.
fn measured_replicas(deployment: &DeploymentTotals, end_ns: u64) -> Replicas {
    Replicas {
        mean: mean_over_time(deployment.replica_ns, end_ns),
        max: deployment.replicas_max,
        starts: deployment.starts,
        direction_changes: deployment.direction_changes,
        ..Replicas::default()
    }
}

fn measured_gpu_seconds(deployment: &DeploymentTotals) -> GpuSeconds {
    let seconds = |ns: u128| ns as f64 / 1e9;
    let idle = |busy: u128| deployment.ready_gpu_ns.saturating_sub(busy);
    GpuSeconds {
        billed: seconds(deployment.billed_gpu_ns),
        busy: deployment.busy_gpu_ns.map(seconds),
        idle: deployment.busy_gpu_ns.map(|busy| seconds(idle(busy))),
        ready: match deployment.busy_gpu_ns {
            Some(_) => None,
            None => Some(seconds(deployment.ready_gpu_ns)),
        },
        starting: seconds(deployment.starting_gpu_ns),
        draining: seconds(deployment.draining_gpu_ns),
    }
}

fn replicas(totals: &RunTotals) -> Replicas {
    Replicas {
        mean: mean_over_time(totals.replica_ns, totals.end_ns),
        max: totals.replicas_max,
        starts: totals.starts,
        wasted_starts: totals.wasted_starts,
        direction_changes: totals.direction_changes,
        start_failures: totals.start_failures,
        starts_given_up: totals.starts_given_up,
        crashes: totals.crashes,
        waited_for_gpus: totals.waited_for_gpus,
        waited_for_gpus_s: totals.waited_for_gpus_ns as f64 / 1e9,
    }
}

fn gpu_seconds(totals: &RunTotals) -> GpuSeconds {
    let seconds = |ns: u128| ns as f64 / 1e9;
    GpuSeconds {
        billed: seconds(totals.gpu_ns.billed),
        busy: Some(seconds(totals.gpu_ns.busy)),
        idle: Some(seconds(totals.gpu_ns.idle)),
        ready: None,
        starting: seconds(totals.gpu_ns.starting),
        draining: seconds(totals.gpu_ns.draining),
    }
}

fn parts_mean(total: &PartsTotal) -> PartsMean {
    let mean_s = |sum_ns: u128| match total.requests {
        0 => 0.0,
        requests => sum_ns as f64 / requests as f64 / 1e9,
    };
    PartsMean {
        requests: total.requests,
        retry_s: mean_s(total.retry_ns),
        outside_s: mean_s(total.outside_ns),
        cold_start_s: mean_s(total.cold_start_ns),
        queue_s: mean_s(total.queue_ns),
        adapter_s: mean_s(total.adapter_ns),
        prefill_s: mean_s(total.prefill_ns),
        preemption_s: mean_s(total.preemption_ns),
        decode_s: mean_s(total.decode_ns),
    }
}
