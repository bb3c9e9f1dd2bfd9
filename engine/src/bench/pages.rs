//! Memory of a KV cache that was written at least once.
//!
//! What the blocks hold does not change how long attention takes, but whether their memory was ever
//! written does: an operating system lets untouched pages all be the same page of zeros, which stays in the
//! fastest cache. So every page is written first, by computing one token of each page's worth, rather
//! than all tokens of all contexts, which would take longer than the measurement.

use foresail_core::batching::BlockId;
use foresail_core::step_time::{Chunk, StepLoad};

use crate::backend::{Backend, Row, StepError, StepInput};
use crate::config::{Dtype, ModelConfig};

/// The smallest page of memory on machines of today.
const PAGE_BYTES: usize = 4096;

/// No page has more tokens of a layer than so many, whether a block keeps token
/// after token, head after head, or keys apart from values.
pub(super) fn stride(config: &ModelConfig, kv_dtype: Dtype) -> usize {
    (PAGE_BYTES / (2 * config.key_value_width() * kv_dtype.bytes())).max(1)
}

/// Computes the token at a position of every sequence. One more token has to be known, so that nothing is sampled.
pub(super) fn write(
    backend: &mut dyn Backend,
    tables: &[Vec<BlockId>],
    tokens: &[u32],
    position: usize,
) -> Result<(), StepError> {
    let row = |table| Row {
        known: &tokens[..position + 2],
        past: position,
        len: 1,
        table,
        adapter: None,
        prompt_logprobs: None,
        sample: None,
    };
    let chunk = Chunk {
        past: position as u32,
        len: 1,
        sample: false,
    };
    let chunks = vec![chunk; tables.len()];
    backend.step(&StepInput {
        load: StepLoad {
            decodes: 0,
            decode_past: 0,
            chunks: &chunks,
        },
        adapters: 0,
        continues: true,
        ahead: 0,
        rows: tables.iter().map(|table| row(table)).collect(),
    })?;
    Ok(())
}
