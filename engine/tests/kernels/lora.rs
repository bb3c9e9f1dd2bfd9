//! What adapters add on the device, against the same in f64.

use foresail_engine::cuda::gpu::Address;
use foresail_engine::cuda::kernels::lora::{
    ADAPTER_PART_BYTES, AdapterPart, Lora, LoraCall, OutputPart, padded_rank,
};
use half::bf16;

use crate::device::{
    Device, Random, each_device, each_device_alike, relative_error, strided, widened,
};

/// `t` and `y` are rounded to bf16 once each: 2^-9 at most, about 1.1e-3 in the mean of squares of each.
const TOLERANCE: f64 = 3e-3;

/// What one adapter adds to one target.
#[derive(Clone, Debug)]
struct LowRank {
    rank: usize,
    scale: f32,
    /// `[rank][inputs]`.
    down: Vec<bf16>,
    /// `[outputs][rank]`.
    up: Vec<bf16>,
}

#[derive(Clone, Debug)]
struct Case {
    inputs: usize,
    /// Values of a row of the output, without those that make it a multiple of 64.
    width: usize,
    parts: Vec<OutputPart>,
    /// `[slot][part]`.
    adapters: Vec<Vec<Option<LowRank>>>,
    slots: Vec<i32>,
    x: Vec<bf16>,
    y: Vec<bf16>,
    rank_max: usize,
}

impl Case {
    fn x_stride(&self) -> usize {
        self.inputs.next_multiple_of(64)
    }

    fn y_stride(&self) -> usize {
        self.width.next_multiple_of(64)
    }

    fn part(&self, row: usize, part: usize) -> Option<&LowRank> {
        let slot = usize::try_from(self.slots[row]).ok()?;
        self.adapters[slot][part].as_ref()
    }
}

fn place(part: &OutputPart, output: usize) -> usize {
    part.first
        + if part.interleaved {
            output / 8 * 16 + output % 8
        } else {
            output
        }
}

/// The slow twin: `y` afterwards, `[rows][width]`.
fn added(case: &Case) -> Vec<f64> {
    let mut y = widened(&case.y);
    for (row, x) in case.x.chunks_exact(case.inputs).enumerate() {
        for (index, part) in case.parts.iter().enumerate() {
            let Some(low_rank) = case.part(row, index) else {
                continue;
            };
            let dot = |a: &[bf16], b: &[f64]| -> f64 {
                a.iter().zip(b).map(|(a, b)| a.to_f64() * b).sum()
            };
            let between: Vec<f64> = low_rank
                .down
                .chunks_exact(case.inputs)
                .map(|down| dot(down, &widened(x)))
                .collect();
            for (output, up) in low_rank.up.chunks_exact(low_rank.rank).enumerate() {
                y[row * case.width + place(part, output)] +=
                    f64::from(low_rank.scale) * dot(up, &between);
            }
        }
    }
    y
}

/// `B` with columns of zeros up to the padded rank, `A` with rows of zeros.
fn upload(device: &mut Device, low_rank: &LowRank, case: &Case) -> AdapterPart {
    let padded = padded_rank(low_rank.rank);
    let mut down = strided(&low_rank.down, case.inputs, case.x_stride());
    down.resize(padded * case.x_stride(), bf16::ZERO);
    let up = strided(&low_rank.up, low_rank.rank, padded);
    AdapterPart {
        down: device.upload(&down),
        up: device.upload(&up),
        padded_rank: padded,
        scale: low_rank.scale,
    }
}

fn by_device(device: &mut Device, case: &Case) -> Vec<bf16> {
    let rows = case.slots.len();
    let mut table = Vec::new();
    for adapter in &case.adapters {
        for part in adapter {
            let bytes = match part {
                Some(low_rank) => upload(device, low_rank, case).bytes(),
                None => [0; ADAPTER_PART_BYTES],
            };
            table.extend_from_slice(&bytes);
        }
    }
    let lora = Lora::new(&mut *device.gpu, case.rank_max).expect("compiled");
    let call = LoraCall {
        rows,
        x: device.upload(&strided(&case.x, case.inputs, case.x_stride())),
        x_stride: case.x_stride(),
        adapters: device.upload(&table),
        slots: device.upload(&case.slots),
        between: device.poisoned::<u8>(lora.between_bytes(rows)),
        y: device.upload(&strided(&case.y, case.width, case.y_stride())),
        y_stride: case.y_stride(),
        parts: &case.parts,
    };
    lora.enqueue(&mut *device.gpu, &call).expect("launched");
    device.download(call.y, rows * case.y_stride())
}

#[track_caller]
fn check(case: &Case) {
    let expected = added(case);
    each_device_alike(|device| {
        let found = by_device(device, case);
        let mut values = Vec::new();
        for (row, found) in found.chunks_exact(case.y_stride()).enumerate() {
            let (real, padding) = found.split_at(case.width);
            assert!(padding.iter().all(|value| value.to_bits() == 0), "padding");
            values.extend_from_slice(real);
            let before = &case.y[row * case.width..][..case.width];
            let mut touched = vec![false; case.width];
            for (index, part) in case.parts.iter().enumerate() {
                if case.part(row, index).is_some() {
                    (0..part.outputs).for_each(|output| touched[place(part, output)] = true);
                }
            }
            for (column, touched) in touched.iter().enumerate() {
                let same = real[column].to_bits() == before[column].to_bits();
                assert!(*touched || same, "row {row}, column {column}");
            }
        }
        let error = relative_error(&widened(&values), &expected);
        assert!(error < TOLERANCE, "{error} on {}", device.name());
        found
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    });
}

/// Adapters of different ranks, some of which add to some targets only.
fn case(
    random: &mut Random,
    (inputs, parts): (usize, &[OutputPart]),
    rank_max: usize,
    adapters: usize,
    slots: Vec<i32>,
) -> Case {
    let width = parts
        .iter()
        .map(|part| place(part, part.outputs - 1) + 1)
        .max()
        .expect("a part");
    let mut low_rank = |adapter: usize, part: &OutputPart, index: usize| {
        if (adapter + index) % 4 == 3 {
            return None;
        }
        let rank = if adapter == 0 {
            rank_max
        } else {
            1 + random.below(rank_max)
        };
        Some(LowRank {
            rank,
            scale: 0.5 + random.uniform() as f32,
            down: random.bf16s(rank * inputs, (inputs as f64).sqrt().recip()),
            up: random.bf16s(part.outputs * rank, (rank as f64).sqrt().recip()),
        })
    };
    let adapters = (0..adapters)
        .map(|adapter| {
            let parts = parts.iter().enumerate();
            parts
                .map(|(index, part)| low_rank(adapter, part, index))
                .collect()
        })
        .collect();
    Case {
        inputs,
        width,
        parts: parts.to_vec(),
        adapters,
        x: random.bf16s(slots.len() * inputs, 1.0),
        y: random.bf16s(slots.len() * width, 1.0),
        slots,
        rank_max,
    }
}

fn plain(first: usize, outputs: usize) -> OutputPart {
    OutputPart {
        first,
        outputs,
        interleaved: false,
    }
}

fn interleaved(first: usize, outputs: usize) -> OutputPart {
    OutputPart {
        first,
        outputs,
        interleaved: true,
    }
}

/// Query, key and value of odd widths; gate and up; and one that fits.
fn projections() -> [Vec<OutputPart>; 4] {
    [
        vec![plain(0, 42), plain(42, 14), plain(56, 14)],
        vec![interleaved(0, 44), interleaved(8, 44)],
        vec![plain(0, 520), plain(520, 264), plain(784, 264)],
        vec![plain(0, 7)],
    ]
}

#[test]
fn decoding_rows_each_have_their_adapter() {
    let mut random = Random::new(1);
    for (index, parts) in projections().iter().enumerate() {
        for (rows, rank_max) in [(1, 8), (17, 48), (40, 64), (5, 32)] {
            let inputs = [100, 64, 576, 1030][(index + rows) % 4];
            // Some adapters are of several rows, not beside each other.
            let slots = (0..rows).map(|_| random.below(5) as i32 - 1).collect();
            check(&case(&mut random, (inputs, parts), rank_max, 4, slots));
        }
    }
}

#[test]
fn prompts_share_their_adapter() {
    let mut random = Random::new(2);
    for (parts, rank_max) in projections().iter().zip([16, 64, 24, 33]) {
        // Runs that end in the middle of tiles, and more rows than a few.
        let runs: [(i32, usize); 6] = [(2, 70), (-1, 30), (0, 1), (1, 100), (2, 33), (-1, 40)];
        let slots = runs
            .iter()
            .flat_map(|&(slot, rows)| std::iter::repeat_n(slot, rows))
            .collect();
        check(&case(&mut random, (200, parts), rank_max, 3, slots));
    }
}

/// The shapes of Llama-3-8B, on a GPU only.
#[test]
fn real_shapes() {
    let mut random = Random::new(3);
    each_device(|device| {
        if !device.is_hardware() {
            return;
        }
        for rows in [1, 8, 64, 700] {
            let slots: Vec<i32> = (0..rows).map(|row| row / 100 % 5 - 1).collect();
            let qkv = [plain(0, 4096), plain(4096, 1024), plain(5120, 1024)];
            let gate_up = [interleaved(0, 14336), interleaved(8, 14336)];
            for (inputs, parts) in [
                (4096, &qkv[..]),
                (4096, &gate_up),
                (14336, &[plain(0, 4096)]),
            ] {
                let case = case(&mut random, (inputs, parts), 16, 4, slots.clone());
                let found = by_device(device, &case);
                let values: Vec<_> = found
                    .chunks_exact(case.y_stride())
                    .flat_map(|row| widened(&row[..case.width]))
                    .collect();
                let error = relative_error(&values, &added(&case));
                assert!(error < TOLERANCE, "{error}: {rows} rows, {inputs} inputs");
            }
        }
    });
}

#[test]
fn nothing_is_added_where_there_is_no_adapter() {
    let mut random = Random::new(4);
    let parts = [plain(0, 64)];
    let case = case(&mut random, (64, &parts), 16, 1, vec![-1; 20]);
    each_device(|device| {
        let found = by_device(device, &case);
        assert!(found == case.y, "on {}", device.name());
    });
}

#[test]
fn what_is_not_possible_is_refused() {
    each_device(|device| {
        let gpu = &mut *device.gpu;
        let refusal = Lora::new(gpu, 65).unwrap_err().to_string();
        assert!(refusal.contains("up to 64, and 65"), "{refusal}");
        let lora = Lora::new(gpu, 8).expect("compiled");
        let parts = [plain(0, 64); 4];
        let call = LoraCall {
            rows: 1,
            x: Address::NONE,
            x_stride: 64,
            adapters: Address::NONE,
            slots: Address::NONE,
            between: Address::NONE,
            y: Address::NONE,
            y_stride: 64,
            parts: &parts,
        };
        assert!(lora.enqueue(gpu, &call).is_err());
        let unaligned = LoraCall {
            parts: &parts[..1],
            x_stride: 40,
            ..call
        };
        assert!(lora.enqueue(gpu, &unaligned).is_err());
    });
}
