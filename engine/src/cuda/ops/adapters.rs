//! Adapters in their slots.
//!
//! A recording does not know which adapters are loaded: kernels find them in a
//! table on the GPU, with an entry for each layer, projection, slot and target.
//!
//! ```text
//! table   layer 0: q k v of slot 0, of slot 1, …   output …   gate up …   down …   layer 1: …
//! entry   where A is, where B is, rank, scale; zeros if the adapter adds nothing there
//! ```

use std::ops::Range;

use half::bf16;

use super::{CudaOps, Exchange};
use crate::backend::Limits;
use crate::config::{ModelConfig, Partition};
use crate::cuda::buckets::BUCKET_MAX;
use crate::cuda::gpu::{Address, Gpu, GpuError};
use crate::cuda::inputs::Array;
use crate::cuda::kernels::lora::{
    ADAPTER_PART_BYTES, AdapterPart, Lora, LoraCall, OutputPart, padded_rank,
};
use crate::cuda::memory::{self, Buffer, GATE_ROWS};
use crate::weights::{Adapter, AdapterLayer, HostMatrix, LowRank};

/// The projections that adapters add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    QueryKeyValue,
    Output,
    GateUp,
    Down,
}

const TARGETS: [Target; 4] = [
    Target::QueryKeyValue,
    Target::Output,
    Target::GateUp,
    Target::Down,
];

impl Target {
    /// How many matrices of a model it is.
    fn parts(self) -> usize {
        match self {
            Self::QueryKeyValue => 3,
            Self::GateUp => 2,
            Self::Output | Self::Down => 1,
        }
    }
}

/// The adapters of a rank.
#[derive(Debug)]
pub(super) struct Slots {
    /// `None` if there are no slots.
    lora: Option<Lora>,
    slots: usize,
    table: Address,
    /// Memory between the two launches of a projection.
    between: Address,
    /// The matrices of each slot.
    matrices: Vec<Vec<Address>>,
}

impl Slots {
    pub(super) fn new(
        gpu: &mut dyn Gpu,
        config: &ModelConfig,
        limits: Limits,
    ) -> Result<Self, GpuError> {
        let slots = limits.max_loras;
        let mut made = Self {
            lora: None,
            slots,
            table: Address::NONE,
            between: Address::NONE,
            matrices: vec![Vec::new(); slots],
        };
        if slots > 0 {
            let lora = Lora::new(gpu, limits.max_lora_rank)?;
            let rows = limits.max_batched_tokens.max(BUCKET_MAX);
            made.between = memory::zeros(gpu, lora.between_bytes(rows))?;
            made.table = memory::zeros(gpu, config.num_hidden_layers * layer_bytes(slots))?;
            made.lora = Some(lora);
        }
        Ok(made)
    }

    /// Where the entries of a projection are, slot after slot.
    fn entries(&self, layer: usize, target: Target) -> Address {
        let before = TARGETS.iter().take_while(|other| **other != target);
        let parts: usize = before.map(|target| target.parts()).sum();
        let bytes = layer * layer_bytes(self.slots) + parts * self.slots * ADAPTER_PART_BYTES;
        self.table.offset(bytes)
    }
}

/// Bytes of a layer's entries.
fn layer_bytes(slots: usize) -> usize {
    let parts: usize = TARGETS.iter().map(|target| target.parts()).sum();
    parts * slots * ADAPTER_PART_BYTES
}

impl CudaOps {
    /// Puts this rank's part of an adapter into a slot. If there is too little memory, the slot is as it was: empty.
    pub(super) fn put_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), GpuError> {
        self.take_adapter(slot)?;
        let mut matrices = Vec::new();
        let put = self.upload_adapter(slot, adapter, &mut matrices);
        self.slots.matrices[slot] = matrices;
        if put.is_err() {
            self.take_adapter(slot)?;
        }
        put
    }

    /// Empties a slot.
    pub(super) fn take_adapter(&mut self, slot: usize) -> Result<(), GpuError> {
        let matrices = std::mem::take(&mut self.slots.matrices[slot]);
        if matrices.is_empty() {
            return Ok(());
        }
        for layer in 0..self.config.num_hidden_layers {
            for target in TARGETS {
                self.write_entries(layer, target, slot, &vec![None; target.parts()])?;
            }
        }
        for address in matrices {
            self.gpu.free(address)?;
        }
        Ok(())
    }

    fn upload_adapter(
        &mut self,
        slot: usize,
        adapter: &Adapter,
        matrices: &mut Vec<Address>,
    ) -> Result<(), GpuError> {
        for (index, layer) in adapter.layers.iter().enumerate() {
            for target in TARGETS {
                let shards = shards(layer, target, &self.config, self.partition);
                let mut entries = Vec::new();
                for shard in shards {
                    let Some(shard) = shard else {
                        entries.push(None);
                        continue;
                    };
                    let down = shard.down_values();
                    let up = shard.up_values();
                    let mut upload = |values: &[bf16]| {
                        let bytes = bytemuck::cast_slice(values);
                        let address = self.gpu.allocate(bytes.len().max(1))?;
                        matrices.push(address);
                        self.gpu.write(address, bytes)?;
                        Ok::<_, GpuError>(address)
                    };
                    entries.push(Some(AdapterPart {
                        down: upload(&down)?,
                        up: upload(&up)?,
                        padded_rank: shard.padded_rank(),
                        scale: adapter.scale,
                    }));
                }
                self.write_entries(index, target, slot, &entries)?;
            }
        }
        Ok(())
    }

    fn write_entries(
        &mut self,
        layer: usize,
        target: Target,
        slot: usize,
        entries: &[Option<AdapterPart>],
    ) -> Result<(), GpuError> {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.map_or([0; ADAPTER_PART_BYTES], |entry| entry.bytes()))
            .collect();
        let at = self.slots.entries(layer, target).offset(slot * bytes.len());
        self.gpu.write(at, &bytes)
    }

    /// `y += adapter(x)` for the rows that have one.
    pub(super) fn adapt(
        &mut self,
        layer: usize,
        target: Target,
        x: Buffer,
        y: Buffer,
    ) -> Result<(), GpuError> {
        let Some(lora) = self.slots.lora.as_ref().filter(|_| self.pass.adapts) else {
            return Ok(());
        };
        let parts = self.output_parts(target);
        let call = LoraCall {
            rows: self.pass.rows,
            x: x.address,
            x_stride: x.stride,
            adapters: self.slots.entries(layer, target),
            slots: self.pass.input(Array::Adapters),
            between: self.slots.between,
            y: y.address,
            y_stride: y.stride,
            parts: &parts,
        };
        lora.enqueue(&mut *self.gpu, &call)
    }

    /// Where a projection's parts are among its outputs.
    fn output_parts(&self, target: Target) -> Vec<OutputPart> {
        let part = |first, outputs| OutputPart {
            first,
            outputs,
            interleaved: false,
        };
        let head_dim = self.config.head_dim;
        let queries = self.shape.query_heads * head_dim;
        let keys = self.shape.kv_heads * head_dim;
        let inner = self.partition.intermediate(&self.config).len();
        match target {
            Target::QueryKeyValue => vec![
                part(0, queries),
                part(queries, keys),
                part(queries + keys, keys),
            ],
            Target::Output | Target::Down => vec![part(0, self.config.hidden_size)],
            Target::GateUp => [0, GATE_ROWS]
                .map(|first| OutputPart {
                    interleaved: true,
                    ..part(first, inner)
                })
                .to_vec(),
        }
    }

    /// Whether sums over ranks are of this rank alone.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.exchange, Exchange::Alone)
    }
}

/// This rank's part of a target: some outputs (rows of `B`) where the projection is split by outputs,
/// some inputs (columns of `A`) where it is split by inputs.
struct Shard<'a> {
    whole: &'a LowRank<HostMatrix>,
    inputs: Range<usize>,
    outputs: Range<usize>,
}

impl Shard<'_> {
    fn padded_rank(&self) -> usize {
        padded_rank(self.whole.down.rows)
    }

    /// `A`: `[padded rank][stride of the inputs]`.
    fn down_values(&self) -> Vec<bf16> {
        let stride = memory::stride(self.inputs.len());
        padded(
            &self.whole.down,
            0..self.whole.down.rows,
            self.inputs.clone(),
            self.padded_rank(),
            stride,
        )
    }

    /// `B`: `[outputs][padded rank]`.
    fn up_values(&self) -> Vec<bf16> {
        let columns = 0..self.whole.up.columns;
        padded(
            &self.whole.up,
            self.outputs.clone(),
            columns,
            self.outputs.len(),
            self.padded_rank(),
        )
    }
}

/// Some of a matrix, with zeros around it: `[rows_padded][stride]`.
fn padded(
    matrix: &HostMatrix,
    rows: Range<usize>,
    columns: Range<usize>,
    rows_padded: usize,
    stride: usize,
) -> Vec<bf16> {
    let mut values = vec![bf16::ZERO; rows_padded * stride];
    for (to, row) in rows.enumerate() {
        for (place, column) in columns.clone().enumerate() {
            values[to * stride + place] = bf16::from_f32(matrix.at(row, column));
        }
    }
    values
}

fn shards<'a>(
    layer: &'a AdapterLayer<HostMatrix>,
    target: Target,
    config: &ModelConfig,
    partition: Partition,
) -> Vec<Option<Shard<'a>>> {
    let of = |heads: Range<usize>| heads.start * config.head_dim..heads.end * config.head_dim;
    let queries = of(partition.query_heads(config));
    let keys = of(partition.key_value_heads(config));
    let inner = partition.intermediate(config);
    let by_outputs = |whole: &'a Option<LowRank<HostMatrix>>, outputs: &Range<usize>| {
        whole.as_ref().map(|whole| Shard {
            whole,
            inputs: 0..whole.down.columns,
            outputs: outputs.clone(),
        })
    };
    let by_inputs = |whole: &'a Option<LowRank<HostMatrix>>, inputs: &Range<usize>| {
        whole.as_ref().map(|whole| Shard {
            whole,
            inputs: inputs.clone(),
            outputs: 0..whole.up.rows,
        })
    };
    match target {
        Target::QueryKeyValue => vec![
            by_outputs(&layer.query, &queries),
            by_outputs(&layer.key, &keys),
            by_outputs(&layer.value, &keys),
        ],
        Target::Output => vec![by_inputs(&layer.output, &queries)],
        Target::GateUp => vec![
            by_outputs(&layer.gate, &inner),
            by_outputs(&layer.up, &inner),
        ],
        Target::Down => vec![by_inputs(&layer.down, &inner)],
    }
}
