//! Rotary positions.

/// Turns each head of `heads`, `[heads][2 * frequencies]`: value `i` of its first half and value `i` of
/// its second are a point, which turns by `position * frequencies[i]` (Su et al. 2021, equation 34, with
/// the pairs of Hugging Face's `rotate_half`).
pub(super) fn turn(heads: &mut [f32], frequencies: &[f64], position: u32) {
    for head in heads.chunks_exact_mut(2 * frequencies.len()) {
        let (first, second) = head.split_at_mut(frequencies.len());
        for (pair, frequency) in frequencies.iter().enumerate() {
            let angle = f64::from(position) * frequency;
            let (sine, cosine) = libm::sincos(angle);
            let (x, y) = (f64::from(first[pair]), f64::from(second[pair]));
            first[pair] = (x * cosine - y * sine) as f32;
            second[pair] = (y * cosine + x * sine) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_a_value_of_each_half_and_turns_with_the_position() {
        let quarter = std::f64::consts::FRAC_PI_2;
        let mut heads = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
        turn(&mut heads, &[quarter, 0.0], 1);
        let expected = [-2.0, 10.0, 1.0, 20.0, -4.0, 30.0, 3.0, 40.0];
        for (turned, expected) in heads.iter().zip(expected) {
            assert!((turned - expected).abs() < 1e-5, "{turned} {expected}");
        }
    }

    #[test]
    fn the_first_position_stays() {
        let mut head = [1.0, 2.0, 3.0, 4.0];
        turn(&mut head, &[1.0, 0.5], 0);
        assert_eq!(head, [1.0, 2.0, 3.0, 4.0]);
    }
}
