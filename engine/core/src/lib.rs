//! What decides in foresail.
//!
//! Every type here is a pure state machine: it takes `(now, event)` and says
//! what to do and when to wake it. There is no I/O, no thread, no clock, no
//! randomness that was not passed in, and no iteration over an unordered map.
//! The simulator drives these machines with virtual time. A live engine will
//! drive the same ones with the real clock, so the two cannot drift apart.
//!
//! - [`batching`]: the continuous-batching scheduler and its KV-cache blocks.
//! - [`step_time`]: how long an engine step takes, on which GPU, at which world size.
//! - [`control`]: autoscaler, replica set, router, biller, and the life of a deployment.

pub mod batching;
pub mod control;
pub mod step_time;
pub mod time;
