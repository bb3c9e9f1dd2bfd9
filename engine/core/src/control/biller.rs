//! What a deployment costs: GPU-time by state, and exact money.

/// US dollars per GPU-hour, in 1e-9 USD, so that sums are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// 1e-9 USD per GPU-hour.
    pub nanodollars_per_gpu_hour: u64,
}

/// Which parts of a replica's life are billed. Ready always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BillingRule {
    /// Whether starting is billed.
    pub starting: bool,
    /// Whether draining is billed.
    pub draining: bool,
}
