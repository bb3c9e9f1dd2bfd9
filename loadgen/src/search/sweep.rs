//! Several rates to try one after the other.

/// So many rates at most, so that a slip of the pen is not a week of load.
const RATES_MAX: u32 = 1000;

/// A list of rates that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected rates above 0, as `1,2,4` or `1..32 steps 6`; found `{found}`: {why}")]
pub struct SweepError {
    /// What was given.
    pub found: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The rates of a sweep (requests/s): a list (`1,2,4`), or a first and a last rate with a number of
/// steps (`1..32 steps 6`), each of which is the same factor: 1, 2, 4, 8, 16, 32.
///
/// # Errors
/// If it is neither, or a rate is not above 0.
pub fn rates(text: &str) -> Result<Vec<f64>, SweepError> {
    let rates = match text.split_once("..") {
        Some((first, rest)) => range(first, rest),
        None => text.split(',').map(rate).collect(),
    };
    rates.map_err(|why| SweepError {
        found: text.to_owned(),
        why,
    })
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let rate: f64 = text.trim().parse().map_err(|_| "a rate is not a number")?;
    if rate > 0.0 && rate.is_finite() {
        return Ok(rate);
    }
    Err("a rate is not above 0")
}

fn range(first: &str, rest: &str) -> Result<Vec<f64>, &'static str> {
    let (last, steps) = rest.split_once("steps").ok_or("`steps` is missing")?;
    let (first, last) = (rate(first)?, rate(last)?);
    let steps: u32 = steps
        .trim()
        .parse()
        .map_err(|_| "steps are not a whole number")?;
    if !(2..=RATES_MAX).contains(&steps) {
        return Err("there must be 2 to 1000 steps");
    }
    let gaps = steps - 1;
    let at = |step: u32| match step {
        // Exactly what was asked for, without the rounding of powers.
        0 => first,
        step if step == gaps => last,
        step => first * (last / first).powf(f64::from(step) / f64::from(gaps)),
    };
    Ok((0..steps).map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(rates("1, 2.5,4").unwrap(), [1.0, 2.5, 4.0]);
        assert_eq!(rates("8").unwrap(), [8.0]);
        let found = rates("1..32 steps 6").unwrap();
        let rounded: Vec<f64> = found
            .iter()
            .map(|rate| (rate * 1e9).round() / 1e9)
            .collect();
        assert_eq!(rounded, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
        assert_eq!(rates("10..1steps2").unwrap(), [10.0, 1.0]);
    }

    #[test]
    fn what_is_no_list_says_why() {
        let messages = [
            "",
            "1,,2",
            "0",
            "1,-2",
            "inf",
            "1..4",
            "1..4 steps 1",
            "1..4 steps x",
        ]
        .map(|text| rates(text).unwrap_err().why);
        insta::assert_snapshot!(messages.join("\n"), @r"
        a rate is not a number
        a rate is not a number
        a rate is not above 0
        a rate is not above 0
        a rate is not above 0
        `steps` is missing
        there must be 2 to 1000 steps
        steps are not a whole number
        ");
    }
}
