//! The step time that both simulators get: affine in what a step computes.
//!
//! The figures are of the size of an 8B model on an H200; speed does not depend
//! on them except through the batch they lead to. They are whole numbers of
//! picoseconds, so that both sides can state them exactly.

/// Of every step (ps).
pub(crate) const STEP_PS: u64 = 6_000_000_000;
/// Of every token that a step computes, of a prompt or an output (ps).
pub(crate) const TOKEN_PS: u64 = 18_000_000;
/// Of every token that is in the KV cache already and is attended to (ps).
pub(crate) const PAST_TOKEN_PS: u64 = 35_000;

/// Picoseconds as milliseconds, the peer's unit.
pub(crate) fn milliseconds(picos: u64) -> f64 {
    picos as f64 / 1e9
}
