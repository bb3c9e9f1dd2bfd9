//! The histograms of a measured run, kept so that parts of it can be added:
//! the content of `histograms.json`.

use crate::histogram::Histogram;
use crate::measurements::Measurements;
use crate::objectives::Latency;
use serde::{Deserialize, Serialize};

/// The version of the form of `histograms.json`.
pub const SCHEMA: &str = "foresail.histograms/1";

/// The latencies that a measured run has histograms of.
///
/// Percentiles of several runs are never averaged: their histograms are added,
/// which gives the percentiles of all their requests together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histograms {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Intended send to first token, of the completed requests in the window.
    pub ttft: Histogram,
    /// Between successive chunks that carried output, of the same.
    pub itl: Histogram,
    /// Mean time a token after the first, of the same.
    pub tpot: Histogram,
    /// Intended send to last byte, of the same.
    pub e2e: Histogram,
    /// From when a request was due until it was handed to a connection.
    pub send_late: Histogram,
    /// How late the client's event loop came to a periodic tick.
    pub loop_lag: Histogram,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            ttft: Histogram::new(),
            itl: Histogram::new(),
            tpot: Histogram::new(),
            e2e: Histogram::new(),
            send_late: Histogram::new(),
            loop_lag: Histogram::new(),
        }
    }
}

impl Histograms {
    /// Those of the requests; what the client saw of itself is to be added.
    #[must_use]
    pub fn of(measurements: &Measurements) -> Self {
        Self {
            ttft: measurements.histogram(Latency::Ttft).clone(),
            itl: measurements.histogram(Latency::Itl).clone(),
            tpot: measurements.histogram(Latency::Tpot).clone(),
            e2e: measurements.histogram(Latency::E2e).clone(),
            ..Self::default()
        }
    }

    /// Each with its name, in the order of the file.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &Histogram); 6] {
        [
            ("ttft", &self.ttft),
            ("itl", &self.itl),
            ("tpot", &self.tpot),
            ("e2e", &self.e2e),
            ("send_late", &self.send_late),
            ("loop_lag", &self.loop_lag),
        ]
    }
}
