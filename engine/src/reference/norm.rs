//! What is done to each value, or to each vector, by itself.

/// `x / sqrt(mean(x²) + ε) * scales`, for each vector of `inputs`, each as long as `scales`
/// (Zhang and Sennrich 2019, equation 4).
pub(super) fn rms_norm(inputs: &[f32], scales: &[f32], epsilon: f32) -> Vec<f32> {
    let mut outputs = Vec::with_capacity(inputs.len());
    for vector in inputs.chunks_exact(scales.len()) {
        let squares = vector.iter().map(|value| f64::from(*value).powi(2));
        let mean = squares.sum::<f64>() / scales.len() as f64;
        let factor = 1.0 / (mean + f64::from(epsilon)).sqrt();
        let scaled = vector.iter().zip(scales);
        outputs.extend(
            scaled.map(|(value, scale)| (f64::from(*value) * factor * f64::from(*scale)) as f32),
        );
    }
    outputs
}

/// `z / (1 + exp(-z))` (Elfwing et al. 2017).
pub(super) fn silu(z: f32) -> f32 {
    let z = f64::from(z);
    (z / (1.0 + libm::exp(-z))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vector_is_brought_to_a_mean_square_of_one_and_scaled() {
        let normed = rms_norm(&[3.0, 4.0, 0.0, 2.0], &[1.0, 2.0], 0.0);
        let root = 12.5_f32.sqrt();
        let expected = [3.0 / root, 8.0 / root, 0.0, 2.0 * 2.0_f32.sqrt()];
        for (normed, expected) in normed.iter().zip(expected) {
            assert!((normed - expected).abs() < 1e-6, "{normed} {expected}");
        }
    }

    #[test]
    fn the_epsilon_keeps_zeros_finite() {
        assert_eq!(rms_norm(&[0.0, 0.0], &[1.0, 1.0], 1e-6), [0.0, 0.0]);
    }

    #[test]
    fn silu_is_half_way_at_zero_and_the_identity_far_up() {
        assert_eq!(silu(0.0), 0.0);
        assert_eq!(silu(100.0), 100.0);
        assert_eq!(silu(-1000.0), 0.0);
        assert!((silu(1.0) - 0.731_058_6).abs() < 1e-7);
    }
}
