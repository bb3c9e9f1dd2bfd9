//! ServeGen client pools: load described client by client.
//!
//! A folder has `chunk-<client>-trace.csv` for each client, its arrival rate
//! and the law of its gaps per 600 s window, and for some clients
//! `chunk-<client>-dataset.json`, token lengths per 6 h window. Each client is
//! a process of its own with its own random streams; a heap merges them.
//!
//! The windows are in memory (32 bytes each); the requests never are.
//!
//! Source: alibaba/ServeGen; Xiang et al., "ServeGen", arXiv:2505.09999.

mod client;
mod dataset;
mod python;

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};

use foresail_core::time::Nanos;
use rand::Rng as _;

use super::error::WorkloadError;
use super::{Content, Request};
use client::{Client, Windows};
use dataset::{Dataset, Mix};

/// A folder of ServeGen client pools, such as `language/m-large`. Time 0 of
/// the run is time 0 of the windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeGenSource {
    /// The folder with `chunk-<client>-trace.csv` and `chunk-<client>-dataset.json`.
    pub folder: PathBuf,
    /// No request is due at or after this time; `None` for all windows recorded.
    pub duration: Option<Nanos>,
}

impl ServeGenSource {
    /// Whether a path is a folder of client pools, as far as its names tell.
    #[must_use]
    pub fn is_folder_of_pools(path: &Path) -> bool {
        Files::list(path).is_ok()
    }
}

/// Requests of all clients of a folder, in order.
#[derive(Debug)]
pub(super) struct PoolRequests {
    folder: PathBuf,
    clients: Vec<Client>,
    datasets: Vec<Dataset>,
    mix: Mix,
    /// The next arrival of each client that has one; at equal times the lower client first.
    arrivals: BinaryHeap<Reverse<(Nanos, usize)>>,
    duration: Nanos,
    /// Requests expected of all clients, and of those with lengths of their own.
    expected: (f64, f64),
}

impl PoolRequests {
    pub(super) fn open(
        source: &ServeGenSource,
        rate_scale: f64,
        seed: u64,
    ) -> Result<Self, WorkloadError> {
        let files = Files::list(&source.folder)?;
        let mut windows = BTreeMap::new();
        for (&client, path) in &files.traces {
            windows.insert(client, Windows::read(path)?);
        }
        let mut datasets = BTreeMap::new();
        for (&client, path) in &files.datasets {
            let Some(windows) = windows.get(&client) else {
                let problem =
                    format!("client {client} has a dataset but no chunk-{client}-trace.csv");
                return Err(problem_in(path, problem));
            };
            datasets.insert(client, Dataset::read(path, windows)?);
        }
        let mix = Mix::new(&source.folder, windows.values(), datasets.values())?;
        Ok(Self::new(source, windows, datasets, mix, rate_scale, seed))
    }

    fn new(
        source: &ServeGenSource,
        windows: BTreeMap<u32, Windows>,
        datasets: BTreeMap<u32, Dataset>,
        mix: Mix,
        rate_scale: f64,
        seed: u64,
    ) -> Self {
        let duration = source.duration.unwrap_or(Nanos::MAX);
        let mut expected = (0.0, 0.0);
        let mut clients = Vec::with_capacity(windows.len());
        for (client, windows) in windows {
            let requests = windows.expected_requests(duration) * rate_scale;
            let dataset = datasets.keys().position(|&with| with == client);
            expected.0 += requests;
            expected.1 += if dataset.is_some() { requests } else { 0.0 };
            clients.push(Client::new(client, windows, dataset, rate_scale, seed));
        }
        let mut arrivals = BinaryHeap::with_capacity(clients.len());
        for (index, client) in clients.iter_mut().enumerate() {
            arrivals.extend(client.next_time().map(|due| Reverse((due, index))));
        }
        let (folder, datasets) = (source.folder.clone(), datasets.into_values().collect());
        Self {
            folder,
            clients,
            datasets,
            mix,
            arrivals,
            duration,
            expected,
        }
    }

    pub(super) fn next_request(&mut self) -> Result<Option<Request>, WorkloadError> {
        let Some((due, index)) = self.next_arrival() else {
            return Ok(None);
        };
        let (prompt_tokens, output_tokens) = self.lengths(due, index);
        let content = Content::Unique;
        Ok(Some(Request {
            due,
            prompt_tokens,
            output_tokens,
            session: None,
            adapter: None,
            content,
        }))
    }

    /// The earliest arrival and its client, which moves on to its next one.
    fn next_arrival(&mut self) -> Option<(Nanos, usize)> {
        let mut earliest = self
            .arrivals
            .peek_mut()
            .filter(|at| at.0.0 < self.duration)?;
        let Reverse((due, index)) = *earliest;
        match self.clients[index].next_time() {
            Some(next) => *earliest = Reverse((next, index)),
            None => {
                PeekMut::pop(earliest);
            }
        }
        Some((due, index))
    }

    /// Token lengths from the client's own dataset for this time, or from the
    /// mix of those that have one.
    fn lengths(&mut self, due: Nanos, index: usize) -> (u32, u32) {
        let client = &mut self.clients[index];
        let window = self.mix.window(due);
        let own = client
            .dataset
            .and_then(|dataset| self.datasets[dataset].tables(window));
        let tables = own.unwrap_or_else(|| {
            let draw = client.lengths.next_u64();
            self.mix.pick(&self.datasets, window, draw)
        });
        (
            tables.input.draw(&mut client.lengths),
            tables.output.draw(&mut client.lengths),
        )
    }

    pub(super) fn expected_requests(&self) -> u64 {
        self.expected.0 as u64
    }

    pub(super) fn describe(&self) -> String {
        let (all, own) = self.expected;
        format!(
            "ServeGen client pools {}: {} clients; {} of them ({:.1} % of the requests) have token lengths \
             of their own, the others draw from the rate-weighted mix of those",
            self.folder.display(),
            self.clients.len(),
            self.datasets.len(),
            if all > 0.0 { 100.0 * own / all } else { 0.0 },
        )
    }
}

fn problem_in(path: &Path, problem: impl Into<String>) -> WorkloadError {
    WorkloadError::ServeGen {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// The files of a folder, by client.
#[derive(Debug, Default)]
struct Files {
    traces: BTreeMap<u32, PathBuf>,
    datasets: BTreeMap<u32, PathBuf>,
}

impl Files {
    fn list(folder: &Path) -> Result<Self, WorkloadError> {
        let io = |source| WorkloadError::Io {
            path: folder.to_owned(),
            source,
        };
        let mut files = Self::default();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if let Some(client) = client_of(name, "-trace.csv") {
                files.traces.insert(client, path);
            } else if let Some(client) = client_of(name, "-dataset.json") {
                files.datasets.insert(client, path);
            }
        }
        if files.traces.is_empty() {
            let problem = "no chunk-<client>-trace.csv here; give the folder of one model, such as language/m-large";
            return Err(problem_in(folder, problem));
        }
        if files.datasets.is_empty() {
            let problem = "no chunk-<client>-dataset.json here, so nothing says how long prompts and answers are";
            return Err(problem_in(folder, problem));
        }
        Ok(files)
    }
}

fn client_of(name: &str, suffix: &str) -> Option<u32> {
    name.strip_prefix("chunk-")?
        .strip_suffix(suffix)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
