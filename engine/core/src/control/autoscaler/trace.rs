//! A policy driven by a table of measurements, to compare it with the autoscaler that it
//! stands for: a row is one look of the control loop, and each row has a verdict.

use thiserror::Error;

use super::Reason;

/// A column of a trace that a policy reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// What the header calls it.
    pub name: &'static str,
    /// What it holds, with its unit.
    pub about: &'static str,
    /// Whether it has one number, or one for each replica.
    pub kind: ColumnKind,
    /// Whether every trace must have it.
    pub is_required: bool,
}

/// What a cell of a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// One number, 0 or above.
    Number,
    /// One number for each replica, 0 or above.
    PerReplica,
}

impl Column {
    /// A required column of numbers.
    #[must_use]
    pub const fn required(name: &'static str, about: &'static str) -> Self {
        Column {
            name,
            about,
            kind: ColumnKind::Number,
            is_required: true,
        }
    }

    /// A column of numbers that a trace may leave out.
    #[must_use]
    pub const fn optional(name: &'static str, about: &'static str) -> Self {
        Column {
            is_required: false,
            ..Column::required(name, about)
        }
    }

    /// A column with a list, one number for each replica.
    #[must_use]
    pub const fn per_replica(name: &'static str, about: &'static str) -> Self {
        Column {
            kind: ColumnKind::PerReplica,
            ..Column::required(name, about)
        }
    }
}

/// The cells of one row, in the order of its policy's columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    columns: &'static [Column],
    cells: Vec<Option<Vec<f64>>>,
}

/// Why a row cannot be used.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RowError {
    /// A cell that the policy needs is empty.
    #[error("column {column} is empty; it is {about}")]
    Missing {
        /// The column.
        column: &'static str,
        /// What it holds.
        about: &'static str,
    },
    /// A number that no measurement can be.
    #[error("column {column} must be a number of 0 or more: {value}")]
    Number {
        /// The column.
        column: &'static str,
        /// What it holds.
        value: f64,
    },
    /// A list where one number belongs.
    #[error("column {column} must be one number, and has {count}")]
    NotOne {
        /// The column.
        column: &'static str,
        /// How many numbers there are.
        count: usize,
    },
}

impl Row {
    /// A row of these cells, one for each column; `None` is empty.
    ///
    /// # Errors
    /// If a cell is empty that must not be, or holds what its column cannot.
    pub fn new(
        columns: &'static [Column],
        mut cells: Vec<Option<Vec<f64>>>,
    ) -> Result<Self, RowError> {
        cells.resize(columns.len(), None);
        for (column, cell) in columns.iter().zip(&cells) {
            check(column, cell.as_deref())?;
        }
        Ok(Row { columns, cells })
    }

    /// The number in a column; `None` if the cell is empty, or the policy has no such column.
    #[must_use]
    pub fn number(&self, column: &str) -> Option<f64> {
        self.list(column).and_then(|list| list.first().copied())
    }

    /// The number in a column that is required.
    ///
    /// # Panics
    /// If the policy did not say that it needs the column, which is a defect of the policy.
    #[must_use]
    pub fn required(&self, column: &str) -> f64 {
        self.number(column)
            .expect("a required column has a number in every row")
    }

    /// A count of replicas in a column that is required, rounded down; a
    /// number beyond 32 bits is all of them.
    #[must_use]
    pub fn count(&self, column: &str) -> u32 {
        self.required(column) as u32
    }

    /// The numbers in a column, one for each replica; `None` if the cell is empty.
    #[must_use]
    pub fn list(&self, column: &str) -> Option<&[f64]> {
        let index = self.columns.iter().position(|each| each.name == column)?;
        self.cells[index].as_deref()
    }
}

fn check(column: &Column, cell: Option<&[f64]>) -> Result<(), RowError> {
    let (name, about) = (column.name, column.about);
    let Some(numbers) = cell else {
        return if column.is_required {
            Err(RowError::Missing {
                column: name,
                about,
            })
        } else {
            Ok(())
        };
    };
    if column.kind == ColumnKind::Number && numbers.len() != 1 {
        return Err(RowError::NotOne {
            column: name,
            count: numbers.len(),
        });
    }
    let is_measurement = |value: &&f64| value.is_finite() && **value >= 0.0;
    match numbers.iter().find(|value| !is_measurement(value)) {
        Some(&value) => Err(RowError::Number {
            column: name,
            value,
        }),
        None => Ok(()),
    }
}

/// What a policy makes of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How many replicas the policy wants from now on.
    pub desired: u32,
    /// Why; also why it holds.
    pub reason: Reason,
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::required("load", "requests in flight"),
        Column::optional("queue", "requests that wait"),
        Column::per_replica("kv_usage", "share of KV blocks in use"),
    ];

    fn row(cells: [Option<&[f64]>; 3]) -> Result<Row, RowError> {
        let cells = cells.into_iter().map(|cell| cell.map(<[f64]>::to_vec));
        Row::new(COLUMNS, cells.collect())
    }

    #[test]
    fn cells_are_found_by_the_name_of_their_column() {
        let row = row([Some(&[7.5]), None, Some(&[0.5, 0.25])]).expect("a sound row");
        assert_eq!(row.required("load"), 7.5);
        assert_eq!(row.count("load"), 7);
        assert_eq!(row.number("queue"), None);
        assert_eq!(row.list("kv_usage"), Some(&[0.5, 0.25][..]));
        assert_eq!(row.number("ready"), None);
    }

    #[test]
    fn a_row_without_what_the_policy_needs_is_refused() {
        let error = row([None, None, Some(&[])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "column load is empty; it is requests in flight"
        );
        assert!(row([Some(&[1.0, 2.0]), None, Some(&[])]).is_err());
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(row([Some(&[bad]), None, Some(&[])]).is_err(), "{bad}");
            assert!(
                row([Some(&[1.0]), None, Some(&[0.0, bad])]).is_err(),
                "{bad}"
            );
        }
    }
}
