//! Runs against an endpoint that answers exactly as it is told. Times are asserted from below, where no busy
//! machine can fail them, and from above only with room for one.

mod faults;
mod fixture;
mod loops;
mod stops;
mod truth;
