//! The largest logit.

use super::SampleError;

/// Logits looked at together: the inner loops over them have no branch.
const BLOCK: usize = 256;

/// The largest logit, and the first token that has it, in one pass.
///
/// A logit of minus infinity is a token that cannot be; NaN and plus infinity
/// are not logits.
pub(super) fn argmax(logits: &[f32]) -> Result<(u32, f32), SampleError> {
    let mut best = f32::NEG_INFINITY;
    let mut best_block = None;
    for (block, values) in logits.chunks(BLOCK).enumerate() {
        let (largest, sound) = summary(values);
        if !sound {
            return Err(not_finite(logits));
        }
        if largest > best {
            best = largest;
            best_block = Some(block);
        }
    }
    let start = best_block.ok_or(SampleError::NothingLeft)? * BLOCK;
    let within = logits[start..].iter().position(|&logit| logit == best);
    let token = start + within.expect("the block has its largest value");
    Ok((token as u32, best))
}

/// The largest of a block's values, and whether all of them are logits.
fn summary(values: &[f32]) -> (f32, bool) {
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut sound = [true; LANES];
    let (lanes, rest) = values.as_chunks::<LANES>();
    for values in lanes {
        for lane in 0..LANES {
            largest[lane] = if values[lane] > largest[lane] {
                values[lane]
            } else {
                largest[lane]
            };
            sound[lane] &= values[lane] < f32::INFINITY;
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        largest[lane] = if value > largest[lane] {
            value
        } else {
            largest[lane]
        };
        sound[lane] &= value < f32::INFINITY;
    }
    let all = largest
        .iter()
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    (all, sound.iter().all(|&sound| sound))
}

fn not_finite(logits: &[f32]) -> SampleError {
    let place = logits
        .iter()
        .position(|&logit| logit.is_nan() || logit == f32::INFINITY);
    SampleError::NotFinite {
        token: place.unwrap_or_default() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_token() {
        for length in [3, 255, 256, 257, 1000] {
            let mut logits = vec![-1.0; length];
            logits[length - 1] = 4.0;
            logits[length / 2] = 4.0;
            assert_eq!(argmax(&logits), Ok(((length / 2) as u32, 4.0)));
        }
    }

    #[test]
    fn what_is_not_a_logit_is_named() {
        for wrong in [f32::NAN, f32::INFINITY, -f32::NAN] {
            for place in [0, 17, 299] {
                let mut logits = vec![1.0; 300];
                logits[place] = wrong;
                let token = place as u32;
                assert_eq!(argmax(&logits), Err(SampleError::NotFinite { token }));
            }
        }
    }

    #[test]
    fn impossible_tokens_are_not_chosen() {
        assert_eq!(argmax(&[f32::NEG_INFINITY, -9.0]), Ok((1, -9.0)));
        assert_eq!(
            argmax(&[f32::NEG_INFINITY; 300]),
            Err(SampleError::NothingLeft)
        );
        assert_eq!(argmax(&[]), Err(SampleError::NothingLeft));
    }
}
