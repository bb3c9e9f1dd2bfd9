//! The software device itself: it is as unhelpful as a GPU may be, and finds mistakes.

use std::process::Command;

use foresail_engine::cuda::gpu::{
    Address, Format, Gpu, GpuError, KernelFacts, Launch, Product, Unit,
};
use foresail_engine::cuda::kernels::Arguments;
use foresail_engine::cuda::software::{Fault, Occasion, Options, Software};
use half::bf16;

use crate::device::{Plain, Random, relative_error, say_skipped, to_bytes, widened};

const KERNELS: [KernelFacts; 9] = [
    facts("copies", 16),
    facts("add", 16),
    facts("add_too_early", 16),
    facts("add_without_waiting", 16),
    facts("mistake", 16),
    facts("unordered", 16),
    facts("unordered_product", 16),
    facts("waits_for_bytes", 24),
    facts("reads_a_product_early", 8),
];

const fn facts(name: &'static str, argument_bytes: usize) -> KernelFacts {
    KernelFacts {
        name,
        argument_bytes,
        registers_max: 255,
        instructions: &[],
    }
}

fn unit() -> Unit {
    Unit {
        file: "software_test.cu",
        source: include_str!("software.cu"),
        constants: Vec::new(),
        kernels: &KERNELS,
    }
}

/// A software device of each kind of seed, or none without a compiler.
fn each_seed(mut test: impl FnMut(&mut Rig)) {
    for seed in 0..8 {
        let options = Options {
            seed,
            ..Options::default()
        };
        if let Some(gpu) = opened(Software::with(options)) {
            test(&mut Rig { gpu, seed });
        }
    }
}

/// What was opened, or none where there is no compiler. Any other error is a defect.
fn opened<T>(result: Result<T, GpuError>) -> Option<T> {
    match result {
        Ok(opened) => Some(opened),
        Err(GpuError::Library(error)) => {
            say_skipped(&error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A device, by what tests do with it.
struct Rig {
    gpu: Software,
    seed: u64,
}

impl Rig {
    fn upload<T: Plain>(&mut self, values: &[T]) -> Address {
        let bytes = to_bytes(values);
        let at = self.gpu.allocate(bytes.len()).expect("memory");
        self.gpu.write(at, &bytes).expect("written");
        at
    }

    fn download<T: Plain>(&mut self, from: Address, count: usize) -> Result<Vec<T>, GpuError> {
        let reading = self.gpu.read(from, count * T::BYTES)?;
        let bytes = self.gpu.finish(reading)?;
        Ok(bytes.chunks_exact(T::BYTES).map(T::from_bytes).collect())
    }

    fn launch(
        &mut self,
        name: &str,
        blocks: u32,
        threads: u32,
        shared_bytes: u32,
        arguments: Arguments,
    ) -> Result<(), GpuError> {
        self.launch_as(name, blocks, threads, shared_bytes, false, arguments)
    }

    fn launch_as(
        &mut self,
        name: &str,
        blocks: u32,
        threads: u32,
        shared_bytes: u32,
        overlaps: bool,
        arguments: Arguments,
    ) -> Result<(), GpuError> {
        let kernels = self.gpu.compile(&unit())?;
        let index = KERNELS
            .iter()
            .position(|kernel| kernel.name == name)
            .expect("a kernel");
        self.gpu.launch(&Launch {
            kernel: kernels[index],
            blocks: [blocks, 1, 1],
            threads,
            shared_bytes,
            overlaps,
            arguments: &arguments.bytes(),
        })
    }
}

#[test]
fn asynchronous_copies_arrive_at_once_or_when_they_are_waited_for() {
    each_seed(|rig| {
        let from: Vec<u32> = (100..356).collect();
        let at = rig.upload(&from);
        let out = rig.upload(&[0_u32; 128]);
        rig.launch(
            "copies",
            1,
            32,
            1024,
            Arguments::new().address(at).address(out),
        )
        .expect("launched");
        let out: Vec<u32> = rig.download(out, 128).expect("done");
        let late = rig.seed % 2 == 0;
        for lane in 0..32 {
            let first = from[4 * lane];
            let second = if lane == 3 { 0 } else { from[128 + 4 * lane] };
            assert_eq!(out[lane], if late { 7 } else { first });
            assert_eq!(out[32 + lane], first);
            assert_eq!(out[64 + lane], if late { 7 } else { second });
            assert_eq!(out[96 + lane], second);
        }
    });
}

#[test]
fn bytes_that_no_one_brings_are_missed() {
    each_seed(|rig| {
        let (from, sums) = (rig.upload(&[0_u32; 64]), rig.upload(&[0_u32; 7]));
        let arguments = Arguments::new().address(from).address(sums).count(7);
        rig.launch("waits_for_bytes", 1, 32, 1024, arguments)
            .expect("launched");
        let error = rig.gpu.wait().expect_err("it waits forever").to_string();
        assert!(
            error.contains("misses 0 of 1 arrivals and 32 bytes in a phase of parity 0"),
            "{error}"
        );
    });
}

#[test]
fn products_of_warpgroups_are_there_when_they_are_waited_for() {
    each_seed(|rig| {
        let out = rig.upload(&[0_u32; 2]);
        rig.launch(
            "reads_a_product_early",
            1,
            128,
            16384,
            Arguments::new().address(out),
        )
        .expect("launched");
        let late = rig.seed % 2 == 0;
        let early = if late { 1 } else { 17 };
        assert_eq!(rig.download::<u32>(out, 2).expect("done"), [early, 17]);
    });
}

/// What the first step of a chain leaves to the second, for a kernel of that name.
fn add_twice(rig: &mut Rig, second: &str) -> Result<Vec<u32>, GpuError> {
    let values = rig.upload(&vec![0_u32; 320]);
    for name in ["add", second, "add"] {
        let arguments = Arguments::new().address(values).count(5).count(320);
        rig.launch_as(name, 10, 32, 0, true, arguments)?;
    }
    rig.download(values, 320)
}

#[test]
fn a_kernel_that_reads_before_it_waits_is_found() {
    each_seed(|rig| {
        assert_eq!(add_twice(rig, "add").expect("done"), vec![15; 320]);
        assert_ne!(
            add_twice(rig, "add_too_early").expect("done"),
            vec![15; 320]
        );
        let error = add_twice(rig, "add_without_waiting").expect_err("it never waits");
        assert!(error.is_fatal());
        assert!(
            error.to_string().contains("wait_for_earlier_kernels"),
            "{error}"
        );
    });
}

#[test]
fn a_replay_does_what_was_recorded() {
    each_seed(|rig| {
        let values = rig.upload(&vec![1_u32; 64]);
        rig.gpu.compile(&unit()).expect("compiled");
        rig.gpu.begin_recording().expect("begun");
        for add in [2, 3] {
            let arguments = Arguments::new().address(values).count(add).count(64);
            rig.launch_as("add", 2, 32, 0, true, arguments)
                .expect("recorded");
        }
        assert!(matches!(
            rig.gpu.write(values, &[0]),
            Err(GpuError::Call { .. })
        ));
        let recording = rig.gpu.end_recording().expect("ended");
        assert_eq!(rig.download::<u32>(values, 64).expect("done"), vec![1; 64]);
        for _ in 0..3 {
            rig.gpu.replay(recording).expect("replayed");
        }
        assert_eq!(rig.download::<u32>(values, 64).expect("done"), vec![16; 64]);
    });
}

#[test]
fn products_are_those_of_plain_loops() {
    each_seed(|rig| {
        let mut random = Random::new(rig.seed);
        let (rows, outputs, inputs, stride) = (3, 5, 70, 128);
        let x = random.bf16s(rows * stride, 1.0);
        let weights = random.bf16s(outputs * stride, 1.0);
        let y = random.floats(rows * outputs, 1.0);
        let product = Product {
            rows,
            outputs,
            inputs,
            x: rig.upload(&x),
            x_stride: stride,
            weights: rig.upload(&weights),
            weights_stride: stride,
            y: rig.upload(&y),
            y_stride: outputs,
            y_format: Format::F32,
            adds: true,
        };
        rig.gpu.multiply(&product).expect("multiplied");
        let out: Vec<f32> = rig.download(product.y, rows * outputs).expect("done");
        let (wide_x, wide_weights) = (widened(&x), widened(&weights));
        let expected: Vec<f64> = (0..rows * outputs)
            .map(|at| {
                let (x, weights) = (
                    &wide_x[at / outputs * stride..],
                    &wide_weights[at % outputs * stride..],
                );
                f64::from(y[at]) + (0..inputs).map(|k| x[k] * weights[k]).sum::<f64>()
            })
            .collect();
        let out: Vec<f64> = out.into_iter().map(f64::from).collect();
        assert!(relative_error(&out, &expected) < 1e-6);
        let outside = Product { rows: 4, ..product };
        assert!(matches!(
            rig.gpu.multiply(&outside),
            Err(GpuError::Call { .. })
        ));
    });
}

#[test]
fn mistakes_in_kernels_lose_the_device_and_say_where() {
    let cases: [(usize, &str); 10] = [
        (0, "of its warp wait at"),
        (1, "for other lanes of their warps"),
        (2, "wait at barrier 3, where 32 of 64 threads have come"),
        (3, "load_16 of"),
        (4, "which is not in the 512 bytes of shared memory"),
        (5, "load_matrices of 16 bytes at"),
        (6, "wrote after its 512 bytes of shared memory, at 1000"),
        (7, "after the end of the allocation of 40 bytes"),
        (11, "comes to barrier 4 as one of"),
        (12, ""),
    ];
    for (which, words) in cases {
        each_seed(|rig| {
            let values = rig.upload(&[0_u32; 10]);
            let arguments = Arguments::new().address(values).count(which).count(10);
            rig.launch("mistake", 1, 64, 512, arguments)
                .expect("launched");
            let done = rig.gpu.wait();
            if words.is_empty() {
                assert_eq!(done, Ok(()));
                return;
            }
            let error = done.expect_err("it is a mistake");
            assert!(error.is_fatal());
            let text = error.to_string();
            assert!(text.contains(words), "{which}: {text}");
            assert!(
                which == 7 || text.contains("kernel mistake, block (0, 0, 0)"),
                "{text}"
            );
            assert_eq!(rig.gpu.wait(), Err(error), "it stays lost");
        });
    }
}

/// Has a kernel go astray, which ends the process.
fn go_astray(which: &str) {
    let mut rig = Rig {
        gpu: Software::open().expect("a compiler"),
        seed: 0,
    };
    let values = rig.upload(&[0_u32; 10]);
    let which = which.parse().expect("a number");
    let arguments = Arguments::new().address(values).count(which).count(10);
    rig.launch("mistake", 1, 64, 512, arguments)
        .expect("launched");
    rig.gpu.wait().expect("not reached");
}

#[test]
fn what_touches_memory_that_is_not_its_own_ends_the_process_with_its_place() {
    // This test runs itself, in a process that is to be ended.
    const NAME: &str =
        "software::what_touches_memory_that_is_not_its_own_ends_the_process_with_its_place";
    if let Ok(which) = std::env::var("FORESAIL_TEST_ASTRAY") {
        return go_astray(&which);
    }
    let cases = [
        (8, "byte 296 of an allocation of 40 bytes"),
        (9, "byte 1024 of its 512 bytes of shared memory"),
        (10, "its stack of 65536 bytes is too small"),
    ];
    if opened(Software::open()).is_none() {
        return;
    }
    let this = std::env::current_exe().expect("this program");
    for (which, words) in cases {
        let output = Command::new(&this)
            .args(["--exact", NAME, "--nocapture"])
            .env("FORESAIL_TEST_ASTRAY", which.to_string())
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            text.contains("kernel mistake, block (0, 0, 0), thread"),
            "{which}: {text}"
        );
        assert!(text.contains(words), "{which}: {text}");
    }
}

#[test]
fn memory_has_an_end() {
    let mut options = Options::default();
    options.properties.memory_bytes = 1000;
    let Some(mut gpu) = opened(Software::with(options)) else {
        return;
    };
    let first = gpu.allocate(600).expect("there is memory");
    assert!(first.0.is_multiple_of(256));
    assert_eq!(
        gpu.allocate(500),
        Err(GpuError::OutOfMemory {
            asked: 500,
            free: 400
        })
    );
    assert!(gpu.write(first.offset(599), &[0, 0]).is_err());
    assert!(gpu.fill(first.offset(1), 599, 1).is_ok());
    gpu.free(first).expect("given back");
    assert!(gpu.free(first).is_err());
    assert!(gpu.fill(first, 1, 1).is_err());
    assert_eq!(gpu.memory_free_bytes(), Ok(1000));
    gpu.allocate(1000).expect("there is memory again");
}

#[test]
fn planned_faults_come_when_they_were_planned() {
    each_seed(|rig| {
        let values = rig.upload(&[0_u32; 32]);
        let lost = GpuError::Lost("it fell off the bus".to_owned());
        rig.gpu.plan_fault(Fault {
            occasion: Occasion::Allocation,
            after: 1,
            error: GpuError::OutOfMemory { asked: 8, free: 4 },
        });
        rig.gpu.plan_fault(Fault {
            occasion: Occasion::Launch,
            after: 2,
            error: lost.clone(),
        });
        rig.gpu.allocate(8).expect("the first goes well");
        assert!(matches!(
            rig.gpu.allocate(8),
            Err(GpuError::OutOfMemory { asked: 8, free: 4 })
        ));
        rig.gpu.allocate(8).expect("and the third");
        let arguments = || Arguments::new().address(values).count(1).count(32);
        rig.launch("add", 1, 32, 0, arguments()).expect("the first");
        rig.launch("add", 1, 32, 0, arguments())
            .expect("the second");
        assert_eq!(rig.launch("add", 1, 32, 0, arguments()), Err(lost.clone()));
        assert_eq!(rig.gpu.wait(), Err(lost.clone()));
        assert_eq!(rig.gpu.memory_free_bytes(), Err(lost));
    });
}

#[test]
fn what_does_not_compile_says_where() {
    each_seed(|rig| {
        let broken = Unit {
            file: "broken.cu",
            source: "struct A { u32* out; };\nKERNEL(broken, 32, 1, A) {\n    args.out[0] = nonsense;\n}\n",
            constants: vec![("WIDTH", 3)],
            kernels: &[],
        };
        let error = rig.gpu.compile(&broken).expect_err("it is broken");
        let GpuError::Compile { file, log } = &error else {
            panic!("{error}");
        };
        assert_eq!(file, "broken.cu");
        assert!(
            log.contains("broken.cu:3:") && log.contains("nonsense"),
            "{log}"
        );
    });
}

#[test]
fn ranks_exchange_values() {
    let options = Options::default();
    let Some(group) = opened(Software::group(3, &options)) else {
        return;
    };
    let bytes: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let ranks: Vec<_> = group
            .into_iter()
            .enumerate()
            .map(|(rank, gpu)| scope.spawn(move || exchange(rank, Rig { gpu, seed: 0 })))
            .collect();
        ranks
            .into_iter()
            .map(|rank| rank.join().expect("no rank panics"))
            .collect()
    });
    let expected: Vec<bf16> = [6.0, -3.0, 3.0].map(bf16::from_f32).into();
    let gathered: Vec<bf16> = [1.0, -1.0, 2.0, -1.0, 3.0, -1.0].map(bf16::from_f32).into();
    for of_rank in bytes {
        assert_eq!(of_rank, [to_bytes(&expected), to_bytes(&gathered)].concat());
    }
}

/// A rank's sums, then what all ranks had of the first two.
fn exchange(rank: usize, mut rig: Rig) -> Vec<u8> {
    let own = [rank as f32 + 1.0, -1.0, 1.0].map(bf16::from_f32);
    let (values, all) = (rig.upload(&own), rig.upload(&[bf16::ZERO; 6]));
    rig.gpu.all_gather(values, all, 4).expect("gathered");
    rig.gpu.all_reduce(values, 3).expect("reduced");
    let mut bytes = rig.download::<u8>(values, 6).expect("done");
    bytes.extend(rig.download::<u8>(all, 12).expect("done"));
    bytes
}

#[test]
fn a_rank_that_leaves_leaves_no_other_waiting() {
    let Some(mut group) = opened(Software::group(2, &Options::default())) else {
        return;
    };
    let other = group.pop().expect("two");
    let mut gpu = group.pop().expect("one");
    let values = gpu.allocate(4).expect("memory");
    gpu.all_reduce(values, 2).expect("asked for");
    std::thread::spawn(move || drop(other))
        .join()
        .expect("it ends");
    assert!(gpu.wait().is_err_and(|error| error.is_fatal()));
}

/// What a watched device says of a kernel of two blocks.
fn watched(kernel: &str, which: usize, seed: u64) -> Option<Result<(), GpuError>> {
    let gpu = opened(Software::with(Options {
        seed,
        checks: true,
        ..Options::default()
    }))?;
    let mut rig = Rig { gpu, seed };
    let values = rig.upload(&[0_u32; 10]);
    let arguments = Arguments::new().address(values).count(which).count(10);
    rig.launch(kernel, 2, 128, 16 << 10, arguments)
        .expect("launched");
    Some(rig.gpu.wait())
}

#[test]
fn accesses_that_nothing_orders_are_found_whatever_the_order_was() {
    let found = [
        (1, "of 16384 bytes of shared memory, which thread"),
        (3, "and nothing orders the two"),
        (5, "of 16384 bytes of shared memory, which thread"),
        (7, "of block"),
        (9, "writes byte 0 of 16384 bytes of shared memory"),
        (11, "and nothing orders the two"),
        (13, "accesses byte 40 of an allocation of 40 bytes"),
    ];
    for seed in 0..4 {
        for which in [0, 2, 4, 6, 8, 10] {
            if let Some(done) = watched("unordered", which, seed) {
                assert_eq!(done, Ok(()), "{which}");
            }
        }
        for (which, words) in found {
            if let Some(done) = watched("unordered", which, seed) {
                let text = done.expect_err("it is a mistake").to_string();
                assert!(text.contains(words), "{which}: {text}");
            }
        }
    }
}

#[test]
fn products_of_what_is_not_seen_or_not_kept_are_found() {
    for seed in 0..4 {
        if let Some(done) = watched("unordered_product", 0, seed) {
            assert_eq!(done, Ok(()));
        }
        for (which, words) in [
            (1, "without fence_shared_for_tensor_cores() after it"),
            (3, "nothing orders the two"),
        ] {
            if let Some(done) = watched("unordered_product", which, seed) {
                let text = done.expect_err("it is a mistake").to_string();
                assert!(text.contains(words), "{which}: {text}");
            }
        }
    }
}

#[test]
fn a_kernel_that_reads_before_it_waits_is_named_where_accesses_are_watched() {
    let options = Options {
        checks: true,
        ..Options::default()
    };
    let Some(gpu) = opened(Software::with(options)) else {
        return;
    };
    let mut rig = Rig { gpu, seed: 0 };
    assert_eq!(add_twice(&mut rig, "add").expect("done"), vec![15; 320]);
    let error = add_twice(&mut rig, "add_too_early").expect_err("it is too early");
    let text = error.to_string();
    assert!(
        text.contains("without wait_for_earlier_kernels() between them"),
        "{text}"
    );
}
