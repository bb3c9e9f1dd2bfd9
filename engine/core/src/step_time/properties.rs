//! What holds of every step-time model, whatever its numbers.

use super::calibrated::{Factor, Formula, Knot, Terms};
use super::profile::{DecodeRow, PrefillRow, Profile, ProfilePrecision, ProfileTable, Provenance};
use super::shapes::*;
use super::*;
use proptest::prelude::*;

const MAX_NUM_SEQS: u32 = 64;
const WORLD_SIZES: [u32; 4] = [1, 2, 4, 8];

fn shapes() -> impl Strategy<Value = ModelShape> {
    prop::sample::select(vec![
        LLAMA_3_2_1B,
        LLAMA_3_8B,
        LLAMA_3_70B,
        LLAMA_2_7B,
        LLAMA_2_70B,
        MIXTRAL_8X7B,
        QWEN_3_30B_A3B,
    ])
}

fn gpus() -> impl Strategy<Value = Gpu> {
    prop::sample::select(vec![
        Gpu::a100_40gb(),
        Gpu::a100_80gb(),
        Gpu::h100(),
        Gpu::h200(),
        Gpu::b200(),
        Gpu::b300(),
    ])
}

fn roofline(shape: &ModelShape, gpu: &Gpu, world_size: u32) -> Roofline {
    let bf16 = Precision::Bf16;
    Roofline::new(shape, bf16, bf16, gpu, world_size, MAX_NUM_SEQS).unwrap()
}

fn rooflines() -> impl Strategy<Value = Roofline> {
    let world_sizes = prop::sample::select(WORLD_SIZES.to_vec());
    (shapes(), gpus(), world_sizes).prop_map(|(shape, gpu, world)| roofline(&shape, &gpu, world))
}

/// Formulas of terms from nothing to what a large model takes, with factors that do not fall.
fn formulas() -> impl Strategy<Value = Calibrated> {
    let terms = prop::collection::vec(0.0..1.0_f64, Terms::count());
    let bends = prop::collection::vec(0.0..0.5_f64, 4);
    (terms, bends).prop_map(|(shares, bends)| {
        // So long each is at most, in the order of the names (s).
        let most = [
            5e-3, 2e-2, 1e-3, 1e-4, 1e-7, 1e-9, 1e-7, 1e-3, 1e-3, 0.0, 0.0, 0.0, 0.0,
        ];
        let values: Vec<f64> = shares
            .iter()
            .zip(most)
            .map(|(share, most)| share * most)
            .collect();
        let rising = |bends: &[f64]| Factor {
            knots: vec![
                Knot {
                    at: 1,
                    factor: 0.5 + bends[0],
                },
                Knot {
                    at: 30,
                    factor: 0.5 + bends[0] + bends[1],
                },
            ],
        };
        let formula = Formula {
            terms: Terms::of_values(&values),
            token_factor: rising(&bends[..2]),
            kv_factor: rising(&bends[2..]),
            all_reduce: None,
        };
        Calibrated::of(formula, MAX_NUM_SEQS)
    })
}

/// Tables of 2 to 4 batches with 1 to 5 contexts, bent either way.
fn profiles() -> impl Strategy<Value = Profile> {
    let costs = prop::collection::vec(0.0..1e-3_f64, 40);
    (1..=3_usize, 1..=5_usize, costs).prop_map(|(batches, contexts, costs)| {
        Profile::new(&table(batches, contexts, &costs), MAX_NUM_SEQS).unwrap()
    })
}

/// A table in which every batch, chunk and context adds one of the costs.
fn table(batches: usize, contexts: usize, costs: &[f64]) -> ProfileTable {
    let sizes = [1, 5, 16].into_iter().take(batches).chain([MAX_NUM_SEQS]);
    let mut decode = Vec::new();
    let mut prefill = Vec::new();
    for (row, size) in sizes.enumerate() {
        for column in 0..contexts {
            let seconds: f64 =
                costs[..=row].iter().sum::<f64>() + costs[20..=20 + column].iter().sum::<f64>();
            let past_tokens = [0, 100, 4000, 5000, 90_000][column];
            decode.push(DecodeRow {
                batch: size,
                past_tokens,
                seconds,
            });
            prefill.push(PrefillRow {
                tokens: 64 * size,
                past_tokens,
                seconds: 1.0 + 2.0 * seconds,
            });
        }
    }
    // Chunks of 64 tokens and more, all at least a second: their line stays above zero.
    ProfileTable {
        schema: ProfileTable::SCHEMA.into(),
        provenance: provenance(),
        decode,
        prefill,
        measured: None,
    }
}

fn provenance() -> Provenance {
    Provenance {
        engine: "none".into(),
        model: "none".into(),
        gpu: "none".into(),
        world_size: 1,
        precision: ProfilePrecision::Bf16,
        measured_on: "2026-11-01".into(),
        source: "made up".into(),
    }
}

/// The contract of [`StepTime`], at one load.
fn check_contract(
    model: &impl StepTime,
    batch: u32,
    past: u64,
    steps: u32,
) -> Result<(), TestCaseError> {
    let piece = model.decode(batch, past);
    let load = |decode_past| StepLoad {
        decodes: batch,
        decode_past,
        chunks: &[],
    };
    prop_assert_eq!(model.step(&load(past)), piece.at(past));
    prop_assert!(piece.past_last >= past);
    // Anywhere in the piece another look-up gives the same.
    let later = past + (piece.past_last - past).min(10_000_000) / 2;
    prop_assert_eq!(model.decode(batch, later), piece);
    prop_assert_eq!(model.step(&load(later)), piece.at(later));
    if piece.past_last < u64::MAX {
        let next = model.decode(batch, piece.past_last + 1);
        prop_assert_eq!(
            next.at(piece.past_last),
            piece.at(piece.past_last),
            "pieces meet"
        );
        prop_assert!(next.past_last > piece.past_last);
    }
    let one_by_one: Picos = (0..u64::from(steps))
        .map(|step| piece.at(past + step * u64::from(batch)))
        .sum();
    prop_assert_eq!(piece.leap(batch, past, steps), one_by_one);
    Ok(())
}

/// More work never takes less time.
fn check_monotone(
    model: &impl StepTime,
    load: &StepLoad<'_>,
    more: u32,
) -> Result<(), TestCaseError> {
    let time = model.step(load);
    let longer = StepLoad {
        decode_past: load.decode_past + u64::from(more),
        ..*load
    };
    prop_assert!(model.step(&longer) >= time, "past");
    let chunk = load.chunks[0];
    for grown in [
        Chunk {
            len: chunk.len + more,
            ..chunk
        },
        Chunk {
            past: chunk.past + more,
            ..chunk
        },
        Chunk {
            sample: true,
            ..chunk
        },
    ] {
        prop_assert!(
            model.step(&StepLoad {
                chunks: &[grown],
                ..*load
            }) >= time,
            "{grown:?}"
        );
    }
    prop_assert!(
        model.step(&StepLoad {
            chunks: &[chunk, chunk],
            ..*load
        }) >= time,
        "another chunk"
    );
    prop_assert!(
        model.step(&StepLoad {
            chunks: &[],
            ..*load
        }) <= time,
        "no chunk"
    );
    Ok(())
}

proptest! {
    #[test]
    fn rooflines_keep_the_contract(
        model in rooflines(), batch in 1..=MAX_NUM_SEQS, past in 0..2_000_000_u64, steps in 0..200_u32,
    ) {
        check_contract(&model, batch, past, steps)?;
    }

    #[test]
    fn formulas_keep_the_contract(
        model in formulas(), batch in 1..=2 * MAX_NUM_SEQS, past in 0..2_000_000_u64, steps in 0..200_u32,
    ) {
        check_contract(&model, batch, past, steps)?;
    }

    #[test]
    fn formulas_are_monotone(
        model in formulas(), batch in 0..MAX_NUM_SEQS, past in 0..2_000_000_u64, more in 1..3000_u32,
        chunk_past in 0..30_000_u32, len in 1..9000_u32, sample: bool,
    ) {
        let chunks = [Chunk { past: chunk_past, len, sample }];
        let load = StepLoad { decodes: batch, decode_past: past, chunks: &chunks };
        check_monotone(&model, &load, more)?;
        prop_assert!(model.step(&StepLoad { decodes: batch + 1, ..load }) >= model.step(&load), "batch");
    }

    #[test]
    fn rooflines_with_a_host_keep_the_contract(
        shape in shapes(), gpu in gpus(), host_launch_s in 1e-5..0.1_f64,
        batch in 1..=2 * MAX_NUM_SEQS, past in 0..5_000_000_u64, steps in 0..200_u32,
    ) {
        let efficiency = Efficiency { host_launch_s, ..gpu.efficiency };
        let model = roofline(&shape, &Gpu { efficiency, ..gpu }, 2);
        check_contract(&model, batch, past, steps)?;
    }

    #[test]
    fn profiles_keep_the_contract(
        model in profiles(), batch in 1..=MAX_NUM_SEQS, past in 0..120_000_u64, steps in 0..200_u32,
    ) {
        check_contract(&model, batch, past, steps)?;
    }

    #[test]
    fn rooflines_are_monotone(
        model in rooflines(), batch in 0..MAX_NUM_SEQS, past in 0..2_000_000_u64, more in 1..3000_u32,
        chunk_past in 0..30_000_u32, len in 1..9000_u32, sample: bool,
    ) {
        let chunks = [Chunk { past: chunk_past, len, sample }];
        let load = StepLoad { decodes: batch, decode_past: past, chunks: &chunks };
        check_monotone(&model, &load, more)?;
        prop_assert!(model.step(&StepLoad { decodes: batch + 1, ..load }) >= model.step(&load), "batch");
        prop_assert!(model.decode(batch + 1, past).at(past) >= model.decode(batch, past).at(past));
    }

    #[test]
    fn profiles_are_monotone(
        model in profiles(), batch in 1..MAX_NUM_SEQS, past in 0..120_000_u64, more in 1..3000_u32,
        chunk_past in 0..30_000_u32, len in 1..9000_u32, sample: bool,
    ) {
        let chunks = [Chunk { past: chunk_past, len, sample }];
        let load = StepLoad { decodes: batch, decode_past: past, chunks: &chunks };
        check_monotone(&model, &load, more)?;
        // Slopes are rounded to a picosecond a token, in each batch for itself.
        let rounding = past + 2;
        prop_assert!(model.decode(batch + 1, past).at(past) + rounding >= model.decode(batch, past).at(past));
    }

    /// Twice the GPUs never make a step twice as fast: overheads and all-reduces do not shrink.
    #[test]
    fn world_size_speeds_up_less_than_linearly(
        shape in shapes(), gpu in gpus(), batch in 0..=MAX_NUM_SEQS, past in 0..2_000_000_u64,
        chunk_past in 0..30_000_u32, len in 1..9000_u32, with_chunk: bool,
    ) {
        let chunks = [Chunk { past: chunk_past, len, sample: true }];
        let chunks = if with_chunk { &chunks[..] } else { &[] };
        let load = StepLoad { decodes: batch, decode_past: past, chunks };
        let times = WORLD_SIZES.map(|world_size| roofline(&shape, &gpu, world_size).step(&load));
        for (time, world_size) in times.iter().zip(WORLD_SIZES) {
            prop_assert!(time * u64::from(world_size) >= times[0], "{times:?}");
        }
        for pair in times[1..].windows(2) {
            prop_assert!(pair[1] * 2 > pair[0], "{times:?}");
        }
    }

    /// For models worth splitting, more GPUs do make a step shorter.
    #[test]
    fn more_gpus_are_faster(
        shape in prop::sample::select(vec![LLAMA_3_70B, LLAMA_2_70B]), gpu in gpus(),
        batch in 1..=MAX_NUM_SEQS, past in 0..2_000_000_u64, len in 0..9000_u32,
    ) {
        let chunks = [Chunk { past: 0, len, sample: true }];
        let load = StepLoad { decodes: batch, decode_past: past, chunks: &chunks[..usize::from(len > 0)] };
        let times = WORLD_SIZES.map(|world_size| roofline(&shape, &gpu, world_size).step(&load));
        prop_assert!(times.windows(2).all(|pair| pair[1] < pair[0]), "{times:?}");
    }

    #[test]
    fn the_same_inputs_give_the_same_times(shape in shapes(), gpu in gpus(), batch in 1..=MAX_NUM_SEQS, past in 0..1_000_000_u64) {
        let (a, b) = (roofline(&shape, &gpu, 2), roofline(&shape, &gpu, 2));
        prop_assert_eq!(a.decode(batch, past), b.decode(batch, past));
    }
}
