//! How patient clients are, and how the load is made.

use std::num::{NonZeroU32, NonZeroUsize};

use foresail_core::time::Nanos;

use super::value::{self, ShardOf};

/// How patient clients are; scenarios say it in `[clients]`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Clients")]
pub(crate) struct ClientArguments {
    /// How long an answer may take, from each send [default: the scenario's, or for ever]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) timeout: Option<Nanos>,

    /// How long the first token may take, from each send [default: the scenario's, or for ever]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) first_token_timeout: Option<Nanos>,

    /// How long a stream that has begun may be silent [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) stall_timeout: Option<Nanos>,

    /// How often what was refused or failed is sent again [default: the scenario's, or never]
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
}

/// How the load is made, and which part of it counts.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArguments {
    /// What is due before this is sent and not counted [default: until the load is steady]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) warmup: Option<Nanos>,

    /// What is due in this time before the end is sent and not counted
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) cooldown: Option<Nanos>,

    /// How long answers may take after the last request was sent; then they are cancelled
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = value::duration)]
    pub(crate) drain_timeout: Nanos,

    /// Threads that send
    #[arg(long, value_name = "N", default_value = "1", value_parser = value::threads)]
    pub(crate) threads: NonZeroUsize,

    /// Send every N-th request only, the I-th of each N; other machines send the others
    #[arg(long, value_name = "I/N", value_parser = value::shard)]
    pub(crate) shard: Option<ShardOf>,

    /// When the first request is due: a Unix time in seconds, or +10s from now [default: as soon as all is ready]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = value::start)]
    pub(crate) start_at: Option<value::StartAt>,
}

/// Several runs, at several rates.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Rates")]
pub(crate) struct RateArguments {
    /// A run at each of these rates, such as 1,2,4 or '1..32 steps 6'
    #[arg(long, value_name = "RATES")]
    pub(crate) rate: Option<String>,

    /// Search the highest rate that meets this, such as 'ttft.p99 < 500ms'; can be repeated
    #[arg(long, value_name = "OBJECTIVE", conflicts_with = "rate")]
    pub(crate) ramp_until: Vec<String>,

    /// Runs at each rate of --rate or --ramp-until [default: 1 with --rate, 3 with --ramp-until]
    #[arg(long, value_name = "N")]
    pub(crate) runs: Option<NonZeroU32>,
}

impl RateArguments {
    /// Whether there are runs at several rates.
    pub(crate) fn are_several(&self) -> bool {
        self.rate.is_some() || !self.ramp_until.is_empty()
    }
}
