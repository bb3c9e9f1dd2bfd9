//! The deciding machines around the replicas of a deployment: how many there
//! should be ([`autoscaler`]), which start, stop or drain ([`replica_set`]),
//! which one gets a request ([`router`]), and what it costs ([`biller`]).

pub mod autoscaler;
pub mod biller;
pub mod replica_set;
pub mod router;
