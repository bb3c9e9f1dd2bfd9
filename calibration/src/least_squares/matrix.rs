//! A small dense matrix.

/// A matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// A matrix whose entry at (row, column) is what the function says.
    pub fn of(rows: usize, columns: usize, entry: impl Fn(usize, usize) -> f64) -> Self {
        let values = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        Self {
            rows,
            columns,
            values: values.map(|(row, column)| entry(row, column)).collect(),
        }
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// An entry.
    ///
    /// # Panics
    /// If there is no such row or column.
    #[must_use]
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.row(row)[column]
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// Sets an entry.
    ///
    /// # Panics
    /// If there is no such row or column.
    pub fn set(&mut self, row: usize, column: usize, value: f64) {
        assert!(column < self.columns, "no column {column}");
        self.values[row * self.columns + column] = value;
    }

    /// The matrix times a vector of one value a column.
    #[must_use]
    pub fn times(&self, vector: &[f64]) -> Vec<f64> {
        (0..self.rows)
            .map(|row| dot(self.row(row), vector))
            .collect()
    }

    /// The transposed matrix times a vector of one value a row: of a Jacobian, the gradient.
    #[must_use]
    pub fn transposed_times(&self, vector: &[f64]) -> Vec<f64> {
        let mut product = vec![0.0; self.columns];
        for (row, factor) in vector.iter().enumerate() {
            for (sum, value) in product.iter_mut().zip(self.row(row)) {
                *sum += factor * value;
            }
        }
        product
    }

    /// The transposed matrix times itself: of a Jacobian, the curvature.
    #[must_use]
    pub fn gram(&self) -> Self {
        let mut gram = Self::of(self.columns, self.columns, |_, _| 0.0);
        for row in 0..self.rows {
            let values = self.row(row);
            for (i, left) in values.iter().enumerate() {
                for (j, right) in values.iter().enumerate() {
                    gram.values[i * self.columns + j] += left * right;
                }
            }
        }
        gram
    }

    /// Only some of the columns, in this order.
    ///
    /// # Panics
    /// If there is no such column.
    #[must_use]
    pub fn select(&self, columns: &[usize]) -> Self {
        Self::of(self.rows, columns.len(), |row, column| {
            self.at(row, columns[column])
        })
    }

    /// A column.
    ///
    /// # Panics
    /// If there is no such column.
    #[must_use]
    pub fn column(&self, column: usize) -> Vec<f64> {
        (0..self.rows).map(|row| self.at(row, column)).collect()
    }

    pub(super) fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }
}

/// The scalar product.
pub(super) fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}

/// The Euclidean norm.
pub(super) fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}
