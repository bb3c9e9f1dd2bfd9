//! Small plots as SVG: what was fitted beside what was measured, and two
//! distributions on one axis.
//!
//! ```text
//!  title
//!  ─ measured  ┄ predicted            the legend, as many rows as it needs
//!  y │      ┌───
//!    │  ┌┄┄┄┘
//!    └───────────  x
//! ```
//!
//! A picture is one or more plots, one below the other, in one file that needs
//! nothing else: it brings its own background, dark where whoever looks prefers
//! dark, and tells series apart by dashes and shapes as well as by colour. The
//! same plots give the same bytes.

mod axis;
mod draw;
mod marks;

pub use draw::svg;

/// The most points of a curve made by [`Series::distribution`]: more than this many cannot be told apart.
const CURVE_POINTS_MAX: usize = 500;

/// One pair of axes with what is drawn between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// In the order of the legend; later ones are drawn over earlier ones.
    pub series: Vec<Series>,
}

impl Plot {
    /// This plot alone, as a whole SVG file.
    #[must_use]
    pub fn to_svg(&self) -> String {
        svg(std::slice::from_ref(self))
    }
}

/// An axis of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, with the unit: `TTFT (ms)`.
    pub label: String,
    /// How its values are spread.
    pub scale: Scale,
    /// From where to where; `None` is what the series need. What lies outside is cut off.
    pub range: Option<(f64, f64)>,
}

impl Axis {
    /// An axis with equal distances for equal differences.
    #[must_use]
    pub fn linear(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            scale: Scale::Linear,
            range: None,
        }
    }

    /// An axis with equal distances for equal factors. Values that are not positive are not on it.
    #[must_use]
    pub fn log(label: impl Into<String>) -> Self {
        Self {
            scale: Scale::Log,
            ..Self::linear(label)
        }
    }

    /// The same axis from here to there.
    #[must_use]
    pub fn between(self, low: f64, high: f64) -> Self {
        Self {
            range: Some((low, high)),
            ..self
        }
    }
}

/// How an axis spreads its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances for equal differences.
    Linear,
    /// Equal distances for equal factors.
    Log,
}

/// Points that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// How it is drawn.
    pub mark: Mark,
    /// In the order in which they are joined.
    pub points: Vec<Point>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Joined by straight lines; intervals as bars.
    Line,
    /// One by one; intervals as bars.
    Points,
    /// Joined by stairs that rise at the next point, as cumulative distributions do.
    Steps,
    /// The area between the ends of the intervals. Points without one are not drawn.
    Band,
}

/// A point of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Place on the axis from left to right.
    pub x: f64,
    /// Place on the axis from bottom to top.
    pub y: f64,
    /// Between which values of `y` it may be.
    pub interval: Option<(f64, f64)>,
}

impl Point {
    /// A point that is sure of itself.
    #[must_use]
    pub fn new(x: f64, y: f64) -> Self {
        Self {
            x,
            y,
            interval: None,
        }
    }

    /// A point that may be between two values of `y`.
    #[must_use]
    pub fn within(x: f64, y: f64, low: f64, high: f64) -> Self {
        Self {
            x,
            y,
            interval: Some((low, high)),
        }
    }
}

impl Series {
    /// A series of these points.
    #[must_use]
    pub fn new(name: impl Into<String>, mark: Mark, points: Vec<Point>) -> Self {
        Self {
            name: name.into(),
            mark,
            points,
        }
    }

    /// The share of the values (%) that are at most `x`, as stairs. Of many values, only as many
    /// are kept as can be told apart, the largest always.
    #[must_use]
    pub fn distribution(name: impl Into<String>, values: &[f64]) -> Self {
        let mut sorted: Vec<f64> = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let kept = count.min(CURVE_POINTS_MAX);
        let rank = |index: usize| (index + 1) * count / kept;
        let point = |index: usize| {
            let share = rank(index) as f64 / count as f64;
            Point::new(sorted[rank(index) - 1], share * 100.0)
        };
        let start = sorted.first().map(|first| Point::new(*first, 0.0));
        let points = start.into_iter().chain((0..kept).map(point));
        Self::new(name, Mark::Steps, points.collect())
    }
}
