//! Objectives and limits as people write them: `ttft.p99 < 500ms`, `ttft.p99 +3%`.
//!
//! A limit is met at the limit too, whether it is written `<` or `<=`: what is
//! measured has no last digit. Percent, durations and money may carry their
//! signs (`95%`, `500ms`, `$0.40`); a bare number is a share of 1, a rate or
//! dollars, and never a duration, of which nobody could tell the unit.

use super::metric;
use crate::objectives::{Bound, ObjectiveMetric, ObjectiveSpec, Unit};
use std::ops::Range;
use thiserror::Error;

/// How much worse a metric of the candidate may be than that of the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeLimit {
    /// What is compared.
    pub metric: ObjectiveMetric,
    /// How much worse it may be: a share of what it was, or of shares the
    /// points; never below 0.
    pub allowed: f64,
    /// What it must exceed in any case to be of interest, in the same measure.
    pub minimum: f64,
}

impl ChangeLimit {
    /// No change for the worse that is of interest.
    #[must_use]
    pub fn of(metric: ObjectiveMetric) -> Self {
        Self {
            metric,
            allowed: 0.0,
            minimum: metric::minimum_effect(metric),
        }
    }
}

/// Why an expression cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem}\n  {expression}\n  {:>start$}{}", "", "^".repeat(at.len().max(1)), start = at.start)]
pub struct ExpressionError {
    /// The expression.
    pub expression: String,
    /// The characters of it that are wrong.
    pub at: Range<usize>,
    /// What is wrong, and what to write.
    pub problem: String,
}

/// Reads an objective, such as `ttft.p99 < 500ms` or `goodput >= 95%`.
///
/// # Errors
/// If it is none; the error points at the place.
pub fn objective(expression: &str) -> Result<ObjectiveSpec, ExpressionError> {
    let mut reader = Reader::new(expression);
    let (metric, name_at) = reader.metric()?;
    reader.comparison(metric, &name_at)?;
    let limit = reader.limit(metric)?;
    Ok(ObjectiveSpec {
        name: metric::name(metric),
        metric,
        limit,
    })
}

/// Reads by how much a metric may change, such as `ttft.p99 +3%`,
/// `throughput.output_tokens_per_s -2%`, or `success_rate -0.5%`, which is points.
///
/// # Errors
/// If it is none; the error points at the place.
pub fn change(expression: &str) -> Result<ChangeLimit, ExpressionError> {
    let mut reader = Reader::new(expression);
    let (metric, _) = reader.metric()?;
    let sign_at = reader.at..reader.at + 1;
    let worse = if metric::is_worse_above(metric) {
        '+'
    } else {
        '-'
    };
    let problem = match reader.next() {
        Some(sign) if sign == worse => None,
        Some('+' | '-') => Some("is for the better, which is always allowed; write"),
        _ => Some("needs how much worse it may be:"),
    };
    if let Some(problem) = problem {
        let name = metric::name(metric);
        return Err(reader.wrong(sign_at, format!("`{name}` {problem} `{name} {worse}3%`")));
    }
    let allowed = reader.percent(metric)?;
    Ok(ChangeLimit {
        allowed,
        ..ChangeLimit::of(metric)
    })
}

/// Reads what a change of a metric must exceed to be of interest, such as `tpot.mean 1%`.
///
/// # Errors
/// If it is none; the error points at the place.
pub fn minimum(expression: &str) -> Result<(ObjectiveMetric, f64), ExpressionError> {
    let mut reader = Reader::new(expression);
    let (metric, _) = reader.metric()?;
    Ok((metric, reader.percent(metric)?))
}

/// Reads from left to right. Places count characters, as people do.
struct Reader<'a> {
    expression: &'a str,
    characters: Vec<char>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(expression: &'a str) -> Self {
        Self {
            expression,
            characters: expression.chars().collect(),
            at: 0,
        }
    }

    fn wrong(&self, at: Range<usize>, problem: String) -> ExpressionError {
        ExpressionError {
            expression: self.expression.to_owned(),
            at,
            problem,
        }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// As long as the characters are so; and the blanks after them.
    fn word(&mut self, is_part: impl Fn(char) -> bool) -> (String, Range<usize>) {
        self.skip_blanks();
        let start = self.at;
        while self.peek().is_some_and(&is_part) {
            self.at += 1;
        }
        let end = self.at;
        self.skip_blanks();
        (self.characters[start..end].iter().collect(), start..end)
    }

    fn metric(&mut self) -> Result<(ObjectiveMetric, Range<usize>), ExpressionError> {
        let is_part = |character: char| character.is_alphanumeric() || "._".contains(character);
        let (name, at) = self.word(is_part);
        match metric::find(&name) {
            Some(metric) => Ok((metric, at)),
            None => Err(self.wrong(at, unknown(&name))),
        }
    }

    /// `<` of what is better below, `>` of what is better above.
    fn comparison(
        &mut self,
        metric: ObjectiveMetric,
        name: &Range<usize>,
    ) -> Result<(), ExpressionError> {
        let (operator, at) = self.word(|character| "<>=≤≥".contains(character));
        let right = match metric.bound() {
            Bound::AtMost => ["<", "<=", "≤"],
            Bound::AtLeast => [">", ">=", "≥"],
        };
        if right.contains(&operator.as_str()) {
            return Ok(());
        }
        let shown: String = self.characters[name.clone()].iter().collect();
        let (better, example) = match metric.bound() {
            Bound::AtMost => ("at or below", "<"),
            Bound::AtLeast => ("at or above", ">"),
        };
        Err(self.wrong(
            at,
            format!("`{shown}` is met {better} its limit; write `{example}` and the limit"),
        ))
    }

    fn limit(&mut self, metric: ObjectiveMetric) -> Result<f64, ExpressionError> {
        let start = self.at;
        if metric.unit() == Unit::Usd && self.peek() == Some('$') {
            self.at += 1;
        }
        let number = self.number(metric)?;
        let (unit, unit_at) = self.word(|character| !character.is_whitespace());
        let factor = factor(metric.unit(), &unit)
            .ok_or_else(|| self.wrong(unit_at, wrong_unit(metric, &unit)))?;
        let end = self.end()?;
        let limit = number * factor;
        if metric.unit() == Unit::Share && limit > 1.0 {
            let problem = "a share is at most 100%; write `95%`, or 0.95".to_owned();
            return Err(self.wrong(start..end, problem));
        }
        Ok(limit)
    }

    fn percent(&mut self, metric: ObjectiveMetric) -> Result<f64, ExpressionError> {
        let start = self.at;
        let number = self.number(metric)?;
        let (unit, unit_at) = self.word(|character| !character.is_whitespace());
        if unit != "%" {
            let problem = "a change is written in percent, such as `3%`".to_owned();
            return Err(self.wrong(unit_at, problem));
        }
        let end = self.end()?;
        let is_all = !metric::is_worse_above(metric) && number >= 100.0;
        if is_all {
            let problem = "nothing would be left; write less than 100%".to_owned();
            return Err(self.wrong(start..end, problem));
        }
        Ok(number / 100.0)
    }

    /// A number at or above 0.
    fn number(&mut self, metric: ObjectiveMetric) -> Result<f64, ExpressionError> {
        let (digits, at) = self.word(|character| character.is_ascii_digit() || character == '.');
        let example = match metric.unit() {
            Unit::Seconds => "500ms",
            Unit::Share => "95%",
            _ => "1.5",
        };
        let none = || format!("a number belongs here, such as `{example}`");
        let number = digits
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| self.wrong(at, none()))
    }

    /// That there is nothing more; where it ends.
    fn end(&mut self) -> Result<usize, ExpressionError> {
        self.skip_blanks();
        if self.at == self.characters.len() {
            return Ok(self.at);
        }
        let rest = self.at..self.characters.len();
        let problem = "this is too much; give each limit by itself".to_owned();
        Err(self.wrong(rest, problem))
    }
}

fn unknown(name: &str) -> String {
    if name.is_empty() {
        return "the name of a metric belongs here, such as `ttft.p99`".to_owned();
    }
    match metric::nearest(name) {
        Some(nearest) => format!("there is no metric `{name}`; did you mean `{nearest}`?"),
        None => format!(
            "there is no metric `{name}`; there are ttft, itl, tpot, e2e and queue, each with \
             .mean, .max, or a percentile such as .p99; throughput.requests_per_s, \
             throughput.output_tokens_per_s, success_rate, goodput, cost.usd and \
             cost.usd_per_million_output_tokens"
        ),
    }
}

/// What a number of this unit is multiplied with.
fn factor(unit: Unit, written: &str) -> Option<f64> {
    match (unit, written) {
        (Unit::Seconds, "us" | "µs") => Some(1e-6),
        (Unit::Seconds, "ms") => Some(1e-3),
        (Unit::Seconds, "s") => Some(1.0),
        (Unit::Seconds, "m") => Some(60.0),
        (Unit::Share, "%") => Some(0.01),
        (Unit::RequestsPerSecond, "req/s" | "/s")
        | (Unit::TokensPerSecond, "tok/s" | "/s")
        | (Unit::Usd, "USD") => Some(1.0),
        (Unit::Seconds, _) => None,
        (_, "") => Some(1.0),
        _ => None,
    }
}

fn wrong_unit(metric: ObjectiveMetric, written: &str) -> String {
    let expected = match metric.unit() {
        Unit::Seconds => "us, ms, s or m",
        Unit::Share => "%, or nothing for a share of 1",
        Unit::RequestsPerSecond => "req/s, or nothing",
        Unit::TokensPerSecond => "tok/s, or nothing",
        Unit::Usd => "$ before it, USD after it, or nothing",
        _ => "nothing",
    };
    let name = metric::name(metric);
    if written.is_empty() {
        format!("the limit of `{name}` needs a unit: {expected}")
    } else {
        format!("`{written}` is no unit of `{name}`; write {expected}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use proptest::prelude::*;

    #[track_caller]
    fn reads(expression: &str, name: &str, limit: f64) {
        let spec = objective(expression).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(spec.name, name);
        assert!(
            (spec.limit - limit).abs() < 1e-12,
            "{expression}: {}",
            spec.limit
        );
    }

    #[test]
    fn objectives_read_as_they_are_written() {
        reads("ttft.p99 < 500ms", "ttft.p99", 0.5);
        reads("itl.mean <= 20 ms", "itl.mean", 0.02);
        reads("  e2e.p99.9≤2s ", "e2e.p99.9", 2.0);
        reads("goodput > 95%", "goodput", 0.95);
        reads("success_rate >= 99.9%", "success_rate", 0.999);
        reads("success_rate>0.99", "success_rate", 0.99);
        reads(
            "cost.usd_per_million_output_tokens < 0.40",
            "cost.usd_per_million_output_tokens",
            0.4,
        );
        reads("cost.usd < $3.50", "cost.usd", 3.5);
        reads(
            "throughput.output_tokens_per_s > 1000 tok/s",
            "throughput.output_tokens_per_s",
            1_000.0,
        );
    }

    fn refused(expression: &str) -> String {
        objective(expression).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        assert_snapshot!(refused("tftf.p99 < 500ms"), @r"
        there is no metric `tftf.p99`; did you mean `ttft.p99`?
          tftf.p99 < 500ms
          ^^^^^^^^
        ");
        assert_snapshot!(refused("ttft.p99 > 500ms"), @r"
        `ttft.p99` is met at or below its limit; write `<` and the limit
          ttft.p99 > 500ms
                   ^
        ");
        assert_snapshot!(refused("ttft.p99 < 500"), @r"
        the limit of `ttft.p99` needs a unit: us, ms, s or m
          ttft.p99 < 500
                        ^
        ");
        assert_snapshot!(refused("goodput > 95 percent"), @r"
        `percent` is no unit of `goodput`; write %, or nothing for a share of 1
          goodput > 95 percent
                       ^^^^^^^
        ");
        assert_snapshot!(refused("goodput > 95"), @r"
        a share is at most 100%; write `95%`, or 0.95
          goodput > 95
                    ^^
        ");
        assert_snapshot!(refused("e2e.p50 < 1s and ttft.p50 < 1s"), @r"
        this is too much; give each limit by itself
          e2e.p50 < 1s and ttft.p50 < 1s
                       ^^^^^^^^^^^^^^^^^
        ");
        assert_snapshot!(refused("e2e.p50 < soon"), @r"
        a number belongs here, such as `500ms`
          e2e.p50 < soon
                    ^
        ");
        assert_snapshot!(refused(""), @r"
        the name of a metric belongs here, such as `ttft.p99`
          
          ^
        ");
    }

    #[test]
    fn changes_are_for_the_worse() {
        let limit = change("ttft.p99 +3%").unwrap();
        assert_eq!((limit.allowed, limit.minimum), (0.03, 0.05));
        let limit = change("throughput.output_tokens_per_s -2%").unwrap();
        assert_eq!((limit.allowed, limit.minimum), (0.02, 0.02));
        let limit = change("success_rate -0.5%").unwrap();
        assert_eq!((limit.allowed, limit.minimum), (0.005, 0.005));
        assert_snapshot!(change("ttft.p99 -3%").unwrap_err(), @r"
        `ttft.p99` is for the better, which is always allowed; write `ttft.p99 +3%`
          ttft.p99 -3%
                   ^
        ");
        assert_snapshot!(change("goodput 3%").unwrap_err(), @r"
        `goodput` needs how much worse it may be: `goodput -3%`
          goodput 3%
                  ^
        ");
        assert_snapshot!(change("ttft.p99 +3ms").unwrap_err(), @r"
        a change is written in percent, such as `3%`
          ttft.p99 +3ms
                     ^^
        ");
        assert!(change("goodput -100%").is_err());
        assert_eq!(minimum("tpot.mean 1%").unwrap().1, 0.01);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(expression in any::<String>()) {
            let _ = objective(&expression);
            let _ = change(&expression);
            let _ = minimum(&expression);
            if let Err(error) = objective(&format!("ttft.p99 < {expression}")) {
                let _ = error.to_string();
            }
        }
    }
}
