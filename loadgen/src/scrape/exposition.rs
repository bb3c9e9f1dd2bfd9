//! Prometheus' text, read strictly: a page that breaks off or is none is an
//! error, never fewer samples.
//!
//! It reads the text format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>) and of OpenMetrics 1.0
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>) what differs: time stamps in seconds,
//! exemplars, `# EOF`. Time stamps and exemplars are skipped: samples count from when the page arrived.

use std::borrow::Cow;

use thiserror::Error;

/// One sample of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The name, suffixes such as `_total` and `_sum` included.
    pub name: &'a str,
    /// Names and values of the labels, in the order of the page.
    pub labels: Labels<'a>,
    /// The value, which may be infinite or not a number.
    pub value: f64,
}

/// Names and values of labels.
pub type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

impl Sample<'_> {
    /// The value of a label, if it has that label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|(label, _)| *label == name);
        label.map(|(_, value)| value.as_ref())
    }
}

/// Why a text is no page of metrics.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: expected {expected}, found {found:?}")]
pub struct ExpositionError {
    /// The line, from 1.
    pub line: usize,
    /// What should be there.
    pub expected: &'static str,
    /// What is there, cut at 40 characters.
    pub found: String,
}

/// Characters of a fault that are quoted.
const QUOTE_CHARS: usize = 40;

/// Reads a page, all of it or nothing.
///
/// # Errors
/// At the first line that has no meaning, or if the last one does not end.
pub fn parse(page: &str) -> Result<Vec<Sample<'_>>, ExpositionError> {
    let mut samples = Vec::new();
    for (index, line) in page.split_inclusive('\n').enumerate() {
        let at_line = |(expected, found): Fault<'_>| ExpositionError {
            line: index + 1,
            expected,
            found: found.chars().take(QUOTE_CHARS).collect(),
        };
        // OpenMetrics ends with this, and asks for no line end after it.
        if line.trim_end() == "# EOF" {
            break;
        }
        let content = line
            .strip_suffix('\n')
            .ok_or_else(|| at_line(("the end of the line: the page breaks off", line)))?;
        samples.extend(sample_or_comment(content).map_err(at_line)?);
    }
    Ok(samples)
}

/// What was expected, and the rest of the line where it is not.
type Fault<'a> = (&'static str, &'a str);

fn sample_or_comment(line: &str) -> Result<Option<Sample<'_>>, Fault<'_>> {
    let line = line.trim_matches(is_blank);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, labels, rest) = series(line)?;
    let (value, rest) = value(rest)?;
    after_value(rest)?;
    Ok(Some(Sample {
        name,
        labels,
        value,
    }))
}

/// A series as it is written in a page: `name` or `name{label="value",…}`. Gives what follows it, too.
pub(super) fn series(text: &str) -> Result<(&str, Labels<'_>, &str), Fault<'_>> {
    let (name, rest) =
        identifier(text, |byte| byte == b':').ok_or(("the name of a metric", text))?;
    let rest = rest.trim_start_matches(is_blank);
    match rest.strip_prefix('{') {
        Some(rest) => labels(rest).map(|(labels, rest)| (name, labels, rest)),
        None => Ok((name, Labels::new(), rest)),
    }
}

/// Labels behind their `{`, and what follows the `}`. A comma may follow the last one.
fn labels(mut rest: &str) -> Result<(Labels<'_>, &str), Fault<'_>> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches(is_blank);
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, after) =
            identifier(rest, |_| false).ok_or(("the name of a label, or `}`", rest))?;
        let after = after.trim_start_matches(is_blank);
        let quoted = after.strip_prefix('=').ok_or(("`=`", after))?;
        let quoted = quoted.trim_start_matches(is_blank);
        let text = quoted
            .strip_prefix('"')
            .ok_or(("a value in quotation marks", quoted))?;
        let (value, after) = unquoted(text).ok_or(("the end of a label's value", quoted))?;
        labels.push((name, value));
        let after = after.trim_start_matches(is_blank);
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None if after.starts_with('}') => after,
            None => return Err(("`,` or `}`", after)),
        };
    }
}

/// Letters, digits and `_`, no digit first; `also` allows more.
fn identifier(text: &str, also: fn(u8) -> bool) -> Option<(&str, &str)> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || also(byte);
    let length = text.bytes().take_while(|byte| is_part(*byte)).count();
    let starts_well = text
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    (length > 0 && starts_well).then(|| text.split_at(length))
}

/// The text up to its closing quotation mark, without escapes, and what follows.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    let (quoted, rest) = (&text[..end], &text[end + 1..]);
    let value = if quoted.contains('\\') {
        Cow::Owned(unescaped(quoted))
    } else {
        Cow::Borrowed(quoted)
    };
    Some((value, rest))
}

/// `\\`, `\"` and `\n` are escapes; what else follows a backslash is as it is, as in Prometheus' own reader.
fn unescaped(quoted: &str) -> String {
    let mut value = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(escaped @ ('\\' | '"')) => value.push(escaped),
                other => {
                    value.push('\\');
                    value.extend(other);
                }
            },
            char => value.push(char),
        }
    }
    value
}

fn value(text: &str) -> Result<(f64, &str), Fault<'_>> {
    let text = text.trim_start_matches(is_blank);
    let (word, rest) = text.split_at(text.find(is_blank).unwrap_or(text.len()));
    // Rust reads `NaN`, `+Inf` and `-Inf` as Go does, in any case of the letters.
    let value = word.parse().map_err(|_| ("a number", text))?;
    Ok((value, rest))
}

/// A time stamp, an exemplar, or nothing.
fn after_value(text: &str) -> Result<(), Fault<'_>> {
    let rest = text.trim_start_matches(is_blank);
    if rest.is_empty() || rest.starts_with('#') {
        return Ok(());
    }
    let (_, rest) = value(rest).map_err(|(_, found)| ("a time stamp or nothing", found))?;
    let rest = rest.trim_start_matches(is_blank);
    if rest.is_empty() || rest.starts_with('#') {
        return Ok(());
    }
    Err(("the end of the line", rest))
}

/// Carriage returns count: some exporters send them before line feeds.
fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A page as text for a snapshot: a sample a line.
    fn read(page: &str) -> String {
        match parse(page) {
            Ok(samples) => samples
                .iter()
                .map(|sample| format!("{} {:?} {}\n", sample.name, sample.labels, sample.value))
                .collect(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_page_of_the_specification_is_read() {
        // The example of the format's documentation, abridged.
        let page = r#"# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045
rpc_duration_seconds{quantile="0.5",} 4773
rpc_duration_seconds_sum	NaN
"#;
        insta::assert_snapshot!(read(page), @r#"
        http_requests_total [("method", "post"), ("code", "200")] 1027
        http_requests_total [("method", "post"), ("code", "400")] 3
        msdos_file_access_time_seconds [("path", "C:\\DIR\\FILE.TXT"), ("error", "Cannot find file:\n\"FILE.TXT\"")] 1458255915
        metric_without_timestamp_and_labels [] 12.47
        something_weird [("problem", "division by zero")] inf
        rpc_duration_seconds [("quantile", "0.5")] 4773
        rpc_duration_seconds_sum [] NaN
        "#);
    }

    #[test]
    fn openmetrics_adds_exemplars_and_an_end() {
        let page = "# TYPE foo histogram\n\
            foo_bucket{le=\"0.1\"} 8 # {} 0.054\n\
            foo_bucket{le=\"1\"} 11 1520879607.789 # {trace_id=\"KOO5S4vxi0o\"} 0.67\n\
            # EOF";
        insta::assert_snapshot!(read(page), @r#"
        foo_bucket [("le", "0.1")] 8
        foo_bucket [("le", "1")] 11
        "#);
    }

    #[test]
    fn a_page_that_is_none_says_where() {
        let pages = [
            "<!DOCTYPE html>\n",
            "# HELP a b\na 1\nb{c=\"d\"",
            "a 1\nb{c=\"d} 2\n",
            "a{b=1} 2\n",
            "a{b=\"c\" d=\"e\"} 2\n",
            "a{1b=\"c\"} 2\n",
            "a{b} 2\n",
            "a one\n",
            "a 1 then\n",
            "a 1 2 3\n",
            "a\n",
            "1a 2\n",
        ];
        let said: Vec<String> = pages.iter().map(|page| read(page)).collect();
        insta::assert_snapshot!(said.join("\n"), @r##"
        line 1: expected the name of a metric, found "<!DOCTYPE html>"
        line 3: expected the end of the line: the page breaks off, found "b{c=\"d\""
        line 2: expected the end of a label's value, found "\"d} 2"
        line 1: expected a value in quotation marks, found "1} 2"
        line 1: expected `,` or `}`, found "d=\"e\"} 2"
        line 1: expected the name of a label, or `}`, found "1b=\"c\"} 2"
        line 1: expected `=`, found "} 2"
        line 1: expected a number, found "one"
        line 1: expected a time stamp or nothing, found "then"
        line 1: expected the end of the line, found "3"
        line 1: expected a number, found ""
        line 1: expected the name of a metric, found "1a 2"
        "##);
    }

    proptest! {
        /// Whatever a label's value is, it comes back, and nothing after it is lost.
        #[test]
        fn label_values_survive(value in "\\PC*|[\\\\\"\n,{}= ]*", number in -1e9..1e9_f64) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let page = format!("name:x{{first=\"{escaped}\",second=\"2\"}} {number}\n");
            let samples = parse(&page).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(samples.len(), 1);
            prop_assert_eq!(samples[0].label("first"), Some(value.as_str()));
            prop_assert_eq!(samples[0].label("second"), Some("2"));
            prop_assert_eq!(samples[0].value, number);
        }

        /// No text makes it panic.
        #[test]
        fn any_text_is_read_or_refused(page in "[a-z{}\"\\\\=,# \n0-9é]*") {
            let _ = parse(&page);
        }
    }
}
