//! What a scenario, a workload and a trace mean.
//!
//! - [`scenario`]: the resolved form of a scenario file, ready to run.
//! - [`mod@format`]: from TOML text to a [`scenario::Scenario`], with diagnostics that point at the place.
//! - [`duration`]: Go's duration strings.
//! - [`catalogue`]: models, GPUs and dated prices.
//! - [`drawn`]: step times as another measurement might have had them, and what requests take beside their steps.
//! - [`failures`]: what goes wrong with replicas, and how often.
//! - [`clients`]: how long clients wait, and what they send again.
//! - [`memory`]: whether weights and KV cache fit the GPUs of a replica.
//! - [`workload`]: requests over time, from traces and generators.
//! - [`library`]: the ready scenarios that are shipped.

pub mod catalogue;
pub mod clients;
pub mod distribution;
pub mod drawn;
pub mod duration;
pub mod failures;
pub mod format;
pub mod library;
pub mod memory;
pub mod provider;
pub mod random;
pub mod scenario;
pub mod workload;
