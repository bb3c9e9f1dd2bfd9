//! Recorded traces: which formats there are, how one is recognised, and the
//! strict readers behind it. A row that does not fit is an error with its
//! place; nothing is guessed.

mod azure;
mod blis;
mod burstgpt;
pub(super) mod fields;
pub(super) mod lines;
mod mooncake;
mod native;
mod reader;
mod spread;
mod vidur;

use std::path::{Path, PathBuf};

use super::error::{WorkloadError, excerpt};
pub use fields::decimal_seconds;
pub(super) use fields::seconds_nanos;
use lines::Lines;
pub use native::NativeWriter;
pub(super) use reader::TraceReader;

/// A file of recorded requests. Except in the native format, whose times are
/// kept as they stand, the first request is due at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSource {
    /// The file.
    pub path: PathBuf,
    /// Its format; `None` to detect it from the first line.
    pub format: Option<TraceFormat>,
    /// What to do with rows that were recorded at the same tick.
    pub timestamps: Timestamps,
}

/// The formats of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// Azure LLM inference trace, 2023 and 2024.
    Azure,
    /// BurstGPT, all releases.
    BurstGpt,
    /// Vidur's processed traces.
    Vidur,
    /// The data file of a BLIS TraceV2.
    Blis,
    /// Mooncake JSON Lines.
    Mooncake,
    /// foresail's own, which keeps everything that a request has.
    Native,
}

/// What to do with rows that a coarse clock recorded at the same tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// Leave them together, as recorded.
    #[default]
    AsRecorded,
    /// Spread them evenly up to the next tick: row `i` of `m` moves by `i / m`
    /// of the gap. Only for Mooncake, whose clock ticks every 3 s.
    Spread,
}

impl TraceSource {
    /// A file in whatever format its first line shows, as recorded.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: None,
            timestamps: Timestamps::AsRecorded,
        }
    }

    pub(super) fn describe(&self) -> String {
        let format = self
            .format
            .map_or(String::new(), |format| format!("{} ", format.name()));
        let spread = match self.timestamps {
            Timestamps::AsRecorded => "",
            Timestamps::Spread => ", spread over its ticks",
        };
        format!("{format}trace {}{spread}", self.path.display())
    }
}

impl TraceFormat {
    /// Every format, in the order in which they are listed to people.
    pub const ALL: [Self; 6] = [
        Self::Native,
        Self::Azure,
        Self::BurstGpt,
        Self::Vidur,
        Self::Blis,
        Self::Mooncake,
    ];

    /// The name by which a scenario or a command calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Azure => "azure-csv",
            Self::BurstGpt => "burstgpt-csv",
            Self::Vidur => "vidur-csv",
            Self::Blis => "blis-csv",
            Self::Mooncake => "mooncake-jsonl",
            Self::Native => "native-csv",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The format of this file, from its first line.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, or begins like no known format.
    pub fn detect(path: &Path) -> Result<Self, WorkloadError> {
        let mut lines = Lines::open(path)?;
        if !lines.advance()? {
            return Err(WorkloadError::Empty {
                path: path.to_owned(),
            });
        }
        Self::of_first_line(path, lines.current())
    }

    /// The first lines exclude each other, so there is never a choice to make.
    fn of_first_line(path: &Path, line: &[u8]) -> Result<Self, WorkloadError> {
        Self::ALL
            .into_iter()
            .find(|format| format.begins_with(line))
            .ok_or_else(|| WorkloadError::UnknownFormat {
                path: path.to_owned(),
                first_line: excerpt(line).into(),
                known: Self::known(line).into(),
            })
    }

    /// Whether a file of this format can begin with this line.
    fn begins_with(self, line: &[u8]) -> bool {
        match self {
            Self::Azure => line == azure::HEADER.as_bytes(),
            Self::BurstGpt => burstgpt::HEADERS
                .iter()
                .any(|header| line == header.as_bytes()),
            Self::Vidur => line == vidur::HEADER.as_bytes(),
            Self::Blis => blis::Columns::find(line).is_ok(),
            Self::Mooncake => line.starts_with(b"{"),
            Self::Native => native::names_adapters(line).is_some(),
        }
    }

    /// What a file of this format begins with, for people.
    fn beginning(self) -> &'static str {
        match self {
            Self::Azure => azure::HEADER,
            Self::BurstGpt => "Timestamp,Model,Request tokens,…",
            Self::Vidur => vidur::HEADER,
            Self::Blis => {
                "request_id,client_id,… with input_tokens, output_tokens, arrival_time_us"
            }
            Self::Mooncake => "{\"timestamp\": …",
            Self::Native => native::HEADER,
        }
    }

    fn known(first_line: &[u8]) -> String {
        let known = Self::ALL.map(|format| format!("{} (`{}`)", format.name(), format.beginning()));
        let mut known = known.join(", ");
        if first_line.starts_with(b"trace_version") {
            known.push_str(
                "; this is the header of a BLIS trace: give the CSV file that belongs to it",
            );
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(text: &str) -> Result<TraceFormat, WorkloadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        TraceFormat::detect(file.path())
    }

    #[test]
    fn names_are_found_again() {
        for format in TraceFormat::ALL {
            assert_eq!(TraceFormat::from_name(format.name()), Some(format));
        }
        assert_eq!(TraceFormat::from_name("csv"), None);
    }

    #[test]
    fn the_first_line_tells_the_format() {
        let cases = [
            (
                "TIMESTAMP,ContextTokens,GeneratedTokens\r\n",
                TraceFormat::Azure,
            ),
            (
                "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
                TraceFormat::BurstGpt,
            ),
            (
                "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
                TraceFormat::BurstGpt,
            ),
            (
                "arrived_at,num_prefill_tokens,num_decode_tokens",
                TraceFormat::Vidur,
            ),
            (
                "\u{feff}arrived_at,num_prefill_tokens,num_decode_tokens",
                TraceFormat::Vidur,
            ),
            (
                "request_id,client_id,input_tokens,output_tokens,arrival_time_us\n",
                TraceFormat::Blis,
            ),
            ("{\"timestamp\": 0}\n", TraceFormat::Mooncake),
        ];
        for (text, format) in cases {
            assert_eq!(detect(text).unwrap(), format, "{text}");
        }
        assert_eq!(detect(native::HEADER).unwrap(), TraceFormat::Native);
    }

    #[test]
    fn an_unknown_first_line_lists_the_formats() {
        let error = detect("time,tokens\n1,2\n").unwrap_err().to_string();
        assert!(error.contains("the first line is `time,tokens`"), "{error}");
        for format in TraceFormat::ALL {
            assert!(error.contains(format.name()), "{error}");
        }
        assert!(
            error.contains(native::HEADER),
            "the whole header, because that is what makes a file native: {error}"
        );
        let error = detect("trace_version: 2\ntime_unit: microseconds\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("give the CSV file"), "{error}");
        assert!(matches!(
            detect("").unwrap_err(),
            WorkloadError::Empty { .. }
        ));
    }
}
