//! Variants that are run for the comparison.

use std::io::Write as _;
use std::path::Path;

use foresail_reports::compare::{self, Comparison, VariantRuns};
use foresail_scenarios::format;

use super::variants::{self, Description, ORACLE, Variant};
use super::{Arguments, SEEDS, json, refused};
use crate::diagnostics::Diagnostics;
use crate::failure::Failure;
use crate::output_file::{OutputFile, Place};
use crate::runs::{self, Changes, Run, Subject};
use crate::terminal::Terminal;

/// The name of the comparison in the folder of `--out`.
const COMPARISON: &str = "comparison.json";

/// Runs every variant under every seed and compares them.
pub(super) fn compare(arguments: &Arguments, terminal: &Terminal) -> Result<Comparison, Failure> {
    let mut variants = variants::all(&Description {
        scenarios: &arguments.scenarios,
        policies: &arguments.policies,
        vary: &arguments.vary,
        with: &arguments.with,
        set: arguments.changes.set(),
    })?;
    let baseline = baseline(&variants, arguments.baseline.as_deref())?.clone();
    let mut subjects = subjects(&variants, &arguments.changes, terminal)?;
    let oracle = oracle(&variants, &baseline, is_oracle_wanted(arguments))?;
    let oracle = oracle.filter(|oracle| {
        let is_there = variants.contains(oracle);
        is_there || add_oracle(oracle, &mut variants, &mut subjects, arguments, terminal)
    });
    if variants.len() < 2 {
        return Err(nothing_to_compare(&baseline.name));
    }
    check_seeds(&subjects)?;
    if arguments.out.is_some() {
        check_folders(&subjects)?;
    }
    let runs = run(subjects, arguments, terminal)?;
    tell(&runs, variants.len(), terminal);
    let oracle = oracle.as_ref().map(|oracle| oracle.name.as_str());
    let include_calibration_error = runs.iter().any(|run| run.is_drawn);
    let runs = by_variant(variants, runs);
    let compared = match include_calibration_error {
        true => Comparison::of_draws(&runs, &baseline.name, oracle),
        false => Comparison::of(&runs, &baseline.name, oracle),
    };
    let comparison = compared.map_err(refused)?;
    if let Some(out) = &arguments.out {
        write(&comparison, out)?;
    }
    Ok(comparison)
}

/// Whether an oracle is known, and not unwanted.
fn is_oracle_wanted(arguments: &Arguments) -> bool {
    !arguments.no_oracle && format::policy_names().any(|name| name == ORACLE)
}

/// The variant that the others are compared with.
fn baseline<'a>(variants: &'a [Variant], wanted: Option<&str>) -> Result<&'a Variant, Failure> {
    // Without a choice there is nothing that could differ.
    if let [only] = variants
        && only.settings().is_empty()
    {
        return Err(nothing_to_compare(&only.name));
    }
    let names: Vec<&str> = variants.iter().map(|each| each.name.as_str()).collect();
    let name = wanted.or(names.first().copied()).unwrap_or_default();
    compare::check_names(&names, name).map_err(refused)?;
    let found = variants.iter().find(|variant| variant.name == name);
    found.ok_or_else(|| Failure::Defect(format!("`{name}` is a variant, and is not")))
}

fn nothing_to_compare(name: &str) -> Failure {
    Failure::Input(format!(
        "there is nothing to compare `{name}` with; name another scenario, or say what differs: \
         `--policies`, `--vary deployment.scale_up_window=15s,30s` or `--with 'NAME: PATH=VALUE'`"
    ))
}

/// The variant that knows the future, if it is wanted; it may be one that was
/// asked for as any other policy.
fn oracle(
    variants: &[Variant],
    baseline: &Variant,
    is_wanted: bool,
) -> Result<Option<Variant>, Failure> {
    let oracle = variants::oracle_of(baseline);
    let of_that_name = variants.iter().find(|variant| variant.name == ORACLE);
    match of_that_name {
        _ if !is_wanted => Ok(None),
        Some(other) if *other != oracle => Err(Failure::Input(format!(
            "a variant is called `{ORACLE}`, as is the one that knows the future; \
             give it another name, or add --no-oracle"
        ))),
        _ => Ok(Some(oracle)),
    }
}

/// Puts the oracle after the variants. Nobody asked for it, so where its
/// scenario is not sound, the comparison does without; says whether it is there.
fn add_oracle(
    oracle: &Variant,
    variants: &mut Vec<Variant>,
    subjects: &mut Vec<Subject>,
    arguments: &Arguments,
    terminal: &Terminal,
) -> bool {
    match subject(oracle, &of_any_policy(&arguments.changes)) {
        Ok(subject) => {
            subjects.push(subject);
            variants.push(oracle.clone());
            true
        }
        Err(unsound) => {
            terminal.note(&format!("no oracle: {}", unsound.in_short()));
            false
        }
    }
}

/// All variants as sound scenarios, or everything that is wrong with any of them.
fn subjects(
    variants: &[Variant],
    changes: &Changes,
    terminal: &Terminal,
) -> Result<Vec<Subject>, Failure> {
    let mut diagnostics = Diagnostics::new(terminal.error_style());
    let mut subjects = Vec::new();
    for variant in variants {
        diagnostics.begin(&variant.name);
        match subject(variant, changes) {
            Ok(subject) => subjects.push(subject),
            Err(unsound) => unsound.add_to(&mut diagnostics, &variant.scenario),
        }
    }
    diagnostics.into_result()?;
    Ok(subjects)
}

/// What is said of other policies with `--set` is not about the oracle, which
/// nobody asked for.
fn of_any_policy(changes: &Changes) -> Changes {
    let mut changes = changes.clone();
    let unknown = format::keys_of_others(ORACLE);
    changes.retain_set(|path| {
        let key = path.strip_prefix("autoscaler.");
        key.is_none_or(|key| !unknown.contains(&key))
    });
    changes
}

fn subject(variant: &Variant, changes: &Changes) -> Result<Subject, runs::Unsound> {
    let mut overrides = changes.overrides();
    overrides.set.extend(variant.set.iter().cloned());
    overrides.policy = variant.policy.clone();
    let mut settings = changes.settings();
    settings.extend(variant.settings());
    Ok(Subject {
        name: variant.name.clone(),
        folder: Some(folder(&variant.name)),
        settings,
        prepared: runs::prepare_one(&variant.scenario, &overrides)?,
    })
}

/// A name as a folder that every file system takes: what may mean something to
/// one of them, or to a shell, is a hyphen.
fn folder(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "._=+-".contains(c);
    let words = name.split(|c| !is_plain(c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Differences are taken seed by seed, so all variants must have the same seeds.
fn check_seeds(subjects: &[Subject]) -> Result<(), Failure> {
    let seed = |subject: &Subject| subject.prepared.group.seed;
    let Some(first) = subjects.first() else {
        return Ok(());
    };
    match subjects.iter().find(|other| seed(other) != seed(first)) {
        None => Ok(()),
        Some(other) => Err(Failure::Input(format!(
            "`{}` begins with seed {} and `{}` with seed {}, but differences are taken seed by seed; \
             give --seed for all of them",
            first.name,
            seed(first),
            other.name,
            seed(other)
        ))),
    }
}

fn check_folders(subjects: &[Subject]) -> Result<(), Failure> {
    let folders = subjects
        .iter()
        .filter_map(|subject| subject.folder.as_deref());
    runs::check_names("variant", folders)
}

fn run(
    subjects: Vec<Subject>,
    arguments: &Arguments,
    terminal: &Terminal,
) -> Result<Vec<Run>, Failure> {
    let options = runs::Options {
        seeds: arguments.seeds.unwrap_or(SEEDS),
        out: arguments.out.as_deref(),
        threads: &arguments.threads,
        leaps: true,
        draws: !arguments.exact_step_times,
        best: false,
    };
    runs::all(subjects, &options, terminal)
}

/// Says what is good to know about the requests: once, since variants mostly
/// get the same ones, and of the first seed, since others are much the same.
fn tell(runs: &[Run], variants: usize, terminal: &Terminal) {
    let first_seeds = || runs.chunks(runs.len() / variants).map(|runs| &runs[0]);
    let mut told: Vec<&String> = Vec::new();
    for note in first_seeds().flat_map(|run| &run.notes) {
        if told.contains(&note) {
            continue;
        }
        told.push(note);
        let of: Vec<&str> = first_seeds()
            .filter(|run| run.notes.contains(note))
            .map(|run| run.name.as_str())
            .collect();
        match of.len() == variants {
            true => terminal.note(&format!("all variants: {note}")),
            false => terminal.note(&format!("{}: {note}", of.join("; "))),
        }
    }
}

/// The runs come variant by variant, as many of each.
fn by_variant(variants: Vec<Variant>, runs: Vec<Run>) -> Vec<VariantRuns> {
    let seeds = runs.len() / variants.len();
    let mut summaries = runs::summaries(runs).into_iter();
    let with_runs = variants.into_iter().map(|variant| VariantRuns {
        settings: variant.settings(),
        name: variant.name,
        runs: summaries.by_ref().take(seeds).collect(),
    });
    with_runs.collect()
}

fn write(comparison: &Comparison, out: &Path) -> Result<(), Failure> {
    let place = Place::Path(out.join(COMPARISON));
    let mut file = OutputFile::create(&place)?;
    file.write_all(json(comparison)?.as_bytes())
        .map_err(|error| place.failure(error))?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(name: &str, policy: Option<&str>, set: &[&str]) -> Variant {
        Variant {
            name: name.to_owned(),
            scenario: "chat.toml".into(),
            policy: policy.map(str::to_owned),
            set: set.iter().map(|&setting| setting.to_owned()).collect(),
        }
    }

    #[test]
    fn the_oracle_is_the_scenario_of_the_baseline_without_its_settings() {
        let baseline = variant("eager", None, &["deployment.scale_up_window=1s"]);
        let added = oracle(std::slice::from_ref(&baseline), &baseline, true).unwrap();
        assert_eq!(added, Some(variant("oracle", Some("oracle"), &[])));
        let none = oracle(std::slice::from_ref(&baseline), &baseline, false).unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn an_oracle_that_was_asked_for_is_the_oracle() {
        let asked = variant("oracle", Some("oracle"), &[]);
        let variants = [variant("fixed", Some("fixed"), &[]), asked.clone()];
        assert_eq!(oracle(&variants, &variants[0], true).unwrap(), Some(asked));
    }

    #[test]
    fn no_other_variant_may_be_called_oracle() {
        let variants = [variant("oracle", None, &["deployment.scale_up_window=1s"])];
        let error = oracle(&variants, &variants[0], true).unwrap_err();
        assert!(error.to_string().contains("--no-oracle"), "{error}");
        assert_eq!(oracle(&variants, &variants[0], false).unwrap(), None);
    }

    #[test]
    fn folders_have_plain_names() {
        assert_eq!(
            folder("ray-serve, scale_up_window=15s"),
            "ray-serve-scale_up_window=15s"
        );
        assert_eq!(folder("profile=a/b\\c \"d\""), "profile=a-b-c-d");
        assert_eq!(folder("../.."), "..-..");
        assert_eq!(folder("/"), "");
    }
}
