//! Token lengths of clients, per window of 6 hours.

use std::collections::BTreeMap;
use std::path::Path;

use foresail_core::time::{Nanos, SECOND};
use serde::Deserialize;

use super::super::error::WorkloadError;
use super::client::Windows;
use super::problem_in;
use super::python::parse_dict;
use crate::distribution::unit;
use crate::random::Stream;

/// Length of a window of token lengths (s).
const WINDOW_S: u64 = 21_600;

/// How far the probabilities of a table may be from a sum of 1.
const SUM_TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    input_tokens: String,
    output_tokens: String,
    /// Share of the answer that is reasoning: part of `output_tokens` already.
    #[serde(default, rename = "reason_ratio")]
    _reason_ratio: serde::de::IgnoredAny,
}

/// A distribution over numbers of tokens.
#[derive(Debug)]
pub(super) struct Table {
    tokens: Vec<u32>,
    cumulative: Vec<f64>,
}

impl Table {
    /// `None` if the table is empty: no requests in the window.
    fn parse(text: &str) -> Result<Option<Self>, String> {
        let pairs = parse_dict(text).map_err(|at| {
            let shown: String = text.get(at..).unwrap_or("").chars().take(40).collect();
            format!("expected a Python dict of token counts and probabilities, found `{shown}`")
        })?;
        if pairs.is_empty() {
            return Ok(None);
        }
        let mut table = Self {
            tokens: Vec::new(),
            cumulative: Vec::new(),
        };
        let mut sum = 0.0;
        for (tokens, probability) in pairs.into_iter().filter(|pair| pair.1 > 0.0) {
            if tokens == 0 {
                return Err("expected at least 1 token, found 0".to_owned());
            }
            sum += probability;
            table.tokens.push(tokens);
            table.cumulative.push(sum);
        }
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(format!("expected probabilities that sum to 1, found {sum}"));
        }
        Ok(Some(table))
    }

    pub(super) fn draw(&self, stream: &mut Stream) -> u32 {
        let draw = unit(stream);
        let index = self
            .cumulative
            .partition_point(|&cumulative| cumulative <= draw);
        // The sum may be a hair below 1.
        self.tokens[index.min(self.tokens.len() - 1)]
    }
}

/// Token lengths of one window of one client.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) input: Table,
    pub(super) output: Table,
    /// The client's share of the mix: its rate, summed over the window.
    weight: f64,
}

/// A client's token lengths by window; `None` where it had no requests.
#[derive(Debug)]
pub(super) struct Dataset {
    windows: Vec<Option<Tables>>,
}

impl Dataset {
    pub(super) fn read(path: &Path, client: &Windows) -> Result<Self, WorkloadError> {
        let io = |source| WorkloadError::Io {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::parse(&text, client).map_err(|problem| problem_in(path, problem))
    }

    fn parse(text: &str, client: &Windows) -> Result<Self, String> {
        let entries: BTreeMap<String, Entry> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut weights: BTreeMap<u64, f64> = BTreeMap::new();
        for (start, rate) in client.rates() {
            *weights.entry(start / WINDOW_S).or_default() += rate;
        }
        let mut windows = Vec::new();
        for (key, entry) in &entries {
            let start = key
                .parse()
                .ok()
                .filter(|start: &u64| start.is_multiple_of(WINDOW_S));
            let index = start.ok_or_else(|| {
                format!("window \"{key}\": expected a number of seconds in steps of {WINDOW_S}")
            })? / WINDOW_S;
            // A hundred years of windows: more is a mistake and would fill the memory.
            let place = usize::try_from(index).ok().filter(|&place| place < 150_000);
            let place =
                place.ok_or_else(|| format!("window \"{key}\": expected less than 100 years"))?;
            let weight = weights.get(&index).copied().unwrap_or(0.0);
            let tables = entry
                .tables(weight)
                .map_err(|problem| format!("window \"{key}\": {problem}"))?;
            if windows.len() <= place {
                windows.resize_with(place + 1, || None);
            }
            windows[place] = tables;
        }
        Ok(Self { windows })
    }

    pub(super) fn tables(&self, window: usize) -> Option<&Tables> {
        self.windows.get(window)?.as_ref()
    }
}

impl Entry {
    fn tables(&self, weight: f64) -> Result<Option<Tables>, String> {
        let input = Table::parse(&self.input_tokens).map_err(|e| format!("input_tokens: {e}"))?;
        let output =
            Table::parse(&self.output_tokens).map_err(|e| format!("output_tokens: {e}"))?;
        match (input, output) {
            (None, None) => Ok(None),
            (Some(input), Some(output)) => Ok(Some(Tables {
                input,
                output,
                weight,
            })),
            _ => Err("expected input_tokens and output_tokens both empty or neither".to_owned()),
        }
    }
}

/// For clients without lengths of their own: whose to take, by rate.
#[derive(Debug)]
pub(super) struct Mix {
    /// For each window, the datasets that have lengths and their cumulative weights.
    windows: Vec<Vec<(usize, f64)>>,
}

impl Mix {
    pub(super) fn new<'a>(
        folder: &Path,
        clients: impl Iterator<Item = &'a Windows>,
        datasets: impl Iterator<Item = &'a Dataset> + Clone,
    ) -> Result<Self, WorkloadError> {
        let span = datasets
            .clone()
            .map(|dataset| dataset.windows.len())
            .max()
            .unwrap_or(0);
        let windows: Vec<_> = (0..span)
            .map(|window| Self::weights(window, datasets.clone()))
            .collect();
        for (start, _) in clients.flat_map(Windows::rates) {
            let window = (start / WINDOW_S) as usize;
            if span == 0 || windows[window % span].is_empty() {
                let problem = format!(
                    "no dataset has token lengths for the window at {} s",
                    window as u64 * WINDOW_S
                );
                return Err(problem_in(folder, problem));
            }
        }
        Ok(Self { windows })
    }

    fn weights<'a>(
        window: usize,
        datasets: impl Iterator<Item = &'a Dataset>,
    ) -> Vec<(usize, f64)> {
        let mut sum = 0.0;
        let with = datasets.enumerate().filter_map(|(index, dataset)| {
            sum += dataset.tables(window)?.weight;
            Some((index, sum))
        });
        with.collect()
    }

    /// The window of token lengths for this time; after the last one they begin again.
    pub(super) fn window(&self, due: Nanos) -> usize {
        let window = due / (WINDOW_S * SECOND);
        (window % self.windows.len().max(1) as u64) as usize
    }

    /// The lengths of the dataset on which 64 random bits fall.
    pub(super) fn pick<'a>(&self, datasets: &'a [Dataset], window: usize, bits: u64) -> &'a Tables {
        let weights = &self.windows[window];
        let total = weights.last().map_or(0.0, |last| last.1);
        let draw = (bits >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let index = weights
            .partition_point(|weight| weight.1 <= draw)
            .min(weights.len() - 1);
        datasets[weights[index].0]
            .tables(window)
            .expect("the mix lists datasets that have lengths here")
    }
}
