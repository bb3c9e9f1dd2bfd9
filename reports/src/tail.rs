//! Why the slowest requests were slow, in flat memory: where their time went,
//! and when they were sent.
//!
//! Nobody knows during the run who will be among the slowest 1 %. So what the
//! TTFT of every request went to is added to one of a few coarse buckets by its TTFT, from
//! which the parts of the slowest share are read afterwards; and the
//! [`SLOWEST_MAX`] slowest requests are kept as they are.

use crate::records::{Parts, RequestRecord};

/// How many of the slowest requests are kept.
pub const SLOWEST_MAX: usize = 200;

/// Eight to an octave: each is 9 to 13 % wide.
const BUCKETS: usize = 60 * 8 + 16;

/// Sums of [`Parts`] over requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartsTotal {
    /// How many requests.
    pub requests: u64,
    /// Sum of earlier attempts and of waiting to try again (ns).
    pub retry_ns: u128,
    /// Sum of their times outside the engine (ns).
    pub outside_ns: u128,
    /// Sum of their cold starts (ns).
    pub cold_start_ns: u128,
    /// Sum of their queueing (ns).
    pub queue_ns: u128,
    /// Sum of their waiting for adapters (ns).
    pub adapter_ns: u128,
    /// Sum of their prefills (ns).
    pub prefill_ns: u128,
    /// Sum of what preemption cost them (ns).
    pub preemption_ns: u128,
    /// Sum of their decoding (ns).
    pub decode_ns: u128,
}

impl PartsTotal {
    #[inline]
    pub(crate) fn record(&mut self, parts: &Parts) {
        self.requests += 1;
        self.retry_ns += u128::from(parts.retry_ns);
        self.outside_ns += u128::from(parts.outside_ns);
        self.cold_start_ns += u128::from(parts.cold_start_ns);
        self.queue_ns += u128::from(parts.queue_ns);
        self.adapter_ns += u128::from(parts.adapter_ns);
        self.prefill_ns += u128::from(parts.prefill_ns);
        self.preemption_ns += u128::from(parts.preemption_ns);
        self.decode_ns += u128::from(parts.decode_ns);
    }

    fn add(&mut self, other: &PartsTotal) {
        self.requests += other.requests;
        self.retry_ns += other.retry_ns;
        self.outside_ns += other.outside_ns;
        self.cold_start_ns += other.cold_start_ns;
        self.queue_ns += other.queue_ns;
        self.adapter_ns += other.adapter_ns;
        self.prefill_ns += other.prefill_ns;
        self.preemption_ns += other.preemption_ns;
        self.decode_ns += other.decode_ns;
    }

    /// What `requests` of these would have, were they all alike.
    fn share(&self, requests: u64) -> PartsTotal {
        let of = |sum: u128| {
            // Whole and rest apart, so that the product stays inside `u128`.
            let (all, some) = (u128::from(self.requests), u128::from(requests));
            sum / all * some + sum % all * some / all
        };
        PartsTotal {
            requests,
            retry_ns: of(self.retry_ns),
            outside_ns: of(self.outside_ns),
            cold_start_ns: of(self.cold_start_ns),
            queue_ns: of(self.queue_ns),
            adapter_ns: of(self.adapter_ns),
            prefill_ns: of(self.prefill_ns),
            preemption_ns: of(self.preemption_ns),
            decode_ns: of(self.decode_ns),
        }
    }
}

/// What is kept of the completed requests to explain their TTFT.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    all: PartsTotal,
    /// Of each request what its TTFT was made of, and nothing after it.
    by_ttft: Vec<PartsTotal>,
    slowest: Slowest,
}

impl Tail {
    pub(crate) fn new() -> Self {
        Self {
            all: PartsTotal::default(),
            by_ttft: vec![PartsTotal::default(); BUCKETS],
            slowest: Slowest::default(),
        }
    }

    /// Only requests whose parts are known can be explained.
    #[inline]
    pub(crate) fn record(&mut self, ttft_ns: u64, record: &RequestRecord) {
        let Some(parts) = &record.parts else {
            return;
        };
        self.all.record(parts);
        self.by_ttft[bucket_of(ttft_ns)].record(&parts_of_ttft(ttft_ns, parts));
        self.slowest.offer(ttft_ns, record);
    }

    /// The parts of all requests.
    pub(crate) fn all(&self) -> PartsTotal {
        self.all
    }

    /// What the TTFT of the `requests` slowest by TTFT was made of: exact for
    /// as many as are kept; beyond, a proportional share is taken of the coarse
    /// bucket that the boundary cuts through.
    pub(crate) fn slowest_share(&self, requests: u64) -> PartsTotal {
        let mut total = PartsTotal::default();
        if requests <= SLOWEST_MAX as u64 {
            for (ttft_ns, record) in self.slowest.first(requests) {
                let parts = record.parts.unwrap_or_default();
                total.record(&parts_of_ttft(ttft_ns, &parts));
            }
            return total;
        }
        for bucket in self.by_ttft.iter().rev().filter(|b| b.requests > 0) {
            let missing = requests - total.requests;
            if bucket.requests >= missing {
                total.add(&bucket.share(missing));
                break;
            }
            total.add(bucket);
        }
        total
    }

    /// The `requests` slowest by TTFT, slowest first; at most [`SLOWEST_MAX`].
    pub(crate) fn slowest(&self, requests: u64) -> Vec<RequestRecord> {
        let slowest = self.slowest.first(requests).into_iter();
        slowest.map(|(_, record)| record).collect()
    }
}

/// The parts before the first token, which add up to the TTFT.
#[inline]
pub(crate) fn parts_of_ttft(ttft_ns: u64, parts: &Parts) -> Parts {
    let unpreempted_ns = parts.retry_ns
        + parts.outside_ns
        + parts.cold_start_ns
        + parts.queue_ns
        + parts.adapter_ns
        + parts.prefill_ns;
    Parts {
        // Later preemptions cost time too, but not before the first token.
        preemption_ns: ttft_ns.saturating_sub(unpreempted_ns),
        decode_ns: 0,
        ..*parts
    }
}

/// The coarse bucket of a TTFT.
#[inline]
fn bucket_of(ns: u64) -> usize {
    // Below 8 ns a bucket each; above, three bits below the leading one.
    let shift = 60 - (ns | 8).leading_zeros();
    ((shift << 3) as u64 + (ns >> shift)) as usize
}

/// The slowest requests so far. Candidates gather until there are several
/// times as many as are kept, then all but the slowest are dropped: constant
/// work a request even when every request is slower than the one before, as
/// in an overload, where a heap would be reordered each time.
#[derive(Clone, Debug, Default)]
struct Slowest {
    candidates: Vec<(u64, RequestRecord)>,
    /// A TTFT that at least [`SLOWEST_MAX`] candidates reach.
    threshold_ns: u64,
}

const CANDIDATES_MAX: usize = 4 * SLOWEST_MAX;

impl Slowest {
    #[inline]
    fn offer(&mut self, ttft_ns: u64, record: &RequestRecord) {
        // Not `<=`: of two as slow, the lower id is kept, and it may come later.
        if ttft_ns < self.threshold_ns {
            return;
        }
        self.candidates.push((ttft_ns, record.clone()));
        if self.candidates.len() == CANDIDATES_MAX {
            self.drop_faster();
        }
    }

    fn drop_faster(&mut self) {
        self.candidates
            .select_nth_unstable_by_key(SLOWEST_MAX - 1, slowest_first);
        self.candidates.truncate(SLOWEST_MAX);
        self.threshold_ns = self.candidates[SLOWEST_MAX - 1].0;
    }

    /// The first of them, slowest first; at most [`SLOWEST_MAX`].
    fn first(&self, requests: u64) -> Vec<(u64, RequestRecord)> {
        let mut candidates = self.candidates.clone();
        candidates.sort_unstable_by_key(slowest_first);
        let requests = usize::try_from(requests).unwrap_or(SLOWEST_MAX);
        candidates.truncate(requests.min(SLOWEST_MAX));
        candidates
    }
}

fn slowest_first((ttft_ns, record): &(u64, RequestRecord)) -> (std::cmp::Reverse<u64>, u64) {
    (std::cmp::Reverse(*ttft_ns), record.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Outcome;
    use proptest::prelude::*;

    fn record(id: u64, ttft_ns: u64) -> RequestRecord {
        RequestRecord {
            id,
            due_ns: 0,
            prompt_tokens: 1,
            output_tokens: 1,
            session: None,
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: Some(ttft_ns),
            end_ns: ttft_ns,
            parts: Some(Parts {
                queue_ns: ttft_ns,
                ..Parts::default()
            }),
            wire: None,
        }
    }

    fn tail_of(ttfts: &[u64]) -> Tail {
        let mut tail = Tail::new();
        for (id, &ttft_ns) in ttfts.iter().enumerate() {
            tail.record(ttft_ns, &record(id as u64, ttft_ns));
        }
        tail
    }

    #[test]
    fn buckets_are_in_order_and_fit() {
        let mut last = 0;
        for octave in 0..64 {
            for eighth in 0..8_u64 {
                let low_bits = (u128::from(eighth) << octave >> 3) as u64;
                let bucket = bucket_of((1 << octave) | low_bits);
                assert!(bucket >= last);
                last = bucket;
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_slowest_share_holds_the_slow_ones_time() {
        let mut ttfts = vec![1_000_000; 990];
        ttfts.extend([5_000_000_000; 10]);
        let slowest = tail_of(&ttfts).slowest_share(10);
        assert_eq!(slowest.requests, 10);
        assert_eq!(slowest.queue_ns, 50_000_000_000);
    }

    #[test]
    fn a_bucket_that_is_cut_gives_its_share() {
        let slowest = tail_of(&[1_000; 500]).slowest_share(300);
        assert_eq!((slowest.requests, slowest.queue_ns), (300, 300_000));
    }

    #[test]
    fn few_of_the_slowest_are_added_up_exactly() {
        // Two in one coarse bucket.
        let slowest = tail_of(&[1_000, 1_010, 10]).slowest_share(1);
        assert_eq!((slowest.requests, slowest.queue_ns), (1, 1_010));
    }

    #[test]
    fn the_slowest_share_ends_with_the_first_token() {
        let mut slow = record(0, 10);
        slow.parts = Some(Parts {
            queue_ns: 3,
            prefill_ns: 5,
            // 2 ns of it before the first token.
            preemption_ns: 6,
            decode_ns: 100,
            ..Parts::default()
        });
        let mut tail = Tail::new();
        tail.record(10, &slow);
        let slowest = tail.slowest_share(1);
        assert_eq!((slowest.queue_ns, slowest.prefill_ns), (3, 5));
        assert_eq!((slowest.preemption_ns, slowest.decode_ns), (2, 0));
        assert_eq!((tail.all().preemption_ns, tail.all().decode_ns), (6, 100));
    }

    #[test]
    fn as_many_of_the_slowest_as_asked_for() {
        let ids = |requests| {
            let slowest = tail_of(&[1, 3, 2]).slowest(requests);
            slowest.iter().map(|record| record.id).collect::<Vec<_>>()
        };
        assert_eq!((ids(0), ids(2)), (vec![], vec![1, 2]));
    }

    proptest! {
        #[test]
        fn the_slowest_are_kept_and_ties_go_to_the_lower_id(
            ttfts in prop::collection::vec(0..300_u64, 0..3_000),
        ) {
            let mut expected: Vec<_> = ttfts.iter().enumerate().map(|(id, t)| (*t, id as u64)).collect();
            expected.sort_by_key(|&(ttft, id)| (std::cmp::Reverse(ttft), id));
            expected.truncate(SLOWEST_MAX);
            let kept: Vec<_> = tail_of(&ttfts).slowest(u64::MAX).iter().map(|r| (r.end_ns, r.id)).collect();
            prop_assert_eq!(kept, expected);
        }

        #[test]
        fn the_parts_of_all_are_the_sum_of_the_parts(
            ttfts in prop::collection::vec(0..u64::MAX, 0..300),
        ) {
            let all = tail_of(&ttfts).all();
            prop_assert_eq!(all.requests, ttfts.len() as u64);
            prop_assert_eq!(all.queue_ns, ttfts.iter().map(|&t| u128::from(t)).sum::<u128>());
        }
    }
}
