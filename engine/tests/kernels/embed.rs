//! The first rows of the residual stream.

use foresail_engine::cuda::gpu::GpuError;
use foresail_engine::cuda::kernels::embed::{Embed, EmbedCall};
use foresail_engine::cuda::kernels::skinny::NextNorm;
use half::bf16;

use crate::device::{Random, each_device_alike, relative_error, strided};

#[test]
fn tokens_of_this_rank_are_their_rows_and_others_are_zeros() {
    each_device_alike(|device| {
        let mut random = Random::new(21);
        let embed = Embed::new(device.gpu.as_mut()).expect("a launcher");
        let mut all = Vec::new();
        for (width, first, count) in [(64, 0, 10), (321, 100, 33), (2056, 7, 3), (4096, 0, 5)] {
            let stride = usize::next_multiple_of(width, 64);
            let rows = random.bf16s(count * width, 1.0);
            // Those before and after the part, and ids that are none: of padding, whatever they are.
            let mut ids: Vec<u32> = (0..9)
                .map(|_| (first + random.below(count)) as u32)
                .collect();
            ids.extend([
                first as u32,
                (first + count - 1) as u32,
                (first + count) as u32,
                u32::MAX,
            ]);
            ids.extend((first as u32).checked_sub(1));
            let scales = random.floats(width, 1.0);
            let next = NextNorm {
                scales: device.upload(&scales),
                scaled: device.poisoned::<bf16>(ids.len() * stride),
                scaled_stride: stride,
                sums: device.poisoned::<f32>(ids.len()),
            };
            let mut call = EmbedCall {
                tokens: ids.len(),
                ids: device.upload(&ids),
                embedding: device.upload(&strided(&rows, width, stride)),
                embedding_stride: stride,
                first,
                count,
                width,
                x: device.poisoned::<bf16>(ids.len() * stride),
                x_stride: stride,
                next: Some(next),
            };
            embed.enqueue(device.gpu.as_mut(), &call).expect("launched");
            let x: Vec<bf16> = device.download(call.x, ids.len() * stride);
            let scaled: Vec<bf16> = device.download(next.scaled, ids.len() * stride);
            let sums: Vec<f32> = device.download(next.sums, ids.len());
            let mut squares = Vec::new();
            for (token, &id) in ids.iter().enumerate() {
                let row = (id as usize).checked_sub(first).filter(|&row| row < count);
                let expected =
                    |column: usize| row.map_or(bf16::ZERO, |row| rows[row * width + column]);
                for column in 0..width.next_multiple_of(8) {
                    let (x, scaled) = (x[token * stride + column], scaled[token * stride + column]);
                    let (mut value, mut scale) = (bf16::ZERO, 0.0);
                    if column < width {
                        (value, scale) = (expected(column), scales[column]);
                    }
                    assert_eq!(x.to_bits(), value.to_bits());
                    assert_eq!(
                        scaled.to_f32(),
                        bf16::from_f32(value.to_f32() * scale).to_f32()
                    );
                }
                squares.push(
                    (0..width)
                        .map(|column| expected(column).to_f64().powi(2))
                        .sum::<f64>(),
                );
            }
            let sums: Vec<f64> = sums.iter().map(|&sum| f64::from(sum)).collect();
            // Sums of f32 of a few thousand values.
            assert!(relative_error(&sums, &squares) < 1e-5);
            all.extend(sums.iter().map(|sum| sum.to_bits()));

            // Without a norm, only x is written.
            (call.next, call.x) = (None, device.poisoned::<bf16>(ids.len() * stride));
            embed.enqueue(device.gpu.as_mut(), &call).expect("launched");
            let again: Vec<bf16> = device.download(call.x, ids.len() * stride);
            assert!(
                x.iter()
                    .zip(&again)
                    .all(|(x, again)| x.to_bits() == again.to_bits())
            );
        }
        all
    });
}

#[test]
fn no_tokens_are_nothing_and_short_strides_are_refused() {
    each_device_alike(|device| {
        let embed = Embed::new(device.gpu.as_mut()).expect("a launcher");
        let at = device.poisoned::<bf16>(64);
        let good = EmbedCall {
            tokens: 0,
            ids: at,
            embedding: at,
            embedding_stride: 64,
            first: 0,
            count: 1,
            width: 60,
            x: at,
            x_stride: 64,
            next: None,
        };
        assert_eq!(embed.enqueue(device.gpu.as_mut(), &good), Ok(()));
        let values: Vec<bf16> = device.download(at, 64);
        assert!(values.iter().all(|value| value.to_bits() == 0xffff));
        for bad in [
            EmbedCall {
                embedding_stride: 56,
                ..good
            },
            EmbedCall {
                x_stride: 61,
                ..good
            },
        ] {
            let refused = embed.enqueue(device.gpu.as_mut(), &bad);
            assert!(matches!(refused, Err(GpuError::Call { .. })));
        }
    });
}
