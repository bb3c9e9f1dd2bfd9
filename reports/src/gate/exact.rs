//! Simulated runs, compared to the last digit: the same scenario and seed give
//! the same bytes, so that every difference is one of the program or the scenario.

use super::report::{Exact, FieldDifference};
use crate::summary::{Summary, Tool};
use serde_json::Value;

/// How many differences are told one by one.
const TOLD_MAX: usize = 100;

/// Collects differences, run by run.
#[derive(Clone, Debug, Default)]
pub struct ExactComparison {
    exact: Exact,
    run: String,
}

impl ExactComparison {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What follows is about this run.
    pub fn run(&mut self, name: &str) {
        name.clone_into(&mut self.run);
    }

    /// Compares what two runs come to, field by field. What wrote them, and how
    /// long that took, may differ.
    pub fn summaries(&mut self, baseline: &Summary, candidate: &Summary) {
        let [baseline, candidate] = [baseline, candidate].map(content);
        self.values("", &baseline, &candidate);
    }

    /// Compares rows of `requests.csv`, the header first, cell by cell.
    pub fn rows<Row: AsRef<str>>(
        &mut self,
        baseline: impl IntoIterator<Item = Row>,
        candidate: impl IntoIterator<Item = Row>,
    ) {
        let (mut baseline, mut candidate) = (baseline.into_iter(), candidate.into_iter());
        let (header, other) = (baseline.next(), candidate.next());
        let text = |row: &Option<Row>| row.as_ref().map(|row| row.as_ref().to_owned());
        let (header, other) = (text(&header), text(&other));
        if header != other {
            self.differs("requests.csv: columns", header.as_deref(), other.as_deref());
            return;
        }
        let header = header.unwrap_or_default();
        let columns: Vec<&str> = header.split(',').collect();
        for row in 2_u64.. {
            let (one, two) = (baseline.next(), candidate.next());
            match (one.as_ref().map(Row::as_ref), two.as_ref().map(Row::as_ref)) {
                (None, None) => break,
                (Some(one), Some(two)) if one == two => {}
                (Some(one), Some(two)) => self.cells(row, &columns, one, two),
                (one, two) => self.differs(&format!("requests.csv:{row}"), one, two),
            }
        }
    }

    /// Something that is on one side only, or not the same.
    pub fn differs(&mut self, field: &str, baseline: Option<&str>, candidate: Option<&str>) {
        self.exact.count += 1;
        if self.exact.differences.len() < TOLD_MAX {
            self.exact.differences.push(FieldDifference {
                run: self.run.clone(),
                field: field.to_owned(),
                baseline: baseline.map(str::to_owned),
                candidate: candidate.map(str::to_owned),
            });
        }
    }

    /// All differences.
    #[must_use]
    pub fn finish(self) -> Exact {
        self.exact
    }

    fn cells(&mut self, row: u64, columns: &[&str], baseline: &str, candidate: &str) {
        let cells = baseline.split(',').zip(candidate.split(','));
        for (column, (one, two)) in columns.iter().zip(cells) {
            if one != two {
                self.differs(
                    &format!("requests.csv:{row} {column}"),
                    Some(one),
                    Some(two),
                );
            }
        }
    }

    fn values(&mut self, path: &str, baseline: &Value, candidate: &Value) {
        match (baseline, candidate) {
            (Value::Object(one), Value::Object(two)) => {
                let added = two.keys().filter(|key| !one.contains_key(*key));
                for key in one.keys().chain(added) {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    self.options(&path, one.get(key), two.get(key));
                }
            }
            (Value::Array(one), Value::Array(two)) => {
                for index in 0..one.len().max(two.len()) {
                    self.options(&format!("{path}[{index}]"), one.get(index), two.get(index));
                }
            }
            (one, two) if one == two => {}
            (one, two) => self.differs(path, Some(&one.to_string()), Some(&two.to_string())),
        }
    }

    fn options(&mut self, path: &str, baseline: Option<&Value>, candidate: Option<&Value>) {
        match (baseline, candidate) {
            (Some(one), Some(two)) => self.values(path, one, two),
            (one, two) => {
                let [one, two] = [one, two].map(|value| value.map(Value::to_string));
                self.differs(path, one.as_deref(), two.as_deref());
            }
        }
    }
}

/// A summary without what differs between versions and machines.
fn content(summary: &Summary) -> Value {
    let mut summary = summary.clone().without_wall();
    summary.tool = Tool::default();
    serde_json::to_value(summary).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurements::Measurements;
    use crate::records::RunTotals;
    use crate::summary::RunDescription;

    fn summary(seed: u64) -> Summary {
        let description = RunDescription {
            seed,
            ..RunDescription::default()
        };
        Measurements::new(&[]).summary(&description, &RunTotals::default())
    }

    /// Sorted, as the order of the fields of JSON is a feature of the library.
    fn told(exact: &Exact) -> Vec<(&str, Option<&str>, Option<&str>)> {
        let differences = exact.differences.iter();
        let mut told: Vec<_> = differences
            .map(|each| {
                (
                    each.field.as_str(),
                    each.baseline.as_deref(),
                    each.candidate.as_deref(),
                )
            })
            .collect();
        told.sort_unstable();
        told
    }

    #[test]
    fn what_wrote_a_summary_and_how_fast_makes_no_difference() {
        let mut other = summary(1).with_wall_s(3.0);
        other.tool.version = "another".to_owned();
        let mut comparison = ExactComparison::new();
        comparison.summaries(&summary(1), &other);
        assert_eq!(comparison.finish(), Exact::default());
    }

    #[test]
    fn every_field_that_differs_is_told_by_its_path() {
        let mut other = summary(1);
        other.requests.completed = 3;
        other.goodput_per_s = Some(0.5);
        let mut comparison = ExactComparison::new();
        comparison.summaries(&summary(1), &other);
        assert_eq!(
            told(&comparison.finish()),
            [
                ("goodput_per_s", Some("null"), Some("0.5")),
                ("requests.completed", Some("0"), Some("3")),
            ]
        );
    }

    #[test]
    fn rows_are_compared_cell_by_cell() {
        let mut comparison = ExactComparison::new();
        comparison.rows(
            ["id,end_s", "0,1.5", "1,2.5"],
            ["id,end_s", "0,1.5", "1,2.6", "2,3.0"],
        );
        assert_eq!(
            told(&comparison.finish()),
            [
                ("requests.csv:3 end_s", Some("2.5"), Some("2.6")),
                ("requests.csv:4", None, Some("2,3.0")),
            ]
        );
    }

    #[test]
    fn thousands_of_differences_are_counted_and_some_told() {
        let rows = |end: u32| {
            (0..5_000)
                .map(move |row| format!("{row},{end}"))
                .collect::<Vec<_>>()
        };
        let (one, two) = (rows(1), rows(2));
        let with_header = |rows: &[String]| {
            let mut all = vec!["id,end".to_owned()];
            all.extend_from_slice(rows);
            all
        };
        let (one, two) = (with_header(&one), with_header(&two));
        let mut comparison = ExactComparison::new();
        comparison.rows(
            one.iter().map(String::as_str),
            two.iter().map(String::as_str),
        );
        let exact = comparison.finish();
        assert_eq!((exact.count, exact.differences.len()), (5_000, TOLD_MAX));
    }
}
