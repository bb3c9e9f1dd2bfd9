//! What the sums of ranks take on this machine's threads.

use std::ops::ControlFlow;

use foresail_calibration::exchanges::{self, MeasuredAllReduce};
use foresail_core::step_time::AllReduceRange;
use foresail_engine::bench::{MeasuredExchange, measure_exchanges};

use super::plan::Plan;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Bytes of a value that threads exchange: f32.
const VALUE_BYTES: u64 = 4;

/// The ranges of sums over so many threads, as large as those of steps of one token to a full step.
pub(super) fn between_threads(
    plan: &Plan,
    world_size: usize,
    interrupt: &Interrupt,
) -> Result<Vec<AllReduceRange>, Failure> {
    let hidden = plan.model.hidden_size;
    let most = plan.design.limits().max_batched_tokens;
    let powers = (0..).map(|power| 1_usize << power);
    let tokens = powers.take_while(|&tokens| tokens < most).chain([most]);
    let values: Vec<usize> = tokens.map(|tokens| tokens * hidden).collect();
    let mut watch = || match interrupt.is_requested() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let measured = measure_exchanges(world_size, &values, &mut watch).map_err(|error| {
        Failure::Input(format!(
            "cannot start {world_size} threads: {error}; lower --world-size"
        ))
    })?;
    interrupt.check()?;
    let of_bytes = |one: &MeasuredExchange| MeasuredAllReduce {
        bytes: one.values as u64 * VALUE_BYTES,
        seconds: one.seconds,
    };
    let measured: Vec<_> = measured.iter().map(of_bytes).collect();
    exchanges::fit(&measured).map_err(|error| Failure::Input(error.to_string()))
}
