//! When the slowest requests were sent, and what the deployment was doing then.

use crate::records::{ReplicaCounts, RequestRecord};
use crate::summary::{Episode, EpisodeReplicas, Part, Why};

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

    /// What held during the span, its ends included.
    fn during(&self, from_ns: u64, until_ns: u64) -> &[(u64, ReplicaCounts)] {
        let start = self.moments.partition_point(|(at, _)| *at <= from_ns);
        let end = self.moments.partition_point(|(at, _)| *at <= until_ns);
        &self.moments[start.saturating_sub(1)..end]
    }

    fn replicas(
        &self,
        from_ns: u64,
        until_ns: u64,
        count_max: Option<u32>,
    ) -> Option<EpisodeReplicas> {
        let during = self.during(from_ns, until_ns);
        let (first, last) = (during.first()?.1, during.last()?.1);
        let most =
            |f: fn(&ReplicaCounts) -> u32| during.iter().map(|(_, c)| f(c)).max().unwrap_or(0);
        let target_max = most(|c| c.target);
        Some(EpisodeReplicas {
            ready_at_start: first.ready,
            ready_at_end: last.ready,
            target_max,
            starting_max: most(|c| c.starting),
            starting_s: starting_ns(during, from_ns, until_ns) as f64 / 1e9,
            was_at_zero: during.iter().any(|(_, counts)| counts.ready == 0),
            at_max: count_max.is_some_and(|max| target_max >= max),
        })
    }
}

/// How much of the span some replica was starting.
fn starting_ns(during: &[(u64, ReplicaCounts)], from_ns: u64, until_ns: u64) -> u64 {
    let ends = during.iter().skip(1).map(|(at, _)| *at).chain([until_ns]);
    during
        .iter()
        .zip(ends)
        .filter(|((_, counts), _)| counts.starting > 0)
        .map(|((at, _), end)| end.saturating_sub((*at).max(from_ns)))
        .sum()
}

/// Groups the slowest requests into episodes, in the order of time.
pub(crate) fn explain(
    mut slowest: Vec<RequestRecord>,
    log: &CountsLog,
    count_max: Option<u32>,
    end_ns: u64,
) -> Why {
    slowest.sort_by_key(|record| (record.due_ns, record.id));
    let gap_ns = EPISODE_GAP_NS.max(end_ns / EPISODE_GAP_SHARE);
    let episodes = slowest
        .chunk_by(|a, b| b.due_ns - a.due_ns <= gap_ns)
        .map(|requests| episode(requests, log, count_max))
        .collect();
    Why {
        slowest: slowest.len() as u64,
        episodes,
    }
}

fn episode(requests: &[RequestRecord], log: &CountsLog, count_max: Option<u32>) -> Episode {
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
        replicas: log.replicas(from_ns, served_ns.unwrap_or(until_ns), count_max),
    }
}

/// The part that most of the time to first token went to, and its sum (ns).
fn dominant_part(requests: &[RequestRecord]) -> (Part, u128) {
    let sum =
        |f: fn(&RequestRecord) -> u64| requests.iter().map(|r| u128::from(f(r))).sum::<u128>();
    let parts = [
        (Part::ColdStart, sum(|r| r.parts.cold_start_ns)),
        (Part::Queue, sum(|r| r.parts.queue_ns)),
        (Part::Prefill, sum(|r| r.parts.prefill_ns)),
        (Part::Preemption, sum(preempted_before_first_token_ns)),
    ];
    let mut dominant = parts[0];
    for part in parts {
        if part.1 > dominant.1 {
            dominant = part;
        }
    }
    dominant
}

fn ttft_ns(record: &RequestRecord) -> u64 {
    record
        .first_token_ns
        .map_or(0, |first| first - record.due_ns)
}

/// What of the time to first token is neither waiting nor prefill.
fn preempted_before_first_token_ns(record: &RequestRecord) -> u64 {
    let parts = &record.parts;
    ttft_ns(record).saturating_sub(parts.cold_start_ns + parts.queue_ns + parts.prefill_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Outcome, Parts};

    const SECOND: u64 = 1_000_000_000;

    fn slow(id: u64, due_s: u64, cold_start_s: u64, queue_s: u64) -> RequestRecord {
        let end_ns = (due_s + cold_start_s + queue_s + 1) * SECOND;
        RequestRecord {
            id,
            due_ns: due_s * SECOND,
            prompt_tokens: 100,
            output_tokens: 1,
            session: None,
            replica: Some(0),
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: Some(end_ns),
            end_ns,
            parts: Parts {
                cold_start_ns: cold_start_s * SECOND,
                queue_ns: queue_s * SECOND,
                prefill_ns: SECOND,
                ..Parts::default()
            },
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
