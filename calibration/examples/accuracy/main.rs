//! How far off predictions of other people's measurements are: writes `docs/accuracy.md`.
//!
//! ```sh
//! FORESAIL_SHARED=… cargo run --release --example accuracy -- --out docs/accuracy.md
//! ```
//!
//! For every source, some results are fitted and the others predicted; a fit never sees what it predicts.
//! Beside that is what the built-in figures predict without any fit. The data is other people's and not
//! part of this repository; without it nothing is written, and what is missing is said.
//!
//! `--built-in` prints what the built-in figures of GPUs come from instead: operators that were measured
//! alone, and what each engine's results say of the overheads that only whole engines have.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tables are what it is for"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "an example reads and writes files"
)]

mod built_in;
mod case;
mod data;
mod document;
mod errors;
mod operators;
mod replica;
mod server;
mod studies;

use std::path::PathBuf;

use clap::Parser;

use data::Data;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
struct Options {
    /// Folder of the results [default: `data/groundtruth` in FORESAIL_SHARED, or in `../shared`].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Write here instead of to standard output.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print what the built-in figures come from.
    #[arg(long)]
    built_in: bool,
    /// Print every built-in prediction beside what was measured.
    #[arg(long)]
    values: bool,
    /// Only the studies whose title contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let data = Data::new(options.data.as_deref());
    let mut studies = studies::all(&data)?;
    studies.retain(|study| study.title.contains(&options.only));
    let text = if options.built_in {
        built_in::text(&data, &studies)?
    } else {
        let mut judged = Vec::new();
        for study in studies {
            eprintln!("{}", study.title);
            judged.push(errors::judge(study)?);
        }
        if options.values {
            document::values(&judged)
        } else {
            document::text(&judged)
        }
    };
    match options.out {
        Some(path) => std::fs::write(path, text)?,
        None => println!("{text}"),
    }
    Ok(())
}
