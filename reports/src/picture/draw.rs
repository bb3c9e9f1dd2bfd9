//! The file around the marks: background, axes, legend.

use std::fmt::Write as _;

use quick_xml::escape::escape;

use super::axis::Span;
use super::marks::{self, Frame};
use super::{Mark, Plot, Series};

const WIDTH_PX: f64 = 720.0;
const LEFT_PX: f64 = 72.0;
const RIGHT_PX: f64 = 20.0;
const TITLE_PX: f64 = 34.0;
const LEGEND_ROW_PX: f64 = 20.0;
const AREA_PX: f64 = 260.0;
const BELOW_PX: f64 = 56.0;

/// About how wide a character of the legend is, in whatever sans-serif font there is.
const CHARACTER_PX: f64 = 6.6;

/// The sample of a series, and the room around a legend's entry.
const SAMPLE_PX: f64 = 26.0;
const ENTRY_GAP_PX: f64 = 16.0;

/// How many series look different from each other.
const STYLES: usize = 6;

/// Colours that people who see fewer of them can tell apart: Okabe and Ito, "Color Universal Design" (2008),
/// <https://jfly.uni-koeln.de/color/>; on the dark background, lighter ones of the same hues.
const STYLE: &str = "\
.ground{fill:#fff}
text{font:12px sans-serif;fill:#24292f}
.title{font-size:14px;font-weight:bold}
.grid{stroke:#d8dee4;fill:none}
.edge{stroke:#57606a;fill:none}
.line{fill:none;stroke-width:1.8}
.bar{fill:none;stroke-width:1}
.band{stroke:none;fill-opacity:.22}
.s0{color:#0072b2}.s1{color:#d55e00}.s2{color:#009e73}.s3{color:#cc79a7}.s4{color:#b07800}.s5{color:#3d3d3d}
.line,.bar{stroke:currentColor}
.dot,.band{fill:currentColor}
.line.s1{stroke-dasharray:6 3}.line.s2{stroke-dasharray:2 3}.line.s3{stroke-dasharray:8 3 2 3}.line.s4{stroke-dasharray:12 4}.line.s5{stroke-dasharray:1 4}
@media (prefers-color-scheme:dark){
.ground{fill:#0d1117}
text{fill:#e6edf3}
.grid{stroke:#30363d}
.edge{stroke:#8b949e}
.s0{color:#56b4e9}.s1{color:#ff8f3f}.s2{color:#2fd0a0}.s3{color:#e8a3c9}.s4{color:#f0c040}.s5{color:#c9d1d9}
}
";

/// Plots one below the other, as a whole SVG file.
#[must_use]
pub fn svg(plots: &[Plot]) -> String {
    let mut body = String::new();
    let mut top = 0.0;
    for (index, plot) in plots.iter().enumerate() {
        top = draw(&mut body, plot, index, top);
    }
    let titles: Vec<&str> = plots.iter().map(|plot| plot.title.as_str()).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH_PX}\" height=\"{top}\" \
         viewBox=\"0 0 {WIDTH_PX} {top}\" role=\"img\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH_PX}\" height=\"{top}\"/>\n{body}</svg>\n",
        text(&titles.join("; ")),
    )
}

/// Draws a plot below `top`, and returns where it ends.
fn draw(svg: &mut String, plot: &Plot, index: usize, top: f64) -> f64 {
    let mut frame = Frame {
        left: LEFT_PX,
        top,
        width: WIDTH_PX - LEFT_PX - RIGHT_PX,
        height: AREA_PX,
        x: Span::of_x(&plot.x, &plot.series),
        y: Span::of_y(&plot.y, &plot.series),
    };
    let _ = writeln!(
        svg,
        r#"<text class="title" x="{LEFT_PX}" y="{}">{}</text>"#,
        top + 22.0,
        text(&plot.title)
    );
    frame.top = legend(svg, plot, &frame, top + TITLE_PX) + 6.0;
    axes(svg, plot, &frame);
    clipped(svg, plot, &frame, index);
    frame.top + AREA_PX + BELOW_PX
}

/// Writes the legend from `top` on, in rows, and returns where it ends.
fn legend(svg: &mut String, plot: &Plot, frame: &Frame, top: f64) -> f64 {
    let (mut left, mut middle) = (LEFT_PX, top + LEGEND_ROW_PX / 2.0);
    for (index, series) in plot.series.iter().enumerate() {
        let name = named(series, marks::without_place(frame, series));
        let width = SAMPLE_PX + 6.0 + CHARACTER_PX * name.chars().count() as f64 + ENTRY_GAP_PX;
        if left > LEFT_PX && left + width > WIDTH_PX - RIGHT_PX {
            (left, middle) = (LEFT_PX, middle + LEGEND_ROW_PX);
        }
        sample(svg, series.mark, index % STYLES, left, middle);
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}">{}</text>"#,
            left + SAMPLE_PX + 6.0,
            middle + 4.0,
            text(&name)
        );
        left += width;
    }
    middle + LEGEND_ROW_PX / 2.0
}

/// The name in the legend, which says what is not to be seen.
fn named(series: &Series, without_place: usize) -> String {
    if without_place == 0 {
        return series.name.clone();
    }
    format!("{} ({without_place} not on these axes)", series.name)
}

fn sample(svg: &mut String, mark: Mark, style: usize, left: f64, middle: f64) {
    let right = left + SAMPLE_PX;
    let _ = match mark {
        Mark::Points => {
            marks::shape(svg, left + SAMPLE_PX / 2.0, middle, style);
            return;
        }
        Mark::Band => writeln!(
            svg,
            r#"<rect class="band s{style}" x="{left:.1}" y="{:.1}" width="{SAMPLE_PX}" height="10"/>"#,
            middle - 5.0
        ),
        Mark::Line | Mark::Steps => writeln!(
            svg,
            r#"<path class="line s{style}" d="M{left:.1} {middle:.1}H{right:.1}"/>"#
        ),
    };
}

fn axes(svg: &mut String, plot: &Plot, frame: &Frame) {
    let (left, top) = (frame.left, frame.top);
    let (right, bottom) = (left + frame.width, top + frame.height);
    for (value, label) in frame.x.ticks() {
        let Some(x) = frame.x_px(value) else { continue };
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for (value, label) in frame.y.ticks() {
        let Some(y) = frame.y_px(value) else { continue };
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 8.0,
            y + 4.0
        );
    }
    let (x_middle, y_middle) = (left + frame.width / 2.0, top + frame.height / 2.0);
    let _ = writeln!(
        svg,
        "<path class=\"edge\" d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\"/>\n\
         <text x=\"{x_middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
         <text x=\"16\" y=\"{y_middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {y_middle:.1})\">{}</text>",
        bottom + 40.0,
        text(&plot.x.label),
        text(&plot.y.label),
    );
}

/// Draws the series, cut off at the edges of the plot.
fn clipped(svg: &mut String, plot: &Plot, frame: &Frame, index: usize) {
    let (left, top, width, height) = (frame.left, frame.top, frame.width, frame.height);
    let _ = writeln!(
        svg,
        "<clipPath id=\"area{index}\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/></clipPath>\n\
         <g clip-path=\"url(#area{index})\">",
        left - 5.0,
        top - 5.0,
        width + 10.0,
        height + 10.0
    );
    let mut drawn = 0;
    for (index, series) in plot.series.iter().enumerate() {
        let without_place = marks::draw(svg, frame, series, index % STYLES);
        drawn += series.points.len() - without_place;
    }
    svg.push_str("</g>\n");
    if drawn == 0 {
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">nothing to show</text>"#,
            left + width / 2.0,
            top + height / 2.0
        );
    }
}

/// Text as XML holds it: escaped, and without the characters that no XML document may have, escaped or
/// not (XML 1.0, section 2.2).
fn text(text: &str) -> String {
    let is_allowed = |character: &char| matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let printable: String = text.chars().filter(is_allowed).collect();
    escape(&printable).into_owned()
}
