//! Which replica gets a request.

use crate::batching::BlockHash;
use crate::control::replica_set::ReplicaId;

/// How requests are spread over the ready replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// The rule.
    pub policy: RouterPolicy,
    /// Requests a replica may hold, running and queued; further ones wait
    /// centrally, first come first served. `None` is no limit.
    pub max_outstanding: Option<u32>,
}

/// The rule by which a replica is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterPolicy {
    /// Each in turn.
    RoundRobin,
    /// Fewest requests running and queued; ties go to the oldest replica.
    LeastOutstanding,
    /// Fewest KV blocks in use; ties go to the oldest replica.
    LeastKvUse,
    /// The less loaded of two drawn at random.
    PowerOfTwoChoices,
    /// The same replica for the same prefix, unless it has far more than its share.
    PrefixAffinity,
    /// The same replica for the same adapter, unless it has far more than its share,
    /// so that each replica holds a part of the adapters.
    AdapterAffinity,
}

/// What the router needs to know of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// The hash of what it shares with other requests, be that a prefix or an
    /// adapter; `None` if it shares nothing.
    pub prefix: Option<BlockHash>,
}

/// A ready replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub replica: ReplicaId,
    /// Requests it holds, running and queued.
    pub outstanding: u32,
    /// KV blocks it uses.
    pub kv_blocks_used: u32,
}

/// Chooses replicas. Remembers only whose turn it is.
#[derive(Clone, Debug)]
pub struct Router {
    policy: RouterPolicy,
    /// `u32::MAX` without a limit: no replica holds so many.
    max_outstanding: u32,
    /// The replica that had the last turn.
    last: Option<ReplicaId>,
}

impl Router {
    /// A router that has routed nothing.
    #[must_use]
    pub fn new(config: RouterConfig) -> Self {
        Router {
            policy: config.policy,
            max_outstanding: config.max_outstanding.unwrap_or(u32::MAX),
            last: None,
        }
    }

    /// The index in `candidates` of the replica that gets the request.
    ///
    /// `candidates` are in order of id, oldest first. `None` means that none can
    /// take it now: the caller holds the request, behind those it holds already.
    /// `draw` gives uniform random numbers; only power-of-two choices calls it,
    /// twice a request, or not at all when there is no choice.
    pub fn route(
        &mut self,
        request: Routed,
        candidates: &[Candidate],
        draw: impl FnMut() -> u64,
    ) -> Option<usize> {
        let limit = self.max_outstanding;
        match (self.policy, request.prefix) {
            (RouterPolicy::RoundRobin, _) => self.next_in_turn(candidates),
            (RouterPolicy::LeastOutstanding, _)
            | (RouterPolicy::PrefixAffinity | RouterPolicy::AdapterAffinity, None) => {
                least(candidates, limit, |candidate| candidate.outstanding)
            }
            (RouterPolicy::LeastKvUse, _) => {
                least(candidates, limit, |candidate| candidate.kv_blocks_used)
            }
            (RouterPolicy::PowerOfTwoChoices, _) => less_of_two(candidates, limit, draw),
            (RouterPolicy::PrefixAffinity | RouterPolicy::AdapterAffinity, Some(shared)) => {
                affine(candidates, limit, shared)
            }
        }
    }

    /// The first after the last that had its turn. Turns are remembered by id,
    /// not by position, so that replicas may come and go in between.
    fn next_in_turn(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let had_its_turn = |c: &Candidate| self.last.is_some_and(|last| c.replica <= last);
        let start = candidates.partition_point(had_its_turn);
        let order = (start..candidates.len()).chain(0..start);
        let chosen = order
            .into_iter()
            .find(|&index| candidates[index].outstanding < self.max_outstanding)?;
        self.last = Some(candidates[chosen].replica);
        Some(chosen)
    }
}

/// The one with the least of a quantity; the first of equals.
fn least(
    candidates: &[Candidate],
    limit: u32,
    quantity: impl Fn(&Candidate) -> u32,
) -> Option<usize> {
    below(candidates, limit)
        .min_by_key(|(_, candidate)| quantity(candidate))
        .map(|(index, _)| index)
}

/// Candidates that may take another request, with their indices.
fn below(candidates: &[Candidate], limit: u32) -> impl Iterator<Item = (usize, &Candidate)> {
    let free = move |(_, candidate): &(usize, &Candidate)| candidate.outstanding < limit;
    candidates.iter().enumerate().filter(free)
}

/// Of two different ones drawn at random, the one with fewer requests; the older
/// of equals. Mitzenmacher, "The power of two choices in randomized load
/// balancing", 2001.
fn less_of_two(
    candidates: &[Candidate],
    limit: u32,
    mut draw: impl FnMut() -> u64,
) -> Option<usize> {
    let free = below(candidates, limit).count();
    if free < 2 {
        return below(candidates, limit).next().map(|(index, _)| index);
    }
    let first = below_bound(draw(), free);
    let second = below_bound(draw(), free - 1);
    let second = second + usize::from(second >= first);
    let pick = |nth: usize| {
        if free == candidates.len() {
            return Some(nth);
        }
        below(candidates, limit).nth(nth).map(|(index, _)| index)
    };
    let (a, b) = (pick(first)?, pick(second)?);
    Some(std::cmp::min_by_key(a.min(b), a.max(b), |&index| {
        candidates[index].outstanding
    }))
}

/// A uniform number below `bound` by multiplication (Lemire, "Fast random integer
/// generation in an interval", 2019). Without its rejection step: the bias is
/// below `bound` in 2^64.
fn below_bound(random: u64, bound: usize) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}

/// The replica with the highest hash of (prefix, replica): rendezvous hashing
/// (Thaler and Ravishankar, 1998), under which a replica that comes or goes moves
/// only its own prefixes. Replicas that have far more than the mean are passed
/// over, after Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with
/// bounded loads", 2018. Ours bounds what a replica holds before the request.
fn affine(candidates: &[Candidate], limit: u32, prefix: BlockHash) -> Option<usize> {
    let total: u64 = candidates.iter().map(|c| u64::from(c.outstanding)).sum();
    let count = candidates.len() as u64;
    let prefix = mix(prefix as u64 ^ mix((prefix >> 64) as u64));
    // outstanding <= 1.25 total / count + 1, without division. The least loaded
    // is always within.
    let within = |c: &Candidate| 4 * count * u64::from(c.outstanding) <= 5 * total + 4 * count;
    below(candidates, limit)
        .filter(|(_, candidate)| within(candidate))
        .max_by_key(|(index, candidate)| {
            (weight(prefix, candidate.replica), std::cmp::Reverse(*index))
        })
        .map(|(index, _)| index)
}

fn weight(prefix: u64, replica: ReplicaId) -> u64 {
    mix(prefix ^ mix(u64::from(replica)))
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014), with its increment.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICIES: [RouterPolicy; 6] = [
        RouterPolicy::RoundRobin,
        RouterPolicy::LeastOutstanding,
        RouterPolicy::LeastKvUse,
        RouterPolicy::PowerOfTwoChoices,
        RouterPolicy::PrefixAffinity,
        RouterPolicy::AdapterAffinity,
    ];

    fn router(policy: RouterPolicy, max_outstanding: Option<u32>) -> Router {
        Router::new(RouterConfig {
            policy,
            max_outstanding,
        })
    }

    /// Replicas with even ids from 0, holding so many requests.
    fn candidates(outstanding: &[u32]) -> Vec<Candidate> {
        let candidate = |(index, &outstanding): (usize, &u32)| Candidate {
            replica: 2 * index as u32,
            outstanding,
            kv_blocks_used: 100 - outstanding.min(100),
        };
        outstanding.iter().enumerate().map(candidate).collect()
    }

    fn no_draw() -> u64 {
        panic!("this policy does not draw")
    }

    fn random(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = mix(state);
            state
        }
    }

    fn with_prefix(prefix: u128) -> Routed {
        Routed {
            prefix: Some(prefix),
        }
    }

    #[test]
    fn round_robin_goes_round_while_replicas_come_and_go() {
        let mut router = router(RouterPolicy::RoundRobin, None);
        let mut turn = |all: &[Candidate]| {
            let index = router
                .route(Routed::default(), all, no_draw)
                .expect("some are ready");
            all[index].replica
        };
        let all = candidates(&[0; 4]);
        assert_eq!([turn(&all), turn(&all), turn(&all)], [0, 2, 4]);
        // Replica 4 leaves after its turn: 6 is next all the same.
        let rest = [all[0], all[1], all[3]];
        assert_eq!([turn(&rest), turn(&rest), turn(&all)], [6, 0, 2]);
    }

    #[test]
    fn round_robin_passes_over_the_full() {
        let mut router = router(RouterPolicy::RoundRobin, Some(2));
        let all = candidates(&[0, 2, 1]);
        let turns: Vec<_> = (0..3)
            .map(|_| router.route(Routed::default(), &all, no_draw))
            .collect();
        assert_eq!(turns, [Some(0), Some(2), Some(0)]);
    }

    #[test]
    fn the_least_is_chosen_and_the_oldest_of_equals() {
        let all = candidates(&[5, 2, 9, 2]);
        let mut by_requests = router(RouterPolicy::LeastOutstanding, None);
        assert_eq!(by_requests.route(Routed::default(), &all, no_draw), Some(1));
        let mut by_blocks = router(RouterPolicy::LeastKvUse, None);
        assert_eq!(by_blocks.route(Routed::default(), &all, no_draw), Some(2));
        let equal = candidates(&[3, 3]);
        assert_eq!(by_blocks.route(Routed::default(), &equal, no_draw), Some(0));
    }

    #[test]
    fn two_choices_draw_twice_and_take_the_less_loaded() {
        let mut router = router(RouterPolicy::PowerOfTwoChoices, None);
        let all = candidates(&[7, 3, 5]);
        // The lowest draw is the first of three, then the first of the other two.
        let mut draws = vec![0, 0];
        let chosen = router.route(Routed::default(), &all, || draws.pop().expect("two draws"));
        assert_eq!((chosen, draws.len()), (Some(1), 0));
        let mut draws = vec![u64::MAX, 0];
        let chosen = router.route(Routed::default(), &all, || draws.pop().expect("two draws"));
        assert_eq!(chosen, Some(2));
        let one = candidates(&[7]);
        assert_eq!(router.route(Routed::default(), &one, no_draw), Some(0));
    }

    #[test]
    fn without_a_prefix_affinity_takes_the_least_outstanding() {
        let mut router = router(RouterPolicy::PrefixAffinity, None);
        let all = candidates(&[4, 1, 2]);
        assert_eq!(router.route(Routed::default(), &all, no_draw), Some(1));
    }

    #[test]
    fn affinity_moves_only_the_prefixes_of_the_replica_that_left() {
        let mut router = router(RouterPolicy::PrefixAffinity, None);
        let all = candidates(&[0; 8]);
        let rest: Vec<_> = all.iter().copied().filter(|c| c.replica != 6).collect();
        for prefix in 0..1_000 {
            let request = with_prefix(prefix);
            let before = all[router.route(request, &all, no_draw).expect("ready")].replica;
            let after = rest[router.route(request, &rest, no_draw).expect("ready")].replica;
            assert!(before == after || before == 6, "prefix {prefix} moved");
        }
    }

    #[test]
    fn affinity_spreads_different_prefixes_evenly() {
        let mut router = router(RouterPolicy::PrefixAffinity, None);
        let all = candidates(&[0; 8]);
        let mut hits = [0_u32; 8];
        for prefix in 0..8_000_u128 {
            let request = with_prefix(prefix << 60);
            hits[router.route(request, &all, no_draw).expect("ready")] += 1;
        }
        // 1000 expected, standard deviation 30.
        assert!(hits.iter().all(|n| (850..1_150).contains(n)), "{hits:?}");
    }

    #[test]
    fn one_hot_prefix_spills_over_before_its_replica_has_far_more_than_its_share() {
        let mut router = router(RouterPolicy::PrefixAffinity, None);
        let mut all = candidates(&[0; 4]);
        for _ in 0..400 {
            let index = router.route(with_prefix(42), &all, no_draw).expect("ready");
            all[index].outstanding += 1;
        }
        let most = all.iter().map(|c| c.outstanding).max();
        assert!(most <= Some(127), "{all:?}");
    }

    #[test]
    fn nobody_ready_is_nobody_chosen() {
        for policy in POLICIES {
            assert_eq!(
                router(policy, None).route(with_prefix(1), &[], no_draw),
                None
            );
        }
    }

    proptest! {
        #[test]
        fn a_replica_with_room_is_found_whenever_there_is_one(
            outstanding in prop::collection::vec(0_u32..6, 0..9),
            limit in 0_u32..7,
            seed in any::<u64>(),
            prefix in any::<Option<u128>>(),
        ) {
            let all = candidates(&outstanding);
            for policy in POLICIES {
                let chosen = router(policy, Some(limit)).route(Routed { prefix }, &all, random(seed));
                let room = outstanding.iter().any(|&held| held < limit);
                prop_assert_eq!(chosen.is_some(), room);
                prop_assert!(chosen.is_none_or(|index| outstanding[index] < limit));
            }
        }

        #[test]
        fn requests_that_stay_are_shared_fairly(count in 1_usize..9, seed in any::<u64>()) {
            for policy in [RouterPolicy::RoundRobin, RouterPolicy::LeastOutstanding] {
                let mut router = router(policy, None);
                let mut all = candidates(&vec![0; count]);
                for _ in 0..50 {
                    let index = router.route(Routed::default(), &all, random(seed)).expect("ready");
                    all[index].outstanding += 1;
                }
                let held = || all.iter().map(|candidate| candidate.outstanding);
                prop_assert!(held().max().unwrap_or(0) - held().min().unwrap_or(0) <= 1);
            }
        }

        #[test]
        fn affinity_never_passes_its_bound(
            outstanding in prop::collection::vec(0_u32..50, 1..9),
            prefix in any::<u128>(),
        ) {
            let all = candidates(&outstanding);
            let chosen = router(RouterPolicy::PrefixAffinity, None)
                .route(with_prefix(prefix), &all, no_draw)
                .expect("one is at or below the mean");
            let mean = f64::from(outstanding.iter().sum::<u32>()) / outstanding.len() as f64;
            prop_assert!(f64::from(outstanding[chosen]) <= 1.25 * mean + 1.0 + 1e-9);
        }
    }
}
