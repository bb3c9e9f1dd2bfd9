//! Pictures, as the text that they are, and as XML that anything reads.

use foresail_reports::picture::{Axis, Mark, Plot, Point, Series, svg};
use quick_xml::Reader;
use quick_xml::events::Event;

fn plot() -> Plot {
    Plot {
        title: "Steps & what was \"fitted\" <to them>".to_owned(),
        x: Axis::log("tokens"),
        y: Axis::linear("time (ms)"),
        series: vec![
            Series::new(
                "between",
                Mark::Band,
                vec![
                    Point::within(1.0, 2.0, 1.5, 2.5),
                    Point::within(100.0, 8.0, 7.0, 9.0),
                ],
            ),
            Series::new(
                "measured",
                Mark::Points,
                vec![
                    Point::within(1.0, 2.1, 2.0, 2.2),
                    Point::new(10.0, 4.0),
                    Point::new(-1.0, 4.0),
                ],
            ),
            Series::new(
                "fitted",
                Mark::Line,
                vec![Point::new(1.0, 2.0), Point::new(100.0, 8.0)],
            ),
        ],
    }
}

/// How many elements of each of these names a file has, and the texts in it, if it is XML at all.
fn elements(svg: &str, names: &[&str]) -> (Vec<usize>, Vec<String>) {
    let mut reader = Reader::from_str(svg);
    let mut counts = vec![0; names.len()];
    let mut texts = Vec::new();
    loop {
        match reader.read_event().expect("the picture is XML") {
            Event::Eof => return (counts, texts),
            Event::Start(element) | Event::Empty(element) => {
                for attribute in element.attributes() {
                    attribute.expect("attributes are sound");
                }
                let name = element.name().as_ref().to_owned();
                if let Some(index) = names.iter().position(|known| *known == name) {
                    counts[index] += 1;
                }
            }
            Event::Text(text) => texts.push(text.to_string()),
            _ => {}
        }
    }
}

#[test]
fn a_plot_is_this_file() {
    insta::assert_snapshot!(plot().to_svg());
}

#[test]
fn a_picture_is_xml_with_everything_in_it() {
    let picture = svg(&[plot(), plot()]);
    let (counts, texts) = elements(&picture, &["polygon", "clipPath", "style"]);
    // Each band has its sample in the legend, which is a rectangle.
    assert_eq!(counts, [2, 2, 1]);
    assert!(
        texts
            .iter()
            .any(|text| text == "measured (1 not on these axes)"),
        "{texts:?}"
    );
}

#[test]
fn characters_that_xml_cannot_hold_are_left_out() {
    let mut plot = plot();
    plot.title = "a\u{0}b<c".to_owned();
    let picture = plot.to_svg();
    assert!(picture.contains("<title>ab&lt;c</title>"), "{picture}");
    elements(&picture, &[]);
}

#[test]
fn nothing_is_said_to_be_nothing() {
    let mut plot = plot();
    plot.series.clear();
    assert!(plot.to_svg().contains("nothing to show"));
    plot.series = vec![Series::distribution("none", &[])];
    assert!(plot.to_svg().contains("nothing to show"));
    plot.series = vec![Series::new(
        "odd",
        Mark::Line,
        vec![Point::new(f64::NAN, f64::INFINITY)],
    )];
    let picture = plot.to_svg();
    assert!(picture.contains("odd (1 not on these axes)") && !picture.contains("NaN"));
}

#[test]
fn a_distribution_keeps_its_ends() {
    let values: Vec<f64> = (0..10_000).rev().map(f64::from).collect();
    let series = Series::distribution("many", &values);
    assert!(series.points.len() <= 501, "{}", series.points.len());
    assert_eq!(series.points.first(), Some(&Point::new(0.0, 0.0)));
    assert_eq!(series.points.last(), Some(&Point::new(9999.0, 100.0)));
    let few = Series::distribution("few", &[2.0, 1.0]);
    let expected = [
        Point::new(1.0, 0.0),
        Point::new(1.0, 50.0),
        Point::new(2.0, 100.0),
    ];
    assert_eq!(few.points, expected);
}
