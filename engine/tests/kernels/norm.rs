//! RMS norms, with what is added before them.

use foresail_engine::cuda::gpu::{Address, GpuError};
use foresail_engine::cuda::kernels::norm::{Norm, NormCall, Rows, WIDTH_MAX};
use half::bf16;

use crate::device::{Device, Random, each_device_alike, relative_error, strided, widened};

/// Rounding to bf16 is off by up to 2^-8 of a value; sums in f32 add next to nothing.
const BF16_ERROR_MAX: f64 = 1.01 / 256.0;
const EPS: f32 = 1e-5;

/// `x / rms(x) * scales`, row by row, in f64.
fn rms_norm(x: &[f64], scales: &[f32]) -> Vec<f64> {
    let width = scales.len();
    let normed = |row: &[f64]| -> Vec<f64> {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
        let rstd = (mean + f64::from(EPS)).powf(-0.5);
        row.iter()
            .zip(scales)
            .map(|(x, &scale)| x * rstd * f64::from(scale))
            .collect()
    };
    x.chunks_exact(width).flat_map(normed).collect()
}

/// Rows of `x` on a device, and what norms them.
struct Rig<'a> {
    device: &'a mut Device,
    norm: Norm,
    rows: usize,
    width: usize,
    stride: usize,
    x: Vec<bf16>,
    scales: Vec<f32>,
    x_at: Address,
    scales_at: Address,
}

impl<'a> Rig<'a> {
    fn new(device: &'a mut Device, random: &mut Random, rows: usize, width: usize) -> Self {
        let stride = width.next_multiple_of(64);
        let norm = Norm::new(device.gpu.as_mut(), width).expect("a launcher");
        let x = random.bf16s(rows * width, 3.0);
        let scales = random.floats(width, 1.0);
        let x_at = device.upload(&strided(&x, width, stride));
        let scales_at = device.upload(&scales);
        Self {
            device,
            norm,
            rows,
            width,
            stride,
            x,
            scales,
            x_at,
            scales_at,
        }
    }

    /// Norms, and compares with rows that are expected to be normed.
    fn check(&mut self, rows: usize, of: Rows, expected: &[f64]) -> Vec<u16> {
        let n = self.device.poisoned::<bf16>((rows + 1) * self.stride);
        let call = NormCall {
            rows,
            x: self.x_at,
            x_stride: self.stride,
            of,
            scales: self.scales_at,
            eps: EPS,
            n,
            n_stride: self.stride,
        };
        self.norm
            .enqueue(self.device.gpu.as_mut(), &call)
            .expect("launched");
        let n = self.rows(n, rows);
        let error = relative_error(&widened(&n), &rms_norm(expected, &self.scales));
        assert!(error < BF16_ERROR_MAX, "{error}");
        n.iter().map(|value| value.to_bits()).collect()
    }

    /// Rows of a matrix of which a row more is poisoned, and columns beyond the width are zeros or poisoned.
    fn rows(&mut self, from: Address, rows: usize) -> Vec<bf16> {
        let all: Vec<bf16> = self.device.download(from, (rows + 1) * self.stride);
        let (ours, others) = all.split_at(rows * self.stride);
        assert!(others.iter().all(|value| value.to_bits() == 0xffff));
        let row = |row: &[bf16]| -> Vec<bf16> {
            let (values, padding) = row.split_at(self.width);
            let aligned = self.width.next_multiple_of(8) - self.width;
            assert!(
                padding
                    .iter()
                    .take(aligned)
                    .all(|value| value.to_bits() == 0)
            );
            assert!(
                padding
                    .iter()
                    .skip(aligned)
                    .all(|value| value.to_bits() == 0xffff)
            );
            values.to_vec()
        };
        ours.chunks_exact(self.stride).flat_map(row).collect()
    }

    fn check_added(&mut self, random: &mut Random, biased: bool) -> Vec<u16> {
        let (rows, width) = (self.rows, self.width);
        let y = random.bf16s(rows * width, 1.0);
        let bias = random.floats(width, 1.0);
        let added = Rows::Added {
            y: self.device.upload(&strided(&y, width, self.stride)),
            y_stride: self.stride,
            bias: biased.then(|| self.device.upload(&bias)),
        };
        let of_column = |index: usize| {
            if biased {
                f64::from(bias[index % width])
            } else {
                0.0
            }
        };
        let sum = self.x.iter().zip(&y).enumerate();
        let sum: Vec<f64> = sum
            .map(|(i, (x, y))| x.to_f64() + y.to_f64() + of_column(i))
            .collect();
        // x is rounded before it is normed.
        let rounded: Vec<bf16> = sum.iter().map(|&x| bf16::from_f64(x)).collect();
        let mut bits = self.check(rows, added, &widened(&rounded));
        let x: Vec<bf16> = self.device.download(self.x_at, rows * self.stride);
        let padding = |index: usize| index % self.stride >= width;
        assert!(
            x.iter()
                .enumerate()
                .all(|(i, x)| !padding(i) || x.to_bits() == 0),
            "zeros stay zeros"
        );
        let x: Vec<bf16> = x
            .chunks_exact(self.stride)
            .flat_map(|row| row[..width].to_vec())
            .collect();
        assert!(relative_error(&widened(&x), &sum) < BF16_ERROR_MAX);
        bits.extend(x.iter().map(|value| value.to_bits()));
        bits
    }
}

fn check_width(device: &mut Device, random: &mut Random, rows: usize, width: usize) -> Vec<u16> {
    let mut rig = Rig::new(device, random, rows, width);
    let x = widened(&rig.x);
    let mut bits = rig.check(rows, Rows::All, &x);
    assert_eq!(bits, rig.check(rows, Rows::All, &x), "twice the same");
    let chosen: Vec<usize> = (0..rows + 2).map(|_| random.below(rows)).collect();
    let of_chosen = chosen.iter().flat_map(|&row| &x[row * width..][..width]);
    let expected: Vec<f64> = of_chosen.copied().collect();
    let indices: Vec<u32> = chosen.iter().map(|&row| row as u32).collect();
    let indices = rig.device.upload(&indices);
    bits.extend(rig.check(rows + 2, Rows::Chosen(indices), &expected));
    bits.extend(rig.check_added(random, false));
    bits
}

#[test]
fn rows_of_any_width_are_normed() {
    each_device_alike(|device| {
        let mut random = Random::new(11);
        let widths = [1, 8, 64, 321, 577, 1024, 4096];
        let mut bits: Vec<u16> = widths
            .iter()
            .flat_map(|&width| check_width(device, &mut random, 3, width))
            .collect();
        if device.is_hardware() {
            for (rows, width) in [(1, 8192), (64, WIDTH_MAX), (2048, 4096)] {
                bits.extend(check_width(device, &mut random, rows, width));
            }
        }
        bits
    });
}

#[test]
fn a_bias_is_added_to_every_row() {
    each_device_alike(|device| {
        let mut random = Random::new(12);
        let mut bits = Vec::new();
        for width in [5, 576, 770] {
            let mut rig = Rig::new(device, &mut random, 4, width);
            bits.extend(rig.check_added(&mut random, true));
        }
        bits
    });
}

#[test]
fn no_rows_are_nothing_and_bad_shapes_are_refused() {
    each_device_alike(|device| {
        for width in [0, WIDTH_MAX + 1] {
            assert!(matches!(
                Norm::new(device.gpu.as_mut(), width),
                Err(GpuError::Call { .. })
            ));
        }
        let mut rig = Rig::new(device, &mut Random::new(13), 1, 100);
        assert!(rig.check(0, Rows::All, &[]).is_empty());
        let good = NormCall {
            rows: 1,
            x: rig.x_at,
            x_stride: 128,
            of: Rows::All,
            scales: rig.scales_at,
            eps: EPS,
            n: rig.x_at,
            n_stride: 128,
        };
        let bad = [
            NormCall {
                x_stride: 96,
                ..good
            },
            NormCall {
                n_stride: 101,
                ..good
            },
            NormCall {
                of: Rows::Added {
                    y: rig.x_at,
                    y_stride: 99,
                    bias: None,
                },
                ..good
            },
        ];
        for call in &bad {
            assert!(matches!(
                rig.norm.enqueue(rig.device.gpu.as_mut(), call),
                Err(GpuError::Call { .. })
            ));
        }
    });
}
