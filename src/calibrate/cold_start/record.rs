//! What starts came to.

use foresail_calibration::cold_start::{self, StageFit, Start};
use foresail_scenarios::random;
use serde::Serialize;

use super::server::Started;
use crate::cli;
use crate::failure::Failure;
use crate::machine;
use crate::serve::ReadyLine;

/// The version of the form of this JSON.
const SCHEMA: &str = "foresail.cold-start/1";

/// What is not a stage of the engine: from making the process until it loads, and its line.
const PROCESS: &str = "process";

/// So many starts are drawn from a fit, to compare it with those that were measured.
const DRAWN: usize = 10_000;

/// A warm start that reads more than this share from storage was none.
const WARM_FROM_STORAGE_MAX: f64 = 0.1;

/// Fewer bytes than this are of the program, not of a model.
const MODEL_BYTES_MIN: u64 = 1 << 20;

/// Starts of one engine on one machine.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    schema: &'static str,
    tool: String,
    pub(super) measured_on: String,
    pub(super) command: String,
    pub(super) model: String,
    pub(super) device: String,
    pub(super) machine: String,
    /// Cold before warm.
    pub(super) kinds: Vec<Kind>,
    /// What is good to know beside the figures.
    pub(super) notes: Vec<String>,
}

/// What of the model a start finds in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PageCache {
    /// Nothing.
    Cold,
    /// All of it.
    Warm,
}

impl PageCache {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Starts of one kind.
#[derive(Debug, Serialize)]
pub(super) struct Kind {
    pub(super) page_cache: PageCache,
    /// The stages, fitted. Together they are the whole start.
    pub(super) stages: Vec<StageFit>,
    /// What each start took (s).
    pub(super) seconds: Vec<f64>,
    /// Percentiles 50 and 90 of starts drawn from the fit (s).
    pub(super) drawn_p50_s: f64,
    pub(super) drawn_p90_s: f64,
    /// What the first request took after each start (s).
    pub(super) first_request_s: Vec<f64>,
    /// And the second one.
    pub(super) second_request_s: Vec<f64>,
    /// Bytes from storage, of each start; empty if the system does not say.
    pub(super) bytes_from_storage: Vec<u64>,
    #[serde(skip)]
    note: Option<String>,
}

impl Record {
    pub(super) fn new(ready: &ReadyLine, kinds: Vec<Kind>) -> Self {
        let tool = cli::tool();
        Self {
            schema: SCHEMA,
            tool: format!("foresail {}", tool.version),
            measured_on: machine::today(),
            command: machine::command(),
            model: ready.model.clone(),
            device: ready.device.clone(),
            machine: machine::device(),
            notes: kinds.iter().filter_map(|kind| kind.note.clone()).collect(),
            kinds,
        }
    }
}

impl Kind {
    pub(super) fn of(page_cache: PageCache, starts: &[Started]) -> Result<Self, Failure> {
        let times: Vec<Start> = starts.iter().map(stages).collect();
        let stages = cold_start::fit(&times).map_err(|error| Failure::Input(error.to_string()))?;
        let mut random = random::stream(0, "cold_start.drawn");
        let drawn = cold_start::drawn(&stages, DRAWN, &mut random);
        let request = |which: usize| {
            starts
                .iter()
                .map(|start| start.requests_s[which])
                .collect::<Vec<f64>>()
        };
        let read = starts.iter().filter_map(|start| start.bytes_read);
        Ok(Self {
            page_cache,
            stages,
            seconds: starts.iter().map(|start| start.seconds).collect(),
            drawn_p50_s: cold_start::percentile(&drawn, 0.5),
            drawn_p90_s: cold_start::percentile(&drawn, 0.9),
            first_request_s: request(0),
            second_request_s: request(1),
            bytes_from_storage: read.map(|read| read.from_storage).collect(),
            note: (page_cache == PageCache::Warm)
                .then(|| not_warm(starts))
                .flatten(),
        })
    }
}

/// The stages of a start as they are seen from outside: what the engine says, and before it all the rest.
fn stages(started: &Started) -> Start {
    let of_engine = started.ready.stages.iter();
    let of_engine: Vec<(String, f64)> = of_engine
        .map(|stage| (stage.name.clone(), stage.seconds))
        .collect();
    let rest = started.seconds - of_engine.iter().map(|(_, seconds)| seconds).sum::<f64>();
    [(PROCESS.to_owned(), rest)]
        .into_iter()
        .chain(of_engine)
        .collect()
}

fn not_warm(starts: &[Started]) -> Option<String> {
    let from_storage = |start: &&Started| {
        start.bytes_read.is_some_and(|read| {
            read.storage_share() > WARM_FROM_STORAGE_MAX && read.from_storage > MODEL_BYTES_MIN
        })
    };
    let count = starts.iter().filter(from_storage).count();
    (count > 0).then(|| {
        format!(
            "{count} of {} warm starts read from storage: the page cache did not hold the model",
            starts.len()
        )
    })
}
