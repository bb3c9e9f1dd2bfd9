//! Which run of the candidate belongs to which of the baseline.

use super::report::Pairing;
use super::run::GateRun;
use std::collections::BTreeSet;

/// The runs of both sides, in the order in which they belong together if they do.
#[derive(Clone, Debug)]
pub(super) struct Sides<'a> {
    pub(super) pairing: Pairing,
    pub(super) baseline: Vec<&'a GateRun>,
    pub(super) candidate: Vec<&'a GateRun>,
}

impl<'a> Sides<'a> {
    /// By seed where both sides have the same seeds, each once; else by place
    /// where both have as many runs; else not at all.
    ///
    /// Runs that were alternated share their hour and their machine, and those
    /// of one seed their requests: what they share cancels in the difference.
    pub(super) fn new(baseline: &'a [GateRun], candidate: &'a [GateRun], may_pair: bool) -> Self {
        let (mut baseline, mut candidate) = (refs(baseline), refs(candidate));
        let is_equal = baseline.len() == candidate.len();
        let seeds = |runs: &[&GateRun]| runs.iter().map(|run| run.seed).collect::<BTreeSet<_>>();
        let (ours, theirs) = (seeds(&baseline), seeds(&candidate));
        let pairing = match (may_pair && is_equal, ours.len() == baseline.len()) {
            (true, true) if ours == theirs => Pairing::Seeds,
            (true, _) => Pairing::Order,
            (false, _) => Pairing::None,
        };
        if pairing == Pairing::Seeds {
            baseline.sort_by_key(|run| run.seed);
            candidate.sort_by_key(|run| run.seed);
        }
        Self {
            pairing,
            baseline,
            candidate,
        }
    }
}

fn refs(runs: &[GateRun]) -> Vec<&GateRun> {
    runs.iter().collect()
}
