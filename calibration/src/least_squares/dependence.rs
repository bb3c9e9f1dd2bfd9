//! Which columns say the same as others.

use super::matrix::norm;
use super::{LeastSquaresError, Matrix, check, least_squares};

/// For each column, none if it says something that those before it do not, else those before
/// it, and themselves independent, that it is a combination of: at least all of it but the share `tolerance`.
///
/// A column of zeros is a combination of none.
///
/// # Errors
/// If a number is not finite.
pub fn dependence(
    matrix: &Matrix,
    tolerance: f64,
) -> Result<Vec<Option<Vec<usize>>>, LeastSquaresError> {
    check(matrix, &vec![0.0; matrix.rows()])?;
    let (mut independent, mut found) = (Vec::new(), Vec::new());
    for column in 0..matrix.columns() {
        let parts = parts(matrix, &independent, column, tolerance)?;
        if parts.is_none() {
            independent.push(column);
        }
        found.push(parts);
    }
    Ok(found)
}

fn parts(
    matrix: &Matrix,
    independent: &[usize],
    column: usize,
    tolerance: f64,
) -> Result<Option<Vec<usize>>, LeastSquaresError> {
    let target = matrix.column(column);
    let length = norm(&target);
    if length == 0.0 {
        return Ok(Some(Vec::new()));
    }
    let among = matrix.select(independent);
    let solution = least_squares(&among, &target)?;
    if solution.residual_norm > tolerance * length {
        return Ok(None);
    }
    let is_part = |&index: &usize| {
        (solution.values[index] * norm(&among.column(index))).abs() > tolerance * length
    };
    let parts = (0..independent.len()).filter(is_part);
    Ok(Some(parts.map(|index| independent[index]).collect()))
}
