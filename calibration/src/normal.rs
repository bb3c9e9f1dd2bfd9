//! Draws from normal distributions, and from those that come of them.

use foresail_scenarios::random::Stream;
use rand::Rng as _;

/// A number of the standard normal distribution, by Marsaglia's polar method.
pub(crate) fn standard_normal(random: &mut Stream) -> f64 {
    let uniform = |random: &mut Stream| {
        // 53 bits, as many as a number has.
        (random.next_u64() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    loop {
        let (x, y) = (uniform(random), uniform(random));
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * libm::log(square) / square).sqrt();
        }
    }
}

/// How many times as large as it was found a standard deviation may be that was found with so many degrees of
/// freedom: the root of their number through a draw of chi-squared. Normal numbers times this are
/// Student's ("The Probable Error of a Mean", 1908). At least one degree is taken.
pub(crate) fn deviation_scale(random: &mut Stream, freedom: usize) -> f64 {
    let freedom = freedom.max(1);
    let squares: f64 = (0..freedom)
        .map(|_| {
            let normal = standard_normal(random);
            normal * normal
        })
        .sum();
    (freedom as f64 / squares.max(f64::MIN_POSITIVE)).sqrt()
}

/// How many times as wide as a normal one the 95 % interval of Student's distribution is (Abramowitz and Stegun,
/// "Handbook of Mathematical Functions", 26.7.5; within 3 % from two degrees of freedom on, and at least that many are taken).
pub(crate) fn student_by_normal(freedom: f64) -> f64 {
    let (normal, freedom) = (1.96, f64::max(freedom, 2.0));
    let power = |exponent: i32| (0..exponent).fold(1.0, |product, _| product * normal);
    let first = (power(3) + normal) / 4.0;
    let second = (5.0 * power(5) + 16.0 * power(3) + 3.0 * normal) / 96.0;
    let third = (3.0 * power(7) + 19.0 * power(5) + 17.0 * power(3) - 15.0 * normal) / 384.0;
    let student = normal + (first + (second + third / freedom) / freedom) / freedom;
    student / normal
}

#[cfg(test)]
mod tests {
    use foresail_scenarios::random::stream;

    use super::*;

    #[test]
    fn intervals_of_few_are_wider() {
        // The two-sided 5 % points of Student's table.
        for (freedom, point) in [(2, 4.303), (4, 2.776), (11, 2.201), (1000, 1.962)] {
            let found = 1.96 * student_by_normal(f64::from(freedom));
            assert!((found / point - 1.0).abs() < 0.032, "{freedom}: {found}");
        }
    }

    #[test]
    fn scaled_normal_numbers_are_student_s() {
        let mut random = stream(1, "test.normal");
        for (freedom, point) in [(2, 4.303), (11, 2.201)] {
            let beyond = (0..4000)
                .filter(|_| {
                    let scale = deviation_scale(&mut random, freedom);
                    (scale * standard_normal(&mut random)).abs() > point
                })
                .count();
            // 200 of 4000, with a standard deviation of 14.
            assert!((150..250).contains(&beyond), "{freedom}: {beyond}");
        }
    }
}
