//! `heads.cu` against what it does written plainly.

use foresail_engine::config::{Rotary, RotaryScaling};
use foresail_engine::cuda::kernels::attention_shape::AttentionShape;
use foresail_engine::cuda::kernels::heads::{
    HeadNorm, Heads, HeadsCall, HeadsVariant, rotary_table,
};
use half::bf16;

use crate::device::{Device, Random, each_device, relative_error, strided, widened};
use crate::paged::{Paged, is_poison};

/// Everything is f32 but the result, which is rounded to bf16: by 2^-9 at most.
const ERROR_MAX: f64 = 2.5e-3;
const EPS: f32 = 1e-5;
const ROTARY: Rotary = Rotary {
    theta: 10_000.0,
    scaling: RotaryScaling::None,
};

/// What a step's rows are made from, and what becomes of them.
struct Case {
    shape: AttentionShape,
    variant: HeadsVariant,
    /// Of each row, -1 for padding.
    positions: Vec<i32>,
    product: Vec<bf16>,
    bias: Vec<f32>,
    query_scales: Vec<f32>,
    key_scales: Vec<f32>,
    paged: Paged,
    slots: Vec<u32>,
}

impl Case {
    /// Sequences with tokens before this step's, and rows of padding between them.
    fn new(
        shape: AttentionShape,
        variant: HeadsVariant,
        chunks: &[(usize, usize)],
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let contexts: Vec<_> = chunks.iter().map(|(past, len)| past + len).collect();
        let paged = Paged::new(shape, &contexts, &mut random);
        let (mut positions, mut slots) = (Vec::new(), Vec::new());
        for (sequence, (past, len)) in chunks.iter().enumerate() {
            for position in *past..past + len {
                positions.push(position as i32);
                slots.push(paged.slot(sequence, position));
            }
            positions.push(-1);
            slots.push(u32::MAX);
        }
        Self {
            product: random.bf16s(positions.len() * shape.product_width(), 2.0),
            bias: random.floats(shape.product_width(), 1.0),
            query_scales: random.floats(shape.head_dim, 1.0),
            key_scales: random.floats(shape.head_dim, 1.0),
            shape,
            variant,
            positions,
            paged,
            slots,
        }
    }

    /// Queries and the cache, after a run.
    fn run(&self, device: &mut Device) -> (Vec<bf16>, Vec<bf16>) {
        let rows = self.positions.len();
        let width = self.shape.product_width();
        let stride = width.next_multiple_of(64);
        let positions = self
            .positions
            .iter()
            .max()
            .map_or(0, |last| *last as usize + 1);
        let q_len = rows * self.shape.query_heads * self.shape.padded();
        let q = device.poisoned::<bf16>(q_len);
        let cache = device.poisoned::<bf16>(self.paged.cache_len());
        let call = HeadsCall {
            rows,
            product: device.upload(&strided(&self.product, width, stride)),
            product_stride: stride,
            bias: self.variant.bias.then(|| device.upload(&self.bias)),
            norm: self.variant.norm.then(|| HeadNorm {
                query_scales: device.upload(&self.query_scales),
                key_scales: device.upload(&self.key_scales),
                eps: EPS,
            }),
            rotary: device.upload(&rotary_table(&ROTARY, self.shape.head_dim, positions)),
            positions: device.upload(&self.positions),
            slots: device.upload(&self.slots),
            q,
            cache,
        };
        let heads = Heads::new(&mut *device.gpu, self.shape, self.variant).expect("compiles");
        heads.enqueue(&mut *device.gpu, &call).expect("launched");
        (
            device.download(q, q_len),
            device.download(cache, self.paged.cache_len()),
        )
    }

    /// A head of a row, as it leaves.
    fn head(&self, row: usize, head: usize) -> Vec<f64> {
        let AttentionShape {
            query_heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let first = head * head_dim;
        let product = &self.product[row * self.shape.product_width() + first..][..head_dim];
        let mut values = widened(product);
        if self.variant.bias {
            for (value, bias) in values.iter_mut().zip(&self.bias[first..]) {
                *value += f64::from(*bias);
            }
        }
        if head >= query_heads + kv_heads {
            return values;
        }
        if self.variant.norm {
            let scales = if head < query_heads {
                &self.query_scales
            } else {
                &self.key_scales
            };
            let square: f64 = values.iter().map(|value| value * value).sum();
            let factor = 1.0 / (square / head_dim as f64 + f64::from(EPS)).sqrt();
            for (value, scale) in values.iter_mut().zip(scales) {
                *value *= factor * f64::from(*scale);
            }
        }
        let half = head_dim / 2;
        for (pair, frequency) in ROTARY.frequencies(head_dim).into_iter().enumerate() {
            let (sine, cosine) = (f64::from(self.positions[row]) * frequency).sin_cos();
            let (x, y) = (values[pair], values[pair + half]);
            values[pair] = x * cosine - y * sine;
            values[pair + half] = y * cosine + x * sine;
        }
        values
    }

    fn check(&self, device: &mut Device) {
        let (q, mut cache) = self.run(device);
        assert!(
            (q.clone(), cache.clone()).eq_bits(&self.run(device)),
            "the same bits again"
        );
        let AttentionShape {
            query_heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let padded = self.shape.padded();
        let (mut out, mut reference) = (Vec::new(), Vec::new());
        for (row, position) in self.positions.iter().enumerate() {
            let queries = &q[row * query_heads * padded..][..query_heads * padded];
            if *position < 0 {
                assert!(
                    is_poison(queries),
                    "nothing is written for a row of padding"
                );
                continue;
            }
            for head in 0..query_heads + 2 * kv_heads {
                let written = match head.checked_sub(query_heads) {
                    None => queries[head * padded..][..padded].to_vec(),
                    Some(kv) => {
                        let place =
                            self.paged
                                .place(self.slots[row], kv >= kv_heads, kv % kv_heads);
                        let written = cache[place..][..padded].to_vec();
                        cache[place..][..padded].fill(bf16::from_bits(u16::MAX));
                        written
                    }
                };
                out.extend(widened(&written[..head_dim]));
                reference.extend(self.head(row, head));
                assert!(
                    written[head_dim..].iter().all(|value| value.to_bits() == 0),
                    "zeros after a head"
                );
            }
        }
        assert!(is_poison(&cache), "nothing is written but the rows' slots");
        let error = relative_error(&out, &reference);
        assert!(
            error < ERROR_MAX,
            "{error} on {}: {:?} {:?}",
            device.name(),
            self.shape,
            self.variant
        );
    }
}

trait EqualBits {
    fn eq_bits(&self, other: &Self) -> bool;
}

impl EqualBits for (Vec<bf16>, Vec<bf16>) {
    fn eq_bits(&self, other: &Self) -> bool {
        let bits = |values: &[bf16]| {
            values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        bits(&self.0) == bits(&other.0) && bits(&self.1) == bits(&other.1)
    }
}

const SHAPE: AttentionShape = AttentionShape {
    query_heads: 6,
    kv_heads: 2,
    head_dim: 64,
    block_size: 16,
};
const PLAIN: HeadsVariant = HeadsVariant {
    bias: false,
    norm: false,
};
const ALL: HeadsVariant = HeadsVariant {
    bias: true,
    norm: true,
};

#[test]
fn heads_of_any_width_are_turned_and_written() {
    each_device(|device| {
        for head_dim in [2, 6, 24, 64, 80, 90, 128, 256] {
            for variant in [PLAIN, ALL] {
                let shape = AttentionShape { head_dim, ..SHAPE };
                Case::new(shape, variant, &[(0, 3), (17, 1)], 1).check(device);
            }
        }
    });
}

#[test]
fn bias_and_norm_are_each_for_themselves() {
    each_device(|device| {
        for variant in [
            HeadsVariant {
                bias: true,
                norm: false,
            },
            HeadsVariant {
                bias: false,
                norm: true,
            },
        ] {
            Case::new(SHAPE, variant, &[(5, 2)], 2).check(device);
        }
    });
}

#[test]
fn rows_of_many_sequences_go_to_their_slots() {
    each_device(|device| {
        let most = if device.is_hardware() { 500 } else { 20 };
        for seed in 0..4 {
            let mut random = Random::new(50 + seed);
            let chunks: Vec<_> = (0..1 + random.below(5))
                .map(|_| (random.below(most), random.below(most)))
                .collect();
            let shape = AttentionShape {
                block_size: 1 << random.below(7),
                ..SHAPE
            };
            Case::new(shape, ALL, &chunks, seed).check(device);
        }
    });
}

#[test]
fn one_row_and_none_are_taken() {
    each_device(|device| {
        Case::new(AttentionShape::LLAMA_3_8B, PLAIN, &[(100, 1)], 3).check(device);
        let mut none = Case::new(SHAPE, PLAIN, &[(0, 1)], 4);
        none.positions.clear();
        none.slots.clear();
        none.check(device);
    });
}

#[test]
fn a_call_without_what_it_was_compiled_for_is_refused() {
    each_device(|device| {
        let case = Case::new(SHAPE, PLAIN, &[(0, 1)], 5);
        let heads = Heads::new(&mut *device.gpu, SHAPE, ALL).expect("compiles");
        let nowhere = device.zeros::<u8>(16);
        let call = HeadsCall {
            rows: case.positions.len(),
            product: nowhere,
            product_stride: 640,
            bias: Some(nowhere),
            norm: None,
            rotary: nowhere,
            positions: nowhere,
            slots: nowhere,
            q: nowhere,
            cache: nowhere,
        };
        let refused = heads
            .enqueue(&mut *device.gpu, &call)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("norm: true") && refused.contains("norm: false"),
            "{refused}"
        );
    });
}
