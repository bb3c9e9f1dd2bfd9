//! The deciding machines around the replicas of a deployment: how many there
//! should be ([`autoscaler`]), which start, stop or drain ([`replica_set`]),
//! who gets GPUs when there are too few ([`gpu_pool`]), which replica gets a
//! request ([`router`]), and what it costs ([`biller`]).

pub mod autoscaler;
pub mod biller;
pub mod gpu_pool;
pub mod replica_set;
pub mod router;
