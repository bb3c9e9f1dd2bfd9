//! Projections.

use crate::weights::HostMatrix;

/// `W x + b` for each vector `x` of `inputs`, which are `[vectors][columns of W]`: `[vectors][rows of W]`.
pub(super) fn linear(matrix: &HostMatrix, bias: Option<&[f32]>, inputs: &[f32]) -> Vec<f32> {
    let weights = matrix.to_f32();
    let mut outputs = Vec::with_capacity(inputs.len() / matrix.columns * matrix.rows);
    for input in inputs.chunks_exact(matrix.columns) {
        for (out, row) in weights.chunks_exact(matrix.columns).enumerate() {
            let added = bias.map_or(0.0, |bias| f64::from(bias[out]));
            outputs.push((dot(row, input) + added) as f32);
        }
    }
    outputs
}

/// `Σ aᵢ bᵢ`, in f64, first to last.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::HostValues;

    #[test]
    fn each_vector_is_multiplied_and_the_bias_added() {
        let matrix = HostMatrix {
            rows: 3,
            columns: 2,
            values: HostValues::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        };
        let inputs = [1.0, 0.0, 1.0, -1.0];
        assert_eq!(
            linear(&matrix, None, &inputs),
            [1.0, 3.0, 5.0, -1.0, -1.0, -1.0]
        );
        let biased = linear(&matrix, Some(&[10.0, 20.0, 30.0]), &inputs);
        assert_eq!(biased, [11.0, 23.0, 35.0, 9.0, 19.0, 29.0]);
    }
}
