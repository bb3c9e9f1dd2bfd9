//! The gate of an MLP, after a product of large matrices.

use foresail_engine::cuda::gpu::GpuError;
use foresail_engine::cuda::kernels::gate::{Gate, GateCall};
use half::bf16;

use crate::device::{Random, each_device_alike, relative_error, strided};

/// Rounding to bf16 is off by up to 2^-8 of a value.
const BF16_ERROR_MAX: f64 = 1.01 / 256.0;

/// `silu(gate) * up` of columns that alternate in eights.
fn gated(both: &[bf16]) -> Vec<f64> {
    let silu = |gate: f64| gate / (1.0 + (-gate).exp());
    both.chunks_exact(16)
        .flat_map(|both| (0..8).map(|i| silu(both[i].to_f64()) * both[i + 8].to_f64()))
        .collect()
}

#[test]
fn gates_open_and_close() {
    each_device_alike(|device| {
        let mut random = Random::new(31);
        let gate = Gate::new(device.gpu.as_mut()).expect("a launcher");
        let mut bits = Vec::new();
        let mut sizes: Vec<(usize, usize)> = vec![(1, 8), (3, 200), (2, 2056), (5, 64)];
        if device.is_hardware() {
            sizes.extend([(8192, 14_336), (65_537, 72)]);
        }
        for (rows, width) in sizes {
            let (both_stride, h_stride) =
                ((2 * width).next_multiple_of(64), width.next_multiple_of(64));
            // Gates from closed to open, where exponentials overflow too.
            let both = random.bf16s(rows * 2 * width, if width == 200 { 60.0 } else { 2.0 });
            let call = GateCall {
                rows,
                width,
                both: device.upload(&strided(&both, 2 * width, both_stride)),
                both_stride,
                h: device.poisoned::<bf16>((rows + 1) * h_stride),
                h_stride,
            };
            gate.enqueue(device.gpu.as_mut(), &call).expect("launched");
            let h: Vec<bf16> = device.download(call.h, (rows + 1) * h_stride);
            let is_ours = |index: usize| index / h_stride < rows && index % h_stride < width;
            assert!(
                h.iter()
                    .enumerate()
                    .all(|(i, h)| is_ours(i) || h.to_bits() == 0xffff)
            );
            let ours = h.iter().enumerate().filter(|&(i, _)| is_ours(i));
            let ours: Vec<f64> = ours.map(|(_, h)| h.to_f64()).collect();
            let error = relative_error(&ours, &gated(&both));
            assert!(error < BF16_ERROR_MAX, "{error}");
            bits.extend(ours.iter().map(|h| h.to_bits()));
        }
        bits
    });
}

#[test]
fn no_rows_are_nothing_and_bad_shapes_are_refused() {
    each_device_alike(|device| {
        let gate = Gate::new(device.gpu.as_mut()).expect("a launcher");
        let at = device.poisoned::<bf16>(128);
        let good = GateCall {
            rows: 0,
            width: 64,
            both: at,
            both_stride: 128,
            h: at,
            h_stride: 64,
        };
        assert_eq!(gate.enqueue(device.gpu.as_mut(), &good), Ok(()));
        let bad = [
            GateCall { width: 60, ..good },
            GateCall {
                both_stride: 120,
                ..good
            },
            GateCall {
                h_stride: 56,
                ..good
            },
            GateCall {
                h_stride: 68,
                ..good
            },
        ];
        for call in &bad {
            assert!(matches!(
                gate.enqueue(device.gpu.as_mut(), call),
                Err(GpuError::Call { .. })
            ));
        }
    });
}
