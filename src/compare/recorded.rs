//! Runs that are there already: folders with a `summary.json`, simulated or measured.

use std::fs;
use std::path::{Path, PathBuf};

use foresail_reports::compare::{self, Comparison, PairedRequests, RequestPairs, VariantRuns};
use foresail_reports::files::{ReadError, read_requests};
use foresail_reports::summary::{Source, Summary};

use super::{Arguments, refused};
use crate::failure::Failure;

const SUMMARY: &str = "summary.json";
const REQUESTS: &str = "requests.csv";

/// Compares the runs in the folders that are named; each is a variant.
pub(super) fn compare(arguments: &Arguments) -> Result<Comparison, Failure> {
    check_options(arguments)?;
    let folders = &arguments.scenarios;
    let names: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    if let [only] = &names[..] {
        return Err(Failure::Input(format!(
            "there is nothing to compare `{only}` with; name the folder of another run"
        )));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let baseline = arguments.baseline.as_deref().unwrap_or(names[0]);
    compare::check_names(&names, baseline).map_err(refused)?;
    let runs = folders.iter().map(|folder| runs(folder));
    let runs: Vec<Vec<Recorded>> = runs.collect::<Result<_, _>>()?;
    let summaries = runs
        .iter()
        .map(|runs| runs.iter().map(|run| run.summary.clone()).collect());
    let variants = variants(&names, summaries.collect());
    let mut comparison = Comparison::of(&variants, baseline, None).map_err(refused)?;
    comparison.paired_requests = paired_requests(&names, &runs, baseline)?;
    Ok(comparison)
}

/// Every variant against the baseline, request by request, where one of the two
/// was measured: of simulated runs the figures are as exact as their requests.
fn paired_requests(
    names: &[&str],
    runs: &[Vec<Recorded>],
    baseline: &str,
) -> Result<Vec<PairedRequests>, Failure> {
    let named = || names.iter().zip(runs);
    let Some((_, base)) = named().find(|(name, _)| **name == baseline) else {
        return Ok(Vec::new());
    };
    let others = named().filter(|(name, _)| **name != baseline);
    let paired = others.map(|(name, runs)| -> Result<Option<PairedRequests>, Failure> {
        let mut pairs = RequestPairs::new();
        for run in runs {
            let partner = base
                .iter()
                .find(|base| base.summary.seed == run.summary.seed);
            if let Some(base) = partner.filter(|base| base.is_paired_with(run)) {
                let refused = |error: ReadError| Failure::Input(error.to_string());
                let requests = |run: &Recorded| read_requests(&run.folder).map_err(refused);
                pairs
                    .add(requests(base)?, requests(run)?)
                    .map_err(refused)?;
            }
        }
        Ok(pairs.finish(name))
    });
    let paired: Vec<Option<PairedRequests>> = paired.collect::<Result<_, _>>()?;
    Ok(paired.into_iter().flatten().collect())
}

/// A run in a folder.
struct Recorded {
    folder: PathBuf,
    summary: Summary,
}

impl Recorded {
    /// Whether their requests can be told one by one, and it is worth it. A
    /// summary by itself is a run as well.
    fn is_paired_with(&self, other: &Self) -> bool {
        let runs = [self, other];
        runs.iter()
            .any(|run| run.summary.source == Source::Measured)
            && runs.iter().all(|run| run.folder.join(REQUESTS).is_file())
            && self.summary.scenario.workload == other.summary.scenario.workload
    }
}

/// The settings of a variant are those that not all of them have.
fn variants(names: &[&str], runs: Vec<Vec<Summary>>) -> Vec<VariantRuns> {
    let has = |runs: &[Summary], setting: &String| runs[0].scenario.settings.contains(setting);
    let is_common = |setting: &String| runs.iter().all(|runs| has(runs, setting));
    let own = |runs: &[Summary]| -> Vec<String> {
        let settings = runs[0].scenario.settings.iter();
        settings
            .filter(|setting| !is_common(setting))
            .cloned()
            .collect()
    };
    let settings: Vec<_> = runs.iter().map(|runs| own(runs)).collect();
    let with_names = names.iter().zip(settings).zip(runs);
    with_names
        .map(|((name, settings), runs)| VariantRuns {
            name: (*name).to_owned(),
            settings,
            runs,
        })
        .collect()
}

/// A folder is what it was run as: no option can change that.
fn check_options(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(scenario) = arguments.scenarios.iter().find(|path| !path.is_dir()) {
        return Err(Failure::Input(format!(
            "`{}` is no folder of runs, and others are; compare scenarios, or folders",
            scenario.display()
        )));
    }
    let options = [
        ("--policies", !arguments.policies.is_empty()),
        ("--vary", !arguments.vary.is_empty()),
        ("--with", !arguments.with.is_empty()),
        ("--seeds", arguments.seeds.is_some()),
        ("--exact-step-times", arguments.exact_step_times),
        ("--out", arguments.out.is_some()),
    ];
    let given = options.into_iter().filter(|(_, is_given)| *is_given);
    let mut names: Vec<&str> = given.map(|(name, _)| name).collect();
    names.extend(arguments.changes.given());
    if names.is_empty() {
        return Ok(());
    }
    Err(Failure::Input(format!(
        "{} cannot change runs that are there already; name scenarios in place of folders",
        names.join(", ")
    )))
}

/// The folder as it was written, without a slash at its end.
fn name(folder: &Path) -> String {
    folder
        .components()
        .collect::<PathBuf>()
        .display()
        .to_string()
}

/// The run of a folder, or those of the folders in it, in the order of their
/// seeds; at least one.
fn runs(folder: &Path) -> Result<Vec<Recorded>, Failure> {
    let own = folder.join(SUMMARY);
    if own.is_file() {
        return Ok(vec![read(folder)?]);
    }
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error.to_string()))?;
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(folder, &error.to_string()))?;
        let is_seed = entry.file_name().to_string_lossy().starts_with("seed-");
        let summary = entry.path().join(SUMMARY);
        if is_seed && summary.is_file() {
            runs.push(read(&entry.path())?);
        }
    }
    if runs.is_empty() {
        return Err(Failure::Input(format!(
            "`{}` holds no run: neither `{SUMMARY}` nor a folder `seed-N` that has one; \
             name a folder that `--out` was given, or one in it",
            folder.display()
        )));
    }
    runs.sort_by_key(|run| run.summary.seed);
    Ok(runs)
}

fn read(folder: &Path) -> Result<Recorded, Failure> {
    let path = folder.join(SUMMARY);
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error.to_string()))?;
    let summary =
        Summary::from_json(&text).map_err(|error| unreadable(&path, &error.to_string()))?;
    Ok(Recorded {
        folder: folder.to_owned(),
        summary,
    })
}

fn unreadable(path: &Path, why: &str) -> Failure {
    Failure::Input(format!("cannot read {}: {why}", path.display()))
}
