//! The core's batch scheduler alone: a step, and a leap, of a full batch.
//!
//! `cargo bench --bench scheduler`

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use foresail_core::batching::{BlockHash, Config, Request, Scheduler, SequenceId};

fn unknown(_: SequenceId, _: u32) -> Option<BlockHash> {
    None
}

/// A replica whose batch of `batch` sequences has just begun to decode.
fn decoding(batch: u32) -> Scheduler {
    let config = Config {
        block_size: 64,
        num_blocks: batch * 64,
        max_num_seqs: batch,
        max_batched_tokens: 8192,
        max_model_len: 4096,
        prefill_chunk: 8192,
        max_loras: 0,
        watermark: 0,
        prefix_caching: true,
    };
    let mut scheduler = Scheduler::new(config).expect("the limits are sound");
    for index in 0..batch {
        let request = Request {
            prompt: 500 + index,
            max_new: 2000,
            adapter: None,
            cacheable: false,
        };
        scheduler.add(request).expect("it fits");
    }
    while scheduler.decoding().0 < batch {
        scheduler.schedule(&mut unknown);
        scheduler.commit_to_length();
    }
    scheduler
}

fn bench_steps(criterion: &mut Criterion) {
    const STEPS: u32 = 256;
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(u64::from(STEPS)));
    for batch in [64, 256] {
        let start = decoding(batch);
        group.bench_with_input(
            BenchmarkId::new("steps", batch),
            &start,
            |bencher, start| {
                let steps = |mut scheduler: Scheduler| {
                    for _ in 0..STEPS {
                        scheduler.schedule(&mut unknown);
                        scheduler.commit_to_length();
                    }
                    scheduler
                };
                bencher.iter_batched(|| start.clone(), steps, BatchSize::LargeInput);
            },
        );
        group.bench_with_input(BenchmarkId::new("leap", batch), &start, |bencher, start| {
            let leap = |mut scheduler: Scheduler| {
                scheduler.leap(STEPS, &mut unknown);
                scheduler
            };
            bencher.iter_batched(|| start.clone(), leap, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, bench_steps);
criterion_main!(benches);
