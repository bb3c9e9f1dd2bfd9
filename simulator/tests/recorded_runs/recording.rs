//! What was recorded of a run: its folder of `wva_autoscaling`, read.

use std::path::{Path, PathBuf};

/// One run, in seconds since its first row.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// (when, replicas asked for).
    pub(crate) asked: Vec<(f64, u32)>,
    /// (when, replicas whose metrics arrived); empty where that was not recorded.
    pub(crate) reporting: Vec<(f64, u32)>,
    /// (when, mean time to first token of the minute before in ms); empty likewise.
    pub(crate) ttft_ms: Vec<(f64, f64)>,
}

/// The folder of recorded runs; `None`, loudly, if it is not there.
pub(crate) fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("FORESAIL_SHARED").map_or(beside, PathBuf::from);
    let folder = shared.join("data/coldstart/wva_autoscaling");
    if !folder.is_dir() {
        eprintln!(
            "SKIPPED: {} is absent; set FORESAIL_SHARED to the folder of recorded data",
            folder.display()
        );
        return None;
    }
    Some(folder)
}

impl Recording {
    /// Reads `metrics.csv` of a run.
    pub(crate) fn read(run: &Path) -> Self {
        let path = run.join("metrics.csv");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
        let mut recording = Self::default();
        let mut start = None;
        for row in &rows {
            let cell = |name: &str| cell(&header, row, name);
            let at = second_of_day(cell("timestamp").expect("each row has a time"));
            let at = at - *start.get_or_insert(at);
            recording.add(at, &cell);
        }
        recording
    }

    fn add<'a>(&mut self, at: f64, cell: &impl Fn(&str) -> Option<&'a str>) {
        match cell("event_type") {
            // The HPA run: one row a poll. Its latencies are all 0: not measured.
            None => self
                .asked
                .extend(number(cell("desired_replicas")).map(|n| (at, n as u32))),
            Some("scaling_decision") => {
                self.asked
                    .extend(number(cell("target_replicas")).map(|n| (at, n as u32)));
            }
            Some("metrics" | "observed_metrics") => {
                let replicas = number(cell("replicas").or_else(|| cell("observed_replicas")));
                self.reporting.extend(replicas.map(|n| (at, n as u32)));
                let ttft = number(cell("ttft").or_else(|| cell("observed_ttft")));
                self.ttft_ms.extend(ttft.map(|ms| (at, ms)));
            }
            Some(_) => {}
        }
    }

    /// When as many replicas as this, or more, were first asked for.
    pub(crate) fn first_asked(&self, replicas: u32) -> Option<f64> {
        let mut asked = self.asked.iter();
        asked.find(|(_, n)| *n >= replicas).map(|(at, _)| *at)
    }
}

fn cell<'a>(header: &[&str], row: &[&'a str], name: &str) -> Option<&'a str> {
    let index = header.iter().position(|column| *column == name)?;
    row.get(index).copied().filter(|text| !text.is_empty())
}

fn number(text: Option<&str>) -> Option<f64> {
    text.map(|text| text.parse().expect("a number"))
}

/// Of `2025-12-09T20:32:34.224Z` or `2025-11-24 16:17:59`; no run passes midnight.
fn second_of_day(text: &str) -> f64 {
    let clock = text[11..].trim_end_matches('Z');
    let parts: Vec<f64> = clock
        .split(':')
        .map(|part| part.parse().expect("a time of day"))
        .collect();
    parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
}
