//! When the slowest requests were sent, and what the deployment was doing then.

use crate::records::{ChangeKind, Parts, ReplicaCounts, RequestRecord};
use crate::summary::{Episode, EpisodeReplicas, Part, Why};
use crate::tail::parts_of_ttft;
use std::ops::Range;

/// Slow requests sent less than this apart belong to one episode: a minute,
/// about what a replica takes to start.
const EPISODE_GAP_NS: u64 = 60_000_000_000;

/// In a long run, a hundredth of it: a day has few episodes, not hundreds.
const EPISODE_GAP_SHARE: u64 = 100;

/// The replica counts of a deployment over time: 24 bytes a change, not a
/// request, so that memory stays flat where it matters.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountsLog {
    moments: Vec<(u64, ReplicaCounts)>,
    /// When replicas crashed, and when their starts failed.
    crashes: Vec<u64>,
    start_failures: Vec<u64>,
}

impl CountsLog {
    pub(crate) fn record(&mut self, at_ns: u64, replicas: ReplicaCounts) {
        if self
            .moments
            .last()
            .is_none_or(|(_, last)| *last != replicas)
        {
            self.moments.push((at_ns, replicas));
        }
    }

    /// Takes note of what goes wrong.
    pub(crate) fn mishap(&mut self, at_ns: u64, kind: ChangeKind) {
        match kind {
            ChangeKind::Crashed => self.crashes.push(at_ns),
            ChangeKind::StartFailed => self.start_failures.push(at_ns),
            _ => {}
        }
    }

    /// The moments of what held during the span, its ends included.
    fn during(&self, from_ns: u64, until_ns: u64) -> Range<usize> {
        let start = self.moments.partition_point(|(at, _)| *at <= from_ns);
        let end = self.moments.partition_point(|(at, _)| *at <= until_ns);
        start.saturating_sub(1)..end
    }

    /// When replicas began to start, and for how long some were starting,
    /// whole: what began before the moments or ended after them is not cut.
    fn starts(&self, during: Range<usize>, end_ns: u64) -> Option<(u64, u64)> {
        let is_starting = |index: &usize| self.moments[*index].1.starting > 0;
        let first = during.clone().find(is_starting)?;
        let last = during.rev().find(is_starting)?;
        let before = (0..first).rev().take_while(is_starting).count();
        let after = (last + 1..self.moments.len())
            .take_while(is_starting)
            .count();
        let whole = first - before..last + after + 1;
        let from_ns = self.moments[whole.start].0;
        // The run may end while a replica starts.
        let until = |index: usize| self.moments.get(index + 1).map_or(end_ns, |next| next.0);
        let starting_ns = whole
            .filter(is_starting)
            .map(|index| until(index).saturating_sub(self.moments[index].0))
            .sum();
        Some((from_ns, starting_ns))
    }

    fn replicas(&self, from_ns: u64, until_ns: u64, run: &RunBounds) -> Option<EpisodeReplicas> {
        let range = self.during(from_ns, until_ns);
        let during = &self.moments[range.clone()];
        let (first, last) = (during.first()?.1, during.last()?.1);
        let most =
            |f: fn(&ReplicaCounts) -> u32| during.iter().map(|(_, c)| f(c)).max().unwrap_or(0);
        let target_max = most(|c| c.target);
        let starts = self.starts(range, run.end_ns);
        Some(EpisodeReplicas {
            ready_at_start: first.ready,
            ready_at_end: last.ready,
            target_max,
            starting_max: most(|c| c.starting),
            starting_from_s: starts.map(|(from_ns, _)| from_ns as f64 / 1e9),
            starting_s: starts.map_or(0.0, |(_, starting_ns)| starting_ns as f64 / 1e9),
            was_at_zero: during.iter().any(|(_, counts)| counts.ready == 0),
            at_max: run.count_max.is_some_and(|max| target_max >= max),
            crashes: count_within(&self.crashes, from_ns, until_ns),
            start_failures: count_within(&self.start_failures, from_ns, until_ns),
        })
    }
}

/// How many of the times, in order, are within the span, its ends included.
fn count_within(times: &[u64], from_ns: u64, until_ns: u64) -> u32 {
    let before = times.partition_point(|at| *at < from_ns);
    let by_then = times.partition_point(|at| *at <= until_ns);
    (by_then - before) as u32
}

/// What bounds a run.
struct RunBounds {
    /// Most replicas that the autoscaler may ask for.
    count_max: Option<u32>,
    end_ns: u64,
}

/// Groups the slowest requests into episodes, in the order of time.
pub(crate) fn explain(
    mut slowest: Vec<RequestRecord>,
    log: &CountsLog,
    count_max: Option<u32>,
    end_ns: u64,
) -> Why {
    slowest.sort_by_key(|record| (record.due_ns, record.id));
    let run = RunBounds { count_max, end_ns };
    let gap_ns = EPISODE_GAP_NS.max(end_ns / EPISODE_GAP_SHARE);
    let episodes = slowest
        .chunk_by(|a, b| b.due_ns - a.due_ns <= gap_ns)
        .map(|requests| episode(requests, log, &run))
        .collect();
    Why {
        slowest: slowest.len() as u64,
        episodes,
    }
}

fn episode(requests: &[RequestRecord], log: &CountsLog, run: &RunBounds) -> Episode {
    let count = requests.len() as f64;
    let (from_ns, until_ns) = (requests[0].due_ns, requests[requests.len() - 1].due_ns);
    let ttfts = || requests.iter().map(ttft_ns);
    let served_ns = requests.iter().filter_map(|r| r.first_token_ns).max();
    let (part, part_ns) = dominant_part(requests);
    Episode {
        requests: requests.len() as u64,
        from_s: from_ns as f64 / 1e9,
        until_s: until_ns as f64 / 1e9,
        ttft_s_mean: ttfts().map(u128::from).sum::<u128>() as f64 / count / 1e9,
        ttft_s_max: ttfts().max().unwrap_or(0) as f64 / 1e9,
        part,
        part_s_mean: part_ns as f64 / count / 1e9,
        replicas: log.replicas(from_ns, served_ns.unwrap_or(until_ns), run),
    }
}

/// The part that most of the time to first token went to, and its sum (ns).
fn dominant_part(requests: &[RequestRecord]) -> (Part, u128) {
    let sum = |f: fn(&Parts) -> u64| {
        requests
            .iter()
            .map(|r| u128::from(f(&parts(r))))
            .sum::<u128>()
    };
    let preempted = requests
        .iter()
        .map(preempted_before_first_token_ns)
        .map(u128::from);
    let parts = [
        (Part::Retry, sum(|p| p.retry_ns)),
        (Part::Outside, sum(|p| p.outside_ns)),
        (Part::ColdStart, sum(|p| p.cold_start_ns)),
        (Part::Queue, sum(|p| p.queue_ns)),
        (Part::Adapter, sum(|p| p.adapter_ns)),
        (Part::Prefill, sum(|p| p.prefill_ns)),
        (Part::Preemption, preempted.sum()),
    ];
    let mut dominant = parts[0];
    for part in parts {
        if part.1 > dominant.1 {
            dominant = part;
        }
    }
    dominant
}

/// Those without parts are not among the slowest that are kept.
fn parts(record: &RequestRecord) -> Parts {
    record.parts.unwrap_or_default()
}

fn ttft_ns(record: &RequestRecord) -> u64 {
    record
        .first_token_ns
        .map_or(0, |first| first - record.due_ns)
}

/// What of the time to first token is neither waiting nor prefill.
fn preempted_before_first_token_ns(record: &RequestRecord) -> u64 {
    parts_of_ttft(ttft_ns(record), &parts(record)).preemption_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Outcome;

    const SECOND: u64 = 1_000_000_000;

    fn slow(id: u64, due_s: u64, cold_start_s: u64, queue_s: u64) -> RequestRecord {
        let end_ns = (due_s + cold_start_s + queue_s + 1) * SECOND;
        RequestRecord {
            id,
            due_ns: due_s * SECOND,
            prompt_tokens: 100,
            output_tokens: 1,
            session: None,
            adapter: None,
            attempts: 1,
            replica: Some(0),
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: Some(end_ns),
            end_ns,
            parts: Some(Parts {
                cold_start_ns: cold_start_s * SECOND,
                queue_ns: queue_s * SECOND,
                prefill_ns: SECOND,
                ..Parts::default()
            }),
            wire: None,
        }
    }

    fn counts(target: u32, starting: u32, ready: u32) -> ReplicaCounts {
        ReplicaCounts {
            target,
            starting,
            ready,
            draining: 0,
        }
    }

    #[test]
    fn episodes_say_when_and_what_was_going_on() {
        let mut log = CountsLog::default();
        log.record(0, counts(0, 0, 0));
        log.record(10 * SECOND, counts(1, 1, 0));
        log.record(85 * SECOND, counts(1, 0, 1));
        log.record(500 * SECOND, counts(3, 2, 1));
        log.record(575 * SECOND, counts(3, 0, 3));
        let slowest = vec![
            slow(7, 520, 0, 30),
            slow(1, 10, 75, 0),
            slow(2, 40, 45, 0),
            slow(8, 530, 0, 22),
        ];
        let why = explain(slowest, &log, Some(3), 600 * SECOND);
        assert_eq!(why.slowest, 4);
        let [woke, scaled] = &why.episodes[..] else {
            panic!("two episodes, not {:?}", why.episodes);
        };
        assert_eq!((woke.from_s, woke.until_s, woke.requests), (10.0, 40.0, 2));
        assert_eq!((woke.part, woke.part_s_mean), (Part::ColdStart, 60.0));
        assert_eq!((woke.ttft_s_mean, woke.ttft_s_max), (61.0, 76.0));
        let (at_waking, at_scaling) = (woke.replicas.unwrap(), scaled.replicas.unwrap());
        assert!(at_waking.was_at_zero && !at_waking.at_max);
        assert_eq!(at_waking.starting_s, 75.0);
        assert_eq!((scaled.part, scaled.part_s_mean), (Part::Queue, 26.0));
        assert!(!at_scaling.was_at_zero && at_scaling.at_max);
        assert_eq!(at_scaling.ready_at_start, 1);
        assert_eq!((at_scaling.target_max, at_scaling.starting_max), (3, 2));
        // Ordered before the first of them was sent, ready after the last was served.
        assert_eq!(at_scaling.starting_from_s, Some(500.0));
        assert_eq!(at_scaling.starting_s, 75.0);
    }

    #[test]
    fn starts_are_told_whole_even_if_the_run_ends_first() {
        let mut log = CountsLog::default();
        log.record(0, counts(1, 0, 1));
        log.record(10 * SECOND, counts(2, 1, 1));
        log.record(20 * SECOND, counts(3, 2, 1));
        log.record(40 * SECOND, counts(3, 0, 3));
        log.record(50 * SECOND, counts(4, 1, 3));
        log.record(55 * SECOND, counts(5, 2, 3));
        let starts = |from_s: u64, until_s: u64| {
            let during = log.during(from_s * SECOND, until_s * SECOND);
            let starts = log.starts(during, 60 * SECOND);
            starts.map(|(from_ns, for_ns)| (from_ns / SECOND, for_ns / SECOND))
        };
        assert_eq!(starts(25, 30), Some((10, 30)));
        assert_eq!(starts(25, 52), Some((10, 40)));
        assert_eq!(starts(51, 52), Some((50, 10)));
        assert_eq!(starts(0, 9), None);
        assert_eq!(starts(41, 49), None);
    }

    #[test]
    fn a_long_run_has_few_episodes() {
        let slowest: Vec<_> = (0..200).map(|id| slow(id, id * 400, 0, 5)).collect();
        let day = 86_400 * SECOND;
        let why = explain(slowest, &CountsLog::default(), None, day);
        assert_eq!(why.episodes.len(), 1);
        assert_eq!(why.episodes[0].replicas, None);
    }

    #[test]
    fn nothing_slow_is_no_episode() {
        let why = explain(Vec::new(), &CountsLog::default(), None, 0);
        assert!(why.episodes.is_empty());
    }
}
