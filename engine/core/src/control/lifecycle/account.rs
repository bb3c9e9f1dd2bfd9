//! Who deploys: what an account may use, and how much it may spend.

use std::collections::BTreeMap;

use super::control_plane::{ControlPlane, Order};
use super::deployment::Deployment;
use super::error::LifecycleError;
use super::names::AccountId;
use super::tiers::{GpuKind, Tier};
use crate::time::{HOUR, Nanos};

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

/// Accounts.
impl ControlPlane {
    /// Opens an account.
    ///
    /// # Errors
    /// If there is one of that id.
    pub fn add_account(&mut self, account: AccountId, tier: Tier) -> Result<(), LifecycleError> {
        if self.accounts.contains_key(&account) {
            return Err(LifecycleError::AccountExists { account });
        }
        self.accounts.insert(account, Account::new(tier));
        Ok(())
    }

    /// What an account may use and spend.
    ///
    /// # Errors
    /// If there is no such account.
    pub fn account(&self, account: &AccountId) -> Result<&Account, LifecycleError> {
        self.accounts
            .get(account)
            .ok_or_else(|| no_account(account))
    }

    /// Sets how many GPUs of a kind an account may hold (B12); `None` is no limit.
    /// What it holds already, it keeps.
    ///
    /// # Errors
    /// If there is no such account.
    pub fn set_gpu_quota(
        &mut self,
        account: &AccountId,
        gpu: GpuKind,
        gpus_max: Option<u32>,
    ) -> Result<(), LifecycleError> {
        self.account_mut(account)?.set_gpu_quota(gpu, gpus_max);
        Ok(())
    }

    /// Sets how much an account may spend [1e-9 USD]; `None` is no limit. What is
    /// paused goes on if that is more than it has spent: a new month is a new
    /// limit, which is what is spent already and what the month allows.
    ///
    /// # Errors
    /// If there is no such account.
    pub fn set_spend_limit(
        &mut self,
        now: Nanos,
        account: &AccountId,
        nanodollars: Option<u128>,
    ) -> Result<Vec<Order>, LifecycleError> {
        let spending = self.account_mut(account)?;
        spending.set_spend_limit(nanodollars);
        if spending.is_spent(now) {
            return Ok(self.end_what_is_spent(now, account));
        }
        Ok(self.for_all_of(account, Deployment::resume))
    }

    /// What an account has spent, and spends while nothing changes. Tell it at
    /// every change of what is billed, before [`next_deadline`](Self::next_deadline).
    ///
    /// # Errors
    /// If there is no such account.
    pub fn set_spend(
        &mut self,
        now: Nanos,
        account: &AccountId,
        spend: Spend,
    ) -> Result<Vec<Order>, LifecycleError> {
        self.account_mut(account)?.set_spend(now, spend);
        Ok(self.end_what_is_spent(now, account))
    }

    fn account_mut(&mut self, account: &AccountId) -> Result<&mut Account, LifecycleError> {
        self.accounts
            .get_mut(account)
            .ok_or_else(|| no_account(account))
    }

    pub(super) fn end_what_is_spent(&mut self, now: Nanos, account: &AccountId) -> Vec<Order> {
        match self.accounts.get(account) {
            Some(spent) if spent.is_spent(now) => {
                self.for_all_of(account, Deployment::on_spend_limit)
            }
            _ => Vec::new(),
        }
    }
}

fn no_account(account: &AccountId) -> LifecycleError {
    LifecycleError::NoAccount {
        account: account.clone(),
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
