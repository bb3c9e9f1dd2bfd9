//! The same requests on both sides, one by one.
//!
//! Where a variant got the requests of the baseline, each can be held against
//! itself: what differs between requests, which is most of what latencies differ
//! by, cancels. What is told is how the pairs differ, and no interval: the
//! requests of a run share its queues and are not independent of each other.

use crate::records::{Outcome, RequestRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the requests of a variant differ from the same requests of the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedRequests {
    /// The variant.
    pub variant: String,
    /// Requests that completed on both sides.
    pub pairs: u64,
    /// Requests that were the same on both sides, and did not complete on both.
    pub not_completed: u64,
    /// The latencies that are known of both.
    pub latencies: Vec<PairedLatency>,
}

/// A latency of each request less that of the same request of the baseline (s).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedLatency {
    /// `ttft`, `tpot` or `e2e`.
    pub name: String,
    /// Pairs of which it is known.
    pub pairs: u64,
    /// Mean difference (s).
    pub mean_s: f64,
    /// Median difference (s).
    pub p50_s: f64,
    /// A twentieth of the differences are below this (s).
    pub p5_s: f64,
    /// A twentieth of the differences are above this (s).
    pub p95_s: f64,
    /// Share of the pairs that took longer.
    pub slower: f64,
}

/// Gathers pairs, run by run.
#[derive(Clone, Debug, Default)]
pub struct RequestPairs {
    not_completed: u64,
    pairs: u64,
    /// Differences of TTFT, TPOT and E2E (ns).
    differences: [Vec<i64>; 3],
}

const NAMES: [&str; 3] = ["ttft", "tpot", "e2e"];

/// What is kept of a request until its partner comes.
#[derive(Clone, Copy)]
struct Kept {
    prompt_tokens: u32,
    latencies_ns: Option<[Option<u64>; 3]>,
}

impl RequestPairs {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a run of the baseline and one of the variant, under one seed.
    /// Requests are the same if their place in the workload and their prompt's
    /// length are. Those outside the window that is measured count on neither side.
    ///
    /// # Errors
    /// The first error of either side.
    pub fn add<Error>(
        &mut self,
        baseline: impl IntoIterator<Item = Result<RequestRecord, Error>>,
        variant: impl IntoIterator<Item = Result<RequestRecord, Error>>,
    ) -> Result<(), Error> {
        let mut kept = BTreeMap::new();
        for record in baseline {
            let record = record?;
            if let Some(request) = keep(&record) {
                kept.insert(record.id, request);
            }
        }
        for record in variant {
            let record = record?;
            let pair = keep(&record).zip(kept.remove(&record.id));
            if let Some((ours, theirs)) =
                pair.filter(|(ours, theirs)| ours.prompt_tokens == theirs.prompt_tokens)
            {
                self.pair(ours, theirs);
            }
        }
        Ok(())
    }

    fn pair(&mut self, ours: Kept, theirs: Kept) {
        let (Some(ours), Some(theirs)) = (ours.latencies_ns, theirs.latencies_ns) else {
            self.not_completed += 1;
            return;
        };
        self.pairs += 1;
        for ((differences, ours), theirs) in self.differences.iter_mut().zip(ours).zip(theirs) {
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                // Latencies are far from 292 years.
                differences.push(ours.cast_signed().saturating_sub(theirs.cast_signed()));
            }
        }
    }

    /// What the pairs say of the variant; `None` if no request is the same.
    #[must_use]
    pub fn finish(self, variant: &str) -> Option<PairedRequests> {
        if self.pairs + self.not_completed == 0 {
            return None;
        }
        let latencies = NAMES.into_iter().zip(self.differences);
        Some(PairedRequests {
            variant: variant.to_owned(),
            pairs: self.pairs,
            not_completed: self.not_completed,
            latencies: latencies
                .filter_map(|(name, differences)| latency(name, differences))
                .collect(),
        })
    }
}

/// `None` of what was not measured.
fn keep(record: &RequestRecord) -> Option<Kept> {
    if record.wire.is_some_and(|wire| !wire.is_in_window) {
        return None;
    }
    let since = |from: u64, until: Option<u64>| until.map(|until| until.saturating_sub(from));
    let tpot_ns = since(
        record.first_token_ns.unwrap_or(u64::MAX),
        Some(record.last_token_ns()),
    )
    .filter(|_| record.output_tokens >= 2 && record.first_token_ns.is_some())
    .map(|ns| ns / u64::from(record.output_tokens - 1));
    let latencies_ns = [
        since(record.due_ns, record.first_token_ns),
        tpot_ns,
        since(record.due_ns, Some(record.end_ns)),
    ];
    Some(Kept {
        prompt_tokens: record.prompt_tokens,
        latencies_ns: (record.outcome == Outcome::Completed).then_some(latencies_ns),
    })
}

fn latency(name: &str, mut differences: Vec<i64>) -> Option<PairedLatency> {
    if differences.is_empty() {
        return None;
    }
    differences.sort_unstable();
    let count = differences.len();
    let seconds = |ns: i64| ns as f64 / 1e9;
    // The nearest rank, as percentiles are everywhere here.
    let at = |percent: usize| seconds(differences[(percent * count).div_ceil(100).max(1) - 1]);
    let sum: i128 = differences.iter().copied().map(i128::from).sum();
    let slower = differences.iter().filter(|ns| **ns > 0).count();
    Some(PairedLatency {
        name: name.to_owned(),
        pairs: count as u64,
        mean_s: sum as f64 / count as f64 / 1e9,
        p50_s: at(50),
        p5_s: at(5),
        p95_s: at(95),
        slower: slower as f64 / count as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn record(id: u64, ttft_ms: u64, output_tokens: u32, tpot_ms: u64) -> RequestRecord {
        let due_ns = id * 1_000_000_000;
        let first_ns = due_ns + ttft_ms * 1_000_000;
        RequestRecord {
            id,
            due_ns,
            prompt_tokens: 100,
            output_tokens,
            session: None,
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: Some(first_ns),
            end_ns: first_ns + tpot_ms * 1_000_000 * u64::from(output_tokens.saturating_sub(1)),
            parts: None,
            wire: None,
        }
    }

    fn pairs(baseline: Vec<RequestRecord>, variant: Vec<RequestRecord>) -> Option<PairedRequests> {
        let mut pairs = RequestPairs::new();
        let ok = |records: Vec<RequestRecord>| records.into_iter().map(Ok::<_, Infallible>);
        let Ok(()) = pairs.add(ok(baseline), ok(variant));
        pairs.finish("new")
    }

    #[test]
    fn each_request_is_held_against_itself() {
        let baseline = (0..20)
            .map(|id| record(id, 50 + 100 * id, 11, 10))
            .collect();
        // In another order, as they ended otherwise.
        let variant = (0..20)
            .rev()
            .map(|id| record(id, 52 + 100 * id, 11, 9))
            .collect();
        let paired = pairs(baseline, variant).unwrap();
        assert_eq!((paired.pairs, paired.not_completed), (20, 0));
        let names: Vec<&str> = paired
            .latencies
            .iter()
            .map(|each| each.name.as_str())
            .collect();
        assert_eq!(names, ["ttft", "tpot", "e2e"]);
        let [ttft, tpot, e2e] = &paired.latencies[..] else {
            panic!("{paired:?}");
        };
        // Although requests differ by two seconds among each other.
        assert_eq!(
            (ttft.p5_s, ttft.p50_s, ttft.p95_s, ttft.slower),
            (0.002, 0.002, 0.002, 1.0)
        );
        assert_eq!((tpot.mean_s, tpot.slower), (-0.001, 0.0));
        assert!((e2e.mean_s + 0.008).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_the_same_request_makes_no_pair() {
        let mut longer = record(1, 50, 1, 10);
        longer.prompt_tokens = 101;
        let mut failed = record(2, 50, 1, 10);
        failed.outcome = Outcome::FailedTimeout;
        let baseline = (0..3).map(|id| record(id, 50, 1, 10)).collect();
        let paired = pairs(
            baseline,
            vec![
                record(0, 60, 1, 10),
                longer.clone(),
                failed,
                record(9, 50, 1, 10),
            ],
        );
        let paired = paired.unwrap();
        assert_eq!((paired.pairs, paired.not_completed), (1, 1));
        // One token has no time after the first.
        assert!(
            paired
                .latencies
                .iter()
                .all(|latency| latency.name != "tpot")
        );
        assert_eq!(pairs(vec![record(1, 50, 1, 10)], vec![longer]), None);
    }
}
