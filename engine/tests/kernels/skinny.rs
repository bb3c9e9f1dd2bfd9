//! Products of weights with few tokens.

use foresail_engine::cuda::gpu::{Address, GpuError};
use foresail_engine::cuda::kernels::skinny::{
    DeferredNorm, Epilogue, NextNorm, Shape, Skinny, SkinnyCall, sum_parts,
};
use half::bf16;

use crate::device::{Device, Random, each_device_alike, relative_error, strided, widened};

/// Rounding to bf16 is off by up to 2^-8 of a value; sums in f32 add next to nothing.
const BF16_ERROR_MAX: f64 = 1.01 / 256.0;
/// A sum of a few thousand products in f32, each addition off by up to 2^-24.
const F32_ERROR_MAX: f64 = 1e-5;
const EPS: f32 = 1e-5;
const OUTPUTS_MAX: usize = 32_768;
/// Rows after the last token, which nothing may write.
const SPARE_ROWS: usize = 3;

/// What is not written keeps every bit.
const POISON: u16 = 0xffff;

/// `y = x Wᵀ`, in f64: `x` `[tokens][inputs]`, `weights` `[outputs][inputs]`.
fn product(x: &[f64], weights: &[f64], inputs: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum();
    x.chunks_exact(inputs)
        .flat_map(|x| weights.chunks_exact(inputs).map(move |w| dot(x, w)))
        .collect()
}

/// `silu(gate) * up` of columns that alternate in eights.
fn gated(y: &[f64], outputs: usize) -> Vec<f64> {
    let silu = |gate: f64| gate / (1.0 + (-gate).exp());
    y.chunks_exact(outputs)
        .flat_map(|row| row.chunks_exact(16))
        .flat_map(|both| (0..8).map(move |i| silu(both[i]) * both[i + 8]))
        .collect()
}

/// A product, with random numbers in it, on a device.
struct Case {
    tokens: usize,
    outputs: usize,
    inputs: usize,
    stride: usize,
    weights: Vec<bf16>,
    /// `x Wᵀ`
    product: Vec<f64>,
    bias: Vec<f32>,
    /// `[parts][tokens]`
    sums: Vec<f32>,
    x_at: Address,
    weights_at: Address,
    bias_at: Address,
    sums_at: Address,
}

const PARTS: usize = 37;

impl Case {
    fn new(
        device: &mut Device,
        random: &mut Random,
        tokens: usize,
        outputs: usize,
        inputs: usize,
    ) -> Self {
        let stride = inputs.next_multiple_of(64);
        let x = random.bf16s(tokens * inputs, 1.0);
        let weights = random.bf16s(outputs * inputs, (inputs as f64).powf(-0.5));
        let bias = random.floats(outputs, 0.5);
        let sums: Vec<f32> = (0..PARTS * tokens)
            .map(|_| 20.0 * random.uniform() as f32)
            .collect();
        let x_at = device.upload(&strided(&x, inputs, stride));
        let weights_at = device.upload(&strided(&weights, inputs, stride));
        let (bias_at, sums_at) = (device.upload(&bias), device.upload(&sums));
        Self {
            tokens,
            outputs,
            inputs,
            stride,
            product: product(&widened(&x), &widened(&weights), inputs),
            weights,
            bias,
            sums,
            x_at,
            weights_at,
            bias_at,
            sums_at,
        }
    }

    fn call(&self, normed: bool, epilogue: Epilogue) -> SkinnyCall {
        SkinnyCall {
            tokens: self.tokens,
            x: self.x_at,
            x_stride: self.stride,
            weights: self.weights_at,
            weights_stride: self.stride,
            outputs: self.outputs,
            inputs: self.inputs,
            norm: normed.then_some(DeferredNorm {
                sums: self.sums_at,
                parts: PARTS,
                width: 1000,
                eps: EPS,
            }),
            epilogue,
        }
    }

    /// The product, by the norm's root, plus the bias.
    fn reference(&self, normed: bool, biased: bool) -> Vec<f64> {
        let mut y = self.product.clone();
        for (token, row) in y.chunks_exact_mut(self.outputs).enumerate() {
            let squares: f64 = (0..PARTS)
                .map(|part| f64::from(self.sums[part * self.tokens + token]))
                .sum();
            let rstd = if normed {
                (squares / 1000.0 + f64::from(EPS)).powf(-0.5)
            } else {
                1.0
            };
            for (y, &bias) in row.iter_mut().zip(&self.bias) {
                *y = *y * rstd + if biased { f64::from(bias) } else { 0.0 };
            }
        }
        y
    }
}

/// The launcher, and room for what it makes.
struct Rig<'a> {
    device: &'a mut Device,
    skinny: Skinny,
    shape: Shape,
}

impl<'a> Rig<'a> {
    fn new(device: &'a mut Device, shape: Shape) -> Self {
        let bytes = Skinny::workspace_bytes(device.gpu.properties(), OUTPUTS_MAX);
        let workspace = device.poisoned::<u8>(bytes);
        let skinny = Skinny::new(device.gpu.as_mut(), workspace, OUTPUTS_MAX).expect("a launcher");
        Self {
            device,
            skinny,
            shape,
        }
    }

    fn enqueue(&mut self, call: &SkinnyCall) {
        let done = self
            .skinny
            .enqueue_as(self.device.gpu.as_mut(), call, self.shape);
        done.expect("launched");
    }

    /// Values of bf16 `[tokens][width]`, where nothing else of `[tokens + SPARE_ROWS][stride]` was written.
    fn download(&mut self, from: Address, tokens: usize, width: usize, stride: usize) -> Vec<bf16> {
        let all: Vec<bf16> = self.device.download(from, (tokens + SPARE_ROWS) * stride);
        for (index, value) in all.iter().enumerate() {
            let is_ours = index / stride < tokens && index % stride < width;
            assert!(
                is_ours || value.to_bits() == POISON,
                "row {}, column {}",
                index / stride,
                index % stride
            );
        }
        let rows = all.chunks_exact(stride).take(tokens);
        rows.flat_map(|row| row[..width].iter().copied()).collect()
    }

    fn check_store(&mut self, case: &Case, normed: bool, biased: bool) -> Vec<u16> {
        let stride = case.outputs.next_multiple_of(64);
        let y = self
            .device
            .poisoned::<bf16>((case.tokens + SPARE_ROWS) * stride);
        let bias = biased.then_some(case.bias_at);
        self.enqueue(&case.call(
            normed,
            Epilogue::Store {
                y,
                y_stride: stride,
                bias,
            },
        ));
        let y = self.download(y, case.tokens, case.outputs, stride);
        let error = relative_error(&widened(&y), &case.reference(normed, biased));
        assert!(error < BF16_ERROR_MAX, "{error}");
        y.iter().map(|value| value.to_bits()).collect()
    }

    fn check_store_f32(&mut self, case: &Case, normed: bool) -> Vec<u16> {
        let stride = case.outputs.next_multiple_of(4);
        let y = self
            .device
            .poisoned::<f32>((case.tokens + SPARE_ROWS) * stride);
        self.enqueue(&case.call(
            normed,
            Epilogue::StoreF32 {
                y,
                y_stride: stride,
            },
        ));
        let all: Vec<f32> = self.device.download(y, (case.tokens + SPARE_ROWS) * stride);
        for (index, value) in all.iter().enumerate() {
            let is_ours = index / stride < case.tokens && index % stride < case.outputs;
            assert!(is_ours || value.to_bits() == u32::MAX);
        }
        let rows = all.chunks_exact(stride).take(case.tokens);
        let y: Vec<f64> = rows
            .flat_map(|row| row[..case.outputs].iter().map(|&y| f64::from(y)))
            .collect();
        let error = relative_error(&y, &case.reference(normed, false));
        assert!(error < F32_ERROR_MAX, "{error}");
        y.iter()
            .flat_map(|&y| {
                [
                    (y as f32).to_bits() as u16,
                    ((y as f32).to_bits() >> 16) as u16,
                ]
            })
            .collect()
    }

    fn check_silu_mul(&mut self, case: &Case, normed: bool) -> Vec<u16> {
        let width = case.outputs / 2;
        let stride = width.next_multiple_of(64);
        let h = self
            .device
            .poisoned::<bf16>((case.tokens + SPARE_ROWS) * stride);
        self.enqueue(&case.call(
            normed,
            Epilogue::SiluMul {
                h,
                h_stride: stride,
            },
        ));
        let h = self.download(h, case.tokens, width, stride);
        let error = relative_error(
            &widened(&h),
            &gated(&case.reference(normed, false), case.outputs),
        );
        assert!(error < BF16_ERROR_MAX, "{error}");
        h.iter().map(|value| value.to_bits()).collect()
    }

    fn check_add(
        &mut self,
        random: &mut Random,
        case: &Case,
        biased: bool,
        has_next: bool,
    ) -> Vec<u16> {
        let (tokens, outputs) = (case.tokens, case.outputs);
        let stride = outputs.next_multiple_of(64);
        let before = random.bf16s(tokens * outputs, 1.0);
        let mut residual = vec![bf16::from_bits(POISON); (tokens + SPARE_ROWS) * stride];
        for (row, values) in residual
            .chunks_exact_mut(stride)
            .zip(before.chunks_exact(outputs))
        {
            row[..outputs].copy_from_slice(values);
        }
        let x = self.device.upload(&residual);
        let scales = random.floats(outputs, 1.0);
        let parts = sum_parts(outputs);
        let next = NextNorm {
            scales: self.device.upload(&scales),
            scaled: self.device.poisoned::<bf16>((tokens + SPARE_ROWS) * stride),
            scaled_stride: stride,
            sums: self.device.poisoned::<f32>(parts * tokens),
        };
        let bias = biased.then_some(case.bias_at);
        let next_call = has_next.then_some(next);
        self.enqueue(&case.call(
            false,
            Epilogue::Add {
                x,
                x_stride: stride,
                bias,
                next: next_call,
            },
        ));

        let x = self.download(x, tokens, outputs, stride);
        let reference = case.reference(false, biased);
        let reference: Vec<f64> = widened(&before)
            .iter()
            .zip(&reference)
            .map(|(x, y)| x + y)
            .collect();
        let error = relative_error(&widened(&x), &reference);
        assert!(error < BF16_ERROR_MAX, "{error}");
        let mut bits: Vec<u16> = x.iter().map(|value| value.to_bits()).collect();
        if !has_next {
            return bits;
        }
        // What is scaled and squared is x as it was left, rounded: to the bit, and to the f32.
        let scaled = self.download(next.scaled, tokens, outputs, stride);
        for (index, (scaled, x)) in scaled.iter().zip(&x).enumerate() {
            let expected = bf16::from_f32(x.to_f32() * scales[index % outputs]);
            assert_eq!(scaled.to_bits(), expected.to_bits(), "{index}");
        }
        let sums: Vec<f32> = self.device.download(next.sums, parts * tokens);
        let widths = |part: usize| part * 64..outputs.min(part * 64 + 64);
        let squares = |part: usize, token: usize| -> f64 {
            widths(part)
                .map(|column| x[token * outputs + column].to_f64().powi(2))
                .sum()
        };
        let indices = (0..parts).flat_map(|part| (0..tokens).map(move |token| (part, token)));
        let expected: Vec<f64> = indices.map(|(part, token)| squares(part, token)).collect();
        let sums: Vec<f64> = sums.iter().map(|&sum| f64::from(sum)).collect();
        assert!(relative_error(&sums, &expected) < F32_ERROR_MAX);
        bits.extend(scaled.iter().map(|value| value.to_bits()));
        bits
    }

    /// Everything that is done with products, and twice: the same bits.
    fn check(
        &mut self,
        random: &mut Random,
        tokens: usize,
        outputs: usize,
        inputs: usize,
    ) -> Vec<u16> {
        let case = Case::new(self.device, random, tokens, outputs, inputs);
        let mut bits = self.check_store(&case, true, false);
        assert_eq!(bits, self.check_store(&case, true, false));
        bits.extend(self.check_store(&case, false, true));
        bits.extend(self.check_store_f32(&case, true));
        bits.extend(self.check_add(random, &case, false, true));
        bits.extend(self.check_add(random, &case, true, false));
        if outputs.is_multiple_of(16) {
            bits.extend(self.check_silu_mul(&case, true));
            bits.extend(self.check_silu_mul(&case, false));
        }
        bits
    }
}

fn each_shape(tokens: usize, mut test: impl FnMut(&mut Rig<'_>) -> Vec<u16>) {
    for shape in Shape::of(tokens) {
        each_device_alike(|device| test(&mut Rig::new(device, shape)));
    }
}

fn check_sizes(tokens_min: usize, tokens_max: usize, seed: u64) {
    each_shape(tokens_max, |rig| {
        let mut random = Random::new(seed);
        // A step of one tile, whole tiles and parts of them, the last row and the last input alone.
        let mut bits = rig.check(&mut random, tokens_max, 64, 64);
        bits.extend(rig.check(&mut random, tokens_max, 272, 192));
        let tokens = tokens_min + random.below(tokens_max - tokens_min);
        bits.extend(rig.check(&mut random, tokens, 129, 321));
        // So many steps that every part of the ring is used again.
        bits.extend(rig.check(&mut random, tokens, 150, 1100));
        bits.extend(rig.check(&mut random, tokens_min, 1, 1));
        if rig.device.is_hardware() {
            bits.extend(rig.check(&mut random, tokens_max, 6144, 4096));
            bits.extend(rig.check(&mut random, tokens_min, 4096, 14_336));
            bits.extend(rig.check(&mut random, tokens_max, 28_672, 512));
        }
        bits
    });
}

#[test]
fn of_1_to_8_tokens() {
    check_sizes(1, 8, 1);
}

#[test]
fn of_9_to_16_tokens() {
    check_sizes(9, 16, 2);
}

#[test]
fn of_17_to_32_tokens() {
    check_sizes(17, 32, 3);
}

#[test]
fn of_33_to_64_tokens() {
    check_sizes(33, 64, 4);
}

/// Products that follow each other: the second begins before the first has ended, and works in the same workspace.
#[test]
fn a_norm_between_two_products_is_part_of_them() {
    each_shape(5, |rig| {
        let (tokens, width) = (5, 320);
        let mut random = Random::new(5);
        let first = Case::new(rig.device, &mut random, tokens, width, 448);
        let mut second = Case::new(rig.device, &mut random, tokens, 200, width);
        let before = random.bf16s(tokens * width, 1.0);
        let scales: Vec<f32> = random
            .floats(width, 0.2)
            .iter()
            .map(|scale| 1.0 + scale)
            .collect();
        let x = rig.device.upload(&before);
        let next = NextNorm {
            scales: rig.device.upload(&scales),
            scaled: rig.device.poisoned::<bf16>(tokens * width),
            scaled_stride: width,
            sums: rig.device.poisoned::<f32>(sum_parts(width) * tokens),
        };
        let y = rig.device.poisoned::<bf16>((tokens + SPARE_ROWS) * 256);
        rig.enqueue(&first.call(
            false,
            Epilogue::Add {
                x,
                x_stride: width,
                bias: None,
                next: Some(next),
            },
        ));
        second.x_at = next.scaled;
        let mut call = second.call(
            true,
            Epilogue::Store {
                y,
                y_stride: 256,
                bias: None,
            },
        );
        call.norm = Some(DeferredNorm {
            sums: next.sums,
            parts: sum_parts(width),
            width,
            eps: EPS,
        });
        rig.enqueue(&call);

        let y = rig.download(y, tokens, 200, 256);
        let added = first.reference(false, false);
        let mut normed: Vec<f64> = widened(&before)
            .iter()
            .zip(&added)
            .map(|(x, y)| x + y)
            .collect();
        for row in normed.chunks_exact_mut(width) {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
            for (x, &scale) in row.iter_mut().zip(&scales) {
                *x *= (mean + f64::from(EPS)).powf(-0.5) * f64::from(scale);
            }
        }
        let reference = product(&normed, &widened(&second.weights), width);
        let error = relative_error(&widened(&y), &reference);
        // Three roundings to bf16 follow each other: of x, of what is scaled, and of y. The first two are of many values that
        // are summed, and so come to less than the last.
        assert!(error < 2.0 * BF16_ERROR_MAX, "{error}");
        y.iter().map(|value| value.to_bits()).collect()
    });
}

#[test]
fn calls_that_cannot_be_done_are_refused() {
    let [shape, _] = Shape::of(8);
    each_device_alike(|device| {
        let mut random = Random::new(6);
        let mut rig = Rig::new(device, shape);
        let case = Case::new(rig.device, &mut random, 8, 24, 64);
        let y = rig.device.poisoned::<bf16>(64 * 64);
        let good = case.call(
            false,
            Epilogue::Store {
                y,
                y_stride: 64,
                bias: None,
            },
        );
        let bad = [
            SkinnyCall { tokens: 0, ..good },
            SkinnyCall { tokens: 65, ..good },
            SkinnyCall { outputs: 0, ..good },
            SkinnyCall { inputs: 0, ..good },
            SkinnyCall {
                outputs: OUTPUTS_MAX + 1,
                ..good
            },
            SkinnyCall { inputs: 65, ..good },
            SkinnyCall {
                x_stride: 100,
                ..good
            },
            SkinnyCall {
                epilogue: Epilogue::Store {
                    y,
                    y_stride: 20,
                    bias: None,
                },
                ..good
            },
            SkinnyCall {
                epilogue: Epilogue::Store {
                    y,
                    y_stride: 25,
                    bias: None,
                },
                ..good
            },
            SkinnyCall {
                epilogue: Epilogue::SiluMul { h: y, h_stride: 64 },
                ..good
            },
        ];
        for call in &bad {
            let refused = rig.skinny.enqueue(rig.device.gpu.as_mut(), call);
            assert!(matches!(refused, Err(GpuError::Call { .. })), "{call:?}");
        }
        assert_eq!(rig.skinny.enqueue(rig.device.gpu.as_mut(), &good), Ok(()));
        rig.device.gpu.wait().expect("done");
    });
}
