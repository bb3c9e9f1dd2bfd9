//! The figures of a GPU that explain published results best, as far as they have to change.
//!
//! Other people's results are seldom enough to know every figure: a sweep of one model on one GPU says
//! little of its all-reduce, and nothing of fp8. So the built-in figures are where the fit begins, and their
//! deviations ([`EfficiencySpread`]) say how readily each may change:
//!
//! ```text
//! minimise  sum ((ln predicted - ln measured) / deviation)^2  +  sum (ln factor / its deviation)^2
//! ```
//!
//! That is the most likely GPU, given what was known and what was measured (maximum a posteriori). A figure that the
//! results say nothing of stays as it was, with the deviation that it had. What is fitted holds for other
//! models and world sizes, as far as the roofline's formula does.
//!
//! Solved by Levenberg's and Marquardt's method (Nocedal and Wright, "Numerical Optimization", section 10.3),
//! with derivatives by differences, and Huber's weights, so that a result that nothing explains
//! does not bend the rest ("Robust Statistics", section 7.8).

mod draws;
#[cfg(test)]
mod tests;
mod unseen;

use foresail_core::step_time::{EfficiencySpread, Gpu};

use crate::least_squares::{Cholesky, Matrix};

pub use draws::Draws;

/// What is to be fitted: figures and their deviations.
#[derive(Clone, Debug)]
pub struct Start {
    /// The GPU, with how well its figures are known.
    pub gpu: Gpu,
    /// What a request takes outside its steps (s), and the standard deviation of its natural logarithm;
    /// `None` to leave it at 0.
    pub request: Option<(f64, f64)>,
}

/// A figure that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Its value, in any unit.
    pub value: f64,
    /// Standard deviation of its natural logarithm: of its noise, and of what the model lacks.
    pub deviation: f64,
    /// Figures of as many as are likely to be off together have the same number: those of one run, or of one world size.
    pub group: u32,
}

/// What the results say.
#[derive(Clone, Debug)]
pub struct EfficiencyFit {
    /// The GPU, with the deviations that are left.
    pub gpu: Gpu,
    /// What a request takes outside its steps (s).
    pub request_s: f64,
    /// What became of each figure that could change.
    pub figures: Vec<FittedFigure>,
    /// Mean magnitude of `ln predicted - ln measured`.
    pub residual_mean: f64,
    /// How many times its deviation, as it was said, a figure is off where its group was not seen: as a normal
    /// distribution's that holds 95 % of them. Other figures will be as far off as that, besides what draws differ by.
    pub unseen_deviations: f64,
    /// GPUs, each with a request's time outside its steps (s), that explain the results about as well, with what the figures
    /// have to do with each other.
    pub draws: Vec<(Gpu, f64)>,
}

/// The GPU and the request's time (s) where the free figures have moved so far.
fn figures(start: &Start, free: &[Free], moved: &[f64]) -> (Gpu, f64) {
    let mut factors = [1.0; EfficiencySpread::COUNT];
    let mut request_s = start.request.map_or(0.0, |(seconds, _)| seconds);
    for (free, moved) in free.iter().zip(moved) {
        let factor = libm::exp(free.deviation * moved);
        match free.factor {
            Some(index) => factors[index] = factor,
            None => request_s *= factor,
        }
    }
    (start.gpu.times(&factors), request_s)
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FittedFigure {
    /// One of [`EfficiencySpread::names`], or `request`.
    pub name: &'static str,
    /// How many times what it was.
    pub factor: f64,
    /// Standard deviation of its natural logarithm before.
    pub deviation_before: f64,
    /// And after.
    pub deviation: f64,
}

impl FittedFigure {
    /// Whether the results say something of it.
    #[must_use]
    pub fn is_identified(&self) -> bool {
        self.deviation < 0.7 * self.deviation_before
    }
}

/// Why there is no fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EfficiencyError {
    /// There is nothing to fit to.
    #[error("nothing was measured; give at least one figure")]
    NothingMeasured,
    /// A measured figure, or its deviation, makes no sense.
    #[error(
        "measured figure {index}, counted from 0, is not a positive number with a positive deviation"
    )]
    Observed {
        /// Its place.
        index: usize,
    },
    /// A prediction is missing or makes no sense.
    #[error("there is no positive prediction of measured figure {index}, counted from 0")]
    Predicted {
        /// Its place.
        index: usize,
    },
    /// The derivatives are not finite. This is a defect of foresail.
    #[error("the fit cannot be solved, which is a defect of foresail")]
    Unsolvable,
}

/// How far a figure is moved for a derivative, in its deviations. Simulations move in steps, as batches
/// do, so that less would measure those.
const DIFFERENCE: f64 = 0.1;

/// Residuals beyond so many deviations count less (Huber's constant, with 95 % efficiency).
const HUBER: f64 = 1.345;

/// Rounds after which the fit is as good as it gets: most take five.
const ROUNDS_MAX: u32 = 20;

/// Fits a GPU's figures to measured ones, and makes so many draws. `predict` says what a GPU, and a request's
/// time outside its steps (s), make of each measured figure, in their order.
///
/// # Errors
/// If there is nothing to fit to, or no prediction of it.
pub fn fit(
    start: &Start,
    observed: &[Observed],
    draws: &Draws,
    predict: impl FnMut(&Gpu, f64) -> Vec<f64>,
) -> Result<EfficiencyFit, EfficiencyError> {
    if observed.is_empty() {
        return Err(EfficiencyError::NothingMeasured);
    }
    let sound = |of: &Observed| {
        of.value.is_finite() && of.value > 0.0 && of.deviation.is_finite() && of.deviation > 0.0
    };
    if let Some(index) = observed.iter().position(|of| !sound(of)) {
        return Err(EfficiencyError::Observed { index });
    }
    let mut problem = Problem::new(start, observed, predict);
    let mut point = problem.at(vec![0.0; problem.free.len()])?;
    let mut damping = 1e-2;
    for _ in 0..ROUNDS_MAX {
        let curvature = problem.curvature(&point)?;
        let Some(next) = problem.improve(&point, &curvature, &mut damping)? else {
            break;
        };
        let gain = point.cost - next.cost;
        point = next;
        if gain < 1e-4 * point.cost.max(1.0) {
            break;
        }
    }
    problem.conclude(&point, draws)
}

/// A figure that may change: its place in the list of factors, or the request's time.
#[derive(Clone, Copy, Debug)]
struct Free {
    name: &'static str,
    factor: Option<usize>,
    deviation: f64,
}

struct Problem<'a, P> {
    start: &'a Start,
    observed: &'a [Observed],
    predict: P,
    free: Vec<Free>,
}

/// A point of the search: how far each free figure has moved, in its deviations.
struct Point {
    moved: Vec<f64>,
    /// (ln predicted - ln measured) / deviation.
    residuals: Vec<f64>,
    cost: f64,
}

/// Derivatives of the residuals, and half of those of the cost.
struct Curvature {
    /// Of the residuals (rows) by the figures (columns).
    slopes: Matrix,
    /// What every residual counts.
    weights: Vec<f64>,
    hessian: Matrix,
    gradient: Vec<f64>,
}

impl<'a, P: FnMut(&Gpu, f64) -> Vec<f64>> Problem<'a, P> {
    fn new(start: &'a Start, observed: &'a [Observed], predict: P) -> Self {
        let deviations = start.gpu.spread.to_array();
        let figures = EfficiencySpread::names().zip(deviations).enumerate();
        let mut free: Vec<Free> = figures
            .filter(|(_, (_, deviation))| *deviation > 0.0)
            .map(|(index, (name, deviation))| Free {
                name,
                factor: Some(index),
                deviation,
            })
            .collect();
        if let Some((_, deviation)) = start.request {
            free.push(Free {
                name: "request",
                factor: None,
                deviation,
            });
        }
        Self {
            start,
            observed,
            predict,
            free,
        }
    }

    fn residuals(&mut self, moved: &[f64]) -> Result<Vec<f64>, EfficiencyError> {
        let (gpu, request_s) = figures(self.start, &self.free, moved);
        let predicted = (self.predict)(&gpu, request_s);
        let residual = |(index, observed): (usize, &Observed)| match predicted.get(index) {
            Some(value) if value.is_finite() && *value > 0.0 => {
                Ok(libm::log(value / observed.value) / observed.deviation)
            }
            _ => Err(EfficiencyError::Predicted { index }),
        };
        self.observed.iter().enumerate().map(residual).collect()
    }

    fn at(&mut self, moved: Vec<f64>) -> Result<Point, EfficiencyError> {
        let residuals = self.residuals(&moved)?;
        let huber = |residual: &f64| {
            let size = residual.abs();
            if size <= HUBER {
                size * size
            } else {
                HUBER * (2.0 * size - HUBER)
            }
        };
        let cost = residuals.iter().map(huber).sum::<f64>()
            + moved.iter().map(|moved| moved * moved).sum::<f64>();
        Ok(Point {
            moved,
            residuals,
            cost,
        })
    }

    fn curvature(&mut self, point: &Point) -> Result<Curvature, EfficiencyError> {
        let mut slopes = Vec::with_capacity(self.free.len());
        for index in 0..self.free.len() {
            let mut moved = point.moved.clone();
            moved[index] += DIFFERENCE;
            let beside = self.residuals(&moved)?;
            let slope = |(there, here): (&f64, &f64)| (there - here) / DIFFERENCE;
            slopes.push(
                beside
                    .iter()
                    .zip(&point.residuals)
                    .map(slope)
                    .collect::<Vec<f64>>(),
            );
        }
        let weight = |residual: &f64| (HUBER / residual.abs()).min(1.0);
        let weights: Vec<f64> = point.residuals.iter().map(weight).collect();
        let weighted = |left: &[f64], right: &[f64]| -> f64 {
            let both = left.iter().zip(right).zip(&weights);
            both.map(|((left, right), weight)| left * right * weight)
                .sum()
        };
        let free = self.free.len();
        let hessian = Matrix::of(free, free, |row, column| {
            weighted(&slopes[row], &slopes[column]) + f64::from(u8::from(row == column))
        });
        let gradient = (0..free)
            .map(|row| weighted(&slopes[row], &point.residuals) + point.moved[row])
            .collect();
        Ok(Curvature {
            slopes: Matrix::of(self.observed.len(), free, |row, column| slopes[column][row]),
            weights,
            hessian,
            gradient,
        })
    }

    /// A better point, if there is one nearby.
    fn improve(
        &mut self,
        point: &Point,
        curvature: &Curvature,
        damping: &mut f64,
    ) -> Result<Option<Point>, EfficiencyError> {
        let free = self.free.len();
        while *damping < 1e6 {
            let hessian = &curvature.hessian;
            let damped = Matrix::of(free, free, |row, column| {
                let more = if row == column { 1.0 + *damping } else { 1.0 };
                hessian.at(row, column) * more
            });
            let cholesky = Cholesky::of(&damped).ok_or(EfficiencyError::Unsolvable)?;
            let step = cholesky.solve(&curvature.gradient);
            let moved = point
                .moved
                .iter()
                .zip(step)
                .map(|(moved, step)| moved - step);
            let next = self.at(moved.collect())?;
            if next.cost < point.cost {
                *damping = (*damping / 10.0).max(1e-6);
                return Ok(Some(next));
            }
            *damping *= 10.0;
        }
        Ok(None)
    }

    fn conclude(mut self, point: &Point, draws: &Draws) -> Result<EfficiencyFit, EfficiencyError> {
        let curvature = self.curvature(point)?;
        let unseen = unseen::Unseen::of(&mut self, point, &curvature)?;
        let draws = draws.around(&mut self, point, &curvature, unseen.variances)?;
        let covariance = unseen.covariance(&curvature)?;
        let (mut gpu, request_s) = figures(self.start, &self.free, &point.moved);
        let mut deviations = gpu.spread.to_array();
        let mut fitted = Vec::new();
        for (index, free) in self.free.iter().enumerate() {
            let deviation = free.deviation * covariance.at(index, index).sqrt();
            if let Some(place) = free.factor {
                deviations[place] = deviation;
            }
            fitted.push(FittedFigure {
                name: free.name,
                factor: libm::exp(free.deviation * point.moved[index]),
                deviation_before: free.deviation,
                deviation,
            });
        }
        gpu.spread = EfficiencySpread::of_array(deviations);
        let observed = point.residuals.iter().zip(self.observed);
        let magnitudes = observed.map(|(residual, of)| (residual * of.deviation).abs());
        Ok(EfficiencyFit {
            gpu,
            request_s,
            figures: fitted,
            residual_mean: magnitudes.sum::<f64>() / point.residuals.len() as f64,
            unseen_deviations: unseen.deviations,
            draws,
        })
    }
}
