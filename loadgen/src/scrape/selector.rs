//! A metric as a person names it: `name`, or `name{label="value",…}`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::exposition::{self, Sample};

/// Chooses the samples of a name that have all of the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

/// A text names no metric.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text:?} names no metric: expected {expected} at {found:?}; write NAME or NAME{{LABEL=\"VALUE\"}}"
)]
pub struct SelectorError {
    /// The text.
    pub text: String,
    /// What should be there.
    pub expected: &'static str,
    /// The rest of the text where it is not.
    pub found: String,
}

impl Selector {
    /// Whether a sample is meant.
    #[must_use]
    pub fn chooses(&self, sample: &Sample<'_>) -> bool {
        let has = |(name, value): &(String, String)| sample.label(name) == Some(value);
        sample.name == self.name && self.labels.iter().all(has)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let fault = |(expected, found): (&'static str, &str)| SelectorError {
            text: text.to_owned(),
            expected,
            found: found.to_owned(),
        };
        let (name, labels, rest) = exposition::series(text.trim()).map_err(fault)?;
        if !rest.is_empty() {
            return Err(fault(("the end", rest)));
        }
        let owned = |(name, value): (&str, std::borrow::Cow<'_, str>)| {
            (name.to_owned(), value.into_owned())
        };
        Ok(Self {
            name: name.to_owned(),
            labels: labels.into_iter().map(owned).collect(),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.name)?;
        let labels = self.labels.iter();
        let labels: Vec<String> = labels
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        if labels.is_empty() {
            return Ok(());
        }
        write!(formatter, "{{{}}}", labels.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_has_the_name_and_all_labels() {
        let page = "up{job=\"a\",zone=\"1\"} 1\nup{job=\"b\",zone=\"1\"} 1\ndown{job=\"a\"} 1\n";
        let page = exposition::parse(page).expect("a page");
        let count = |text: &str| {
            let selector: Selector = text.parse().expect("a selector");
            assert_eq!(selector.to_string(), text);
            page.iter()
                .filter(|sample| selector.chooses(sample))
                .count()
        };
        assert_eq!(count("up"), 2);
        assert_eq!(count("up{job=\"a\"}"), 1);
        assert_eq!(count("up{zone=\"1\",job=\"b\"}"), 1);
        assert_eq!(count("up{job=\"c\"}"), 0);
    }

    #[test]
    fn what_names_none_says_what_to_write() {
        let error = "up{job=a}".parse::<Selector>().unwrap_err();
        insta::assert_snapshot!(error, @r#""up{job=a}" names no metric: expected a value in quotation marks at "a}"; write NAME or NAME{LABEL="VALUE"}"#);
        assert!("up 3".parse::<Selector>().is_err());
        assert!("".parse::<Selector>().is_err());
    }
}
