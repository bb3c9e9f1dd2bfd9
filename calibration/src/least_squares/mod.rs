//! Non-negative least squares, and the few operations on small matrices that it takes.
//!
//! The matrices here have as many columns as a formula has terms, about a dozen, and
//! as many rows as there are measurements: plain loops over them take microseconds.
//!
//! ```text
//! minimise |A x - b|  ── QR ──>  minimise |R x - c|   R square and triangular, x >= 0
//!                                      └─ again and again, for the terms that are not zero
//! ```

mod cholesky;
mod dependence;
mod matrix;
mod non_negative;
mod orthogonal;
#[cfg(test)]
mod tests;

pub use cholesky::Cholesky;
pub use dependence::dependence;
pub use matrix::Matrix;
pub use non_negative::non_negative;
pub use orthogonal::least_squares;

/// What minimises the error.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// One value a column.
    pub values: Vec<f64>,
    /// Root of the sum of squares of what remains.
    pub residual_norm: f64,
}

/// Why there is no solution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeastSquaresError {
    /// As many targets as rows are needed.
    #[error("there are {rows} equations and {targets} targets; give each equation its target")]
    Shape {
        /// Rows of the matrix.
        rows: usize,
        /// Targets.
        targets: usize,
    },
    /// A number is infinite or none.
    #[error("a coefficient or target is not a finite number; check what was measured")]
    NotFinite,
    /// A column is a combination of others, so that many solutions are as good.
    #[error("the equations do not determine column {column}; leave it out, or add equations")]
    Dependent {
        /// The first such column.
        column: usize,
    },
    /// The active set went round and round.
    #[error("no solution was found in {iterations} iterations; scale the equations alike")]
    NoConvergence {
        /// Changes of the active set.
        iterations: usize,
    },
}

fn check(matrix: &Matrix, target: &[f64]) -> Result<(), LeastSquaresError> {
    if matrix.rows() != target.len() {
        return Err(LeastSquaresError::Shape {
            rows: matrix.rows(),
            targets: target.len(),
        });
    }
    if !matrix.is_finite() || target.iter().any(|value| !value.is_finite()) {
        return Err(LeastSquaresError::NotFinite);
    }
    Ok(())
}
