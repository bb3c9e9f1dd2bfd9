//! Least squares with values that are not negative, by an active set.

use super::matrix::norm;
use super::orthogonal::Reduced;
use super::{LeastSquaresError, Matrix, Solution, check, least_squares};

/// A gradient of less than this share of the target's length is none.
const GRADIENT_MIN: f64 = 1e-12;

/// Changes of the active set, a column; a few are usual.
const ITERATIONS_A_COLUMN: usize = 30;

/// What minimises `|matrix * values - target|` with no value negative: NNLS of Lawson and
/// Hanson, "Solving Least Squares Problems" (1974), chapter 23.
///
/// Where columns depend on one another, one of the best solutions, with the dependent column at zero.
///
/// # Errors
/// If numbers are not finite, or it does not end.
pub fn non_negative(matrix: &Matrix, target: &[f64]) -> Result<Solution, LeastSquaresError> {
    check(matrix, target)?;
    let reduced = Reduced::of(matrix, target);
    let norms: Vec<f64> = (0..matrix.columns())
        .map(|column| norm(&matrix.column(column)))
        .collect();
    let mut active = ActiveSet::of(&reduced, &norms, norm(target));
    active.minimise()?;
    let unscaled = active.values.iter().zip(&norms);
    Ok(Solution {
        values: unscaled
            .map(|(value, norm)| if *norm > 0.0 { value / norm } else { 0.0 })
            .collect(),
        residual_norm: norm(&[norm(&active.residual()), reduced.remainder]),
    })
}

/// Columns of length one, and which of them have a value.
struct ActiveSet<'a> {
    matrix: Matrix,
    target: &'a [f64],
    values: Vec<f64>,
    /// Columns whose value is free, in the order in which they became so; the others' is zero.
    free: Vec<usize>,
    gradient_min: f64,
    changes_left: usize,
}

impl<'a> ActiveSet<'a> {
    fn of(reduced: &'a Reduced, norms: &[f64], target_norm: f64) -> Self {
        let (rows, columns) = (reduced.matrix.rows(), reduced.matrix.columns());
        Self {
            matrix: Matrix::of(rows, columns, |row, column| {
                let length = norms[column];
                if length > 0.0 {
                    reduced.matrix.at(row, column) / length
                } else {
                    0.0
                }
            }),
            target: &reduced.target,
            values: vec![0.0; columns],
            free: Vec::new(),
            gradient_min: GRADIENT_MIN * target_norm,
            changes_left: ITERATIONS_A_COLUMN * columns,
        }
    }

    fn residual(&self) -> Vec<f64> {
        let fitted = self.matrix.times(&self.values);
        self.target.iter().zip(fitted).map(|(b, a)| b - a).collect()
    }

    fn minimise(&mut self) -> Result<(), LeastSquaresError> {
        // What a value would be pulled below zero from by its own column's solution,
        // against its gradient: rounding, or a dependent column.
        let mut rejected = vec![false; self.values.len()];
        while let Some(column) = self.steepest(&rejected) {
            self.count_change()?;
            self.free.push(column);
            match self.solution() {
                Some(solution) if solution[solution.len() - 1] > 0.0 => {
                    self.walk(solution)?;
                    rejected.fill(false);
                }
                _ => {
                    self.free.pop();
                    rejected[column] = true;
                }
            }
        }
        Ok(())
    }

    /// The column at zero that would lower the error most by growing.
    fn steepest(&self, rejected: &[bool]) -> Option<usize> {
        let gradient = self.matrix.transposed_times(&self.residual());
        let may_grow = |column: &usize| {
            !rejected[*column]
                && !self.free.contains(column)
                && gradient[*column] > self.gradient_min
        };
        (0..self.values.len())
            .filter(may_grow)
            .max_by(|&a, &b| gradient[a].total_cmp(&gradient[b]))
    }

    /// The best values of the free columns, whatever their sign; none if they depend on one another.
    fn solution(&self) -> Option<Vec<f64>> {
        let free = self.matrix.select(&self.free);
        Some(least_squares(&free, self.target).ok()?.values)
    }

    /// Goes to the solution, or up to where the first value would be negative, and on without that one.
    fn walk(&mut self, mut solution: Vec<f64>) -> Result<(), LeastSquaresError> {
        loop {
            let share_to_zero = |(&column, &end): (&usize, &f64)| {
                let start = self.values[column];
                (end <= 0.0).then(|| start / (start - end))
            };
            let ends = self.free.iter().zip(&solution);
            let share = ends.filter_map(share_to_zero).min_by(f64::total_cmp);
            let Some(share) = share else {
                for (&column, &end) in self.free.iter().zip(&solution) {
                    self.values[column] = end;
                }
                return Ok(());
            };
            self.count_change()?;
            for (&column, &end) in self.free.iter().zip(&solution) {
                let start = self.values[column];
                let at_zero = end <= 0.0 && start / (start - end) <= share;
                self.values[column] = if at_zero {
                    0.0
                } else {
                    start + share * (end - start)
                };
            }
            self.free.retain(|&column| self.values[column] > 0.0);
            solution = self.solution().unwrap_or_default();
        }
    }

    fn count_change(&mut self) -> Result<(), LeastSquaresError> {
        let iterations = ITERATIONS_A_COLUMN * self.values.len();
        self.changes_left = self
            .changes_left
            .checked_sub(1)
            .ok_or(LeastSquaresError::NoConvergence { iterations })?;
        Ok(())
    }
}
