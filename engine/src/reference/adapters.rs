//! One rank's part of a LoRA adapter.

use std::ops::Range;

use super::linear::linear;
use crate::config::{ModelConfig, Partition};
use crate::weights::{Adapter, AdapterLayer, HostMatrix, HostValues, LowRank};

/// An adapter, split as the projections are that it adds to.
///
/// Where a rank has some of a projection's outputs it has those rows of `B`, and
/// the whole of `A`. Where it has some of the inputs it has those columns of
/// `A`, and the whole of `B`: the sum over ranks is then of all inputs.
pub(super) struct AdapterShard {
    scale: f32,
    pub(super) layers: Vec<AdapterLayer<HostMatrix>>,
}

impl AdapterShard {
    pub(super) fn new(adapter: &Adapter, config: &ModelConfig, partition: Partition) -> Self {
        let of_heads =
            |heads: Range<usize>| heads.start * config.head_dim..heads.end * config.head_dim;
        let queries = of_heads(partition.query_heads(config));
        let keys = of_heads(partition.key_value_heads(config));
        let inner = partition.intermediate(config);
        let layers = adapter.layers.iter().map(|layer| AdapterLayer {
            query: outputs(&layer.query, &queries),
            key: outputs(&layer.key, &keys),
            value: outputs(&layer.value, &keys),
            output: inputs(&layer.output, &queries),
            gate: outputs(&layer.gate, &inner),
            up: outputs(&layer.up, &inner),
            down: inputs(&layer.down, &inner),
        });
        Self {
            scale: adapter.scale,
            layers: layers.collect(),
        }
    }

    /// `output += scale * B (A input)`, at the beginning of `output`.
    pub(super) fn add(&self, low_rank: &LowRank<HostMatrix>, input: &[f32], output: &mut [f32]) {
        let between = linear(&low_rank.down, None, input);
        let added = linear(&low_rank.up, None, &between);
        for (output, added) in output.iter_mut().zip(added) {
            *output += self.scale * added;
        }
    }
}

/// The part of a target for some of the projection's outputs.
fn outputs(
    whole: &Option<LowRank<HostMatrix>>,
    rows: &Range<usize>,
) -> Option<LowRank<HostMatrix>> {
    let whole = whole.as_ref()?;
    Some(LowRank {
        down: whole.down.clone(),
        up: part(&whole.up, rows, &(0..whole.up.columns)),
    })
}

/// The part of a target for some of the projection's inputs.
fn inputs(
    whole: &Option<LowRank<HostMatrix>>,
    columns: &Range<usize>,
) -> Option<LowRank<HostMatrix>> {
    let whole = whole.as_ref()?;
    Some(LowRank {
        down: part(&whole.down, &(0..whole.down.rows), columns),
        up: whole.up.clone(),
    })
}

fn part(matrix: &HostMatrix, rows: &Range<usize>, columns: &Range<usize>) -> HostMatrix {
    let values = rows
        .clone()
        .flat_map(|row| columns.clone().map(move |column| matrix.at(row, column)));
    HostMatrix {
        rows: rows.len(),
        columns: columns.len(),
        values: HostValues::F32(values.collect()),
    }
}
