//! Lines, stairs, bands and points, as SVG elements.

use std::fmt::Write as _;

use super::axis::Span;
use super::{Mark, Point, Series};

/// Half the size of a point's shape, and of the ends of an interval (px).
const SHAPE_PX: f64 = 3.5;

/// The area of a plot, and the axes on it.
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x: Span,
    pub(super) y: Span,
}

impl Frame {
    /// Pixels from the left for a value on the axis from left to right.
    pub(super) fn x_px(&self, value: f64) -> Option<f64> {
        Some(self.left + self.x.place(value)? * self.width)
    }

    /// Pixels from the top for a value on the axis from bottom to top.
    pub(super) fn y_px(&self, value: f64) -> Option<f64> {
        Some(self.top + (1.0 - self.y.place(value)?) * self.height)
    }

    fn place(&self, point: &Point) -> Option<(f64, f64)> {
        Some((self.x_px(point.x)?, self.y_px(point.y)?))
    }

    /// Left, lower end and upper end of a point's interval. On a log axis, an end at or below
    /// zero is at the axis.
    fn interval(&self, point: &Point) -> Option<(f64, f64, f64)> {
        let (low, high) = point.interval?;
        let low_px = match self.y_px(low) {
            Some(px) => px,
            None if low.is_finite() => self.top + self.height,
            None => return None,
        };
        Some((self.x_px(point.x)?, low_px, self.y_px(high)?))
    }
}

/// Draws a series and says how many of its points have no place on the axes.
pub(super) fn draw(svg: &mut String, frame: &Frame, series: &Series, style: usize) -> usize {
    match series.mark {
        Mark::Band => band(svg, frame, series, style),
        Mark::Line | Mark::Steps => curve(svg, frame, series, style),
        Mark::Points => points(svg, frame, series, style),
    }
}

/// How many points of a series have no place on these axes.
pub(super) fn without_place(frame: &Frame, series: &Series) -> usize {
    let has_place = |point: &&Point| match series.mark {
        Mark::Band => frame.interval(point).is_some(),
        _ => frame.place(point).is_some(),
    };
    series.points.len() - series.points.iter().filter(has_place).count()
}

fn curve(svg: &mut String, frame: &Frame, series: &Series, style: usize) -> usize {
    intervals(svg, frame, series, style);
    let places: Vec<_> = (series.points.iter())
        .filter_map(|point| frame.place(point))
        .collect();
    let mut path = String::new();
    for (index, (x, y)) in places.iter().enumerate() {
        let _ = match (index, series.mark) {
            (0, _) => write!(path, "M{x:.1} {y:.1}"),
            (_, Mark::Steps) => write!(path, "H{x:.1}V{y:.1}"),
            _ => write!(path, "L{x:.1} {y:.1}"),
        };
    }
    if !path.is_empty() {
        let _ = writeln!(svg, r#"<path class="line s{style}" d="{path}"/>"#);
    }
    series.points.len() - places.len()
}

fn points(svg: &mut String, frame: &Frame, series: &Series, style: usize) -> usize {
    intervals(svg, frame, series, style);
    let places = series.points.iter().filter_map(|point| frame.place(point));
    let mut drawn = 0;
    for (x, y) in places {
        shape(svg, x, y, style);
        drawn += 1;
    }
    series.points.len() - drawn
}

fn intervals(svg: &mut String, frame: &Frame, series: &Series, style: usize) {
    for (x, low, high) in series
        .points
        .iter()
        .filter_map(|point| frame.interval(point))
    {
        let (left, right) = (x - SHAPE_PX, x + SHAPE_PX);
        let _ = writeln!(
            svg,
            r#"<path class="bar s{style}" d="M{x:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}"/>"#
        );
    }
}

fn band(svg: &mut String, frame: &Frame, series: &Series, style: usize) -> usize {
    let places: Vec<_> = (series.points.iter())
        .filter_map(|point| frame.interval(point))
        .collect();
    let forth = places.iter().map(|(x, low, _)| (x, low));
    let back = places.iter().rev().map(|(x, _, high)| (x, high));
    let corners: Vec<String> = (forth.chain(back))
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    if !corners.is_empty() {
        let corners = corners.join(" ");
        let _ = writeln!(
            svg,
            r#"<polygon class="band s{style}" points="{corners}"/>"#
        );
    }
    series.points.len() - places.len()
}

/// A circle, square, diamond or triangle.
pub(super) fn shape(svg: &mut String, x: f64, y: f64, style: usize) {
    let r = SHAPE_PX;
    let _ = match style % 4 {
        0 => writeln!(
            svg,
            r#"<circle class="dot s{style}" cx="{x:.1}" cy="{y:.1}" r="{r}"/>"#
        ),
        1 => writeln!(
            svg,
            r#"<path class="dot s{style}" d="M{:.1} {:.1}h{s}v{s}h-{s}z"/>"#,
            x - r,
            y - r,
            s = 2.0 * r,
        ),
        2 => writeln!(
            svg,
            r#"<path class="dot s{style}" d="M{x:.1} {:.1}l{d} {d}l-{d} {d}l-{d} -{d}z"/>"#,
            y - 4.5,
            d = 4.5,
        ),
        _ => writeln!(
            svg,
            r#"<path class="dot s{style}" d="M{x:.1} {:.1}l{d} {h}h-{w}z"/>"#,
            y - 4.0,
            d = 4.5,
            h = 7.5,
            w = 9.0,
        ),
    };
}
