//! Which trace is meant, and how its format is named.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use foresail_scenarios::workload::{Timestamps, TraceFormat, TraceSource};

/// The trace that a command reads.
#[derive(Debug, clap::Args)]
pub(super) struct SourceArguments {
    /// The trace
    file: PathBuf,

    /// Its format, where the first line is not to decide
    #[arg(long, value_name = "FORMAT", visible_alias = "format-of", value_parser = trace_format())]
    from: Option<TraceFormat>,

    /// What to do with rows that a coarse clock recorded at the same tick
    #[arg(long, value_name = "HOW", default_value = "as-recorded")]
    timestamps: TimestampsArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TimestampsArgument {
    /// Leave them together
    AsRecorded,
    /// Spread them evenly up to the next tick (Mooncake only)
    Spread,
}

impl SourceArguments {
    pub(super) fn source(&self) -> TraceSource {
        let timestamps = match self.timestamps {
            TimestampsArgument::AsRecorded => Timestamps::AsRecorded,
            TimestampsArgument::Spread => Timestamps::Spread,
        };
        TraceSource {
            path: self.file.clone(),
            format: self.from,
            timestamps,
        }
    }
}

fn trace_format() -> impl TypedValueParser<Value = TraceFormat> {
    let names = PossibleValuesParser::new(TraceFormat::ALL.map(TraceFormat::name));
    names.try_map(|name| TraceFormat::from_name(&name).ok_or("not a trace format"))
}
