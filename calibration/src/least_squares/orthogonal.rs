//! Least squares without signs, by Householder reflections.

use super::matrix::norm;
use super::{LeastSquaresError, Matrix, Solution, check};

/// A column of which less than this share is not in the span of those before it is taken as in it.
const INDEPENDENT_MIN: f64 = 1e-10;

/// What minimises `|matrix * values - target|`.
///
/// # Errors
/// If numbers are not finite, or the equations do not determine every column.
pub fn least_squares(matrix: &Matrix, target: &[f64]) -> Result<Solution, LeastSquaresError> {
    check(matrix, target)?;
    Reduced::of(matrix, target).solve()
}

/// The same problem with no more equations than columns: reflections keep all lengths.
pub(super) struct Reduced {
    /// The triangle, with its zeros; as high as wide, or lower if there are fewer equations.
    pub(super) matrix: Matrix,
    pub(super) target: Vec<f64>,
    /// What no values can take away.
    pub(super) remainder: f64,
    norms: Vec<f64>,
}

impl Reduced {
    /// Golub and Van Loan, "Matrix Computations", algorithm 5.2.1.
    pub(super) fn of(matrix: &Matrix, target: &[f64]) -> Self {
        let height = matrix.rows().min(matrix.columns());
        let mut columns: Vec<Vec<f64>> = (0..matrix.columns()).map(|j| matrix.column(j)).collect();
        let norms = columns.iter().map(|column| norm(column)).collect();
        let mut target = target.to_vec();
        for pivot in 0..height {
            let Some(reflection) = Reflection::of(&columns[pivot], pivot) else {
                continue;
            };
            for column in &mut columns[pivot..] {
                reflection.apply(column);
            }
            reflection.apply(&mut target);
        }
        Self {
            matrix: Matrix::of(height, columns.len(), |row, column| {
                if row <= column {
                    columns[column][row]
                } else {
                    0.0
                }
            }),
            remainder: norm(&target[height..]),
            target: target[..height].to_vec(),
            norms,
        }
    }

    fn solve(&self) -> Result<Solution, LeastSquaresError> {
        let size = self.matrix.columns();
        let mut values = vec![0.0; size];
        for row in (0..size).rev() {
            let is_determined = row < self.matrix.rows()
                && self.matrix.at(row, row).abs() > INDEPENDENT_MIN * self.norms[row];
            if !is_determined {
                return Err(LeastSquaresError::Dependent { column: row });
            }
            let known: f64 = (row + 1..size)
                .map(|k| self.matrix.at(row, k) * values[k])
                .sum();
            values[row] = (self.target[row] - known) / self.matrix.at(row, row);
        }
        Ok(Solution {
            values,
            residual_norm: self.remainder,
        })
    }
}

/// A reflection that turns the part of a vector from one place on into that place's axis.
struct Reflection {
    from: usize,
    direction: Vec<f64>,
    half_square: f64,
}

impl Reflection {
    /// None if there is nothing to turn.
    fn of(vector: &[f64], from: usize) -> Option<Self> {
        let mut direction = vector[from..].to_vec();
        let length = norm(&direction);
        if length == 0.0 {
            return None;
        }
        // Away from the axis, so that nothing cancels.
        direction[0] += length.copysign(direction[0]);
        let half_square = 0.5 * direction.iter().map(|value| value * value).sum::<f64>();
        Some(Self {
            from,
            direction,
            half_square,
        })
    }

    fn apply(&self, vector: &mut [f64]) {
        let part = &mut vector[self.from..];
        let along = super::matrix::dot(part, &self.direction) / self.half_square;
        for (value, direction) in part.iter_mut().zip(&self.direction) {
            *value -= along * direction;
        }
    }
}
