use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn matrix(rows: &[Vec<f64>]) -> Matrix {
    Matrix::of(rows.len(), rows[0].len(), |row, column| rows[row][column])
}

fn residual(matrix: &Matrix, values: &[f64], target: &[f64]) -> Vec<f64> {
    let fitted = matrix.times(values);
    target.iter().zip(fitted).map(|(b, a)| b - a).collect()
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// What the parts of a residual add up to before they cancel: rounding is a share of that.
fn size(matrix: &Matrix, values: &[f64], target: &[f64]) -> f64 {
    let part = |(column, value): (usize, &f64)| norm(&matrix.column(column)) * value.abs();
    1e-300 + norm(target) + values.iter().enumerate().map(part).sum::<f64>()
}

#[test]
fn a_line_goes_through_its_points() {
    let points = matrix(&[vec![1.0, 1.0], vec![1.0, 2.0], vec![1.0, 4.0]]);
    let line = least_squares(&points, &[5.0, 7.0, 11.0]).unwrap();
    assert!((line.values[0] - 3.0).abs() < 1e-12, "{line:?}");
    assert!((line.values[1] - 2.0).abs() < 1e-12, "{line:?}");
    assert!(line.residual_norm < 1e-12, "{line:?}");
}

#[test]
fn what_would_be_negative_is_zero_and_the_rest_is_best_without_it() {
    // The best line falls from 3 to 1: with no negative slope, the mean is best.
    let points = matrix(&[vec![1.0, 0.0], vec![1.0, 1.0]]);
    let line = non_negative(&points, &[3.0, 1.0]).unwrap();
    assert_eq!(line.values[1], 0.0);
    assert!((line.values[0] - 2.0).abs() < 1e-12, "{line:?}");
    assert!((line.residual_norm - 2.0_f64.sqrt()).abs() < 1e-12);
}

#[test]
fn a_target_against_all_columns_leaves_all_at_zero() {
    let solution = non_negative(&matrix(&[vec![1.0], vec![2.0]]), &[-1.0, -1.0]).unwrap();
    assert_eq!(solution.values, [0.0]);
}

#[test]
fn columns_that_say_the_same_are_told_from_others() {
    let rows = matrix(&[
        vec![1.0, 0.0, 2.0, 0.0, 1.0],
        vec![1.0, 1.0, 3.0, 0.0, 5.0],
        vec![1.0, 2.0, 4.0, 0.0, 1.0],
    ]);
    let found = dependence(&rows, 1e-9).unwrap();
    assert_eq!(found, [None, None, Some(vec![0, 1]), Some(vec![]), None]);
    assert_eq!(
        least_squares(&rows, &[1.0; 3]),
        Err(LeastSquaresError::Dependent { column: 4 })
    );
}

#[test]
fn dependent_columns_have_a_non_negative_solution_all_the_same() {
    let rows = matrix(&[
        vec![1.0, 1.0, 2.0],
        vec![2.0, 2.0, 4.0],
        vec![0.0, 0.0, 0.0],
    ]);
    let solution = non_negative(&rows, &[3.0, 6.0, 1.0]).unwrap();
    let sum = solution.values[0] + solution.values[1] + 2.0 * solution.values[2];
    assert!((sum - 3.0).abs() < 1e-12, "{solution:?}");
    assert!((solution.residual_norm - 1.0).abs() < 1e-12);
}

#[test]
fn what_is_no_number_is_refused() {
    let rows = matrix(&[vec![1.0], vec![f64::NAN]]);
    let not_finite = Err(LeastSquaresError::NotFinite);
    assert_eq!(non_negative(&rows, &[1.0, 1.0]), not_finite);
    let rows = matrix(&[vec![1.0], vec![1.0]]);
    assert_eq!(least_squares(&rows, &[1.0, f64::INFINITY]), not_finite);
    let shape = LeastSquaresError::Shape {
        rows: 2,
        targets: 1,
    };
    assert_eq!(non_negative(&rows, &[1.0]), Err(shape));
}

#[test]
fn only_positive_definite_matrices_have_a_triangle() {
    assert_eq!(
        Cholesky::of(&matrix(&[vec![1.0, 2.0], vec![2.0, 1.0]])),
        None
    );
    assert_eq!(
        Cholesky::of(&matrix(&[vec![1.0, 1.0], vec![1.0, 1.0]])),
        None
    );
    assert_eq!(Cholesky::of(&matrix(&[vec![f64::NAN]])), None);
}

fn problem() -> impl Strategy<Value = (Vec<Vec<f64>>, Vec<f64>)> {
    (1_usize..7, 1_usize..14).prop_flat_map(|(columns, rows)| {
        // Scales as far apart as those of a formula's terms are.
        let entry = prop_oneof![Just(0.0), -2.0..2.0, 1e3..1e6];
        (vec(vec(entry, columns), rows), vec(-5.0..5.0_f64, rows))
    })
}

proptest! {
    /// The conditions of Karush, Kuhn and Tucker are necessary and sufficient: no value is negative, growing
    /// a value at zero does not help, and changing another does not either.
    #[test]
    fn no_non_negative_values_are_better((rows, target) in problem()) {
        let matrix = matrix(&rows);
        let solution = non_negative(&matrix, &target).unwrap();
        let left = residual(&matrix, &solution.values, &target);
        let gradient = matrix.transposed_times(&left);
        let size = size(&matrix, &solution.values, &target);
        for (column, value) in solution.values.iter().enumerate() {
            let scale = norm(&matrix.column(column)) * size;
            prop_assert!(*value >= 0.0);
            prop_assert!(gradient[column] <= 1e-9 * scale, "{solution:?}, {gradient:?}");
            if *value > 0.0 {
                prop_assert!(gradient[column] >= -1e-9 * scale, "{solution:?}, {gradient:?}");
            }
        }
        prop_assert!((solution.residual_norm - norm(&left)).abs() < 1e-9 * size);
    }

    #[test]
    fn what_least_squares_leaves_is_at_right_angles((rows, target) in problem()) {
        let matrix = matrix(&rows);
        if let Ok(solution) = least_squares(&matrix, &target) {
            let left = residual(&matrix, &solution.values, &target);
            let size = size(&matrix, &solution.values, &target);
            for (column, product) in matrix.transposed_times(&left).iter().enumerate() {
                let scale = norm(&matrix.column(column)) * size;
                prop_assert!(product.abs() <= 1e-9 * scale);
            }
        }
    }

    #[test]
    fn a_triangle_solves_what_the_matrix_multiplied(
        rows in vec(vec(-2.0..2.0_f64, 4), 6),
        values in vec(-3.0..3.0_f64, 4),
    ) {
        let mut gram = matrix(&rows).gram();
        for i in 0..4 {
            gram.set(i, i, gram.at(i, i) + 0.1);
        }
        let triangle = Cholesky::of(&gram).unwrap();
        for (solved, value) in triangle.solve(&gram.times(&values)).iter().zip(&values) {
            prop_assert!((solved - value).abs() < 1e-6);
        }
        let unit = gram.times(&triangle.inverse().column(2));
        for (row, value) in unit.iter().enumerate() {
            prop_assert!((value - f64::from(row == 2)).abs() < 1e-6);
        }
    }
}
