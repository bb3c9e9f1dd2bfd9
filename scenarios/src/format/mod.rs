//! From TOML text to a [`Scenario`], with
//! diagnostics that point at the place.
//!
//! ```text
//! text ──toml──> tree with places ──--set, --seed, --trace──> tree ──decode──> Scenario
//!   (node.rs)                          (overrides.rs)             (a file a table)
//! ```
//!
//! [`load_group`] and [`parse_group`] are the same for files with several deployments.
//! [`load`] reads a file or a scenario of the [library];
//! [`parse`] takes text. Both report every problem that they find, not only the
//! first. Each problem has a code (such as `scenario::replicas`), points at the
//! values involved, and says what to do. A key that nothing reads is an error,
//! because a misspelt setting would otherwise silently be a default.
//!
//! [`crate::library::template`] is a scenario with every key, explained.

mod account;
mod adapter_mix;
mod adapters;
mod autoscaler;
mod clients;
mod cold_start;
mod decode;
mod deployment;
mod distribution;
mod engine;
mod failures;
mod fit;
mod gpu_pool;
mod node;
mod objectives;
mod operations;
mod overrides;
mod problem;
mod profile;
mod reader;
mod retry;
mod scenario;
mod shape;
#[cfg(test)]
mod tests;
mod workload;

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::library;
use crate::scenario::{Group, Scenario};
use problem::{Context, Place};

pub use autoscaler::{keys_of_others, policy_names};
pub use overrides::Overrides;
pub use problem::Diagnosis;

/// The largest scenario file that is read. One is a few kilobytes, so a larger
/// file is most likely a trace given by mistake.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read; the diagnosis says what to try.
    #[error("{0}")]
    Unreadable(Box<Diagnosis>),
    /// The text is not a valid scenario: every problem that was found, at least one.
    #[error("{}", summary(.0))]
    Invalid(Vec<Diagnosis>),
}

impl LoadError {
    /// Everything that is wrong, in order of place.
    pub fn diagnostics(&self) -> impl Iterator<Item = &dyn miette::Diagnostic> {
        let diagnoses = match self {
            Self::Unreadable(diagnosis) => std::slice::from_ref(&**diagnosis),
            Self::Invalid(diagnoses) => diagnoses,
        };
        diagnoses
            .iter()
            .map(|diagnosis| diagnosis as &dyn miette::Diagnostic)
    }
}

fn summary(diagnoses: &[Diagnosis]) -> String {
    match diagnoses {
        [only] => only.to_string(),
        _ => format!("{} problems in the scenario", diagnoses.len()),
    }
}

/// The scenario of a file, or of the library if there is no such file and the
/// library has that name. Relative files in it are relative to its folder.
///
/// # Errors
/// If the file cannot be read, is not a valid scenario, or has several deployments.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Scenario, LoadError> {
    alone(load_group(path, overrides)?)
}

/// As [`load`], with what the file says as a whole.
///
/// # Errors
/// As [`load`].
pub fn load_group_of_one(path: &Path, overrides: &Overrides) -> Result<Group, LoadError> {
    of_one(load_group(path, overrides)?)
}

/// As [`load`], with all deployments of the file, one or several.
///
/// # Errors
/// If the file cannot be read or is not a valid scenario.
pub fn load_group(path: &Path, overrides: &Overrides) -> Result<Group, LoadError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let entry = path
                .to_str()
                .and_then(library::find)
                .ok_or_else(|| missing(path))?;
            parse_group(
                &format!("{}.toml", entry.name),
                entry.text,
                Path::new(""),
                overrides,
            )
        }
        _ => {
            let text = read(path).map_err(LoadError::Unreadable)?;
            let base_dir = path.parent().unwrap_or(Path::new(""));
            parse_group(&path.display().to_string(), &text, base_dir, overrides)
        }
    }
}

/// The scenario of a text. `name` is what diagnostics call it, `base_dir` what
/// relative files in it are relative to.
///
/// # Errors
/// If the text is not a valid scenario, or has several deployments.
pub fn parse(
    name: &str,
    text: &str,
    base_dir: &Path,
    overrides: &Overrides,
) -> Result<Scenario, LoadError> {
    alone(parse_group(name, text, base_dir, overrides)?)
}

/// As [`parse`], with all deployments of the text, one or several.
///
/// # Errors
/// If the text is not a valid scenario.
pub fn parse_group(
    name: &str,
    text: &str,
    base_dir: &Path,
    overrides: &Overrides,
) -> Result<Group, LoadError> {
    let mut context = Context::default();
    let source = context.add_source(name, text, base_dir);
    let Some(mut root) = node::parse_document(&context, source, text) else {
        return Err(LoadError::Invalid(context.diagnoses()));
    };
    overrides.apply(&mut context, &mut root);
    let place = Place {
        source,
        start: 0,
        end: 0,
    };
    let stem = Path::new(name)
        .file_stem()
        .map_or(name.into(), |stem| stem.to_string_lossy());
    let scenario = scenario::decode(&context, &root, place, &stem);
    scenario.ok_or_else(|| LoadError::Invalid(context.diagnoses()))
}

/// The one deployment of a file.
fn alone(group: Group) -> Result<Scenario, LoadError> {
    let mut group = of_one(group)?;
    Ok(group.deployments.swap_remove(0))
}

/// The file, if it has one deployment.
fn of_one(group: Group) -> Result<Group, LoadError> {
    match group.deployments.len() {
        1 => Ok(group),
        count => Err(LoadError::Unreadable(Diagnosis::of_file(
            format!(
                "`{}` has {count} deployments, and this takes one",
                group.name
            ),
            "`foresail simulate` runs several together".to_owned(),
        ))),
    }
}

fn missing(path: &Path) -> LoadError {
    let names = library::SCENARIOS.iter().map(|entry| entry.name);
    let written = path.to_string_lossy();
    let help = reader::suggestion(&written, names, "ready scenarios, by name, are");
    let message = format!("there is no file or ready scenario `{written}`");
    LoadError::Unreadable(Diagnosis::of_file(message, help))
}

/// The text of a file, or what is wrong with it and what to try.
fn read(path: &Path) -> Result<String, Box<Diagnosis>> {
    let name = path.display();
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(Diagnosis::of_file(
            format!("`{name}` is a folder"),
            "name a scenario file in it, such as `scenario.toml`".to_owned(),
        ));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_large(path, &format!("{} bytes", metadata.len())));
    }
    // Pipes and devices have no length, so what is read is limited as well.
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(
            path,
            &format!("more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        Diagnosis::of_file(
            format!("`{name}` is not UTF-8 text: line {line} has other bytes"),
            "save the file as UTF-8".to_owned(),
        )
    })
}

fn too_large(path: &Path, size: &str) -> Box<Diagnosis> {
    Diagnosis::of_file(
        format!("`{}` has {size}: too large for a scenario", path.display()),
        "a scenario has at most 1 MiB; give a trace with `--trace`".to_owned(),
    )
}

fn unreadable(path: &Path, error: &io::Error) -> Box<Diagnosis> {
    let message = format!("cannot read `{}`: {error}", path.display());
    Diagnosis::of_file(message, "check the path and its permissions".to_owned())
}
