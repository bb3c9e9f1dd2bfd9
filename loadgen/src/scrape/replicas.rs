//! From what answered when to replicas, GPU-time and cost, by the biller that simulations use.

use std::collections::BTreeSet;

use foresail_core::control::biller::{Biller, BillerError, BillingRule, GpuTime, Price};
use foresail_core::control::replica_set::Stage;
use foresail_core::time::Nanos;
use foresail_reports::records::{Change, ChangeKind, DeploymentTotals, ReplicaCounts};

use super::sample::ServerSample;
use super::scraped::{GONE_AFTER_FAILURES, Scrape, Scraped, TargetScrapes};

/// How it is known how many replicas there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaCount {
    /// Always so many.
    Fixed(u32),
    /// As many as there are targets that answer as servers; each is a replica. One that has failed
    /// [`GONE_AFTER_FAILURES`] times in a row is gone since the first of these.
    ByTarget,
    /// What the metric says that was named for it.
    ByMetric,
}

/// What GPU-time costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Billing {
    /// GPUs a replica.
    pub world_size: u32,
    /// What a GPU-hour costs.
    pub price: Price,
    /// Whether starting and draining are billed.
    pub rule: BillingRule,
}

/// A measured deployment: what it held and cost, and how its replicas changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// The rows of `timeline.csv`, in the order of time. What the autoscaler wants cannot be seen from
    /// outside: the target is the number of replicas that start or are ready.
    pub changes: Vec<Change>,
    /// What it comes to.
    pub totals: DeploymentTotals,
}

/// A replica goes from one stage to another.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    at_ns: Nanos,
    replica: u32,
    from: Stage,
    to: Stage,
    reason: String,
}

/// The deployment of a run that ended at `end_ns`; `None` if nothing said how many replicas there are.
///
/// Whether GPUs were busy is only known if every replica tells (foresail's `foresail_step_seconds`). The counters are read a
/// moment before and after the run: what they so have too much is not more than the replicas were ready.
///
/// # Errors
/// If the cost is too large to count.
pub fn deployment(
    scraped: &Scraped,
    count: ReplicaCount,
    billing: Billing,
    end_ns: Nanos,
) -> Result<Option<Deployment>, BillerError> {
    let mut steps = match count {
        ReplicaCount::Fixed(replicas) => fixed(replicas),
        ReplicaCount::ByTarget => by_target(scraped),
        ReplicaCount::ByMetric => by_metric(scraped),
    };
    if steps.is_empty() && count != ReplicaCount::Fixed(0) {
        return Ok(None);
    }
    steps.retain(|step| step.at_ns <= end_ns);
    steps.sort_by_key(|step| step.at_ns);
    let mut biller = Biller::new(billing.price, billing.rule, billing.world_size);
    for step in &steps {
        biller.stage_changed(step.at_ns, step.from, step.to)?;
    }
    let changes = changes(&steps);
    let gpu_time = biller.gpu_time(end_ns)?;
    let busy_ns = if count == ReplicaCount::ByMetric {
        None
    } else {
        busy_ns(scraped, count)
    };
    let totals = DeploymentTotals {
        busy_gpu_ns: busy_ns
            .map(|busy_ns| (busy_ns * u128::from(billing.world_size)).min(gpu_time.idle)),
        cost_nanodollars: biller.cost_nanodollars(end_ns)?,
        ..totals(&changes, gpu_time, billing.world_size)
    };
    Ok(Some(Deployment { changes, totals }))
}

fn fixed(replicas: u32) -> Vec<Step> {
    let step = |replica| Step {
        at_ns: 0,
        replica,
        from: Stage::Gone,
        to: Stage::Ready,
        reason: "the number of replicas was given".into(),
    };
    (0..replicas).map(step).collect()
}

fn by_target(scraped: &Scraped) -> Vec<Step> {
    let servers = scraped.targets.iter().filter(|target| target.is_server());
    let numbered = (0..).zip(servers);
    numbered
        .flat_map(|(replica, target)| steps_of(replica, target))
        .collect()
}

fn steps_of(replica: u32, target: &TargetScrapes) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut from = Stage::Gone;
    let mut go = |at_ns: Nanos, to: Stage, reason: String| {
        if to != from {
            steps.push(Step {
                at_ns,
                replica,
                from,
                to,
                reason,
            });
            from = to;
        }
    };
    for (index, scrape) in target.scrapes.iter().enumerate() {
        match &scrape.result {
            Ok(sample) => {
                let (stage, what) = stage_of(sample);
                // What is there before the run has always been there for it.
                let at_ns = if index == 0 { 0 } else { scrape.at_ns };
                go(at_ns, stage, format!("{} {what}", target.name));
            }
            Err(failure) if is_gone(&target.scrapes[index..]) => {
                go(
                    scrape.at_ns,
                    Stage::Gone,
                    format!("{} {failure}", target.name),
                );
            }
            Err(_) => {}
        }
    }
    steps
}

fn stage_of(sample: &ServerSample) -> (Stage, &'static str) {
    match sample.is_ready {
        Some(false) => (Stage::Initialising, "answers that it is not ready"),
        _ => (Stage::Ready, "answers"),
    }
}

/// Whether these begin with as many failures as make a target gone.
fn is_gone(scrapes: &[Scrape]) -> bool {
    let first = scrapes.iter().take(GONE_AFTER_FAILURES);
    let failures = first.filter(|scrape| scrape.result.is_err()).count();
    failures == GONE_AFTER_FAILURES
}

/// Replicas come and go as the metric says, the newest first to go.
fn by_metric(scraped: &Scraped) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut last = 0;
    let told = |target: &&TargetScrapes| target.samples().any(|sample| sample.replicas.is_some());
    let target = scraped.targets.iter().find(told);
    let samples = target.into_iter().flat_map(TargetScrapes::samples);
    let counts = samples.filter_map(|sample| Some((sample.at_ns, sample.replicas?)));
    for (index, (at_ns, count)) in counts.enumerate() {
        let at_ns = if index == 0 { 0 } else { at_ns };
        let step = |replica, from, to| Step {
            at_ns,
            replica,
            from,
            to,
            reason: format!("the metric of replicas went from {last} to {count}"),
        };
        steps.extend((last..count).map(|replica| step(replica, Stage::Gone, Stage::Ready)));
        steps.extend(
            (count..last)
                .rev()
                .map(|replica| step(replica, Stage::Ready, Stage::Gone)),
        );
        last = count;
    }
    steps
}

fn changes(steps: &[Step]) -> Vec<Change> {
    let mut counts = ReplicaCounts::default();
    let change = |step: &Step| {
        if let Some(count) = count_of(&mut counts, step.from) {
            *count -= 1;
        }
        if let Some(count) = count_of(&mut counts, step.to) {
            *count += 1;
        }
        counts.target = counts.starting + counts.ready;
        Change {
            at_ns: step.at_ns,
            kind: kind_of(step.to),
            replica: Some(step.replica),
            reason: step.reason.clone(),
            replicas: counts,
        }
    };
    steps.iter().map(change).collect()
}

fn count_of(counts: &mut ReplicaCounts, stage: Stage) -> Option<&mut u32> {
    match stage {
        Stage::Pending | Stage::Downloading | Stage::Initialising => Some(&mut counts.starting),
        Stage::Ready => Some(&mut counts.ready),
        Stage::Draining => Some(&mut counts.draining),
        Stage::Gone => None,
    }
}

fn kind_of(stage: Stage) -> ChangeKind {
    match stage {
        Stage::Pending => ChangeKind::Pending,
        Stage::Downloading => ChangeKind::Downloading,
        Stage::Initialising => ChangeKind::Initialising,
        Stage::Ready => ChangeKind::Ready,
        Stage::Draining => ChangeKind::Draining,
        Stage::Gone => ChangeKind::Gone,
    }
}

/// Without what is only known of the run as a whole: busy and cost.
fn totals(changes: &[Change], gpu_time: GpuTime, world_size: u32) -> DeploymentTotals {
    let held = changes.iter().map(|change| held(change.replicas));
    DeploymentTotals {
        // Every replica has as many GPUs, so this division leaves nothing.
        replica_ns: gpu_time.held() / u128::from(world_size.max(1)),
        replicas_max: held.max().unwrap_or(0),
        starts: starts(changes),
        direction_changes: direction_changes(changes),
        billed_gpu_ns: gpu_time.billed,
        ready_gpu_ns: gpu_time.idle + gpu_time.busy,
        starting_gpu_ns: gpu_time.starting,
        draining_gpu_ns: gpu_time.draining,
        ..DeploymentTotals::default()
    }
}

fn held(counts: ReplicaCounts) -> u32 {
    counts.starting + counts.ready + counts.draining
}

/// Replicas that came after the beginning.
fn starts(changes: &[Change]) -> u64 {
    let mut present = BTreeSet::new();
    let mut starts = 0;
    for change in changes {
        match change.kind {
            ChangeKind::Gone => {
                present.remove(&change.replica);
            }
            _ => starts += u64::from(present.insert(change.replica) && change.at_ns > 0),
        }
    }
    starts
}

/// Changes at one time are one.
fn direction_changes(changes: &[Change]) -> u64 {
    let groups = changes.chunk_by(|one, next| one.at_ns == next.at_ns);
    let ends = groups.filter_map(|group| group.last());
    let targets: Vec<u32> = ends.map(|change| change.replicas.target).collect();
    let pairs = targets.windows(2).filter(|pair| pair[0] != pair[1]);
    let rises: Vec<bool> = pairs.map(|pair| pair[1] > pair[0]).collect();
    rises.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
}

/// How long replicas had a step in flight, all together, if each of them tells.
fn busy_ns(scraped: &Scraped, count: ReplicaCount) -> Option<u128> {
    let servers = scraped.targets.iter().filter(|target| target.is_server());
    let busy = servers.map(|target| target.increase(|sample| sample.busy_s_total));
    let busy: Vec<f64> = busy.collect::<Option<_>>()?;
    let is_all = match count {
        ReplicaCount::Fixed(replicas) => busy.len() == replicas as usize,
        ReplicaCount::ByTarget | ReplicaCount::ByMetric => true,
    };
    // A float holds the seconds of a run to a nanosecond and less.
    is_all.then(|| (busy.iter().sum::<f64>() * 1e9).round() as u128)
}

#[cfg(test)]
mod tests {
    use foresail_core::time::{HOUR, SECOND};

    use super::super::scraped::tests::{running, scraped, target};
    use super::*;

    const BILLING: Billing = Billing {
        world_size: 2,
        price: Price {
            // 1 nanodollar a GPU-second.
            nanodollars_per_gpu_hour: 3_600,
        },
        rule: BillingRule {
            starting: false,
            draining: false,
        },
    };

    fn of(scraped: &Scraped, count: ReplicaCount, end_s: u64) -> Option<Deployment> {
        deployment(scraped, count, BILLING, end_s * SECOND).expect("it can be billed")
    }

    /// Times, replicas, what became of them and how many are ready then.
    fn story(deployment: &Deployment) -> String {
        let line = |change: &Change| {
            format!(
                "{} {} {} {} {}\n",
                change.at_ns as f64 / SECOND as f64,
                change.replica.unwrap_or_default(),
                change.kind.name(),
                change.replicas.ready,
                change.reason
            )
        };
        deployment.changes.iter().map(line).collect()
    }

    #[test]
    fn a_given_number_of_replicas_is_billed_for_the_whole_run() {
        let deployment =
            of(&Scraped::default(), ReplicaCount::Fixed(3), 3_600).expect("it is given");
        let hour = u128::from(HOUR);
        let expected = DeploymentTotals {
            replica_ns: 3 * hour,
            replicas_max: 3,
            billed_gpu_ns: 6 * hour,
            ready_gpu_ns: 6 * hour,
            cost_nanodollars: 6 * 3_600,
            ..DeploymentTotals::default()
        };
        assert_eq!(deployment.totals, expected);
        assert_eq!(deployment.changes.len(), 3);
        let none = of(&Scraped::default(), ReplicaCount::Fixed(0), 60).expect("it is given");
        assert_eq!(none.totals.busy_gpu_ns, Some(0));
        assert_eq!(
            (none.totals.replica_ns, none.totals.cost_nanodollars),
            (0, 0)
        );
    }

    #[test]
    fn targets_that_come_and_go_are_replicas_that_do() {
        let stays = target("a", (0..10).map(|_| running(1)));
        let comes = target(
            "b",
            [None, None, None, None]
                .into_iter()
                .chain((4..10).map(running)),
        );
        let leaves = target(
            "c",
            [
                running(1),
                running(1),
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
            ],
        );
        let stumbles = target(
            "d",
            [
                running(1),
                None,
                None,
                running(1),
                None,
                running(1),
                running(1),
                running(1),
                None,
                None,
            ],
        );
        let exporter = target("e", (0..10).map(|_| Some(ServerSample::default())));
        let scraped = scraped(vec![stays, comes, leaves, stumbles, exporter]);
        let deployment = of(&scraped, ReplicaCount::ByTarget, 10).expect("targets answered");
        insta::assert_snapshot!(story(&deployment), @r"
        0 0 ready 1 a answers
        0 2 ready 2 c answers
        0 3 ready 3 d answers
        2.01 2 gone 2 c gave no answer: connection refused
        4.01 1 ready 3 b answers
        ");
        let totals = deployment.totals;
        let seconds = |hundredths: u128| hundredths * 10_000_000;
        assert_eq!(totals.replica_ns, seconds(1_000 + 599 + 201 + 1_000));
        assert_eq!(totals.ready_gpu_ns, 2 * totals.replica_ns);
        assert_eq!(totals.billed_gpu_ns, totals.ready_gpu_ns);
        assert_eq!(
            (totals.replicas_max, totals.starts, totals.direction_changes),
            (3, 1, 1)
        );
        assert_eq!(totals.busy_gpu_ns, None);
    }

    #[test]
    fn a_server_that_says_that_it_starts_is_starting() {
        let says = |is_ready| {
            Some(ServerSample {
                is_ready: Some(is_ready),
                ..ServerSample::default()
            })
        };
        let scraped = scraped(vec![target(
            "a",
            [says(false), says(false), says(true), says(true)],
        )]);
        let deployment = of(&scraped, ReplicaCount::ByTarget, 4).expect("it answered");
        insta::assert_snapshot!(story(&deployment), @r"
        0 0 initialising 0 a answers that it is not ready
        2.01 0 ready 1 a answers
        ");
        assert_eq!(deployment.totals.starting_gpu_ns, 2 * 2_010_000_000);
        assert_eq!(deployment.totals.billed_gpu_ns, 2 * 1_990_000_000);
    }

    #[test]
    fn a_metric_of_replicas_is_followed() {
        let says = |replicas| {
            Some(ServerSample {
                replicas: Some(replicas),
                ..ServerSample::default()
            })
        };
        let counts = [says(1), says(3), None, says(3), says(2), says(4)];
        let scraped = scraped(vec![target("p", counts)]);
        let deployment = of(&scraped, ReplicaCount::ByMetric, 6).expect("it was told");
        let ready: Vec<u32> = deployment
            .changes
            .iter()
            .map(|change| change.replicas.ready)
            .collect();
        assert_eq!(ready, [1, 2, 3, 2, 3, 4]);
        let totals = deployment.totals;
        assert_eq!(
            (totals.replicas_max, totals.starts, totals.direction_changes),
            (4, 4, 2)
        );
        // 1 for 1.01 s, 3 for 3 s, 2 for 1 s, 4 for 0.99 s.
        assert_eq!(
            totals.replica_ns,
            1_010_000_000 + 9_000_000_000 + 2_000_000_000 + 3_960_000_000
        );
    }

    #[test]
    fn nothing_is_known_if_nothing_was_told() {
        let silent = scraped(vec![target("a", [None, None, None, None])]);
        assert_eq!(of(&silent, ReplicaCount::ByTarget, 4), None);
        assert_eq!(of(&silent, ReplicaCount::ByMetric, 4), None);
    }

    #[test]
    fn busy_time_is_only_what_all_replicas_tell() {
        let busy = |seconds: f64| {
            Some(ServerSample {
                running: Some(1),
                busy_s_total: Some(seconds),
                ..ServerSample::default()
            })
        };
        let one = target("a", [busy(10.0), busy(10.5), busy(11.5)]);
        let other = target("b", [busy(0.0), busy(0.25), busy(0.25)]);
        let silent = target("c", [running(1), running(1), running(1)]);
        let told = scraped(vec![one.clone(), other.clone()]);
        let totals = of(&told, ReplicaCount::ByTarget, 2)
            .expect("they answered")
            .totals;
        assert_eq!(totals.busy_gpu_ns, Some(2 * 1_750_000_000));
        let fixed =
            |count| of(&told, ReplicaCount::Fixed(count), 2).map(|fixed| fixed.totals.busy_gpu_ns);
        assert_eq!(fixed(2), Some(Some(2 * 1_750_000_000)));
        // The third replica was not asked.
        assert_eq!(fixed(3), Some(None));
        let half = scraped(vec![one.clone(), silent]);
        let totals = of(&half, ReplicaCount::ByTarget, 2)
            .expect("they answered")
            .totals;
        assert_eq!(totals.busy_gpu_ns, None);
        // Never busier than it was ready.
        let short = of(&scraped(vec![one]), ReplicaCount::ByTarget, 1)
            .expect("it answered")
            .totals;
        assert_eq!(short.busy_gpu_ns, Some(short.ready_gpu_ns));
    }
}
