//! A verdict as JUnit XML, which every CI system reads: a suite is a scenario, a
//! case an objective or a metric, in the form that Jenkins accepts.
//!
//! An inconclusive case is a *skipped* one: JUnit has no word for "cannot tell",
//! and an error would say that the gate is broken.

use super::Verdict;
use super::report::GateReport;
use crate::text::{of_change, of_objective};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::io;

/// A case of the suite.
struct Case {
    class: &'static str,
    name: String,
    verdict: Verdict,
    text: String,
}

impl GateReport {
    /// As JUnit XML that ends with a newline.
    ///
    /// # Errors
    /// If memory for it runs out.
    pub fn to_junit(&self) -> io::Result<String> {
        let cases = cases(self);
        let count = |verdict: Verdict| {
            let of = cases.iter().filter(|case| case.verdict == verdict).count();
            of.to_string()
        };
        let counts = [
            ("tests", cases.len().to_string()),
            ("failures", count(Verdict::Fail)),
            ("errors", count(Verdict::Degraded)),
            ("skipped", count(Verdict::Inconclusive)),
        ];
        let attributes = || counts.iter().map(|(name, value)| (*name, value.as_str()));
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let suites = writer.create_element("testsuites");
        suites
            .with_attribute(("name", "foresail gate"))
            .with_attributes(attributes())
            .write_inner_content(|writer| {
                let suite = writer.create_element("testsuite");
                let suite = suite.with_attribute(("name", printable(&self.scenario).as_str()));
                suite
                    .with_attributes(attributes())
                    .write_inner_content(|writer| {
                        cases.iter().try_for_each(|case| case.write(writer))
                    })?;
                Ok(())
            })?;
        let mut xml = String::from_utf8(writer.into_inner()).map_err(io::Error::other)?;
        xml.push('\n');
        Ok(xml)
    }
}

impl Case {
    fn write(&self, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
        let name = printable(&self.name);
        let text = printable(&self.text);
        let element = writer
            .create_element("testcase")
            .with_attribute(("classname", self.class))
            .with_attribute(("name", name.as_str()));
        let (child, kind) = match self.verdict {
            Verdict::Fail => ("failure", Some("worse")),
            Verdict::Degraded => ("error", Some("degraded")),
            Verdict::Inconclusive => ("skipped", None),
            Verdict::Pass => ("system-out", None),
        };
        element.write_inner_content(|writer| {
            let mut element = writer.create_element(child);
            if self.verdict == Verdict::Pass {
                element.write_text_content(BytesText::new(&text))?;
                return Ok(());
            }
            element = element.with_attribute(("message", text.as_str()));
            if let Some(kind) = kind {
                element = element.with_attribute(("type", kind));
            }
            element.write_empty()?;
            Ok(())
        })?;
        Ok(())
    }
}

fn cases(report: &GateReport) -> Vec<Case> {
    let degraded = report.degraded.iter().map(|run| Case {
        class: "run",
        name: run.name.clone(),
        verdict: report.verdict.min(Verdict::Degraded),
        text: run.reasons.join("; "),
    });
    // Runs that were judged although they are degraded are no case of their own.
    let degraded = degraded.filter(|case| case.verdict == Verdict::Degraded);
    let objectives = report.objectives.iter().map(|each| Case {
        class: "objective",
        name: each.name.clone(),
        verdict: each.verdict,
        text: of_objective(each),
    });
    let changes = report.changes.iter().map(|each| Case {
        class: "change",
        name: each.name.clone(),
        verdict: each.verdict,
        text: of_change(each),
    });
    let exact = report.exact.as_ref().map(|exact| Case {
        class: "change",
        name: "exact".to_owned(),
        verdict: if exact.count == 0 {
            Verdict::Pass
        } else {
            Verdict::Fail
        },
        text: format!("{} differences between simulated runs", exact.count),
    });
    degraded
        .chain(objectives)
        .chain(changes)
        .chain(exact)
        .collect()
}

/// Without what no XML document may hold, escaped or not (XML 1.0, section 2.2).
fn printable(text: &str) -> String {
    let is_allowed = |character: &char| matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(is_allowed).collect()
}
