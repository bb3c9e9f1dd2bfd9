//! The provider of a run: what the core's [`ControlPlane`] decides for all of its
//! deployments, the GPUs that they share, and what is done to them while they run.
//!
//! Each deployment has a [`Share`]: a handle by which it tells the provider what
//! happens, and claims GPUs. What the provider has to say to a deployment is a
//! [`Notice`], which waits here until the run delivers it. The answers to one
//! event are carried out before anybody is told of what came of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use foresail_core::control::gpu_pool::{Claim, Claimed};
use foresail_core::control::lifecycle::{
    ControlPlane, DeploymentKey, Effect, LifecycleError, Observed, Order, Refusal, Spend,
};
use foresail_core::time::{HOUR, Nanos};
use foresail_scenarios::provider;
use foresail_scenarios::scenario::{Action, GpuPool, Scenario};

use crate::SimulationError;
use crate::pool::Pool;

/// What the provider has to say to a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A replica that waited for GPUs has them.
    Granted(u32),
    /// Something is to be done.
    Do(Effect),
}

/// What decides for the deployments of a run together.
#[derive(Debug)]
pub(crate) struct Provider {
    lifecycle: provider::Provider,
    pool: Pool,
    /// (when, to which deployment, what), in order of time.
    operations: VecDeque<(Nanos, usize, Action)>,
    /// What each deployment had spent when it last told, if the account has a limit.
    spends: Option<Vec<(Nanos, Spend)>>,
    /// When the control plane wants to be asked again.
    deadline: Option<Nanos>,
    /// To which deployment, and what.
    notices: VecDeque<(usize, Notice)>,
    /// Whether there are notices, or times that nobody has asked for since they changed.
    has_news: bool,
}

/// The provider of a run, for all of its deployments.
pub(crate) type Shared = Rc<RefCell<Provider>>;

/// What happens at the provider next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// A stock-out begins or ends, or something is done to a deployment. These
    /// come from outside, as requests do, and before them.
    pub(crate) outside: Option<Nanos>,
    /// Somebody may have been unused for too long, or have spent too much. This
    /// is a deadline, so it comes after everything else of its time.
    pub(crate) deadline: Option<Nanos>,
    /// Whether something is still to be done to a deployment.
    pub(crate) has_operations: bool,
}

impl Times {
    /// The same, where a deadline that has passed is due now: an operation can
    /// bring one that lies in the past, such as that of a deployment that was
    /// not deleted when unused until then.
    #[inline]
    pub(crate) fn not_before(self, now: Nanos) -> Self {
        Self {
            deadline: self.deadline.map(|deadline| deadline.max(now)),
            ..self
        }
    }
}

impl Provider {
    /// The provider of these deployments, which share the pool of the first.
    pub(crate) fn new(scenarios: &[&Scenario], seed: u64) -> Result<Shared, SimulationError> {
        let lifecycle =
            provider::Provider::new(scenarios).map_err(|(_, error)| refused(0, error))?;
        let pool = scenarios.first().and_then(|first| first.gpu_pool.clone());
        let limit = scenarios
            .first()
            .and_then(|first| first.account.spend_limit_nanodollars);
        let mut operations: Vec<_> = (scenarios.iter().enumerate())
            .flat_map(|(index, scenario)| {
                let operations = scenario.operations.iter();
                operations.map(move |operation| (operation.at, index, operation.action))
            })
            .collect();
        // Stable: at equal times in the order of the file.
        operations.sort_by_key(|(at, ..)| *at);
        Ok(Rc::new(RefCell::new(Self {
            lifecycle,
            pool: Pool::new(&pool.unwrap_or_default(), seed),
            operations: operations.into(),
            spends: limit.map(|_| vec![(0, Spend::default()); scenarios.len()]),
            deadline: None,
            notices: VecDeque::new(),
            has_news: true,
        })))
    }

    /// The deployments are there, and have said what they are. What was to be
    /// done to create them is done.
    pub(crate) fn begin(&mut self) {
        self.notices.clear();
        self.has_news = true;
        self.deadline = self.plane().next_deadline();
    }

    fn plane(&mut self) -> &mut ControlPlane {
        &mut self.lifecycle.plane
    }

    fn key(&self, deployment: usize) -> DeploymentKey {
        self.lifecycle.deployments[deployment].deployment
    }

    /// Whether there are notices to deliver, or other times than before.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// What happens here next, until there are news.
    pub(crate) fn times(&mut self) -> Times {
        self.has_news = !self.notices.is_empty();
        let operation = self.operations.front().map(|(at, ..)| *at);
        let stock = self.pool.next_at();
        let outside = match (operation, stock) {
            (Some(operation), Some(stock)) => Some(operation.min(stock)),
            (operation, stock) => operation.or(stock),
        };
        Times {
            outside,
            deadline: self.deadline,
            has_operations: operation.is_some(),
        }
    }

    /// A stock-out begins or ends, or an operation is due: what comes first.
    /// Deployments have told what they are.
    pub(crate) fn outside(&mut self, now: Nanos) -> Result<(), SimulationError> {
        self.has_news = true;
        if self.pool.next_at().is_some_and(|at| at <= now) {
            let granted = self.pool.turn(now);
            self.grant(granted);
            return Ok(());
        }
        let Some((at, deployment, action)) = self.operations.pop_front() else {
            return Ok(());
        };
        let orders = self.operate(now, deployment, action);
        let orders = orders.map_err(|error| refused(at, error))?;
        self.give(orders);
        Ok(())
    }

    fn operate(
        &mut self,
        now: Nanos,
        deployment: usize,
        action: Action,
    ) -> Result<Vec<Order>, LifecycleError> {
        let name = self.lifecycle.name(deployment).clone();
        let plane = self.plane();
        match action {
            Action::Update(settings) => plane.update(now, &name, settings),
            Action::Scale(replicas) => plane.scale(&name, replicas),
            // Who writes the time of it into a scenario means it.
            Action::Delete => plane.delete(&name, true),
            Action::Undelete => plane.undelete(now, &name),
        }
    }

    /// A deadline has come.
    pub(crate) fn deadline(&mut self, now: Nanos) {
        let orders = self.plane().on_deadline(now);
        self.give(orders);
    }

    /// What has not been told yet, in order.
    pub(crate) fn take_notices(&mut self) -> VecDeque<(usize, Notice)> {
        std::mem::take(&mut self.notices)
    }

    #[inline]
    pub(crate) fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    fn give(&mut self, orders: Vec<Order>) {
        for Order { deployment, effect } in orders {
            let notice = Notice::Do(effect);
            self.notices.push_back((deployment.index(), notice));
        }
        self.deadline = self.plane().next_deadline();
        self.has_news = true;
    }

    fn grant(&mut self, granted: Vec<Claim>) {
        let notice = |claim: Claim| (claim.deployment as usize, Notice::Granted(claim.replica));
        self.has_news |= !granted.is_empty();
        self.notices.extend(granted.into_iter().map(notice));
    }

    fn observe(&mut self, now: Nanos, deployment: usize, observed: Observed, spend: Spend) {
        let key = self.key(deployment);
        let orders = self.plane().observe(key, observed);
        self.give(orders);
        let Some(spends) = &mut self.spends else {
            return;
        };
        spends[deployment] = (now, spend);
        // The others have gone on spending since they told.
        let by_now = |(at, each): &(Nanos, Spend)| {
            let since = each.nanodollars_per_hour * u128::from(now - at) / u128::from(HOUR);
            each.nanodollars + since
        };
        let sum = Spend {
            nanodollars: spends.iter().map(by_now).sum(),
            nanodollars_per_hour: spends
                .iter()
                .map(|(_, each)| each.nanodollars_per_hour)
                .sum(),
        };
        let account = self.lifecycle.account.clone();
        let orders = self.plane().set_spend(now, &account, sum);
        self.give(orders.expect("the account was opened when the run began"));
    }
}

fn refused(at_ns: Nanos, error: LifecycleError) -> SimulationError {
    let error = Box::new(error);
    SimulationError::Refused { at_ns, error }
}

/// What one deployment knows of its provider.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    provider: Shared,
    deployment: u32,
    /// The place of its kind of GPU in the pool.
    kind: u32,
    key: DeploymentKey,
}

impl Share {
    /// The share of the deployment in this place.
    pub(crate) fn new(provider: &Shared, deployment: u32, scenario: &Scenario) -> Self {
        let GpuPool { kinds, .. } = scenario.gpu_pool.clone().unwrap_or_default();
        let gpu = &scenario.deployment.gpu;
        // A kind of GPU that the pool does not name is not limited.
        let kind = kinds.iter().position(|kind| kind.gpu == *gpu);
        let key = provider.borrow().key(deployment as usize);
        Self {
            provider: Rc::clone(provider),
            deployment,
            kind: kind.unwrap_or(kinds.len()) as u32,
            key,
        }
    }

    /// A request is received; `Some` is why it is refused. This runs for every one.
    #[inline]
    pub(crate) fn on_request(&self, now: Nanos) -> Option<Refusal> {
        let mut provider = self.provider.borrow_mut();
        provider.lifecycle.plane.on_request(now, self.key)
    }

    /// The replicas or requests are other than before.
    pub(crate) fn observe(&self, now: Nanos, observed: Observed, spend: Spend) {
        let mut provider = self.provider.borrow_mut();
        provider.observe(now, self.deployment as usize, observed, spend);
    }

    /// Replicas that were ordered do not start, and trying again is in vain.
    pub(crate) fn start_failed(&self) {
        let mut provider = self.provider.borrow_mut();
        let orders = provider.plane().start_failed(self.key);
        provider.give(orders);
    }

    fn of(&self, replica: u32, gpus: u32) -> Claim {
        Claim {
            deployment: self.deployment,
            replica,
            kind: self.kind,
            gpus,
        }
    }

    /// Claims the GPUs of a replica that is to start.
    pub(crate) fn claim(&self, replica: u32, gpus: u32) -> Claimed {
        let mut provider = self.provider.borrow_mut();
        provider.pool.claim(self.of(replica, gpus))
    }

    /// Gives back the GPUs of a replica that is gone, or will not start.
    pub(crate) fn release(&self, replica: u32, gpus: u32) {
        let mut provider = self.provider.borrow_mut();
        let granted = provider.pool.release(&self.of(replica, gpus));
        provider.grant(granted);
    }
}
