//! Symmetric positive definite matrices, as a triangle times its transpose.

use super::Matrix;

/// The triangle of a symmetric positive definite matrix (Golub and Van Loan,
/// "Matrix Computations", section 4.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Cholesky {
    lower: Matrix,
}

/// A pivot of less than this share of its diagonal entry has lost all its digits.
const PIVOT_MIN: f64 = 1e-14;

impl Cholesky {
    /// Of a matrix whose lower half is read; none if it is not positive definite.
    #[must_use]
    pub fn of(matrix: &Matrix) -> Option<Self> {
        let size = matrix.rows();
        let mut lower = Matrix::of(size, size, |_, _| 0.0);
        for row in 0..size {
            for column in 0..=row {
                let known: f64 = (0..column)
                    .map(|k| lower.at(row, k) * lower.at(column, k))
                    .sum();
                let rest = matrix.at(row, column) - known;
                if row > column {
                    lower.set(row, column, rest / lower.at(column, column));
                } else if rest > PIVOT_MIN * matrix.at(row, row) && rest.is_finite() {
                    lower.set(row, row, rest.sqrt());
                } else {
                    return None;
                }
            }
        }
        Some(Self { lower })
    }

    /// What the matrix turns into this vector.
    #[must_use]
    pub fn solve(&self, vector: &[f64]) -> Vec<f64> {
        let lower = &self.lower;
        let size = lower.rows();
        let mut values = vector.to_vec();
        for row in 0..size {
            let known: f64 = (0..row).map(|k| lower.at(row, k) * values[k]).sum();
            values[row] = (values[row] - known) / lower.at(row, row);
        }
        for row in (0..size).rev() {
            let known: f64 = (row + 1..size).map(|k| lower.at(k, row) * values[k]).sum();
            values[row] = (values[row] - known) / lower.at(row, row);
        }
        values
    }

    /// The inverse matrix: of a curvature, the covariance.
    #[must_use]
    pub fn inverse(&self) -> Matrix {
        let size = self.lower.rows();
        let column = |j: usize| {
            let unit: Vec<f64> = (0..size).map(|i| f64::from(i == j)).collect();
            self.solve(&unit)
        };
        let columns: Vec<Vec<f64>> = (0..size).map(column).collect();
        Matrix::of(size, size, |row, column| columns[column][row])
    }

    /// The triangle times a vector: of a covariance, with a vector of independent
    /// standard normal numbers, a draw around 0.
    #[must_use]
    pub fn lower_times(&self, vector: &[f64]) -> Vec<f64> {
        self.lower.times(vector)
    }
}
