//! Who deploys: what an account may use, and how much it may spend.

use std::collections::BTreeMap;
use std::fmt;

use crate::time::{HOUR, Nanos};

/// What an account has subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// For a person.
    Developer,
    /// For a company.
    Business,
    /// By contract.
    Enterprise,
}

impl Tier {
    const ALL: [Tier; 3] = [Tier::Developer, Tier::Business, Tier::Enterprise];

    /// Whether an account of this tier may deploy on such a GPU (S36). The
    /// specification gates two kinds and is silent on the others: they are for
    /// everyone, as a gate on them would be made up.
    #[must_use]
    pub fn may_use(self, gpu: GpuKind) -> bool {
        match gpu {
            GpuKind::A100Gb80 => matches!(self, Tier::Developer | Tier::Business),
            GpuKind::H100Gb80 => self == Tier::Enterprise,
            _ => true,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Developer => "developer",
            Tier::Business => "business",
            Tier::Enterprise => "enterprise",
        })
    }
}

/// A kind of GPU that can be asked for: the accelerator types of B09, and the B300.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuKind {
    /// NVIDIA A100 40 GB.
    A100Gb40,
    /// NVIDIA A100 80 GB.
    A100Gb80,
    /// NVIDIA H100 80 GB.
    H100Gb80,
    /// NVIDIA H200 141 GB.
    H200Gb141,
    /// NVIDIA B200 180 GB.
    B200Gb180,
    /// NVIDIA B300 288 GB.
    B300Gb288,
    /// NVIDIA A10G 24 GB.
    A10gGb24,
    /// NVIDIA L4 24 GB.
    L4Gb24,
    /// AMD MI300X 192 GB.
    Mi300xGb192,
    /// AMD MI325X 256 GB.
    Mi325xGb256,
    /// AMD MI350X 288 GB.
    Mi350xGb288,
}

impl fmt::Display for GpuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GpuKind::A100Gb40 => "A100 40 GB",
            GpuKind::A100Gb80 => "A100 80 GB",
            GpuKind::H100Gb80 => "H100 80 GB",
            GpuKind::H200Gb141 => "H200 141 GB",
            GpuKind::B200Gb180 => "B200 180 GB",
            GpuKind::B300Gb288 => "B300 288 GB",
            GpuKind::A10gGb24 => "A10G 24 GB",
            GpuKind::L4Gb24 => "L4 24 GB",
            GpuKind::Mi300xGb192 => "MI300X 192 GB",
            GpuKind::Mi325xGb256 => "MI325X 256 GB",
            GpuKind::Mi350xGb288 => "MI350X 288 GB",
        })
    }
}

/// The tiers that may use a GPU, as a sentence has them: `developer and business`.
pub(super) struct TiersOf(pub(super) GpuKind);

impl fmt::Display for TiersOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers = Tier::ALL.into_iter().filter(|tier| tier.may_use(self.0));
        for (index, tier) in tiers.enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{tier}")?;
        }
        Ok(())
    }
}

/// What an account has spent by now, and what it goes on to spend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// So far [1e-9 USD].
    pub nanodollars: u128,
    /// While nothing changes [1e-9 USD/h]: by the hour, as prices are, so that it is exact.
    pub nanodollars_per_hour: u128,
}

/// An account: what it may use, and what it spends.
#[derive(Clone, Debug)]
pub struct Account {
    tier: Tier,
    gpu_quota: BTreeMap<GpuKind, u32>,
    /// [1e-9 USD]; `None` is no limit.
    spend_limit: Option<u128>,
    spend: Spend,
    /// When that was.
    spend_at: Nanos,
}

impl Account {
    pub(super) fn new(tier: Tier) -> Self {
        Account {
            tier,
            gpu_quota: BTreeMap::new(),
            spend_limit: None,
            spend: Spend::default(),
            spend_at: 0,
        }
    }

    /// What the account has subscribed to.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The most GPUs of a kind that the account may hold at once; `None` is no limit (B12).
    #[must_use]
    pub fn gpu_quota(&self, gpu: GpuKind) -> Option<u32> {
        self.gpu_quota.get(&gpu).copied()
    }

    /// The most that the account may spend [1e-9 USD]; `None` is no limit.
    #[must_use]
    pub fn spend_limit(&self) -> Option<u128> {
        self.spend_limit
    }

    pub(super) fn set_gpu_quota(&mut self, gpu: GpuKind, gpus_max: Option<u32>) {
        match gpus_max {
            Some(gpus_max) => self.gpu_quota.insert(gpu, gpus_max),
            None => self.gpu_quota.remove(&gpu),
        };
    }

    pub(super) fn set_spend_limit(&mut self, nanodollars: Option<u128>) {
        self.spend_limit = nanodollars;
    }

    pub(super) fn set_spend(&mut self, now: Nanos, spend: Spend) {
        (self.spend, self.spend_at) = (spend, now);
    }

    /// When the limit is reached if nothing changes: at the first nanosecond
    /// with all of the money spent. `None` is never, or past the end of time.
    pub(super) fn spend_deadline(&self) -> Option<Nanos> {
        let left = self.spend_limit?.saturating_sub(self.spend.nanodollars);
        if left == 0 {
            return Some(self.spend_at);
        }
        if self.spend.nanodollars_per_hour == 0 {
            return None;
        }
        let wait = left
            .checked_mul(u128::from(HOUR))?
            .div_ceil(self.spend.nanodollars_per_hour);
        self.spend_at.checked_add(Nanos::try_from(wait).ok()?)
    }

    /// Whether all that may be spent is spent.
    pub(super) fn is_spent(&self, now: Nanos) -> bool {
        self.spend_deadline()
            .is_some_and(|deadline| deadline <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;
    use proptest::prelude::*;

    const DOLLAR: u128 = 1_000_000_000;

    fn account(limit: Option<u128>, nanodollars: u128, nanodollars_per_hour: u128) -> Account {
        let mut account = Account::new(Tier::Business);
        account.set_spend_limit(limit);
        let spend = Spend {
            nanodollars,
            nanodollars_per_hour,
        };
        account.set_spend(10 * SECOND, spend);
        account
    }

    #[test]
    fn the_limit_is_reached_when_the_rate_has_used_what_is_left() {
        let deadline = |limit, spent, rate| account(limit, spent, rate).spend_deadline();
        let limit = Some(50 * DOLLAR);
        assert_eq!(
            deadline(limit, 42 * DOLLAR, 8 * DOLLAR),
            Some(10 * SECOND + HOUR)
        );
        // A third of an hour does not end on a nanosecond: the next one.
        assert_eq!(deadline(Some(1), 0, 3 * DOLLAR), Some(10 * SECOND + 1_200));
        assert_eq!(deadline(Some(1), 0, 7 * DOLLAR), Some(10 * SECOND + 515));
        assert_eq!(deadline(limit, 50 * DOLLAR, 0), Some(10 * SECOND));
        assert_eq!(deadline(limit, 42 * DOLLAR, 0), None);
        assert_eq!(deadline(None, 42 * DOLLAR, 8 * DOLLAR), None);
        assert_eq!(deadline(Some(u128::MAX), 0, 1), None);
    }

    proptest! {
        #[test]
        fn at_the_deadline_the_money_is_spent_and_not_a_nanosecond_before(
            limit in 1_u128..1_000_000_000_000, rate in 1_u128..1_000_000_000_000,
        ) {
            let wait = account(Some(limit), 0, rate).spend_deadline();
            let Some(wait) = wait.map(|deadline| u128::from(deadline - 10 * SECOND)) else {
                return Ok(());
            };
            let spent_of_hour = |nanos: u128| rate * nanos;
            prop_assert!(spent_of_hour(wait) >= limit * u128::from(HOUR));
            prop_assert!(spent_of_hour(wait - 1) < limit * u128::from(HOUR));
        }
    }
}
