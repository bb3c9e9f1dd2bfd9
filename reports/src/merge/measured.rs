//! What several clients saw of one run, as one.

use super::plan::{measured, shard};
use super::{Source, nanos};
use crate::records::DeploymentTotals;
use crate::summary::{
    Client, Connections, Degraded, Load, Measured, Rates, Server, Shard, Steadiness, Summary,
};
use crate::window::WindowTally;

/// Shards that began further apart (s) were not one load. The design of the
/// schedule by several machines allows so much between their clocks.
const APART_S_MAX: f64 = 0.005;

/// What all windows have in common (ns).
pub(super) fn window(sources: &[Source]) -> (u64, u64) {
    let windows = || {
        sources
            .iter()
            .map(|source| &measured(&source.summary).window)
    };
    let from_ns = windows().map(|window| nanos(window.from_s)).max();
    let until_ns = windows().map(|window| nanos(window.until_s)).min();
    (from_ns.unwrap_or(0), until_ns.unwrap_or(0))
}

/// The shard that looked at the deployment for longest; the first of equals.
pub(super) fn of_deployment(sources: &[Source]) -> &Source {
    let held = |source: &Source| {
        let gpu = source.summary.gpu_seconds.as_ref();
        gpu.map_or(-1.0, |gpu| {
            gpu.busy.unwrap_or(0.0)
                + gpu.idle.unwrap_or(0.0)
                + gpu.ready.unwrap_or(0.0)
                + gpu.starting
                + gpu.draining
        })
    };
    let mut known = &sources[0];
    for source in &sources[1..] {
        if held(source) > held(known) {
            known = source;
        }
    }
    known
}

/// What its summary says of the deployment, as it was told before it was written.
pub(super) fn deployment(summary: &Summary) -> Option<DeploymentTotals> {
    let (replicas, gpu) = (summary.replicas.as_ref()?, summary.gpu_seconds.as_ref()?);
    let gpu_ns = |seconds: f64| (seconds * 1e9).round() as u128;
    let known = gpu.busy.unwrap_or(0.0) + gpu.idle.unwrap_or(0.0);
    Some(DeploymentTotals {
        replica_ns: gpu_ns(replicas.mean * summary.duration_s),
        replicas_max: replicas.max,
        starts: replicas.starts,
        direction_changes: replicas.direction_changes,
        billed_gpu_ns: gpu_ns(gpu.billed),
        ready_gpu_ns: gpu_ns(gpu.ready.unwrap_or(known)),
        starting_gpu_ns: gpu_ns(gpu.starting),
        draining_gpu_ns: gpu_ns(gpu.draining),
        busy_gpu_ns: gpu.busy.map(gpu_ns),
        cost_nanodollars: gpu_ns(summary.cost.as_ref().map_or(0.0, |cost| cost.usd)),
    })
}

/// How the run as a whole was measured.
pub(super) fn merge(sources: &[Source], tally: &WindowTally, end_ns: u64) -> Measured {
    let all: Vec<&Measured> = sources
        .iter()
        .map(|source| measured(&source.summary))
        .collect();
    let (server, mut degraded) = server(sources);
    degraded.extend(missing(sources));
    degraded.extend(apart(&all));
    degraded.extend(no_window(sources));
    degraded.extend(sources.iter().flat_map(of_shard));
    let load = load(&all);
    Measured {
        endpoint: endpoints(&all),
        began_unix_s: all
            .iter()
            .map(|each| each.began_unix_s)
            .fold(f64::MAX, f64::min),
        load,
        is_interrupted: all.iter().any(|each| each.is_interrupted),
        degraded,
        window: tally.window(rule(&all), end_ns),
        steadiness: steadiness(sources),
        rates: match load {
            Load::Closed { .. } => Rates {
                asked_per_s: None,
                ..tally.rates()
            },
            Load::Open | Load::Capped { .. } => tally.rates(),
        },
        client: tally.client(client(&all)),
        server,
        shard: Some(parts(sources)),
    }
}

fn endpoints(all: &[&Measured]) -> String {
    let mut endpoints: Vec<&str> = all.iter().map(|each| each.endpoint.as_str()).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints.join(", ")
}

fn load(all: &[&Measured]) -> Load {
    let sum = |of: fn(&Load) -> u64| all.iter().map(|each| of(&each.load)).sum();
    match all[0].load {
        Load::Open => Load::Open,
        Load::Capped { .. } => Load::Capped {
            in_flight_max: sum(in_flight),
        },
        Load::Closed { .. } => Load::Closed {
            concurrency: sum(in_flight),
        },
    }
}

fn in_flight(load: &Load) -> u64 {
    match *load {
        Load::Open => 0,
        Load::Capped { in_flight_max } => in_flight_max,
        Load::Closed { concurrency } => concurrency,
    }
}

/// Shards that chose the same window by the same rule are as one.
fn rule(all: &[&Measured]) -> String {
    let first = &all[0].window;
    let is_same = |each: &&Measured| {
        let window = &each.window;
        (window.from_s, window.until_s) == (first.from_s, first.until_s)
    };
    if all.iter().all(is_same) {
        first.rule.clone()
    } else {
        format!(
            "what the windows of all shards have in common ({})",
            first.rule
        )
    }
}

fn parts(sources: &[Source]) -> Shard {
    let first = shard(&sources[0].summary);
    let parts = sources
        .iter()
        .flat_map(|source| &shard(&source.summary).parts);
    let mut parts: Vec<u32> = parts.copied().collect();
    parts.sort_unstable();
    Shard {
        parts,
        of: first.of,
        plan_digest: first.plan_digest.clone(),
    }
}

/// Which shards are not there: what they would have sent is not known.
fn missing(sources: &[Source]) -> Option<Degraded> {
    let Shard { parts, of, .. } = parts(sources);
    let missing: Vec<u32> = (1..=of).filter(|part| !parts.contains(part)).collect();
    if missing.is_empty() {
        return None;
    }
    Some(Degraded {
        code: "shards_missing".to_owned(),
        text: format!(
            "{} of {of} is missing: less was asked of the server than was planned, and what \
             that shard saw is not among the figures; run all shards again",
            shards(&missing)
        ),
    })
}

/// What one shard doubts, the whole run does.
fn of_shard(source: &Source) -> Vec<Degraded> {
    let parts = shards(&shard(&source.summary).parts);
    let measured = measured(&source.summary);
    let mut degraded: Vec<_> = measured
        .degraded
        .iter()
        .map(|reason| Degraded {
            code: reason.code.clone(),
            text: format!("{parts}: {}", reason.text),
        })
        .collect();
    if measured.is_interrupted {
        degraded.push(Degraded {
            code: "shard_interrupted".to_owned(),
            text: format!("{parts} was ended before its plan was; run all shards again"),
        });
    }
    degraded
}

fn shards(parts: &[u32]) -> String {
    let numbers: Vec<_> = parts.iter().map(u32::to_string).collect();
    format!("shard {}", numbers.join(", "))
}

/// Records count from the start of each shard: shards that began apart do not fit together.
fn apart(all: &[&Measured]) -> Option<Degraded> {
    let began = || all.iter().map(|each| each.began_unix_s);
    let apart_s = began().fold(f64::MIN, f64::max) - began().fold(f64::MAX, f64::min);
    (apart_s > APART_S_MAX).then(|| Degraded {
        code: "shards_apart".to_owned(),
        text: format!(
            "the shards began {:.0} ms apart, where {:.0} ms are allowed: what they sent was not \
             one load; give all the same --start-at, and set the clocks of their machines",
            apart_s * 1e3,
            APART_S_MAX * 1e3,
        ),
    })
}

fn no_window(sources: &[Source]) -> Option<Degraded> {
    let (from_ns, until_ns) = window(sources);
    (from_ns >= until_ns).then(|| Degraded {
        code: "no_common_window".to_owned(),
        text: "the shards measured at different times, so that nothing is left to count; \
               give all the same --start-at, --warmup and --cooldown"
            .to_owned(),
    })
}

/// Steady is what every shard found steady.
fn steadiness(sources: &[Source]) -> Option<Steadiness> {
    let found = sources.iter().filter_map(|source| {
        let steadiness = measured(&source.summary).steadiness.as_ref()?;
        Some((shards(&shard(&source.summary).parts), steadiness))
    });
    let found: Vec<_> = found.collect();
    let texts = found
        .iter()
        .map(|(shard, each)| format!("{shard}: {}", each.text));
    (!found.is_empty()).then(|| Steadiness {
        is_steady: found.iter().all(|(_, each)| each.is_steady),
        text: texts.collect::<Vec<_>>().join("; "),
    })
}

/// What the clients did, added; what follows from the records is put in its place later.
fn client(all: &[&Measured]) -> Client {
    let mut client = Client {
        prompts_are_exact: true,
        ..Client::default()
    };
    for other in all.iter().map(|each| &each.client) {
        client.threads += other.threads;
        client.cpu_share_max = client.cpu_share_max.max(other.cpu_share_max);
        client.cpu_s += other.cpu_s;
        client.rss_bytes_max = client.rss_bytes_max.max(other.rss_bytes_max);
        client.connections = connections(client.connections, other.connections);
        client.prompts_are_exact &= other.prompts_are_exact;
        client.clock_jumps += other.clock_jumps;
    }
    client
}

fn connections(a: Connections, b: Connections) -> Connections {
    Connections {
        opened: a.opened + b.opened,
        reused: a.reused + b.reused,
        failed: a.failed + b.failed,
        stale: a.stale + b.stale,
    }
}

/// All looked at the same server: who asked most often knows it best.
fn server(sources: &[Source]) -> (Option<Server>, Vec<Degraded>) {
    let asked = sources.iter().filter_map(|source| {
        let server = measured(&source.summary).server.as_ref()?;
        Some((source, server))
    });
    let asked: Vec<_> = asked.collect();
    let Some(&(source, best)) = asked.iter().rev().max_by_key(|(_, server)| server.samples) else {
        return (None, Vec::new());
    };
    let differs = asked
        .iter()
        .any(|(_, server)| server.targets != best.targets);
    let degraded = differs.then(|| Degraded {
        code: "servers_differ".to_owned(),
        text: format!(
            "the shards asked different targets for metrics; what the server says of itself is \
             what {} was told; name the same targets for all",
            shards(&shard(&source.summary).parts)
        ),
    });
    (Some(best.clone()), degraded.into_iter().collect())
}

/// Objectives whose metric is not known here.
pub(super) fn unjudged(names: &[String]) -> Option<Degraded> {
    (!names.is_empty()).then(|| Degraded {
        code: "objectives_not_judged".to_owned(),
        text: format!(
            "{} cannot be judged again from its name; judge the merged run with `foresail gate`",
            names.join(", ")
        ),
    })
}
