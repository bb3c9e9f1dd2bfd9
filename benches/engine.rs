//! Steps of the engine on a CPU, with random weights: decode and prefill.
//!
//! `cargo bench --bench engine`. For bytes, operations and shares of what the
//! machine can do, see `foresail bench`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use foresail_core::batching::BlockId;
use foresail_core::step_time::{Chunk, StepLoad};
use foresail_engine::backend::{Backend, Row, StepInput};
use foresail_engine::sampling::{Context, Sampling};
use foresail_engine::startup::{self, EngineSettings, KvCacheSize, ModelSource};

const BLOCK_SIZE: usize = 16;
const CONTEXT: usize = 128;
const BATCH_MAX: usize = 8;
const CHUNK: usize = 128;

/// Room for `BATCH_MAX` sequences of a context and one more token each.
const TABLE_BLOCKS: usize = (CONTEXT + 1).div_ceil(BLOCK_SIZE);

fn engine(shape: &str) -> Box<dyn Backend> {
    let settings = EngineSettings {
        block_size: BLOCK_SIZE,
        max_model_len: Some(TABLE_BLOCKS * BLOCK_SIZE),
        max_num_seqs: BATCH_MAX,
        max_batched_tokens: CHUNK,
        kv_cache: KvCacheSize::Blocks(BATCH_MAX * TABLE_BLOCKS),
        max_loras: 0,
        with_tokenizer: false,
        ..EngineSettings::new(ModelSource::Dummy(shape.to_owned()))
    };
    let started = startup::start(&settings).expect("a shape of the catalogue fits");
    started.backend
}

/// Computes the last `len` tokens of so many sequences, and samples the next of each.
fn step(backend: &mut dyn Backend, sequences: usize, past: usize, len: usize) {
    let tokens: Vec<u32> = (0..(past + len) as u32).map(|token| token % 256).collect();
    let sampling = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    let table = |sequence: usize| -> Vec<BlockId> {
        let first = sequence * TABLE_BLOCKS;
        (first..first + TABLE_BLOCKS)
            .map(|block| block as BlockId)
            .collect()
    };
    let tables: Vec<_> = (0..sequences).map(table).collect();
    let chunk = [Chunk {
        past: past as u32,
        len: len as u32,
        sample: true,
    }];
    let is_decode = len == 1;
    let load = StepLoad {
        decodes: if is_decode { sequences as u32 } else { 0 },
        decode_past: if is_decode {
            (sequences * past) as u64
        } else {
            0
        },
        chunks: if is_decode { &[] } else { &chunk },
    };
    let row = |table| Row {
        known: &tokens,
        past,
        len,
        table,
        adapter: None,
        prompt_logprobs: None,
        sample: Some(Context {
            sampling: &sampling,
            prompt: &tokens,
            generated: &[],
            banned: &[],
        }),
    };
    let outputs = backend.step(&StepInput {
        load,
        adapters: 0,
        continues: true,
        ahead: 0,
        rows: tables.iter().map(|table| row(table)).collect(),
    });
    assert_eq!(outputs.expect("the step succeeds").len(), sequences);
}

fn bench_steps(criterion: &mut Criterion) {
    for shape in ["tiny", "smollm2-135m"] {
        let mut backend = engine(shape);
        let backend = backend.as_mut();
        let mut group = criterion.benchmark_group(format!("engine/{shape}"));
        group.sample_size(20);
        for batch in [1, BATCH_MAX] {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new("decode", batch), |bencher| {
                bencher.iter(|| step(backend, batch, CONTEXT, 1));
            });
        }
        group.throughput(Throughput::Elements(CHUNK as u64));
        group.bench_function(BenchmarkId::new("prefill", CHUNK), |bencher| {
            bencher.iter(|| step(backend, 1, 0, CHUNK));
        });
        group.finish();
    }
}

criterion_group!(benches, bench_steps);
criterion_main!(benches);
