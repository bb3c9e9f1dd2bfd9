//! Workloads as their users meet them: files in, requests out.

mod adapters;
mod generated;
mod properties;
mod recorded;
mod traces;
mod transforms;

use foresail_core::time::Nanos;

use super::testing::workload;
use super::*;
use crate::distribution::Distribution;

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
    2023-11-16 18:15:46.6805900,374,44\r\n\
    2023-11-16 18:15:50.9951690,396,109\r\n\
    2023-11-16 18:15:51.2224670,879,55";

fn dues(requests: &[Request]) -> Vec<Nanos> {
    requests.iter().map(|request| request.due).collect()
}

fn generator() -> Generator {
    Generator {
        duration: None,
        requests: Some(20_000),
        arrivals: Arrivals {
            process: Process::Poisson,
            rate_per_s: 50.0,
        },
        shape: Shape::Steady,
        prompt_tokens: Lengths {
            distribution: Distribution::log_normal_mean(512.0, 1.0),
            max: None,
        },
        output_tokens: Lengths {
            distribution: Distribution::log_normal_mean(256.0, 1.0),
            max: None,
        },
        sessions: None,
    }
}

fn generated(generator: Generator) -> Workload {
    workload(Source::Generated(generator))
}

fn stats(workload: &Workload) -> TraceStats {
    TraceStats::collect(workload.open(11).unwrap())
        .unwrap()
        .unwrap()
}

fn conversations() -> Generator {
    Generator {
        arrivals: Arrivals {
            process: Process::Poisson,
            rate_per_s: 2.0,
        },
        requests: Some(5_000),
        sessions: Some(Sessions {
            turns: Distribution::Uniform { min: 1.0, max: 9.0 },
            think_time_s: Distribution::Exponential { mean: 20.0 },
            groups: 3,
            shared_tokens: 100,
            max_context_tokens: None,
        }),
        ..generator()
    }
}
