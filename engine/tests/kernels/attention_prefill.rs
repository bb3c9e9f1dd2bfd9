//! `attention_prefill.cu` and `attention_prefill_hopper.cu` against attention written plainly.

use foresail_engine::cuda::kernels::attention_decode::AttentionDecode;
use foresail_engine::cuda::kernels::attention_prefill::{AttentionPrefill, PrefillCall};
use foresail_engine::cuda::kernels::attention_prefill_plan::{
    PrefillPlan, PrefillSequence, items, plan,
};
use foresail_engine::cuda::kernels::attention_shape::AttentionShape;
use half::bf16;

use crate::device::{Device, Random, each_device, relative_error, widened};
use crate::paged::{Paged, is_poison, queries, sharpened};

/// Powers and outputs are rounded to bf16, each by 2^-9 at most, so by about 1e-3 on average; the rest is summed in f32.
const ERROR_MAX: f64 = 3e-3;

const SHAPE: AttentionShape = AttentionShape {
    query_heads: 8,
    kv_heads: 2,
    head_dim: 64,
    block_size: 64,
};

/// Chunks of sequences, with rows of others between them.
struct Case {
    shape: AttentionShape,
    /// Of each sequence, the tokens before its chunk, and those of the chunk.
    chunks: Vec<(usize, usize)>,
    window: Option<usize>,
    /// What queries, and so scores, are multiplied by.
    sharpness: f32,
    seed: u64,
}

impl Case {
    fn new(shape: AttentionShape, chunks: &[(usize, usize)]) -> Self {
        Self {
            shape,
            chunks: chunks.to_vec(),
            window: None,
            sharpness: 1.0,
            seed: 1,
        }
    }

    /// Runs twice with each kernel, and compares with the twin.
    fn check(&self, device: &mut Device) {
        let mut random = Random::new(self.seed);
        let contexts: Vec<_> = self.chunks.iter().map(|(past, len)| past + len).collect();
        let paged = Paged::new(self.shape, &contexts, &mut random);
        let q = queries(&self.shape, self.rows(), &mut random);
        let q = sharpened(&q, self.sharpness);
        let reference = self.reference(&paged, &q);
        let fast = AttentionPrefill::new(&mut *device.gpu, self.shape).expect("compiles");
        let portable = AttentionPrefill::portable(&mut *device.gpu, self.shape).expect("compiles");
        self.check_plan(
            device,
            &fast,
            &fast.plan(&self.sequences(), self.window),
            &paged,
            &q,
            &reference,
        );
        let multiprocessors = device.gpu.properties().multiprocessors as usize;
        if items(&self.sequences(), &self.shape, 64) <= multiprocessors {
            let split = portable.split(&self.sequences(), self.window);
            self.check_plan(device, &portable, &split, &paged, &q, &reference);
        }
        for attention in [&fast, &portable] {
            for tile_rows in attention.tiles() {
                let plan = plan(&self.sequences(), &self.shape, tile_rows, self.window);
                self.check_plan(device, attention, &plan, &paged, &q, &reference);
            }
        }
    }

    fn check_plan(
        &self,
        device: &mut Device,
        attention: &AttentionPrefill,
        plan: &PrefillPlan,
        paged: &Paged,
        q: &[bf16],
        reference: &[Option<Vec<f64>>],
    ) {
        let a = self.run(device, attention, plan, paged, q);
        assert!(
            bits(&a) == bits(&self.run(device, attention, plan, paged, q)),
            "the same bits again"
        );
        self.compare(device.name(), plan.tile_rows, &a, reference);
    }

    fn sequences(&self) -> Vec<PrefillSequence> {
        let mut first = 1;
        let sequence = |(sequence, (past, len)): (usize, &(usize, usize))| {
            let chunk = PrefillSequence {
                sequence,
                first,
                len: *len,
                past: *past,
            };
            first += len + 1;
            chunk
        };
        self.chunks.iter().enumerate().map(sequence).collect()
    }

    fn rows(&self) -> usize {
        self.chunks.iter().map(|(_, len)| len + 1).sum::<usize>() + 1
    }

    fn width(&self) -> usize {
        self.shape.query_heads * self.shape.head_dim
    }

    fn stride(&self) -> usize {
        self.width().next_multiple_of(64) + 64
    }

    /// Of each row, what it is to be; nothing for rows that are of no chunk.
    fn reference(&self, paged: &Paged, q: &[bf16]) -> Vec<Option<Vec<f64>>> {
        let mut rows = vec![None; self.rows()];
        let width = self.shape.query_heads * self.shape.padded();
        for chunk in self.sequences() {
            for token in 0..chunk.len {
                let row = chunk.first + token;
                let q = &q[row * width..][..width];
                rows[row] = Some(paged.attend(chunk.sequence, chunk.past + token, q, self.window));
            }
        }
        rows
    }

    fn run(
        &self,
        device: &mut Device,
        attention: &AttentionPrefill,
        plan: &PrefillPlan,
        paged: &Paged,
        q: &[bf16],
    ) -> Vec<bf16> {
        let a = device.poisoned::<bf16>(self.rows() * self.stride());
        let call = PrefillCall {
            plan,
            work: device.upload(&plan.words()),
            q: device.upload(q),
            cache: paged.upload(device),
            tables: paged.upload_tables(device),
            table_stride: paged.table_stride,
            window: self.window,
            a,
            a_stride: self.stride(),
        };
        attention
            .enqueue(&mut *device.gpu, &call)
            .expect("launched");
        device.download(a, self.rows() * self.stride())
    }

    fn compare(&self, device: &str, tile_rows: usize, a: &[bf16], reference: &[Option<Vec<f64>>]) {
        let (mut out, mut wanted) = (Vec::new(), Vec::new());
        for (row, reference) in a.chunks_exact(self.stride()).zip(reference) {
            assert!(
                is_poison(&row[self.width()..]),
                "nothing is written after a row"
            );
            match reference {
                None => assert!(is_poison(row), "nothing is written to other rows"),
                Some(reference) => {
                    out.extend(widened(&row[..self.width()]));
                    wanted.extend(reference);
                }
            }
        }
        let error = relative_error(&out, &wanted);
        let Self {
            shape,
            chunks,
            window,
            ..
        } = self;
        assert!(
            error < ERROR_MAX,
            "{error} on {device}, tiles of {tile_rows}: {shape:?} {chunks:?} {window:?}"
        );
    }
}

fn bits(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn chunks_of_any_length_see_all_before_them() {
    each_device(|device| {
        for len in [1, 15, 16, 17, 31, 32, 33, 64, 65, 100] {
            Case::new(SHAPE, &[(0, len)]).check(device);
        }
        for past in [1, 63, 64, 65, 190, 600] {
            Case::new(SHAPE, &[(past, 20)]).check(device);
        }
    });
}

#[test]
fn keys_of_few_tiles_are_split() {
    each_device(|device| {
        for (past, len) in [(600, 1), (1100, 7), (500, 16)] {
            for window in [None, Some(3), Some(300)] {
                let case = Case {
                    window,
                    ..Case::new(SHAPE, &[(past, len)])
                };
                let attention =
                    AttentionPrefill::portable(&mut *device.gpu, SHAPE).expect("compiles");
                let plan = attention.split(&case.sequences(), window);
                assert_eq!(plan.partials > 1, window != Some(3), "split: {plan:?}");
                case.check(device);
            }
        }
    });
}

#[test]
fn a_plan_holds_for_layers_with_and_without_a_window() {
    each_device(|device| {
        for (planned, window) in [(None, Some(3)), (None, Some(300)), (Some(300), None)] {
            let case = Case {
                window,
                ..Case::new(SHAPE, &[(600, 9)])
            };
            let mut random = Random::new(11);
            let paged = Paged::new(SHAPE, &[609], &mut random);
            let q = queries(&SHAPE, case.rows(), &mut random);
            let attention = AttentionPrefill::portable(&mut *device.gpu, SHAPE).expect("compiles");
            let plan = attention.split(&case.sequences(), planned);
            assert!(plan.partials > 1, "split");
            let reference = case.reference(&paged, &q);
            case.check_plan(device, &attention, &plan, &paged, &q, &reference);
        }
    });
}

#[test]
fn sequences_of_a_step_are_apart() {
    each_device(|device| {
        Case::new(SHAPE, &[(0, 40), (100, 1), (0, 0), (3, 70), (200, 2)]).check(device);
        Case::new(SHAPE, &[]).check(device);
    });
}

#[test]
fn a_prompt_is_attended_alike_however_it_is_cut() {
    each_device(|device| {
        let mut random = Random::new(7);
        let case = Case::new(SHAPE, &[(0, 90)]);
        let paged = Paged::new(SHAPE, &[90], &mut random);
        let q = queries(&SHAPE, case.rows(), &mut random);
        let fast = AttentionPrefill::new(&mut *device.gpu, SHAPE).expect("compiles");
        let portable = AttentionPrefill::portable(&mut *device.gpu, SHAPE).expect("compiles");
        for attention in [&fast, &portable] {
            for tile_rows in attention.tiles() {
                let mut cut = |ends: &[usize]| {
                    let begins = [0].iter().chain(ends);
                    let chunk = |(begin, end): (&usize, &usize)| PrefillSequence {
                        sequence: 0,
                        first: 1 + begin,
                        len: end - begin,
                        past: *begin,
                    };
                    let chunks: Vec<_> = begins.zip(ends).map(chunk).collect();
                    let plan = plan(&chunks, &SHAPE, tile_rows, None);
                    bits(&case.run(device, attention, &plan, &paged, &q))
                };
                let whole = cut(&[90]);
                assert!(
                    whole == cut(&[50, 90]) && whole == cut(&[1, 64, 65, 90]),
                    "tiles of {tile_rows}"
                );
            }
        }
    });
}

#[test]
fn a_plan_of_other_tiles_and_heads_that_do_not_fit_are_refused() {
    each_device(|device| {
        let attention = AttentionPrefill::new(&mut *device.gpu, SHAPE).expect("compiles");
        let chunk = PrefillSequence {
            sequence: 0,
            first: 0,
            len: 1,
            past: 0,
        };
        let plan = plan(&[chunk], &SHAPE, 32, None);
        let nowhere = device.zeros::<u8>(16);
        let call = PrefillCall {
            plan: &plan,
            work: nowhere,
            q: nowhere,
            cache: nowhere,
            tables: nowhere,
            table_stride: 1,
            window: None,
            a: nowhere,
            a_stride: 512,
        };
        let refused = attention
            .enqueue(&mut *device.gpu, &call)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("tiles of 32 rows"), "{refused}");
        let wide = AttentionShape {
            head_dim: 1024,
            ..SHAPE
        };
        let refused = AttentionPrefill::new(&mut *device.gpu, wide)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("heads of 1024"), "{refused}");
        let refused = AttentionDecode::new(&mut *device.gpu, wide)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("heads of 1024"), "{refused}");
    });
}

#[test]
fn heads_of_any_width_are_attended() {
    each_device(|device| {
        for head_dim in [6, 32, 80, 90, 128, 256] {
            let shape = AttentionShape { head_dim, ..SHAPE };
            Case::new(shape, &[(30, 40)]).check(device);
        }
    });
}

#[test]
fn groups_of_any_size_are_attended() {
    each_device(|device| {
        for group in [1, 3, 7, 16] {
            let shape = AttentionShape {
                query_heads: 2 * group,
                ..SHAPE
            };
            Case::new(shape, &[(50, 24), (0, 10)]).check(device);
        }
    });
}

#[test]
fn blocks_of_any_size_are_read() {
    each_device(|device| {
        for block_size in [1, 16, 128] {
            let shape = AttentionShape {
                block_size,
                ..SHAPE
            };
            Case::new(shape, &[(70, 30), (0, 33)]).check(device);
        }
    });
}

#[test]
fn scores_of_any_size_are_distributions() {
    each_device(|device| {
        for sharpness in [0.0, 30.0, 1000.0] {
            let case = Case {
                sharpness,
                ..Case::new(SHAPE, &[(0, 50), (140, 20)])
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
                ..Case::new(SHAPE, &[(0, 90), (150, 40)])
            };
            case.check(device);
        }
    });
}

#[test]
fn random_steps_are_attended() {
    each_device(|device| {
        let (cases, longest) = if device.is_hardware() {
            (60, 2000)
        } else {
            (4, 90)
        };
        for seed in 0..cases {
            let mut random = Random::new(300 + seed);
            let one_of = |random: &mut Random, of: &[usize]| of[random.below(of.len())];
            let kv_heads = 1 + random.below(2);
            let shape = AttentionShape {
                query_heads: kv_heads * (1 + random.below(8)),
                kv_heads,
                head_dim: one_of(&mut random, &[6, 64, 80, 128]),
                block_size: one_of(&mut random, &[4, 16, 64, 128]),
            };
            let chunk = |random: &mut Random| (random.below(longest), random.below(longest / 2));
            let chunks = (0..1 + random.below(3))
                .map(|_| chunk(&mut random))
                .collect();
            let window = (random.below(2) == 1).then(|| 1 + random.below(longest));
            Case {
                shape,
                chunks,
                window,
                sharpness: 1.0,
                seed,
            }
            .check(device);
        }
    });
}

#[test]
fn a_long_prompt_of_a_whole_model_is_attended() {
    each_device(|device| {
        if device.is_hardware() {
            Case::new(
                AttentionShape::LLAMA_3_8B,
                &[(0, 1500), (3000, 300), (100, 1)],
            )
            .check(device);
        }
    });
}
