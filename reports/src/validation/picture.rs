//! Both distributions on one axis.

use super::figures::{TimeOf, Times};
use crate::picture::{Axis, Plot, Series};

/// Times that differ by more than this factor are easier seen on an axis of equal factors.
const LOG_FROM: f64 = 20.0;

/// One plot each of TTFT, TPOT and E2E, of requests that were measured and of the same as they are predicted.
#[must_use]
pub fn pictures(measured: &[Times], predicted: &[Option<Times>]) -> Vec<Plot> {
    let predicted: Vec<Times> = predicted.iter().flatten().copied().collect();
    let plot = |time: TimeOf| {
        let of = |times: &[Times]| -> Vec<f64> {
            let values = time.values(times);
            values.iter().map(|seconds| seconds * 1e3).collect()
        };
        let (measured, predicted) = (of(measured), of(&predicted));
        let name = time.name().to_uppercase();
        let label = format!("{name} (ms)");
        let both = || measured.iter().chain(&predicted).copied();
        let (low, high) = (
            both().fold(f64::INFINITY, f64::min),
            both().fold(0.0, f64::max),
        );
        let x = if low > 0.0 && high / low > LOG_FROM {
            Axis::log(label)
        } else {
            Axis::linear(label)
        };
        Plot {
            title: format!("{name}, measured and predicted"),
            x,
            y: Axis::linear("requests (%)").between(0.0, 100.0),
            series: vec![
                Series::distribution("measured", &measured),
                Series::distribution("predicted", &predicted),
            ],
        }
    };
    TimeOf::ALL.map(plot).to_vec()
}
