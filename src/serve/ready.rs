//! What `serve` says when it takes requests: one line, for people or for programs.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::start;
use crate::failure::Failure;
use crate::terminal::OutputFormat;

/// A server that takes requests, as its line says it to programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ready {
    /// Where requests go, up to and with `/v1`.
    pub(crate) url: String,
    /// What they call the model.
    pub(crate) model: String,
    /// What computes.
    pub(crate) device: String,
    /// From when the arguments were read until now (s).
    pub(crate) seconds: f64,
    /// The stages of the start, in order.
    pub(crate) stages: Vec<Stage>,
}

/// How long a stage of a start took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    /// Which.
    pub(crate) name: String,
    /// How long (s).
    pub(crate) seconds: f64,
}

impl Ready {
    pub(super) fn of(ready: &start::Ready, address: SocketAddr, took: Duration) -> Self {
        let stage = |(name, duration): &(&'static str, Duration)| Stage {
            name: (*name).to_owned(),
            seconds: duration.as_secs_f64(),
        };
        Self {
            url: format!("http://{address}/v1"),
            model: ready.model.clone(),
            device: ready.device.clone(),
            seconds: took.as_secs_f64(),
            stages: ready.stages.iter().map(stage).collect(),
        }
    }

    /// Address, model, and how long each stage of the start took: cold-start data, on one line.
    pub(super) fn line(&self, format: OutputFormat) -> Result<String, Failure> {
        match format {
            OutputFormat::Text => Ok(self.text()),
            OutputFormat::Json => serde_json::to_string(self)
                .map(|line| line + "\n")
                .map_err(|error| Failure::Defect(format!("no JSON: {error}"))),
        }
    }

    fn text(&self) -> String {
        let stages: Vec<String> = self
            .stages
            .iter()
            .map(|stage| format!("{} {:.3} s", stage.name, stage.seconds))
            .collect();
        format!(
            "ready: {} serves {} on {} after {:.3} s: {}\n",
            self.url,
            self.model,
            self.device,
            self.seconds,
            stages.join(", ")
        )
    }
}
