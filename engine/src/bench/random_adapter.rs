//! Adapters of nobody: as large as real ones, so that steps with them take as long.

use foresail_scenarios::random::numbered_stream;
use half::bf16;
use rand::Rng as _;

use crate::config::ModelConfig;
use crate::weights::{Adapter, AdapterLayer, HostMatrix, HostValues, LowRank};

/// An adapter of this rank on every projection of every layer, with small random values. `number` tells
/// adapters of one seed apart.
#[must_use]
pub fn random_adapter(config: &ModelConfig, rank: usize, seed: u64, number: u64) -> Adapter {
    let mut stream = numbered_stream(seed, "calibration.adapter", number);
    let mut matrix = |rows: usize, columns: usize| {
        // From -1/64 to 1/64: what it adds leaves the model's values in their range.
        let value = |bits: u32| bf16::from_f32((bits as f32 / u32::MAX as f32 - 0.5) / 32.0);
        let values = (0..rows * columns).map(|_| value(stream.next_u32()));
        HostMatrix {
            rows,
            columns,
            values: HostValues::Bf16(values.collect()),
        }
    };
    let mut low_rank = |input: usize, output: usize| {
        Some(LowRank {
            down: matrix(rank, input),
            up: matrix(output, rank),
        })
    };
    let (hidden, inside) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.query_width(), config.key_value_width());
    let mut layer = || AdapterLayer {
        query: low_rank(hidden, queries),
        key: low_rank(hidden, keys),
        value: low_rank(hidden, keys),
        output: low_rank(queries, hidden),
        gate: low_rank(hidden, inside),
        up: low_rank(hidden, inside),
        down: low_rank(inside, hidden),
    };
    Adapter {
        name: format!("random-{number}"),
        rank,
        scale: 1.0,
        layers: (0..config.num_hidden_layers).map(|_| layer()).collect(),
    }
}
