//! What a person reads at the terminal: the verdict first, then the numbers,
//! then why. Pure functions from a [`Summary`] to text.

mod bench;
mod chart;
mod compare;
mod compared;
mod gate;
mod latency;
mod measured;
mod units;
mod validation;
mod why;

pub use bench::bench;
pub use compare::{comparison, side_by_side};
pub use compared::compared;
pub use gate::{gate, gate_markdown};
pub(crate) use gate::{of_change, of_objective, verdict_word};
pub use validation::validation;

use crate::objectives::{Bound, Objective};
use crate::summary::{Adapters, GpuSeconds, Replicas, Source, Summary};
use chart::{Columns, blocks, largest};
use units::{
    clock, count, counted, dollars, duration, exact_percent, gpu_hours, number, percent, rate,
    significant, value,
};

/// How text is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to colour it, with ANSI escapes.
    pub colour: bool,
    /// Columns to fill. Charts take what there is, from 60 columns up; tables
    /// are at most 96 wide.
    pub width: usize,
}

impl Default for Style {
    /// Without colour, 96 columns.
    fn default() -> Self {
        Self {
            colour: false,
            width: 96,
        }
    }
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A heading.
    #[must_use]
    pub fn heading(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What is there to be looked up, such as the heads of columns.
    #[must_use]
    pub fn quiet(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// ✓ or ✗.
    fn mark(self, met: bool) -> String {
        if met {
            self.good("✓")
        } else {
            self.bad("✗")
        }
    }
}

/// A run as text, ending with a newline.
#[must_use]
pub fn summary(summary: &Summary, style: Style) -> String {
    let sections = [
        title(summary, style),
        measured::doubts(summary, style),
        objectives(summary, style),
        compare::seeds(summary, style),
        seed_heading(summary, style),
        requests(summary, style),
        latency::table(summary, style),
        replicas(summary, style),
        cost(summary, style),
        why::section(summary, style),
        measured::load(summary, style),
        measured::window(summary, style),
        measured::client(summary, style),
        measured::server(summary, style),
        run(summary, style),
    ];
    let sections: Vec<_> = sections
        .iter()
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.join("\n"))
        .collect();
    sections.join("\n\n") + "\n"
}

fn title(summary: &Summary, style: Style) -> Vec<String> {
    let scenario = &summary.scenario;
    let source = match summary.source {
        Source::Simulated => "simulated",
        Source::Measured => "measured",
    };
    // Of an endpoint that somebody else runs, nobody may know.
    let replica = match scenario.gpu.as_str() {
        "" => String::new(),
        gpu => format!(" on {} × {gpu} a replica", scenario.world_size),
    };
    let mut lines = vec![format!(
        "{} · {}{replica} · {} · {} · {source}, seed {}",
        style.heading(&scenario.name),
        scenario.model,
        duration(summary.duration_s),
        counted(offered_in_all(summary), "request"),
        summary.seed,
    )];
    lines.extend(broken(&scenario.workload, style.width));
    if !scenario.settings.is_empty() {
        let settings = format!("with {}", scenario.settings.join(", "));
        lines.extend(broken(&settings, style.width));
    }
    lines.extend(measured::target(summary));
    lines
}

/// Requests of the whole run, those outside the window of a measured one among them.
fn offered_in_all(summary: &Summary) -> u64 {
    let measured = summary.measured.as_ref();
    measured.map_or(summary.requests.offered, |measured| {
        measured.window.whole_run.requests
    })
}

/// A list, broken after commas where it is wider than the text.
fn broken(list: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in list.split_inclusive(", ") {
        let item_width = item.trim_end().chars().count();
        match lines.last_mut() {
            Some(line) if line.chars().count() + item_width <= width => line.push_str(item),
            Some(_) => lines.push(format!("  {item}")),
            None => lines.push(item.to_owned()),
        }
    }
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn objectives(summary: &Summary, style: Style) -> Vec<String> {
    let all = &summary.objectives;
    if all.is_empty() {
        return vec![format!("{}  none set", style.heading("OBJECTIVES"))];
    }
    let verdicts = verdicts(summary);
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    let by = summary.seeds.as_ref().map(|seeds| {
        let count = count(seeds.seeds.len() as u64);
        format!(" by all {count} seeds; values of seed {}", summary.seed)
    });
    let mut lines = vec![format!(
        "{}  {met} of {} met{}",
        style.heading("OBJECTIVES"),
        all.len(),
        by.unwrap_or_default()
    )];
    let width = all
        .iter()
        .map(|objective| objective.name.chars().count())
        .max()
        .unwrap_or(0);
    let with_verdict = all.iter().zip(&verdicts);
    lines.extend(with_verdict.map(|(each, verdict)| objective(each, verdict, width, style)));
    lines.extend(goodput(summary));
    lines
}

/// Whether an objective was met, and by how many seeds if there are several.
struct Verdict {
    met: bool,
    note: String,
}

/// The verdict on each objective: met is what every seed meets.
fn verdicts(summary: &Summary) -> Vec<Verdict> {
    let of_run = |objective: &Objective| Verdict {
        met: objective.met,
        note: String::new(),
    };
    let Some(seeds) = &summary.seeds else {
        return summary.objectives.iter().map(of_run).collect();
    };
    let all = seeds.seeds.len() as u64;
    let of_seeds = |index: usize| {
        let met = seeds.objectives_met.get(index).copied().unwrap_or(0);
        Verdict {
            met: met == all,
            note: format!(", met in {} of {} seeds", count(met), count(all)),
        }
    };
    (0..summary.objectives.len()).map(of_seeds).collect()
}

fn goodput(summary: &Summary) -> Option<String> {
    let goodput = summary.goodput_per_s?;
    let completed = summary.throughput.requests_per_s;
    let what = if completed > 0.0 {
        format!(
            "{} of completed requests are within every latency limit",
            exact_percent(goodput / completed)
        )
    } else {
        "no request completed".to_owned()
    };
    Some(format!("  goodput {}/s: {what}", significant(goodput)))
}

/// Which seed the sections below are of, if there are several.
fn seed_heading(summary: &Summary, style: Style) -> Vec<String> {
    let heading = summary.seeds.as_ref().map(|seeds| {
        let heading = style.heading(&format!("SEED {}", summary.seed));
        match seeds.include_calibration_error {
            true => format!("{heading}  with the step times' best values"),
            false => heading,
        }
    });
    heading.into_iter().collect()
}

fn objective(objective: &Objective, verdict: &Verdict, width: usize, style: Style) -> String {
    let limit = value(objective.limit, objective.unit);
    let (observed, note) = match objective.observed {
        Some(observed) => (
            value(observed, objective.unit),
            near_miss(objective, observed, &limit),
        ),
        None => (
            "–".to_owned(),
            ", but there was nothing to measure".to_owned(),
        ),
    };
    let bound = match objective.bound {
        Bound::AtMost => "at most",
        Bound::AtLeast => "at least",
    };
    format!(
        "  {} {:width$}  {observed:>12}  {bound} {}{note}{}",
        style.mark(verdict.met),
        objective.name,
        limit,
        verdict.note,
    )
}

/// By how much a limit was missed, where rounding hides it.
fn near_miss(objective: &Objective, observed: f64, limit: &str) -> String {
    if objective.met || value(observed, objective.unit) != limit {
        return String::new();
    }
    format!(
        ", missed by {:.1e} of it",
        (observed / objective.limit - 1.0).abs()
    )
}

fn requests(summary: &Summary, style: Style) -> Vec<String> {
    let requests = &summary.requests;
    let of_all = match offered_in_all(summary) {
        all if all == requests.offered => String::new(),
        all => format!(" in the window, of {} in all", count(all)),
    };
    let cold_starts = match summary.measured {
        None => format!(
            " · {} waited for a cold start",
            count(requests.waited_for_cold_start)
        ),
        Some(_) => String::new(),
    };
    let mut lines = vec![
        format!(
            "{}  {} offered{of_all}",
            style.heading("REQUESTS"),
            count(requests.offered)
        ),
        format!(
            "  {} completed · {} failed · {} rejected{cold_starts}",
            count(requests.completed),
            count(requests.failed),
            count(requests.rejected),
        ),
    ];
    let reasons = [
        (
            requests.rejected_too_long,
            "rejected: longer than the context",
        ),
        (
            requests.rejected_never_fits,
            "rejected: more KV blocks than a replica has",
        ),
        (
            requests.rejected_scaling_up,
            "rejected with 503: no replica was ready",
        ),
        (
            requests.rejected_queue_full,
            "rejected with 503: too many waited for a replica",
        ),
        (
            requests.rejected_deleted,
            "rejected with 404: the deployment had been deleted",
        ),
        (
            requests.rejected_paused,
            "rejected: the account had reached its spend limit",
        ),
        (
            requests.rejected_parked,
            "rejected: the deployment is parked (max_replica_count is 0)",
        ),
        (
            requests.failed_drain,
            "failed: cut off when the drain time ran out",
        ),
        (
            requests.failed_crash,
            "failed: cut off when a replica crashed",
        ),
        (requests.failed_timeout, "failed: given up by the client"),
        (
            requests.failed_unserved,
            "failed: the run ended and no replica was allowed to start",
        ),
    ];
    let measured = requests.measured.as_ref().map(measured::endings);
    for (number, reason) in reasons.into_iter().chain(measured.into_iter().flatten()) {
        if number > 0 {
            lines.push(style.bad(&format!("  {} {reason}", count(number))));
        }
    }
    for change in &summary.lifecycle {
        let at = units::clock(change.at_s, summary.duration_s);
        lines.push(format!("  {at} {}", change.what));
    }
    lines.extend(retries(summary));
    if requests.preemptions > 0 {
        lines.push(format!("  {}", counted(requests.preemptions, "preemption")));
    }
    lines.extend(summary.adapters.as_ref().map(adapters));
    lines
}

fn adapters(adapters: &Adapters) -> String {
    format!(
        "  {} with an adapter, {} waited for it · {}, {}",
        count(adapters.requests),
        count(adapters.waited),
        counted(adapters.loads, "adapter load"),
        counted(adapters.evictions, "eviction"),
    )
}

/// What was tried again, and what that cost.
fn retries(summary: &Summary) -> Option<String> {
    let requests = &summary.requests;
    if requests.retried == 0 {
        return None;
    }
    let mut line = format!(
        "  {} sent more than once: {} in all",
        counted(requests.retried, "request"),
        counted(requests.attempts, "attempt"),
    );
    let tokens = summary.tokens.output_of_retried;
    if tokens > 0 {
        line += &format!(", {} generated in vain", counted(tokens, "token"));
    }
    Some(line)
}

/// What went wrong with replicas, if anything did.
fn mishaps(replicas: &Replicas) -> Option<String> {
    let mut said = Vec::new();
    if replicas.crashes > 0 {
        said.push(counted(replicas.crashes, "replica") + " crashed");
    }
    if replicas.start_failures > 0 {
        said.push(counted(replicas.start_failures, "failed start"));
    }
    if replicas.starts_given_up > 0 {
        said.push(counted(replicas.starts_given_up, "replica") + " given up");
    }
    (!said.is_empty()).then(|| format!("  {}", said.join(" · ")))
}

/// How long replicas waited for GPUs of the pool, if any did.
fn gpu_waits(replicas: &Replicas) -> Option<String> {
    (replicas.waited_for_gpus > 0).then(|| {
        format!(
            "  {} waited for GPUs, {} in all",
            counted(replicas.waited_for_gpus, "start"),
            duration(replicas.waited_for_gpus_s),
        )
    })
}

/// Columns of text left of a chart, and right of it.
const LABEL_WIDTH: usize = 13;
const SCALE_WIDTH: usize = 12;

fn replicas(summary: &Summary, style: Style) -> Vec<String> {
    let Some(replicas) = &summary.replicas else {
        // Nothing is known of them, but of the load on them.
        let charts = charts(summary, style);
        let heading = (!charts.is_empty()).then(|| style.heading("OVER TIME"));
        return heading.into_iter().chain(charts).collect();
    };
    // Who asked for a replica in vain only its provider knows.
    let wasted = match summary.source {
        Source::Simulated => format!(", {} wasted", count(replicas.wasted_starts)),
        Source::Measured => String::new(),
    };
    let mut lines = vec![format!(
        "{}  mean {}, most {} · {}{wasted} · {} of direction",
        style.heading("REPLICAS"),
        number(replicas.mean),
        count(replicas.max.into()),
        counted(replicas.starts, "start"),
        counted(replicas.direction_changes, "change"),
    )];
    lines.extend(mishaps(replicas).map(|line| style.bad(&line)));
    lines.extend(gpu_waits(replicas).map(|line| style.bad(&line)));
    lines.extend(charts(summary, style));
    lines
}

/// The run over time.
fn charts(summary: &Summary, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    let width = style.width.clamp(60, 200) - LABEL_WIDTH - SCALE_WIDTH;
    let series = &summary.series;
    let Some(columns) = Columns::new(series, summary.duration_s, width) else {
        return lines;
    };
    let (target, ready) = (
        columns.average(&series.target),
        columns.average(&series.ready),
    );
    let replicas_max = largest(&target).max(largest(&ready));
    let arrivals = columns.rate(&series.arrivals);
    let ttft = columns.maximum(&series.ttft_s_max);
    let row = |label: &str, values: &[Option<f64>], max: f64, scale: String| {
        format!("  {label:<11}{} {scale}", blocks(values, max))
    };
    if replicas_max > 0.0 {
        // Averages over time: where there was part of a replica, there was a whole one.
        let most = |values: &[f64]| {
            let most = values.iter().copied().fold(0.0, f64::max).ceil();
            format!("max {}", count(most as u64))
        };
        lines.push(row("target", &target, replicas_max, most(&series.target)));
        lines.push(row("ready", &ready, replicas_max, most(&series.ready)));
    }
    let arrivals_max = largest(&arrivals);
    lines.push(row(
        "arrivals/s",
        &arrivals,
        arrivals_max,
        format!("max {}", rate(arrivals_max)),
    ));
    let ttft_max = largest(&ttft);
    if ttft_max > 0.0 {
        lines.push(row(
            "ttft max",
            &ttft,
            ttft_max,
            format!("max {}", duration(ttft_max)),
        ));
    }
    lines.push(style.quiet(&time_axis(summary.duration_s, width)));
    lines
}

/// Start, middle and end of the run, under its charts.
fn time_axis(duration_s: f64, width: usize) -> String {
    let [start, middle, end] = [0.0, 0.5, 1.0].map(|part| clock(part * duration_s, duration_s));
    let middle_at = (width - middle.chars().count()) / 2;
    let end_width = width - middle_at - middle.chars().count();
    format!(
        "{:LABEL_WIDTH$}{start:<middle_at$}{middle}{end:>end_width$}",
        ""
    )
}

fn cost(summary: &Summary, style: Style) -> Vec<String> {
    let (Some(cost), Some(gpu)) = (&summary.cost, &summary.gpu_seconds) else {
        return Vec::new();
    };
    let mut title = format!("{}  {}", style.heading("COST"), dollars(cost.usd));
    if let Some(usd) = cost.usd_per_million_output_tokens {
        title += &format!(" · {} a million output tokens", dollars(usd));
    }
    if let Some(usd) = cost.usd_per_request {
        title += &format!(" · {} a thousand requests", dollars(usd * 1e3));
    }
    let scenario = &summary.scenario;
    let mut billed = format!(
        "  billed    {:>12} at {} a GPU-hour",
        gpu_hours(gpu.billed),
        dollars(scenario.usd_per_gpu_hour),
    );
    if !scenario.price_source.is_empty() {
        billed += &style.quiet(&format!(" ({})", scenario.price_source));
    }
    let mut lines = vec![title, billed];
    lines.extend(gpu_time(summary, gpu));
    lines
}

/// GPU-time by what the GPUs did, with its share of all that was held.
fn gpu_time(summary: &Summary, gpu: &GpuSeconds) -> Vec<String> {
    let (busy, idle) = (gpu.busy.unwrap_or(0.0), gpu.idle.unwrap_or(0.0));
    let ready = gpu.ready.unwrap_or(0.0);
    let held = busy + idle + ready + gpu.starting + gpu.draining;
    if held <= 0.0 {
        return Vec::new();
    }
    let billing = |billed: bool| if billed { ", billed" } else { ", not billed" };
    let utilisation = match busy + idle {
        ready if ready > 0.0 => format!(", {} of the time they were ready", percent(busy / ready)),
        _ => String::new(),
    };
    let known = [("busy", busy, utilisation.as_str()), ("idle", idle, "")];
    let of_ready = match gpu.ready {
        None => known.to_vec(),
        Some(ready) => vec![("ready", ready, "")],
    };
    let others = [
        (
            "starting",
            gpu.starting,
            billing(summary.scenario.bills_starting),
        ),
        (
            "draining",
            gpu.draining,
            billing(summary.scenario.bills_draining),
        ),
    ];
    let line = |(name, seconds, note): (&str, f64, &str)| {
        let share = percent(seconds / held);
        format!("  {name:<9} {:>12} {share:>6}{note}", gpu_hours(seconds))
    };
    of_ready.into_iter().chain(others).map(line).collect()
}

/// What the simulator did. A measured run is told of by its client.
fn run(summary: &Summary, style: Style) -> Vec<String> {
    if summary.measured.is_some() {
        return Vec::new();
    }
    let run = &summary.run;
    let work = format!(
        "{}, {}",
        counted(run.steps, "engine step"),
        counted(run.events, "event")
    );
    let line = match (run.wall_s, run.requests_per_wall_s) {
        (Some(wall_s), Some(per_s)) => {
            format!(
                "{work} in {} ({} requests/s)",
                duration(wall_s),
                rate(per_s)
            )
        }
        (Some(wall_s), None) => format!("{work} in {}", duration(wall_s)),
        _ => work,
    };
    vec![style.quiet(&line)]
}
