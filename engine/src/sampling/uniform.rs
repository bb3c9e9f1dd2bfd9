//! Random numbers by place: the number for the `n`-th token of a request is a
//! function of its seed and of `n`, so that it does not matter what was drawn
//! before, by whom, or how often a token was computed again.
//!
//! The function is Philox 4x32-10 (Salmon et al. 2011, "Parallel random
//! numbers: as easy as 1, 2, 3"), which GPUs can compute as well: the seed is
//! its key, the place its counter.

const ROUNDS: u32 = 10;
/// Multipliers and increments of the key of Philox 4x32 (the paper, section 4.3 and table 2).
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// A number in `[0, 1)` with 53 random bits.
pub(super) fn uniform(seed: u64, place: u64) -> f64 {
    let words = philox(halves(seed), [halves(place)[0], halves(place)[1], 0, 0]);
    let bits = u64::from(words[0]) | u64::from(words[1]) << 32;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn philox(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [low_0, high_0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(counter[0]));
        let [low_1, high_1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(counter[2]));
        counter = [
            high_1 ^ counter[1] ^ key[0],
            low_1,
            high_0 ^ counter[3] ^ key[1],
            low_0,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the authors of Philox publish (Random123, `kat_vectors`).
    #[test]
    fn it_is_philox() {
        assert_eq!(
            philox([0; 2], [0; 4]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0xa409_3822, 0x299f_31d0],
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn numbers_fill_the_unit_interval_evenly() {
        let mut counts = [0_u32; 10];
        for place in 0..10_000 {
            let number = uniform(7, place);
            assert!((0.0..1.0).contains(&number));
            counts[(number * 10.0) as usize] += 1;
        }
        // A thousand each, with a standard deviation of 30.
        assert!(
            counts.iter().all(|&count| (850..1150).contains(&count)),
            "{counts:?}"
        );
    }
}
