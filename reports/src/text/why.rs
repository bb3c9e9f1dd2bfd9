//! Why it came out so: where the time went, and when it went slowly.

use super::Style;
use super::chart::parts_bar;
use super::units::{clock, count, counted, duration, percent};
use crate::summary::{Episode, EpisodeReplicas, Part, PartsMean, PartsSummary, Summary};

/// Most episodes that are told.
const EPISODES_MAX: usize = 5;

const BAR_WIDTH: usize = 30;

/// As wide as the longest label of a bar, and a space.
const LABEL_WIDTH: usize = SLOWEST.len() + 1;

const SLOWEST: &str = "slowest 1 % to first token";

type NamedPart = (&'static str, char, fn(&PartsMean) -> f64);

const PARTS: [NamedPart; 8] = [
    ("retry", '▚', |parts| parts.retry_s),
    ("outside the engine", '▌', |parts| parts.outside_s),
    ("cold start", '█', |parts| parts.cold_start_s),
    ("queue", '▓', |parts| parts.queue_s),
    ("adapter load", '▞', |parts| parts.adapter_s),
    ("prefill", '▒', |parts| parts.prefill_s),
    ("preemption", '░', |parts| parts.preemption_s),
    ("decode", '·', |parts| parts.decode_s),
];

pub(super) fn section(summary: &Summary, style: Style) -> Vec<String> {
    let Some(parts) = summary
        .parts
        .as_ref()
        .filter(|parts| parts.all.requests > 0)
    else {
        return Vec::new();
    };
    let legend = legend(parts).join("  ");
    let mut lines = vec![format!(
        "{}  {}",
        style.heading("WHY"),
        style.quiet(&legend)
    )];
    lines.extend(bar("all requests", &parts.all, style));
    lines.extend(bar(SLOWEST, &parts.slowest, style));
    lines.extend(episodes(summary));
    lines
}

/// The parts that every run may have, and of the rarer ones those that this run has.
fn legend(parts: &PartsSummary) -> Vec<String> {
    let is_shown = |(name, _, of): &&NamedPart| {
        let is_rare = ["retry", "outside the engine", "adapter load"].contains(name);
        !is_rare || of(&parts.all) > 0.0 || of(&parts.slowest) > 0.0
    };
    PARTS
        .iter()
        .filter(is_shown)
        .map(|(name, character, _)| format!("{character} {name}"))
        .collect()
}

fn bar(label: &str, parts: &PartsMean, style: Style) -> Vec<String> {
    let shares = PARTS.map(|(_, character, of)| (of(parts), character));
    let total: f64 = shares.iter().map(|(seconds, _)| seconds).sum();
    let said: Vec<_> = PARTS
        .iter()
        .filter(|(_, _, of)| of(parts) > 0.0)
        .map(|(name, _, of)| format!("{name} {}", percent(of(parts) / total)))
        .collect();
    let bar = parts_bar(&shares, BAR_WIDTH);
    vec![
        format!(
            "  {label:<LABEL_WIDTH$}{bar}  mean {} of {}",
            duration(total),
            counted(parts.requests, "request")
        ),
        style.quiet(&format!("    {}", said.join(", "))),
    ]
}

fn episodes(summary: &Summary) -> Vec<String> {
    let Some(why) = &summary.why else {
        return Vec::new();
    };
    let mut by_size: Vec<&Episode> = why.episodes.iter().collect();
    by_size.sort_by_key(|episode| std::cmp::Reverse(episode.requests));
    let rest = by_size.split_off(by_size.len().min(EPISODES_MAX));
    by_size.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
    let mut lines: Vec<_> = by_size
        .into_iter()
        .map(|episode| sentence(episode, why.slowest, summary.duration_s))
        .collect();
    if !rest.is_empty() {
        let requests = rest.iter().map(|episode| episode.requests).sum();
        lines.push(format!(
            "  the other {} are spread over {} more times",
            count(requests),
            rest.len()
        ));
    }
    lines
}

fn sentence(episode: &Episode, slowest: u64, run_s: f64) -> String {
    let who = match (slowest, episode.requests) {
        (1, _) => "the slowest request was".to_owned(),
        (all, requests) if all == requests => format!("the {} slowest were", count(all)),
        (all, 1) => format!("1 of the {} slowest was", count(all)),
        (all, requests) => format!("{} of the {} slowest were", count(requests), count(all)),
    };
    let (from, until) = (clock(episode.from_s, run_s), clock(episode.until_s, run_s));
    let when = if from == until {
        format!("at {from}")
    } else {
        format!("{from} - {until}")
    };
    let what = match episode.part {
        Part::Retry => "in earlier attempts",
        Part::Outside => "outside the engine",
        Part::ColdStart => "waiting for a cold start",
        Part::Queue => "queueing",
        Part::Adapter => "waiting for an adapter",
        Part::Prefill => "in prefill",
        Part::Preemption => "preempted",
        Part::Decode => "decoding",
    };
    let mut sentence = format!(
        "  {who} sent {when}: {what} ({} of {})",
        duration(episode.part_s_mean),
        duration(episode.ttft_s_mean),
    );
    if let Some(replicas) = &episode.replicas {
        sentence += &format!(";\n    {}", meanwhile(replicas, episode.part, run_s));
        if let Some(mishaps) = mishaps(replicas) {
            sentence += &format!(";\n    {mishaps}");
        }
    }
    sentence
}

/// What the deployment was doing. That it could not grow is worth telling of
/// requests that waited: more replicas do not shorten a prefill.
fn meanwhile(replicas: &EpisodeReplicas, part: Part, run_s: f64) -> String {
    let waited = !matches!(part, Part::Outside | Part::Prefill | Part::Decode);
    let target = counted(replicas.target_max.into(), "replica");
    let ready = count(replicas.ready_at_start.into());
    let starting = starting(replicas, run_s);
    let limit = if replicas.at_max {
        ", at max_replica_count"
    } else {
        ""
    };
    let woke = replicas.was_at_zero && replicas.crashes == 0;
    if woke && replicas.starting_max > 0 {
        format!("the deployment woke from zero to {target}{limit};\n    {starting}")
    } else if replicas.starting_max > 0 {
        format!("it was going from {ready} ready to {target}{limit};\n    {starting}")
    } else if replicas.at_max && waited {
        format!("the deployment was at max_replica_count ({target}) and could not grow")
    } else {
        format!("{ready} of {target} ready and none starting{limit}")
    }
}

/// What went wrong meanwhile.
fn mishaps(replicas: &EpisodeReplicas) -> Option<String> {
    let crashed = counted(replicas.crashes.into(), "replica") + " crashed";
    let failed = counted(replicas.start_failures.into(), "start") + " failed";
    match (replicas.crashes, replicas.start_failures) {
        (0, 0) => None,
        (_, 0) => Some(crashed),
        (0, _) => Some(failed),
        _ => Some(format!("{crashed}, and {failed}")),
    }
}

/// When replicas were ordered, and how long they took.
fn starting(replicas: &EpisodeReplicas, run_s: f64) -> String {
    let ordered = replicas
        .starting_from_s
        .map(|from_s| format!(", the first ordered at {}", clock(from_s, run_s)));
    format!(
        "replicas were starting for {}{}",
        duration(replicas.starting_s),
        ordered.unwrap_or_default()
    )
}
