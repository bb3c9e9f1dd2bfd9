//! Who gets GPUs when there are not enough for all.
//!
//! A pool holds so many GPUs of each kind: what a provider has in stock, or what
//! an account may use (its quota). Deployments claim GPUs for the replicas that
//! they start and give them back when those are gone; nothing else couples one
//! deployment to another (S01).
//!
//! Claims are granted in the order in which they were made, one queue a kind. A
//! claim that does not fit holds back those behind it, even smaller ones: else
//! a deployment with a large world size might wait forever.

use std::collections::{BTreeMap, VecDeque};

use super::replica_set::ReplicaId;

/// A kind of GPU, by the position that the owner of the pool gives it.
pub type GpuKind = u32;

/// A claim: these GPUs for this replica of this deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The deployment, by the position that the owner of the pool gives it.
    pub deployment: u32,
    /// Its replica.
    pub replica: ReplicaId,
    /// The kind of GPU.
    pub kind: GpuKind,
    /// How many: the world size of the replica.
    pub gpus: u32,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The GPUs are there.
    Granted,
    /// It waits: so many GPUs are free, and so many claims are before it.
    Waits {
        /// Free GPUs of the kind; 0 while none are handed out.
        free: u32,
        /// Claims before it.
        ahead: u32,
    },
}

/// GPUs that several deployments share.
#[derive(Clone, Debug, Default)]
pub struct GpuPool {
    kinds: BTreeMap<GpuKind, Stock>,
    /// While a stock-out lasts nothing is handed out, whatever is free.
    is_out_of_stock: bool,
}

/// The GPUs of one kind.
#[derive(Clone, Debug, Default)]
struct Stock {
    size: u32,
    used: u32,
    waiting: VecDeque<Claim>,
}

impl Stock {
    fn free(&self) -> u32 {
        self.size.saturating_sub(self.used)
    }

    /// Hands GPUs to those that wait, in their order.
    fn serve(&mut self) -> Vec<Claim> {
        let mut granted = Vec::new();
        while let Some(claim) = self.waiting.front().copied()
            && claim.gpus <= self.free()
        {
            self.waiting.pop_front();
            self.used += claim.gpus;
            granted.push(claim);
        }
        granted
    }
}

impl GpuPool {
    /// A pool of so many GPUs of each kind. A kind that is not named is not limited.
    #[must_use]
    pub fn new(sizes: impl IntoIterator<Item = (GpuKind, u32)>) -> Self {
        let stock = |size| Stock {
            size,
            ..Stock::default()
        };
        GpuPool {
            kinds: sizes
                .into_iter()
                .map(|(kind, size)| (kind, stock(size)))
                .collect(),
            is_out_of_stock: false,
        }
    }

    /// Claims GPUs for a replica that starts.
    pub fn claim(&mut self, claim: Claim) -> Claimed {
        let stock = self.kinds.entry(claim.kind).or_insert_with(|| Stock {
            size: u32::MAX,
            ..Stock::default()
        });
        let free = if self.is_out_of_stock {
            0
        } else {
            stock.free()
        };
        if stock.waiting.is_empty() && claim.gpus <= free {
            stock.used += claim.gpus;
            return Claimed::Granted;
        }
        let ahead = stock.waiting.len() as u32;
        stock.waiting.push_back(claim);
        Claimed::Waits { free, ahead }
    }

    /// Gives back the GPUs of a claim that was granted, or takes back one that
    /// waits. Returns the claims that are granted now.
    #[must_use = "those that are granted have to be told"]
    pub fn release(&mut self, claim: &Claim) -> Vec<Claim> {
        let Some(stock) = self.kinds.get_mut(&claim.kind) else {
            return Vec::new();
        };
        match stock.waiting.iter().position(|waiting| waiting == claim) {
            Some(place) => {
                stock.waiting.remove(place);
            }
            None => stock.used -= claim.gpus,
        }
        if self.is_out_of_stock {
            return Vec::new();
        }
        stock.serve()
    }

    /// A stock-out begins or ends. GPUs that are in use stay so; returns the
    /// claims that are granted now.
    #[must_use = "those that are granted have to be told"]
    pub fn set_out_of_stock(&mut self, is_out_of_stock: bool) -> Vec<Claim> {
        self.is_out_of_stock = is_out_of_stock;
        if is_out_of_stock {
            return Vec::new();
        }
        self.kinds.values_mut().flat_map(Stock::serve).collect()
    }

    /// GPUs of a kind that are in use.
    #[must_use]
    pub fn used(&self, kind: GpuKind) -> u32 {
        self.kinds.get(&kind).map_or(0, |stock| stock.used)
    }

    /// Claims for GPUs of a kind that wait.
    #[must_use]
    pub fn waiting(&self, kind: GpuKind) -> u32 {
        self.kinds
            .get(&kind)
            .map_or(0, |stock| stock.waiting.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(deployment: u32, replica: u32, gpus: u32) -> Claim {
        Claim {
            deployment,
            replica,
            kind: 0,
            gpus,
        }
    }

    #[test]
    fn claims_are_granted_in_order_as_gpus_become_free() {
        let mut pool = GpuPool::new([(0, 4)]);
        assert_eq!(pool.claim(claim(0, 0, 2)), Claimed::Granted);
        assert_eq!(pool.claim(claim(0, 1, 2)), Claimed::Granted);
        let waits = Claimed::Waits { free: 0, ahead: 0 };
        assert_eq!(pool.claim(claim(1, 0, 1)), waits);
        assert_eq!(
            pool.claim(claim(0, 2, 2)),
            Claimed::Waits { free: 0, ahead: 1 }
        );
        let granted = pool.release(&claim(0, 0, 2));
        assert_eq!(granted, [claim(1, 0, 1)]);
        assert_eq!((pool.used(0), pool.waiting(0)), (3, 1));
        assert_eq!(pool.release(&claim(0, 1, 2)), [claim(0, 2, 2)]);
    }

    #[test]
    fn a_small_claim_does_not_overtake_a_large_one() {
        let mut pool = GpuPool::new([(0, 8)]);
        assert_eq!(pool.claim(claim(0, 0, 2)), Claimed::Granted);
        assert_eq!(
            pool.claim(claim(1, 0, 8)),
            Claimed::Waits { free: 6, ahead: 0 }
        );
        assert_eq!(
            pool.claim(claim(2, 0, 1)),
            Claimed::Waits { free: 6, ahead: 1 }
        );
        // The large one is given up.
        assert_eq!(pool.release(&claim(1, 0, 8)), [claim(2, 0, 1)]);
    }

    #[test]
    fn while_out_of_stock_nothing_is_handed_out() {
        let mut pool = GpuPool::new([(0, 4)]);
        assert_eq!(pool.claim(claim(0, 0, 1)), Claimed::Granted);
        assert_eq!(pool.set_out_of_stock(true), []);
        assert_eq!(
            pool.claim(claim(0, 1, 1)),
            Claimed::Waits { free: 0, ahead: 0 }
        );
        assert_eq!(pool.release(&claim(0, 0, 1)), []);
        assert_eq!(pool.set_out_of_stock(false), [claim(0, 1, 1)]);
    }

    #[test]
    fn a_kind_that_is_not_named_is_not_limited() {
        let mut pool = GpuPool::new([(0, 1)]);
        let other = Claim {
            kind: 1,
            ..claim(0, 0, 1_000)
        };
        assert_eq!(pool.claim(other), Claimed::Granted);
    }

    proptest! {
        /// Whatever is claimed and given back: never more GPUs in use than there
        /// are, and nobody waits at the head who would fit.
        #[test]
        fn a_pool_is_never_overdrawn_and_never_idle_while_the_first_would_fit(
            size in 1_u32..12,
            moves in prop::collection::vec((0_u32..12, 1_u32..5, any::<bool>(), any::<bool>()), 1..80),
        ) {
            let mut pool = GpuPool::new([(0, size)]);
            let (mut granted, mut waiting, mut out) = (Vec::<Claim>::new(), Vec::<Claim>::new(), false);
            for (number, (pick, gpus, gives_back, turns_stock)) in (0..).zip(moves) {
                let mut served = Vec::new();
                if turns_stock {
                    out = !out;
                    served = pool.set_out_of_stock(out);
                } else if gives_back && !granted.is_empty() {
                    let claim = granted.remove(pick as usize % granted.len());
                    served = pool.release(&claim);
                } else {
                    let claim = claim(pick, number, gpus);
                    match pool.claim(claim) {
                        Claimed::Granted => granted.push(claim),
                        Claimed::Waits { .. } => waiting.push(claim),
                    }
                }
                for claim in served {
                    prop_assert_eq!(waiting.remove(0), claim);
                    granted.push(claim);
                }
                let used: u32 = granted.iter().map(|claim| claim.gpus).sum();
                prop_assert_eq!(pool.used(0), used);
                prop_assert!(used <= size);
                let first_fits = waiting.first().is_some_and(|first| first.gpus <= size - used);
                prop_assert!(out || !first_fits);
            }
        }
    }
}
