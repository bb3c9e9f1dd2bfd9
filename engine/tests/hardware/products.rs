//! Products of large matrices, against a plain loop.

use crate::stand_in::is_stand_in;
use crate::{Random, floats, gpu, read};
use foresail_engine::cuda::gpu::{Format, Gpu, GpuError, Product};
use foresail_engine::cuda::hardware::Hardware;
use half::bf16;

/// `x`, `W` and `y` of a product, and what is in them.
struct Case {
    product: Product,
    x: Vec<f32>,
    weights: Vec<f32>,
    before: Vec<f32>,
}

fn number_bytes(format: Format) -> usize {
    match format {
        Format::Bf16 => 2,
        Format::F32 => 4,
    }
}

impl Case {
    fn new(
        gpu: &mut Hardware,
        random: &mut Random,
        shape: [usize; 3],
        format: Format,
        adds: bool,
    ) -> Self {
        let [rows, outputs, inputs] = shape;
        let (inputs_stride, y_stride) = (inputs.next_multiple_of(64), outputs.next_multiple_of(64));
        let mut numbers = |rows: usize, width: usize, stride: usize| -> Vec<f32> {
            let value = |index: usize| {
                let inside = index % stride < width;
                let number = if inside { random.number() } else { 0.0 };
                bf16::from_f32(number).to_f32()
            };
            let mut value = value;
            (0..rows * stride).map(&mut value).collect()
        };
        let x = numbers(rows, inputs, inputs_stride);
        let weights = numbers(outputs, inputs, inputs_stride);
        let before = numbers(rows, outputs, y_stride);
        let mut upload = |values: &[f32], format| {
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| encode(*value, format))
                .collect();
            let at = gpu.allocate(bytes.len()).expect("allocated");
            gpu.write(at, &bytes).expect("written");
            at
        };
        let product = Product {
            rows,
            outputs,
            inputs,
            x: upload(&x, Format::Bf16),
            x_stride: inputs_stride,
            weights: upload(&weights, Format::Bf16),
            weights_stride: inputs_stride,
            y: upload(&before, format),
            y_stride,
            y_format: format,
            adds,
        };
        Self {
            product,
            x,
            weights,
            before,
        }
    }

    /// What `y` is to be: in f64, by definition.
    fn expected(&self) -> Vec<f64> {
        let Product {
            rows,
            outputs,
            inputs,
            x_stride,
            weights_stride,
            y_stride,
            adds,
            ..
        } = self.product;
        let mut y: Vec<f64> = self.before.iter().map(|value| f64::from(*value)).collect();
        for row in 0..rows {
            for output in 0..outputs {
                let terms = (0..inputs).map(|k| {
                    f64::from(self.x[row * x_stride + k])
                        * f64::from(self.weights[output * weights_stride + k])
                });
                let sum: f64 = terms.sum();
                let y = &mut y[row * y_stride + output];
                *y = if adds { *y + sum } else { sum };
            }
        }
        y
    }

    fn restore(&self, gpu: &mut Hardware) {
        let format = self.product.y_format;
        let bytes: Vec<u8> = self
            .before
            .iter()
            .flat_map(|value| encode(*value, format))
            .collect();
        gpu.write(self.product.y, &bytes).expect("written");
    }

    fn result(&self, gpu: &mut Hardware) -> Vec<u8> {
        let bytes = self.before.len() * number_bytes(self.product.y_format);
        read(gpu, self.product.y, bytes)
    }
}

pub(crate) fn encode(value: f32, format: Format) -> Vec<u8> {
    match format {
        Format::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        Format::F32 => value.to_le_bytes().to_vec(),
    }
}

pub(crate) fn decode(bytes: &[u8], format: Format) -> Vec<f64> {
    match format {
        Format::Bf16 => bytes
            .chunks_exact(2)
            .map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f64())
            .collect(),
        Format::F32 => floats(bytes).into_iter().map(f64::from).collect(),
    }
}

#[test]
fn products_are_those_of_a_plain_loop_and_the_same_every_time() {
    let Some(mut gpu) = gpu() else { return };
    let mut random = Random(3);
    // Rows of several buckets and between; outputs that are no multiple of anything.
    let large = [
        [1, 8, 64],
        [65, 96, 128],
        [100, 333, 200],
        [128, 64, 4096],
        [300, 1000, 576],
    ];
    let small = [[1, 8, 64], [65, 24, 100], [100, 33, 40], [128, 8, 64]];
    let shapes: &[[usize; 3]] = if is_stand_in() { &small } else { &large };
    for &shape in shapes {
        for (format, adds) in [
            (Format::Bf16, false),
            (Format::Bf16, true),
            (Format::F32, false),
        ] {
            let case = Case::new(&mut gpu, &mut random, shape, format, adds);
            gpu.multiply(&case.product).expect("multiplied");
            let first = case.result(&mut gpu);
            let (out, expected) = (decode(&first, format), case.expected());
            let difference: f64 = out
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b) * (a - b))
                .sum();
            let norm: f64 = expected.iter().map(|value| value * value).sum();
            let error = (difference / norm).sqrt();
            // Rounding to bf16 is off by 2^-9 at most and by less on average; sums in f32 by far less.
            let bound = if format == Format::Bf16 { 3e-3 } else { 1e-5 };
            assert!(error < bound, "{shape:?} {format:?} {adds}: {error}");
            // What is between the rows stays as it was.
            let (outputs, stride) = (case.product.outputs, case.product.y_stride);
            for (index, value) in out.iter().enumerate() {
                if index % stride >= outputs {
                    assert!(
                        *value == expected[index],
                        "{shape:?}: {index} is not of the product"
                    );
                }
            }
            case.restore(&mut gpu);
            gpu.multiply(&case.product).expect("multiplied");
            assert!(case.result(&mut gpu) == first, "{shape:?}: the same bits");
            // And in a recording.
            case.restore(&mut gpu);
            gpu.begin_recording().expect("begun");
            gpu.multiply(&case.product).expect("recorded");
            let recording = gpu.end_recording().expect("ended");
            gpu.replay(recording).expect("replayed");
            assert!(
                case.result(&mut gpu) == first,
                "{shape:?}: the same bits in a recording"
            );
        }
    }
}

#[test]
fn products_that_are_done_alike_have_each_their_own_rows() {
    let Some(mut gpu) = gpu() else { return };
    let case = Case::new(&mut gpu, &mut Random(6), [128, 40, 64], Format::F32, false);
    let (expected, stride) = (case.expected(), case.product.y_stride);
    // All of one bucket, back and forth.
    for rows in [128, 100, 128, 66, 100, 66] {
        case.restore(&mut gpu);
        let product = Product {
            rows,
            ..case.product
        };
        gpu.multiply(&product).expect("multiplied");
        let out = decode(&case.result(&mut gpu), Format::F32);
        let (done, rest) = out.split_at(rows * stride);
        let exact = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
        assert!(done.iter().zip(&expected).all(exact), "{rows} rows");
        let before = &case.before[rows * stride..];
        let same = |(a, b): (&f64, &f32)| *a == f64::from(*b);
        assert!(rest.iter().zip(before).all(same), "{rows} rows and no more");
    }
}

#[test]
fn products_are_measured_without_being_done_and_those_of_nothing_do_nothing() {
    let Some(mut gpu) = gpu() else { return };
    let mut random = Random(4);
    let case = Case::new(&mut gpu, &mut random, [128, 32, 64], Format::Bf16, true);
    let before = case.result(&mut gpu);
    gpu.tune(&[case.product]).expect("measured");
    assert!(case.result(&mut gpu) == before);
    let none = Product {
        rows: 0,
        ..case.product
    };
    gpu.multiply(&none).expect("nothing to do");
    assert!(case.result(&mut gpu) == before);
    let wrong = Product {
        x_stride: 100,
        ..case.product
    };
    assert!(matches!(gpu.multiply(&wrong), Err(GpuError::Call { .. })));
}
