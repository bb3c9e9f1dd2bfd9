//! What a run is judged by: the objectives of its scenario, and those of the command line.

use foresail_reports::gate::expression;
use foresail_reports::{Latency, ObjectiveMetric, ObjectiveSpec, Statistic};

use super::arguments::Arguments;
use super::subject::Subject;
use crate::failure::Failure;

/// What a run is judged by.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Judged {
    /// What must hold of the run.
    pub(super) objectives: Vec<ObjectiveSpec>,
    /// What is asked of single requests, for the goodput only.
    pub(super) limits: Vec<ObjectiveSpec>,
    /// What the highest rate is searched for; empty unless it is searched.
    pub(super) searched: Vec<ObjectiveSpec>,
}

impl Judged {
    pub(super) fn of(arguments: &Arguments, subject: &Subject) -> Result<Self, Failure> {
        let searched = read("--ramp-until", &arguments.rates.ramp_until)?;
        let mut objectives = subject.objectives.clone();
        for stated in read("--objective", &arguments.verdict.objective)? {
            // What is said here replaces what the scenario says of the same.
            objectives.retain(|objective| objective.metric != stated.metric);
            objectives.push(stated);
        }
        for stated in &searched {
            objectives.retain(|objective| objective.metric != stated.metric);
            objectives.push(stated.clone());
        }
        Ok(Self {
            objectives,
            limits: arguments.verdict.goodput.iter().map(limit).collect(),
            searched,
        })
    }
}

fn read(option: &str, expressions: &[String]) -> Result<Vec<ObjectiveSpec>, Failure> {
    let read = |text: &String| {
        let spec = expression::objective(text);
        let spec = spec.map_err(|error| Failure::Input(format!("{option}: {error}")))?;
        Ok(ObjectiveSpec {
            name: key(&spec.name),
            ..spec
        })
    };
    expressions.iter().map(read).collect()
}

/// The key of a metric in a scenario file: `ttft_p99` of `ttft.p99`.
fn key(name: &str) -> String {
    let name = name.strip_prefix("throughput.").unwrap_or(name);
    name.replace('.', "_")
}

/// A limit of vLLM's `--goodput`. Which statistic it is of is no matter.
fn limit((name, limit_ms): &(String, f64)) -> ObjectiveSpec {
    let latency = match name.as_str() {
        "ttft" => Latency::Ttft,
        "tpot" => Latency::Tpot,
        // The parser of the option lets no other through.
        _ => Latency::E2e,
    };
    ObjectiveSpec {
        name: name.clone(),
        metric: ObjectiveMetric::Latency(latency, Statistic::Max),
        limit: limit_ms / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_become_the_keys_of_scenarios() {
        let texts = [
            "ttft.p99 < 500ms",
            "throughput.output_tokens_per_s > 1000",
            "cost.usd_per_million_output_tokens < 0.40",
        ];
        let texts = texts.map(str::to_owned);
        let specs = read("--objective", &texts).unwrap();
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "ttft_p99",
                "output_tokens_per_s",
                "cost_usd_per_million_output_tokens"
            ]
        );
    }

    #[test]
    fn goodput_is_in_seconds_here() {
        let spec = limit(&("e2el".to_owned(), 1500.0));
        assert_eq!(spec.limit, 1.5);
        assert_eq!(
            spec.metric,
            ObjectiveMetric::Latency(Latency::E2e, Statistic::Max)
        );
    }
}
