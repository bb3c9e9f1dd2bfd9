//! The words that kernels are written in: each does what the PTX ISA says, on whatever device there is.
//!
//! The same tests on a GPU and on the software device keep the two from drifting apart.

use foresail_engine::cuda::gpu::{Address, KernelFacts, Launch, Unit};
use foresail_engine::cuda::kernels::Arguments;
use half::bf16;

use crate::device::{Device, Random, each_device, relative_error, say_skipped, widened};

const WORDS: [KernelFacts; 7] = [
    facts("block_sums", 24),
    facts("lanes", 16),
    facts("product", 32),
    facts("last_block_adds", 24),
    facts("early_ends", 8),
    facts("add", 16),
    facts("approximations", 32),
];

const HOPPER_WORDS: [KernelFacts; 5] = [
    facts("pipeline", 24),
    facts("products_of_64", 32),
    facts("products_of_128", 32),
    facts("products_of_64_transposed", 32),
    facts("products_of_128_transposed", 32),
];

const fn facts(name: &'static str, argument_bytes: usize) -> KernelFacts {
    KernelFacts {
        name,
        argument_bytes,
        registers_max: 255,
        instructions: &[],
    }
}

fn words() -> Unit {
    Unit {
        file: "words.cu",
        source: include_str!("words.cu"),
        constants: Vec::new(),
        kernels: &WORDS,
    }
}

fn hopper_words() -> Unit {
    Unit {
        file: "words_hopper.cu",
        source: include_str!("words_hopper.cu"),
        constants: Vec::new(),
        kernels: &HOPPER_WORDS,
    }
}

/// How a kernel of these is launched.
struct Shape {
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
}

fn launch(device: &mut Device, unit: &Unit, name: &str, shape: &Shape, arguments: Arguments) {
    let kernels = device.gpu.compile(unit).expect("it compiles");
    let index = unit.kernels.iter().position(|kernel| kernel.name == name);
    device
        .gpu
        .launch(&Launch {
            kernel: kernels[index.expect("a kernel of that name")],
            blocks: [shape.blocks, 1, 1],
            threads: shape.threads,
            shared_bytes: shape.shared_bytes,
            overlaps: false,
            arguments: &arguments.bytes(),
        })
        .expect("launched");
}

#[test]
fn blocks_add_up_through_shuffles_shared_memory_and_barriers() {
    each_device(|device| {
        let values: Vec<u32> = (0..1000).map(|i| i * i + 3).collect();
        let at = device.upload(&values);
        let sums = device.upload(&[0_u32; 4]);
        let arguments = Arguments::new().address(at).address(sums).count(1000);
        let shape = Shape {
            blocks: 4,
            threads: 256,
            shared_bytes: 32,
        };
        launch(device, &words(), "block_sums", &shape, arguments);
        let expected: Vec<u32> = values.chunks(256).map(|block| block.iter().sum()).collect();
        assert_eq!(device.download::<u32>(sums, 4), expected);
    });
}

#[test]
fn lanes_exchange_values_as_ptx_says() {
    each_device(|device| {
        let mut random = Random::new(7);
        let mut values: Vec<u32> = (0..32).map(|_| random.next_u64() as u32).collect();
        // NaN, infinity, halfway cases of the rounding, and what rounds up to infinity.
        values[..6].copy_from_slice(&[
            0x7fc0_1234,
            0x7f80_0000,
            0x3f80_8000,
            0x3f81_8000,
            0x7f7f_ffff,
            0x0000_8001,
        ]);
        let at = device.upload(&values);
        let out = device.upload(&[0_u32; 192]);
        let shape = Shape {
            blocks: 1,
            threads: 32,
            shared_bytes: 0,
        };
        launch(
            device,
            &words(),
            "lanes",
            &shape,
            Arguments::new().address(at).address(out),
        );
        let out: Vec<u32> = device.download(out, 192);
        let votes = (0..32).fold(0, |votes, lane| votes | (values[lane] & 1) << lane);
        for lane in 0..32 {
            assert_eq!(out[lane], values[lane ^ 5]);
            assert_eq!(out[32 + lane], values[lane * 7 % 32]);
            assert_eq!(
                out[64 + lane],
                values[if lane < 3 { lane } else { lane - 3 }]
            );
            assert_eq!(out[96 + lane], votes);
            let float = f32::from_bits(values[lane]);
            let rounded = if float.is_nan() {
                0x7fff
            } else {
                u32::from(bf16::from_f32(float).to_bits())
            };
            assert_eq!(out[160 + lane], rounded, "{float:e}");
            assert_eq!(
                out[128 + lane],
                u32::from(bf16::from_f32(1.5).to_bits()) << 16 | rounded
            );
        }
    });
}

#[test]
fn a_warp_multiplies_matrices_as_ptx_says() {
    each_device(|device| {
        let mut random = Random::new(7);
        let a = random.bf16s(256, 1.0);
        let b = random.bf16s(128, 1.0);
        let arguments = [
            device.upload(&a),
            device.upload(&b),
            device.upload(&[f32::NAN; 128]),
            device.upload(&[0_u32; 128]),
        ];
        let pointers = arguments
            .iter()
            .fold(Arguments::new(), |all, at| all.address(*at));
        let shape = Shape {
            blocks: 1,
            threads: 32,
            shared_bytes: 768,
        };
        launch(device, &words(), "product", &shape, pointers);
        let d: Vec<f32> = device.download(arguments[2], 128);
        let (wide_a, wide_b) = (widened(&a), widened(&b));
        let expected: Vec<f64> = (0..128)
            .map(|at| {
                (0..16)
                    .map(|k| wide_a[at / 8 * 16 + k] * wide_b[at % 8 * 16 + k])
                    .sum()
            })
            .collect();
        let d: Vec<f64> = d.into_iter().map(f64::from).collect();
        // 16 sums in f32, each rounded or cut to 2^-23.
        assert!(relative_error(&d, &expected) < 3e-6);
        let transposed: Vec<u32> = device.download(arguments[3], 128);
        for lane in 0..32 {
            for matrix in 0..4 {
                let (row, column) = (matrix % 2 * 8, matrix / 2 * 8);
                let element = |half: usize| {
                    u32::from(a[(row + 2 * (lane % 4) + half) * 16 + column + lane / 4].to_bits())
                };
                assert_eq!(transposed[lane * 4 + matrix], element(1) << 16 | element(0));
            }
        }
    });
}

#[test]
fn the_block_that_arrives_last_adds_up() {
    each_device(|device| {
        let (partial, counter, total) = (
            device.upload(&[0_u32; 17]),
            device.upload(&[0_u32]),
            device.upload(&[0_u32]),
        );
        for _ in 0..2 {
            let arguments = Arguments::new()
                .address(partial)
                .address(counter)
                .address(total);
            let shape = Shape {
                blocks: 17,
                threads: 64,
                shared_bytes: 4,
            };
            launch(device, &words(), "last_block_adds", &shape, arguments);
        }
        assert_eq!(device.download::<u32>(total, 1), [17 * 18 / 2]);
        assert_eq!(device.download::<u32>(counter, 1), [0]);
    });
}

#[test]
fn barriers_do_not_wait_for_threads_that_have_ended() {
    each_device(|device| {
        let out = device.upload(&[0_u32; 96]);
        let shape = Shape {
            blocks: 1,
            threads: 128,
            shared_bytes: 640,
        };
        launch(
            device,
            &words(),
            "early_ends",
            &shape,
            Arguments::new().address(out),
        );
        let expected: Vec<u32> = (0..96)
            .map(|i| {
                if i < 64 {
                    95 - i + 95 - (63 - i)
                } else {
                    95 - i
                }
            })
            .collect();
        assert_eq!(device.download::<u32>(out, 96), expected);
    });
}

#[test]
fn approximations_are_near() {
    each_device(|device| {
        let mut x: Vec<f32> = (-1400..=1400).map(|i| i as f32 * 0.1 + 0.013).collect();
        x.extend([f32::NEG_INFINITY, -0.0, 0.0, -126.0, 1.0, 1e-30, -3e38]);
        let count = x.len();
        let at = device.upload(&x);
        let (powers, roots) = (device.poisoned::<f32>(count), device.poisoned::<f32>(count));
        let shape = Shape {
            blocks: 1,
            threads: 64,
            shared_bytes: 0,
        };
        let arguments = Arguments::new()
            .address(at)
            .address(powers)
            .address(roots)
            .count(count);
        launch(device, &words(), "approximations", &shape, arguments);
        let powers: Vec<f32> = device.download(powers, count);
        let roots: Vec<f32> = device.download(roots, count);
        for ((x, power), root) in x.into_iter().zip(powers).zip(roots) {
            // ex2.approx: 2 units in the last place; what is less than the smallest normal number is 0.
            let wide = f64::from(x).exp2();
            let flushed = wide < f64::from(f32::MIN_POSITIVE) && power == 0.0;
            let infinite = wide > f64::from(f32::MAX) && power == f32::INFINITY;
            let near = (f64::from(power) - wide).abs() <= 2.5e-7 * wide;
            assert!(flushed || infinite || near, "2^{x} is not {power:e}");
            let wide = 1.0 / f64::from(x.abs()).sqrt();
            let near = (f64::from(root) - wide).abs() <= 2.5e-7 * wide;
            assert!(
                near || f64::from(root) == wide,
                "1 / sqrt({x}) is not {root:e}"
            );
        }
    });
}

#[test]
fn a_replay_does_what_was_recorded_in_its_order() {
    each_device(|device| {
        let values = device.upload(&vec![1_u32; 320]);
        let kernels = device.gpu.compile(&words()).expect("it compiles");
        let add = WORDS
            .iter()
            .position(|word| word.name == "add")
            .expect("it is there");
        device.gpu.begin_recording().expect("begun");
        for count in [320_usize, 100, 320] {
            let launch = Launch {
                kernel: kernels[add],
                blocks: [10, 1, 1],
                threads: 32,
                shared_bytes: 0,
                overlaps: true,
                arguments: &Arguments::new()
                    .address(values)
                    .count(2)
                    .count(count)
                    .bytes(),
            };
            device.gpu.launch(&launch).expect("recorded");
        }
        let recording = device.gpu.end_recording().expect("ended");
        assert_eq!(device.download::<u32>(values, 320), vec![1; 320]);
        for _ in 0..3 {
            device.gpu.replay(recording).expect("replayed");
        }
        let expected: Vec<u32> = (0..320).map(|i| if i < 100 { 19 } else { 13 }).collect();
        assert_eq!(device.download::<u32>(values, 320), expected);
    });
}

/// Runs a test where the device has what only Hopper has.
fn each_hopper(mut test: impl FnMut(&mut Device)) {
    each_device(|device| {
        let architecture = device.gpu.properties().architecture;
        if architecture == (9, 0) {
            test(device);
        } else {
            say_skipped(&format!("of Hopper's words, on {architecture:?}"));
        }
    });
}

#[test]
fn a_warp_brings_what_others_wait_for() {
    each_hopper(|device| {
        let values: Vec<u32> = (0..64 * 7).map(|i| i * 5 + 1).collect();
        let (from, sums) = (device.upload(&values), device.poisoned::<u32>(7));
        let shape = Shape {
            blocks: 1,
            threads: 256,
            shared_bytes: 1024,
        };
        let arguments = Arguments::new().address(from).address(sums).count(7);
        launch(device, &hopper_words(), "pipeline", &shape, arguments);
        let expected: Vec<u32> = values.chunks(64).map(|item| item.iter().sum()).collect();
        assert_eq!(device.download::<u32>(sums, 7), expected);
    });
}

/// `a` `[64][64]` by `b`, whose k are its columns, or its rows if it is transposed.
fn product(a: &[bf16], b: &[bf16], columns: usize, transposed: bool) -> Vec<f64> {
    let (a, b) = (widened(a), widened(b));
    let of_b = |k: usize, column: usize| {
        if transposed {
            b[k * columns + column]
        } else {
            b[column * 64 + k]
        }
    };
    (0..64 * columns)
        .map(|at| {
            (0..64)
                .map(|k| a[at / columns * 64 + k] * of_b(k, at % columns))
                .sum()
        })
        .collect()
}

#[test]
fn a_warpgroup_multiplies_matrices_as_ptx_says() {
    let cases = [
        ("products_of_64", 64, false),
        ("products_of_128", 128, false),
        ("products_of_64_transposed", 64, true),
        ("products_of_128_transposed", 128, true),
    ];
    each_hopper(|device| {
        let mut random = Random::new(11);
        for (name, columns, transposed) in cases {
            let (a, b) = (random.bf16s(64 * 64, 1.0), random.bf16s(64 * columns, 1.0));
            let outputs: [Address; 2] =
                std::array::from_fn(|_| device.poisoned::<f32>(64 * columns));
            let arguments = [device.upload(&a), device.upload(&b), outputs[0], outputs[1]]
                .into_iter()
                .fold(Arguments::new(), Arguments::address);
            let shape = Shape {
                blocks: 1,
                threads: 128,
                shared_bytes: 24 << 10,
            };
            launch(device, &hopper_words(), name, &shape, arguments);
            let expected = product(&a, &b, columns, transposed);
            for output in outputs {
                let d: Vec<f32> = device.download(output, 64 * columns);
                let d: Vec<f64> = d.into_iter().map(f64::from).collect();
                // 64 sums in f32, each rounded or cut to 2^-23.
                let error = relative_error(&d, &expected);
                assert!(error < 5e-6, "{name}: {error:e}");
            }
        }
    });
}
