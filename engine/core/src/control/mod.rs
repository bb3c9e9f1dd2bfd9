//! The deciding machines around the replicas of a deployment: how many there
//! should be ([`autoscaler`]), which start, stop or drain ([`replica_set`]), when
//! what failed is tried again ([`retry`]), who gets GPUs when there are too few
//! ([`gpu_pool`]), which replica gets a request ([`router`]), what it costs
//! ([`biller`]), and what people ask of it from its creation to its deletion
//! ([`lifecycle`]).

pub mod autoscaler;
pub mod biller;
pub mod gpu_pool;
pub mod lifecycle;
pub mod replica_set;
pub mod retry;
pub mod router;
