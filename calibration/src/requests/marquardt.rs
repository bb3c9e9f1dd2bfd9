//! The most likely terms: Levenberg-Marquardt on logarithms, with the prior as further rows.
//!
//! ```text
//! minimise  sum over figures: huber((ln observed - ln predicted(terms)) / deviation)
//!         + sum over terms:   ((ln term - ln median) / spread)^2
//! ```
//!
//! (Marquardt, "An Algorithm for Least-Squares Estimation of Nonlinear Parameters", 1963; Huber, "Robust
//! Estimation of a Location Parameter", 1964.) Every simulation sees the same requests, so that the difference
//! between two is that of their terms (common random numbers). Still a batch can form otherwise
//! for a hair's breadth of a difference: derivatives are therefore taken across steps as wide as what the
//! figures leave open of a term, and not across the narrowest that numbers allow.

use super::FitError;
use super::problem::{Problem, Row};
use crate::least_squares::{Cholesky, Matrix};

/// Residuals of more standard deviations count linearly, not squared: what stalled once must
/// not bend everything else.
const HUBER: f64 = 2.0;
/// The width of the differences, in logarithms: at first, at least, and at most.
const WIDTH: (f64, f64, f64) = (0.05, 0.02, 0.3);
/// No term changes by more than this in an iteration, in logarithms.
const STEP_MAX: f64 = 1.0;
/// An objective that falls by less than this share, or by less than this, has arrived.
const ARRIVED: f64 = 1e-3;

/// Where the search has come to.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// Logarithms of the terms that are fitted.
    pub(super) ln_terms: Vec<f64>,
    /// Logarithms of the figures.
    pub(super) predicted: Vec<f64>,
    /// What is minimised.
    pub(super) objective: f64,
}

/// What the figures look like around a point.
#[derive(Clone, Debug)]
pub(super) struct Slopes {
    /// Derivatives of the logarithms of the figures (rows) by those of the terms (columns).
    pub(super) jacobian: Matrix,
    /// The width of the differences that they were taken across.
    widths: Vec<f64>,
}

/// The search.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) problem: Problem<'a>,
    pub(super) rows: Vec<Row>,
    /// Runs that do not count.
    pub(super) left_out: Vec<bool>,
}

impl<'a> Search<'a> {
    pub(super) fn new(problem: Problem<'a>) -> Self {
        Self {
            problem,
            rows: problem.rows(),
            left_out: vec![false; problem.runs.len()],
        }
    }

    /// The medians of the prior.
    pub(super) fn start(&self) -> Result<Point, FitError> {
        let medians = self.problem.free.iter().map(|free| free.ln_median);
        self.at(medians.collect())
    }

    pub(super) fn at(&self, ln_terms: Vec<f64>) -> Result<Point, FitError> {
        let predicted = self.problem.predict(&ln_terms)?;
        let objective = self.objective(&ln_terms, &predicted);
        Ok(Point {
            ln_terms,
            predicted,
            objective,
        })
    }

    /// Goes downhill from a point until it arrives, or for so many iterations.
    pub(super) fn descend(
        &self,
        mut point: Point,
        iterations_max: usize,
    ) -> Result<(Point, Slopes), FitError> {
        let mut slopes = self.slopes(&point, &vec![WIDTH.0; self.problem.free.len()])?;
        let mut damping = 1e-2;
        let mut arrived = 0;
        for _ in 0..iterations_max {
            let before = point.objective;
            let better = self.step(&point, &slopes, &mut damping)?;
            let Some(better) = better else { break };
            point = better;
            let gain = before - point.objective;
            arrived = if gain < ARRIVED * before.max(1.0) {
                arrived + 1
            } else {
                0
            };
            let widths = self.widths(&point, &slopes);
            slopes = self.slopes(&point, &widths)?;
            if arrived == 2 {
                break;
            }
        }
        Ok((point, slopes))
    }

    /// The next point downhill; `None` if there is none near.
    fn step(
        &self,
        point: &Point,
        slopes: &Slopes,
        damping: &mut f64,
    ) -> Result<Option<Point>, FitError> {
        let curvature = self.curvature(point, slopes, 1.0);
        let gradient = self.gradient(point, slopes);
        while *damping < 1e8 {
            if let Some(change) = damped(&curvature, &gradient, *damping) {
                let ln_terms = point.ln_terms.iter().zip(&change);
                let ln_terms = ln_terms.map(|(ln, by)| ln + by.clamp(-STEP_MAX, STEP_MAX));
                let next = self.at(ln_terms.collect())?;
                if next.objective < point.objective {
                    *damping = f64::max(*damping / 5.0, 1e-6);
                    return Ok(Some(next));
                }
            }
            *damping *= 5.0;
        }
        Ok(None)
    }

    /// What the prior and the figures say together: the inverse of this is the covariance. The variances of
    /// the figures are so many times as large as was said.
    pub(super) fn curvature(&self, point: &Point, slopes: &Slopes, variances: f64) -> Matrix {
        let weights: Vec<f64> = self
            .weights(point)
            .iter()
            .map(|weight| weight / variances)
            .collect();
        let terms = self.problem.free.len();
        let mut curvature = Matrix::of(terms, terms, |_, _| 0.0);
        for (row, weight) in weights.iter().enumerate() {
            let slopes = slopes.jacobian.row(row);
            for i in 0..terms {
                for j in 0..terms {
                    let sum = curvature.at(i, j) + weight * slopes[i] * slopes[j];
                    curvature.set(i, j, sum);
                }
            }
        }
        for (i, free) in self.problem.free.iter().enumerate() {
            let more = 1.0 / (free.ln_deviation * free.ln_deviation);
            curvature.set(i, i, curvature.at(i, i) + more);
        }
        curvature
    }

    /// Half of the way down, with the sign of a step.
    pub(super) fn gradient(&self, point: &Point, slopes: &Slopes) -> Vec<f64> {
        let weights = self.weights(point);
        let pulls: Vec<f64> = (self.residuals(point).iter().zip(&weights))
            .map(|(residual, weight)| residual * weight)
            .collect();
        let mut gradient = slopes.jacobian.transposed_times(&pulls);
        for ((pull, free), ln_term) in gradient
            .iter_mut()
            .zip(self.problem.free)
            .zip(&point.ln_terms)
        {
            *pull += (free.ln_median - ln_term) / (free.ln_deviation * free.ln_deviation);
        }
        gradient
    }

    /// How much more was measured than predicted, as logarithms.
    pub(super) fn residuals(&self, point: &Point) -> Vec<f64> {
        let rows = self.rows.iter().zip(&point.predicted);
        rows.map(|(row, predicted)| row.ln_observed - predicted)
            .collect()
    }

    /// What each figure counts: 0 of runs that are left out, less of figures that are far off.
    pub(super) fn weights(&self, point: &Point) -> Vec<f64> {
        let rows = self.rows.iter().zip(&point.predicted);
        rows.map(|(row, predicted)| {
            if self.left_out[row.run] {
                return 0.0;
            }
            let off = ((row.ln_observed - predicted) / row.deviation).abs();
            f64::min(1.0, HUBER / f64::max(off, f64::MIN_POSITIVE))
                / (row.deviation * row.deviation)
        })
        .collect()
    }

    fn objective(&self, ln_terms: &[f64], predicted: &[f64]) -> f64 {
        let figures = self.rows.iter().zip(predicted).map(|(row, predicted)| {
            if self.left_out[row.run] {
                return 0.0;
            }
            let off = ((row.ln_observed - predicted) / row.deviation).abs();
            match off <= HUBER {
                true => off * off,
                false => HUBER * (2.0 * off - HUBER),
            }
        });
        let prior = self
            .problem
            .free
            .iter()
            .zip(ln_terms)
            .map(|(free, ln_term)| {
                let off = (ln_term - free.ln_median) / free.ln_deviation;
                off * off
            });
        figures.sum::<f64>() + prior.sum::<f64>()
    }

    fn slopes(&self, point: &Point, widths: &[f64]) -> Result<Slopes, FitError> {
        let mut columns = Vec::with_capacity(widths.len());
        for (term, width) in widths.iter().enumerate() {
            let moved = |by: f64| {
                let mut ln_terms = point.ln_terms.clone();
                ln_terms[term] += by;
                self.problem.predict(&ln_terms)
            };
            let (above, below) = (moved(*width)?, moved(-*width)?);
            let slope = |(above, below): (f64, &f64)| (above - below) / (2.0 * width);
            columns.push(
                above
                    .into_iter()
                    .zip(&below)
                    .map(slope)
                    .collect::<Vec<f64>>(),
            );
        }
        Ok(Slopes {
            jacobian: Matrix::of(self.rows.len(), widths.len(), |row, term| {
                columns[term][row]
            }),
            widths: widths.to_vec(),
        })
    }

    /// As wide as what is left open of each term.
    fn widths(&self, point: &Point, slopes: &Slopes) -> Vec<f64> {
        let Some(cholesky) = Cholesky::of(&self.curvature(point, slopes, 1.0)) else {
            return slopes.widths.clone();
        };
        let covariance = cholesky.inverse();
        let width = |term: usize| covariance.at(term, term).sqrt().clamp(WIDTH.1, WIDTH.2);
        (0..slopes.widths.len()).map(width).collect()
    }
}

fn damped(curvature: &Matrix, gradient: &[f64], damping: f64) -> Option<Vec<f64>> {
    let size = curvature.rows();
    let matrix = Matrix::of(size, size, |row, column| {
        let entry = curvature.at(row, column);
        if row == column {
            entry * (1.0 + damping)
        } else {
            entry
        }
    });
    Some(Cholesky::of(&matrix)?.solve(gradient))
}
