//! `attention_decode.cu` against attention written plainly.

use foresail_engine::cuda::kernels::attention_decode::{AttentionDecode, DecodeCall};
use foresail_engine::cuda::kernels::attention_decode_plan::{DecodeQuery, plan};
use foresail_engine::cuda::kernels::attention_shape::AttentionShape;
use half::bf16;

use crate::device::{Device, Random, each_device, each_device_alike, relative_error, widened};
use crate::paged::{Paged, is_poison, queries, sharpened};

/// Powers and outputs are rounded to bf16, each by 2^-9 at most, so by about 1e-3 on average; the rest is summed in f32.
const ERROR_MAX: f64 = 3e-3;

const SHAPE: AttentionShape = AttentionShape {
    query_heads: 8,
    kv_heads: 2,
    head_dim: 64,
    block_size: 64,
};

/// Decodes a token of each sequence, of which some are padding (a context of 0).
struct Case {
    shape: AttentionShape,
    contexts: Vec<usize>,
    window: Option<usize>,
    /// What queries, and so scores, are multiplied by.
    sharpness: f32,
    /// By how many tokens sequences grew since the plan was made.
    grown: usize,
    seed: u64,
}

impl Case {
    fn new(shape: AttentionShape, contexts: &[usize]) -> Self {
        Self {
            shape,
            contexts: contexts.to_vec(),
            window: None,
            sharpness: 1.0,
            grown: 0,
            seed: 1,
        }
    }

    /// Runs twice, compares with the twin, and returns the bits.
    fn check(&self, device: &mut Device) -> Vec<bf16> {
        let mut random = Random::new(self.seed);
        let paged = Paged::new(self.shape, &self.contexts, &mut random);
        let q = queries(&self.shape, self.contexts.len(), &mut random);
        let q = sharpened(&q, self.sharpness);
        let first = self.run(device, &paged, &q);
        assert_eq!(
            first.map_bits(),
            self.run(device, &paged, &q).map_bits(),
            "the same bits again"
        );
        let (width, stride) = (self.width(), self.stride());
        let (mut out, mut reference) = (Vec::new(), Vec::new());
        for (sequence, context) in self.contexts.iter().enumerate() {
            let row = &first[sequence * stride..][..stride];
            assert!(is_poison(&row[width..]), "nothing is written after a row");
            if *context == 0 {
                assert!(is_poison(row), "nothing is written to a row of padding");
                continue;
            }
            let heads = self.shape.query_heads * self.shape.padded();
            let q = &q[sequence * heads..][..heads];
            out.extend(widened(&row[..width]));
            reference.extend(paged.attend(sequence, context - 1, q, self.window));
        }
        let error = relative_error(&out, &reference);
        let name = device.name();
        assert!(
            error < ERROR_MAX,
            "{error} on {name}: {:?} {:?} {:?}",
            self.shape,
            self.contexts,
            self.window
        );
        first
    }

    fn width(&self) -> usize {
        self.shape.query_heads * self.shape.head_dim
    }

    fn stride(&self) -> usize {
        self.width().next_multiple_of(64) + 64
    }

    fn run(&self, device: &mut Device, paged: &Paged, q: &[bf16]) -> Vec<bf16> {
        let rows = self.contexts.len();
        let attention = AttentionDecode::new(&mut *device.gpu, self.shape).expect("compiles");
        let query = |(row, context): (usize, &usize)| DecodeQuery {
            row,
            sequence: row,
            context: context.saturating_sub(self.grown),
        };
        let planned: Vec<_> = self.contexts.iter().enumerate().map(query).collect();
        let plan = plan(&planned, attention.units(), self.window, attention.blocks());
        let positions: Vec<i32> = self
            .contexts
            .iter()
            .map(|context| *context as i32 - 1)
            .collect();
        let a = device.poisoned::<bf16>(rows * self.stride());
        let counters = device.zeros::<u32>(attention.counter_bytes(rows) / 4);
        let call = DecodeCall {
            q: device.upload(q),
            cache: paged.upload(device),
            tables: paged.upload_tables(device),
            table_stride: paged.table_stride,
            positions: device.upload(&positions),
            work: device.upload(&plan.words()),
            window: self.window,
            a,
            a_stride: self.stride(),
            workspace: device.poisoned::<f32>(attention.workspace_bytes() / 4),
            counters,
        };
        attention
            .enqueue(&mut *device.gpu, &call)
            .expect("launched");
        let counted: Vec<u32> = device.download(counters, attention.counter_bytes(rows) / 4);
        assert!(
            counted.iter().all(|count| *count == 0),
            "counters are zeros again"
        );
        device.download(a, rows * self.stride())
    }
}

trait MapBits {
    fn map_bits(&self) -> Vec<u16>;
}

impl MapBits for Vec<bf16> {
    fn map_bits(&self) -> Vec<u16> {
        self.iter().map(|value| value.to_bits()).collect()
    }
}

#[test]
fn contexts_of_any_length_are_seen_to_their_last_token() {
    each_device_alike(|device| {
        for context in [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 1000] {
            Case::new(SHAPE, &[context]).check(device);
        }
        Case::new(SHAPE, &[1, 700, 0, 64, 65, 3, 0, 129])
            .check(device)
            .map_bits()
    });
}

#[test]
fn heads_of_any_width_are_attended() {
    each_device(|device| {
        for head_dim in [2, 6, 32, 64, 80, 90, 128, 256] {
            let shape = AttentionShape { head_dim, ..SHAPE };
            Case::new(shape, &[70, 1, 0, 300]).check(device);
        }
    });
}

#[test]
fn groups_of_any_size_are_attended() {
    each_device(|device| {
        for group in [1, 3, 7, 8, 9, 16, 40] {
            let shape = AttentionShape {
                query_heads: 2 * group,
                ..SHAPE
            };
            Case::new(shape, &[5, 260]).check(device);
        }
    });
}

#[test]
fn blocks_of_any_size_are_read() {
    each_device(|device| {
        for block_size in [1, 4, 16, 128] {
            let shape = AttentionShape {
                block_size,
                ..SHAPE
            };
            Case::new(shape, &[90, 17, 0, 333]).check(device);
        }
    });
}

#[test]
fn scores_of_any_size_are_distributions() {
    each_device(|device| {
        for sharpness in [0.0, 30.0, 1000.0] {
            let case = Case {
                sharpness,
                ..Case::new(SHAPE, &[1, 0, 90, 400])
            };
            case.check(device);
        }
    });
}

#[test]
fn a_window_hides_what_is_before_it() {
    each_device(|device| {
        for window in [1, 2, 16, 63, 64, 65, 100, 1000] {
            let case = Case {
                window: Some(window),
                ..Case::new(SHAPE, &[1, 64, 65, 0, 190, 400])
            };
            case.check(device);
        }
    });
}

#[test]
fn sequences_may_grow_under_a_plan() {
    each_device(|device| {
        for (grown, window) in [
            (1, None),
            (64, None),
            (130, None),
            (1, Some(64)),
            (70, Some(65)),
            (200, Some(100)),
        ] {
            let case = Case {
                grown,
                window,
                ..Case::new(SHAPE, &[201, 0, 264, 265, 400])
            };
            case.check(device);
        }
    });
}

#[test]
fn a_sequence_that_ends_under_a_plan_is_left_alone() {
    each_device(|device| {
        let mut random = Random::new(3);
        let contexts = [300, 200];
        let case = Case::new(SHAPE, &contexts);
        let paged = Paged::new(SHAPE, &contexts, &mut random);
        let q = queries(&SHAPE, 2, &mut random);
        let both = case.run(device, &paged, &q);
        let attention = AttentionDecode::new(&mut *device.gpu, SHAPE).expect("compiles");
        let planned = [(0, 300), (1, 200)].map(|(row, context)| DecodeQuery {
            row,
            sequence: row,
            context,
        });
        let plan = plan(&planned, attention.units(), None, attention.blocks());
        let a = device.poisoned::<bf16>(2 * case.stride());
        let counters = device.zeros::<u32>(attention.counter_bytes(2) / 4);
        let call = DecodeCall {
            q: device.upload(&q),
            cache: paged.upload(device),
            tables: paged.upload_tables(device),
            table_stride: paged.table_stride,
            positions: device.upload(&[-1, 199]),
            work: device.upload(&plan.words()),
            window: None,
            a,
            a_stride: case.stride(),
            workspace: device.poisoned::<f32>(attention.workspace_bytes() / 4),
            counters,
        };
        attention
            .enqueue(&mut *device.gpu, &call)
            .expect("launched");
        let one: Vec<bf16> = device.download(a, 2 * case.stride());
        assert!(is_poison(&one[..case.stride()]));
        assert_eq!(
            one[case.stride()..].to_vec().map_bits(),
            both[case.stride()..].to_vec().map_bits()
        );
        let counted: Vec<u32> = device.download(counters, attention.counter_bytes(2) / 4);
        assert!(
            counted.iter().all(|count| *count == 0),
            "counters are zeros again"
        );
    });
}

#[test]
fn random_batches_are_attended() {
    each_device(|device| {
        let cases = if device.is_hardware() { 60 } else { 6 };
        for seed in 0..cases {
            let mut random = Random::new(100 + seed);
            let one_of = |random: &mut Random, of: &[usize]| of[random.below(of.len())];
            let kv_heads = 1 + random.below(3);
            let shape = AttentionShape {
                query_heads: kv_heads * (1 + random.below(8)),
                kv_heads,
                head_dim: one_of(&mut random, &[6, 64, 80, 128]),
                block_size: one_of(&mut random, &[4, 16, 64]),
            };
            let longest = if device.is_hardware() { 5000 } else { 300 };
            let contexts: Vec<_> = (0..1 + random.below(9))
                .map(|_| random.below(longest))
                .collect();
            let window = (random.below(2) == 1).then(|| 1 + random.below(longest));
            Case {
                shape,
                contexts,
                window,
                grown: 0,
                sharpness: 1.0,
                seed,
            }
            .check(device);
        }
    });
}

#[test]
fn a_query_is_attended_alike_alone_and_in_a_batch() {
    each_device(|device| {
        let mut random = Random::new(9);
        let contexts = [500, 3, 130];
        let case = Case::new(SHAPE, &contexts);
        let paged = Paged::new(SHAPE, &contexts, &mut random);
        let q = queries(&SHAPE, 3, &mut random);
        let together = case.run(device, &paged, &q);
        for row in 0..3 {
            // The others are padding: the tokens are split elsewhere, and sums differ by their rounding.
            let mut contexts = [0; 3];
            contexts[row] = case.contexts[row];
            let alone = Case::new(SHAPE, &contexts).run(device, &paged, &q);
            let of = |a: &[bf16]| widened(&a[row * case.stride()..][..case.width()]);
            let error = relative_error(&of(&alone), &of(&together));
            assert!(error < ERROR_MAX, "{error}");
        }
    });
}

#[test]
fn a_large_batch_of_a_whole_model_is_attended() {
    each_device(|device| {
        if !device.is_hardware() {
            return;
        }
        let mut random = Random::new(5);
        let contexts: Vec<_> = (0..64).map(|_| 1 + random.below(1500)).collect();
        Case::new(AttentionShape::LLAMA_3_8B, &contexts).check(device);
        Case::new(AttentionShape::LLAMA_3_8B, &[20_000]).check(device);
    });
}
