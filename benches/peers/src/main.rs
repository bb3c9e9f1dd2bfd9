//! foresail beside the fastest other simulator of LLM deployments: one workload,
//! one deployment, one step time, one process, turn by turn.
//!
//! The number that matters is requests per CPU second, and it means something
//! only if the work is alike: so the latencies that both predict are compared
//! too, as means and request by request.

mod measure;
mod ours;
mod peer;
mod step_cost;
mod table;
mod workload;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::measure::{Run, check_tokens};
use crate::workload::{Row, Traffic};

/// Run foresail and aisimulate-core on the same requests and print the ratio of their speeds.
#[derive(Parser)]
struct Options {
    /// Requests to simulate.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Mean arrivals a second over all replicas (Poisson).
    #[arg(long, default_value_t = 32.0, value_parser = positive)]
    rate: f64,
    /// Replicas, with requests spread round robin.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds; each simulator runs once a round, and who goes first alternates.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Which simulator to run; one alone also tells its peak memory.
    #[arg(long, value_enum, default_value_t = Side::Both)]
    side: Side,
    /// Let foresail visit every step, as the peer does, instead of leaping.
    #[arg(long)]
    no_leaps: bool,
    /// Turn the peer's prefix cache on; all prompts are different.
    #[arg(long)]
    peer_prefix_caching: bool,
}

/// Which simulator to run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    Both,
    Foresail,
    Peer,
}

/// The deployment that both sides simulate.
#[derive(Clone, Copy, Debug)]
struct Deployment {
    replicas: u32,
    max_num_seqs: u32,
    max_batched_tokens: u32,
    /// Tokens a KV block holds.
    block_size: u32,
    /// KV blocks of a replica.
    blocks: u32,
    /// Whether foresail does runs of equal decode steps at once.
    leaps: bool,
    peer_prefix_caching: bool,
}

impl Options {
    fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.requests as usize,
            rate_per_s: self.rate,
            seed: self.seed,
        }
    }

    fn deployment(&self) -> Deployment {
        Deployment {
            replicas: self.replicas,
            max_num_seqs: 128,
            max_batched_tokens: 2_048,
            block_size: 64,
            // A million tokens: 128 sequences never fill it, so neither side preempts.
            blocks: 16_384,
            leaps: !self.no_leaps,
            peer_prefix_caching: self.peer_prefix_caching,
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let rows = options.traffic().rows();
    let deployment = options.deployment();
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        for foresail_turn in [round % 2 == 1, round % 2 == 0] {
            if foresail_turn && options.side != Side::Peer {
                ours.push(checked(&rows, ours::run(&rows, &deployment)?)?);
            } else if !foresail_turn && options.side != Side::Foresail {
                peers.push(checked(&rows, peer::run(&rows, &deployment)?)?);
            }
        }
    }
    print!("{}", report(&options, &ours, &peers));
    Ok(())
}

fn checked(rows: &[Row], run: Run) -> Result<Run> {
    check_tokens(rows, &run.latencies)?;
    Ok(run)
}

fn report(options: &Options, ours: &[Run], peers: &[Run]) -> String {
    let mut text = format!(
        "{} requests, Poisson {}/s, seed {}; {} replicas, round robin; {} rounds\n\n",
        options.requests, options.rate, options.seed, options.replicas, options.rounds
    );
    text += &table::speeds("foresail", ours);
    text += &table::speeds("aisimulate-core 0.13.0", peers);
    if let (Some(our), Some(peer)) = (ours.first(), peers.first()) {
        text += &table::agreement(our, peer);
        text += &table::ratio(ours, peers);
    } else {
        text += &table::peak_memory();
    }
    text
}
