//! From the records of a run to its figures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::Result;

/// What is compared, in the order of the table.
pub(crate) const NAMES: [&str; 7] = [
    "TTFT mean",
    "TPOT mean",
    "E2E mean",
    "tokens/s",
    "TTFT p99",
    "TPOT p99",
    "E2E p99",
];

/// How many of them, from the first, are means.
pub(crate) const MEANS: usize = 4;

/// Figures of a run: those of time in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) values: [f64; NAMES.len()],
    pub(crate) requests: usize,
}

/// A row of `requests.csv`, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Request {
    id: u64,
    due_s: f64,
    output_tokens: f64,
    outcome: String,
    first_token_s: Option<f64>,
    end_s: f64,
    /// Only measured runs have a window.
    in_window: Option<bool>,
}

/// The requests of a run, by their numbers.
pub(crate) type Requests = BTreeMap<u64, Request>;

pub(crate) fn read(folder: &Path) -> Result<Requests> {
    let path = folder.join("requests.csv");
    let mut reader =
        csv::Reader::from_path(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut requests = Requests::new();
    for row in reader.deserialize() {
        let request: Request = row.map_err(|error| format!("{}: {error}", path.display()))?;
        requests.insert(request.id, request);
    }
    Ok(requests)
}

/// The requests that count in every repeat.
pub(crate) fn counted(repeats: &[Requests]) -> BTreeSet<u64> {
    let is_counted =
        |request: &Request| request.outcome == "completed" && request.in_window.unwrap_or(true);
    let of = |requests: &Requests| -> BTreeSet<u64> {
        let counted = requests.values().filter(|request| is_counted(request));
        counted.map(|request| request.id).collect()
    };
    let sets = repeats.iter().map(of);
    sets.reduce(|one, other| one.intersection(&other).copied().collect())
        .unwrap_or_default()
}

impl Figures {
    /// The figures of some of the requests.
    pub(crate) fn of(requests: &Requests, counted: &BTreeSet<u64>) -> Result<Self> {
        let (mut first, mut token, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        let (mut tokens, mut begin, mut end) = (0.0, f64::MAX, 0.0_f64);
        for id in counted {
            let request = requests.get(id).ok_or("a request is not in both runs")?;
            let first_s = request
                .first_token_s
                .ok_or("a request has no first token")?;
            first.push(first_s - request.due_s);
            whole.push(request.end_s - request.due_s);
            if request.output_tokens > 1.0 {
                token.push((request.end_s - first_s) / (request.output_tokens - 1.0));
            }
            tokens += request.output_tokens;
            begin = begin.min(request.due_s);
            end = end.max(request.end_s);
        }
        if counted.len() < 10 {
            return Err(format!("only {} requests count", counted.len()).into());
        }
        Ok(Self {
            values: [
                mean(&first),
                mean(&token),
                mean(&whole),
                tokens / (end - begin),
                percentile(first, 0.99),
                percentile(token, 0.99),
                percentile(whole, 0.99),
            ],
            requests: counted.len(),
        })
    }
}

/// Requests a second from the first to the last answer of a run, without its beginning and its end,
/// in which not all clients are there.
pub(crate) fn rate(folder: &Path) -> Result<f64> {
    let mut ends: Vec<f64> = read(folder)?
        .values()
        .map(|request| request.end_s)
        .collect();
    ends.sort_by(f64::total_cmp);
    let (from, to) = (ends.len() / 5, ends.len() * 4 / 5);
    match (ends.get(from), ends.get(to)) {
        (Some(begin), Some(end)) if end > begin => Ok((to - from) as f64 / (end - begin)),
        _ => Err(format!("{}: too few requests for a rate", folder.display()).into()),
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Interpolated linearly between the two next to it.
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = share * (values.len().max(1) - 1) as f64;
    let below = values.get(place as usize).copied().unwrap_or_default();
    let above = values.get(place as usize + 1).copied().unwrap_or(below);
    below + (above - below) * place.fract()
}
