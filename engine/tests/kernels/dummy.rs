//! Dummy weights made on the device are those that the host makes, bit for bit.

use std::ops::Range;

use foresail_engine::checkpoint::layout::{Piece, Tensor, TensorKind};
use foresail_engine::checkpoint::{DummyWeights, TensorSource};
use foresail_engine::config::Dtype;
use foresail_engine::cuda::kernels::dummy::{Dummy, DummyCall};
use foresail_engine::weights::HostValues;
use half::bf16;

use crate::device::{Device, Random, each_device};

fn by_host(weights: DummyWeights, piece: &Piece) -> Vec<bf16> {
    let mut values = HostValues::Bf16(Vec::new());
    weights.read(piece, &mut values).expect("made");
    match values {
        HostValues::Bf16(values) => values,
        HostValues::F32(_) => unreachable!("bf16 was asked for"),
    }
}

fn piece(kind: TensorKind, columns: usize, part: (Range<usize>, Range<usize>)) -> Piece {
    Piece {
        tensor: Tensor {
            name: format!("model.layers.{columns}.mlp.up_proj.weight"),
            kind,
            rows: 1 << 17,
            columns,
        },
        rows: part.0,
        columns: part.1,
    }
}

/// What is in memory, poison where nothing was written.
fn by_device(
    device: &mut Device,
    weights: DummyWeights,
    piece: &Piece,
    groups: Option<(usize, usize)>,
) -> Vec<bf16> {
    let (rows, columns) = (piece.rows.len(), piece.columns.len());
    let stride = columns.next_multiple_of(64);
    let all_rows = groups.map_or(rows, |(group, step)| rows.div_ceil(group) * step);
    let to = device.poisoned::<bf16>(all_rows * stride);
    let dummy = Dummy::new(&mut *device.gpu).expect("compiled");
    let call = DummyCall {
        key: weights.key(&piece.tensor.name),
        tensor_columns: piece.tensor.columns,
        rows: piece.rows.clone(),
        columns: piece.columns.clone(),
        offset: match piece.tensor.kind {
            TensorKind::NormScales => 1.0,
            TensorKind::Matrix | TensorKind::Bias => 0.0,
        },
        stored: weights.dtype,
        to,
        stride,
        groups,
    };
    dummy.enqueue(&mut *device.gpu, &call).expect("launched");
    device.download(to, all_rows * stride)
}

#[track_caller]
fn check(
    device: &mut Device,
    weights: DummyWeights,
    piece: &Piece,
    groups: Option<(usize, usize)>,
) {
    let found = by_device(device, weights, piece, groups);
    let expected = by_host(weights, piece);
    let columns = piece.columns.len();
    let stride = columns.next_multiple_of(64);
    let (group, step) = groups.unwrap_or((usize::MAX, 0));
    let mut whole = vec![bf16::from_bits(0xffff).to_bits(); found.len()];
    for (row, values) in expected.chunks_exact(columns).enumerate() {
        let start = (row / group * step + row % group) * stride;
        for (value, whole) in values.iter().zip(&mut whole[start..]) {
            *whole = value.to_bits();
        }
    }
    let found: Vec<u16> = found.iter().map(|value| value.to_bits()).collect();
    let differs = found.iter().zip(&whole).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{weights:?} {piece:?} {groups:?}");
}

#[test]
fn pieces_of_tensors_are_those_of_the_host() {
    each_device(|device| {
        let mut random = Random::new(5);
        let mut parts = vec![
            (4096, (0..3, 0..4096)),
            (4096, (1000..1003, 2048..4096)),
            (100, (7..20, 3..100)),
            (9, (0..40, 0..9)),
            (1, (0..5, 0..1)),
            // Places beyond 32 bits.
            (1 << 20, (100_000..100_002, 1_000_000..1_000_100)),
        ];
        if device.is_hardware() {
            parts.push((14336, (0..4096, 0..14336)));
        }
        for (columns, part) in parts {
            for dtype in [Dtype::Bf16, Dtype::F32, Dtype::F16] {
                let seed = random.next_u64();
                let weights = DummyWeights { seed, dtype };
                let piece = piece(TensorKind::Matrix, columns, part.clone());
                check(device, weights, &piece, None);
            }
        }
    });
}

#[test]
fn rows_are_interleaved_and_scales_are_near_one() {
    each_device(|device| {
        for (seed, dtype) in [(1, Dtype::Bf16), (2, Dtype::F16)] {
            let weights = DummyWeights { seed, dtype };
            let rows = piece(TensorKind::Matrix, 72, (5..32, 0..72));
            check(device, weights, &rows, Some((8, 16)));
            let scales = piece(TensorKind::NormScales, 500, (0..1, 0..500));
            check(device, weights, &scales, None);
        }
    });
}
