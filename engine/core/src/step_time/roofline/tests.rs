use super::super::calibrated::Formula;
use super::super::shapes::*;
use super::*;

const BF16: Precision = Precision::Bf16;
const FP8: Precision = Precision::Fp8;

fn roofline(shape: &ModelShape, gpu: &Gpu, world_size: u32) -> Roofline {
    Roofline::new(shape, BF16, BF16, gpu, world_size, 256).unwrap()
}

fn error(shape: &ModelShape, precision: Precision, gpu: &Gpu, world_size: u32) -> String {
    Roofline::new(shape, precision, BF16, gpu, world_size, 256)
        .unwrap_err()
        .to_string()
}

/// A decode-only step.
fn decode(model: &Roofline, batch: u32, past: u64) -> Picos {
    model.decode(batch, past).at(past)
}

#[test]
fn what_cannot_be_split_or_is_not_known_is_an_error() {
    let h100 = Gpu::h100();
    assert_eq!(
        error(&LLAMA_3_8B, BF16, &h100, 3),
        "world size 3 does not divide the model's 32 attention heads"
    );
    assert_eq!(
        error(&LLAMA_3_8B, BF16, &h100, 0),
        "world size 0 does not divide the model's 32 attention heads"
    );
    let shape = ModelShape {
        num_key_value_heads: 6,
        num_attention_heads: 24,
        ..LLAMA_3_8B
    };
    assert_eq!(
        error(&shape, BF16, &h100, 4),
        "world size 4 neither divides nor is a multiple of the model's 6 key and value heads"
    );
    assert_eq!(
        error(&LLAMA_3_8B, BF16, &h100, 16),
        "no all-reduce times are known for world size 16, only for 2, 4, 8"
    );
    assert_eq!(
        error(&LLAMA_3_8B, FP8, &Gpu::a100_80gb(), 1),
        "the GPU has no fp8 units"
    );
    let shape = ModelShape {
        vocab_size: 0,
        ..LLAMA_3_8B
    };
    assert_eq!(
        error(&shape, BF16, &h100, 1),
        "the model's `vocab_size` must be at least 1"
    );
    let experts = Some(super::super::Experts {
        count: 2,
        active: 3,
    });
    assert_eq!(
        error(
            &ModelShape {
                experts,
                ..LLAMA_3_8B
            },
            BF16,
            &h100,
            1
        ),
        "the model's `experts.active` must be at most `experts.count`"
    );
}

#[test]
fn figures_of_a_gpu_that_make_no_sense_are_errors() {
    let mut gpu = Gpu::h100();
    gpu.efficiency.kv_read = 0.0;
    assert_eq!(
        error(&LLAMA_3_8B, BF16, &gpu, 1),
        "the GPU's `kv_read` must be a positive number"
    );
    let mut gpu = Gpu::h100();
    gpu.efficiency.step_overhead_s = f64::INFINITY;
    assert_eq!(
        error(&LLAMA_3_8B, BF16, &gpu, 1),
        "the GPU's `step_overhead_s` must be a number that is not negative"
    );
}

#[test]
fn a_decode_step_takes_at_least_the_time_to_read_weights_and_cache() {
    for gpu in [Gpu::a100_80gb(), Gpu::h100(), Gpu::h200(), Gpu::b200()] {
        let step_s = decode(&roofline(&LLAMA_3_8B, &gpu, 1), 32, 64_000) as f64 / 1e12;
        let embedding_bytes = 2 * LLAMA_3_8B.embedding_parameters();
        let weights = LLAMA_3_8B.weight_bytes(BF16) - embedding_bytes;
        let bytes = weights + 64_000 * LLAMA_3_8B.kv_bytes_per_token(BF16);
        let floor_s = bytes as f64 / gpu.memory_bytes_per_s;
        assert!(
            // The faster the memory, the more of a step is launches.
            step_s > floor_s && step_s < 2.2 * floor_s,
            "{step_s} s, floor {floor_s} s"
        );
    }
}

#[test]
fn a_long_prompt_takes_at_least_its_flops() {
    let gpu = Gpu::h200();
    let chunks = [Chunk {
        past: 0,
        len: 8192,
        sample: true,
    }];
    let step = roofline(&LLAMA_3_8B, &gpu, 1).step(&StepLoad {
        decodes: 0,
        decode_past: 0,
        chunks: &chunks,
    });
    // 8192 tokens through the layers, and causal attention.
    let flops = 2.0 * 8192.0 * 32.0 * 218_103_808.0 + 32.0 * 2.0 * 4096.0 * 8192.0 * 8192.0;
    let floor_s = flops / gpu.bf16_flops;
    let share = floor_s / (step as f64 / 1e12);
    assert!((0.5..0.75).contains(&share), "{share} of the peak");
}

#[test]
fn chunks_of_one_prompt_take_longer_than_the_prompt_at_once() {
    let model = roofline(&LLAMA_3_8B, &Gpu::h200(), 1);
    let step = |chunk| {
        model.step(&StepLoad {
            decodes: 0,
            decode_past: 0,
            chunks: &[chunk],
        })
    };
    let whole = step(Chunk {
        past: 0,
        len: 4096,
        sample: true,
    });
    let parts: Picos = (0..8)
        .map(|i| {
            step(Chunk {
                past: 512 * i,
                len: 512,
                sample: i == 7,
            })
        })
        .sum();
    assert!(
        parts > whole && parts < whole * 3 / 2,
        "{parts} against {whole}"
    );
}

#[test]
fn fp8_halves_the_bytes_but_not_the_overheads() {
    let gpu = Gpu::h200();
    let bf16 = decode(&roofline(&LLAMA_3_70B, &gpu, 1), 1, 0) as f64;
    let fp8 = Roofline::new(&LLAMA_3_70B, FP8, FP8, &gpu, 1, 256).unwrap();
    let ratio = bf16 / decode(&fp8, 1, 0) as f64;
    assert!((1.6..2.0).contains(&ratio), "{ratio}");
    let bf16 = roofline(&LLAMA_3_70B, &gpu, 1).decode(1, 0).per_past_token;
    assert!(bf16.abs_diff(2 * fp8.decode(1, 0).per_past_token) <= 1);
}

#[test]
fn surplus_gpus_replicate_the_kv_cache() {
    let slope = |world_size| {
        roofline(&QWEN_3_30B_A3B, &Gpu::h100(), world_size)
            .decode(1, 0)
            .per_past_token
    };
    assert!(slope(1).abs_diff(4 * slope(4)) <= 4);
    assert_eq!(slope(4), slope(8));
}

#[test]
fn few_tokens_meet_few_experts() {
    let shares = experts_share(8, 2);
    assert_eq!(shares[..3], [0.0, 0.25, 1.0 - 0.75 * 0.75]);
    assert!(shares.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(*shares.last().unwrap() > 1.0 - 1e-8);
    assert_eq!(experts_share(4, 4), [0.0]);
    // One token reads 2 of 8 experts, 64 tokens read all.
    let model = roofline(&MIXTRAL_8X7B, &Gpu::h200(), 1);
    let ratio = decode(&model, 64, 0) as f64 / decode(&model, 1, 0) as f64;
    assert!((2.5..4.0).contains(&ratio), "{ratio}");
}

/// The numbers themselves, to the picosecond: they are the same on every machine.
#[test]
fn step_times_to_the_picosecond() {
    let model = roofline(&LLAMA_3_8B, &Gpu::h100(), 2);
    let chunks = [
        Chunk {
            past: 1000,
            len: 700,
            sample: true,
        },
        Chunk {
            past: 0,
            len: 300,
            sample: false,
        },
    ];
    let load = StepLoad {
        decodes: 32,
        decode_past: 40_000,
        chunks: &chunks,
    };
    assert_eq!(model.step(&load), 19_728_169_193);
    assert_eq!(model.decode(32, 0).fixed, 5_626_957_897);
    assert_eq!(model.decode(32, 0).per_past_token, 21_334);
}

#[test]
fn as_a_formula_it_is_nearly_the_same() {
    let models = [
        roofline(&LLAMA_3_8B, &Gpu::h100(), 1),
        roofline(&LLAMA_2_7B, &Gpu::a100_80gb(), 2),
        roofline(&LLAMA_3_70B, &Gpu::h200(), 8),
        roofline(&MIXTRAL_8X7B, &Gpu::h100(), 2),
    ];
    let off = |model: &Roofline, formula: &Formula, load: &StepLoad<'_>| {
        formula.seconds(load) / (model.step(load) as f64 * 1e-12) - 1.0
    };
    for model in models {
        let formula = model.formula();
        for decodes in [1, 2, 8, 32, 100, 256] {
            for decode_past in [0, 500 * u64::from(decodes), 4000 * u64::from(decodes)] {
                let load = StepLoad {
                    decodes,
                    decode_past,
                    chunks: &[],
                };
                let off = off(&model, &formula, &load);
                assert!(off.abs() < 0.05, "{decodes} {decode_past}: {off}");
            }
        }
        for (past, len) in [(0, 16), (0, 300), (0, 2048), (2000, 512), (8000, 2048)] {
            let chunks = [Chunk {
                past,
                len,
                sample: true,
            }];
            let load = StepLoad {
                decodes: 8,
                decode_past: 4000,
                chunks: &chunks,
            };
            let off = off(&model, &formula, &load);
            assert!(off.abs() < 0.1, "{past} {len}: {off}");
        }
    }
}

/// With a host that takes so long to launch a step.
fn with_host(host_launch_s: f64) -> Roofline {
    let mut gpu = Gpu::a100_80gb();
    gpu.efficiency.host_launch_s = host_launch_s;
    roofline(&LLAMA_2_70B, &gpu, 4)
}

#[test]
fn a_host_launches_while_the_device_works_on_all_of_the_step() {
    let device = with_host(0.0);
    let mut seen = [false; 2];
    for host_s in [2e-3, 10e-3, 30e-3, 60e-3, 200e-3] {
        let model = with_host(host_s);
        for (decodes, past_each, len) in [
            (1, 100, 0),
            (8, 2000, 0),
            (64, 500, 0),
            (64, 12_500, 0),
            (300, 4000, 0),
            (0, 0, 700),
            (64, 12_500, 64),
            (32, 4000, 4096),
        ] {
            let chunks = [Chunk {
                past: 1000,
                len,
                sample: true,
            }];
            let load = StepLoad {
                decodes,
                decode_past: u64::from(decodes * past_each),
                chunks: &chunks[..usize::from(len > 0)],
            };
            let device_s = device.step(&load) as f64 * 1e-12;
            let (host2, device2) = (host_s * host_s, device_s * device_s);
            let expected_s = (host2 * host2 + device2 * device2).sqrt().sqrt();
            let ratio = model.step(&load) as f64 * 1e-12 / expected_s;
            assert!(
                (0.99999..1.004).contains(&ratio),
                "{host_s} {load:?}: {ratio}"
            );
            seen[usize::from(host_s > device_s)] = true;
        }
    }
    assert_eq!(seen, [true; 2], "hosts above and below the device");
}

#[test]
fn as_a_formula_a_host_is_part_of_the_launch() {
    let model = with_host(30e-3);
    let load = StepLoad {
        decodes: 1,
        decode_past: 100,
        chunks: &[],
    };
    let ratio = model.formula().seconds(&load) / (model.step(&load) as f64 * 1e-12);
    assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
}
