//! Which variants there are: every combination of scenario, policy and varied
//! setting, and then those that were written out.

use std::path::{Path, PathBuf};

use super::list::split;
use crate::failure::Failure;

/// The setting that names the policy.
const POLICY: &str = "autoscaler.policy";
/// The policy that knows the future, and the name of the variant that has it.
pub(super) const ORACLE: &str = "oracle";

/// A scenario with some settings changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) scenario: PathBuf,
    /// The policy, in place of the scenario's own.
    pub(super) policy: Option<String>,
    /// `path=value`, applied in this order.
    pub(super) set: Vec<String>,
}

impl Variant {
    /// All that it changes about its scenario, for people.
    pub(super) fn settings(&self) -> Vec<String> {
        let policy = self.policy.iter().map(|name| format!("{POLICY}={name}"));
        policy.chain(self.set.iter().cloned()).collect()
    }
}

/// What the command line says about variants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description<'a> {
    pub(super) scenarios: &'a [PathBuf],
    pub(super) policies: &'a [String],
    /// `path=value,value…`.
    pub(super) vary: &'a [String],
    /// `NAME: path=value, path=value…`.
    pub(super) with: &'a [String],
    /// What is set for all variants, `path=value`.
    pub(super) set: &'a [String],
}

/// One thing that differs, and what it may be.
#[derive(Debug)]
struct Knob {
    path: String,
    values: Vec<String>,
    /// Whether it is `--policies`, which does more than to set the path.
    is_policy: bool,
}

/// All variants: the first knob turns slowest.
pub(super) fn all(description: &Description<'_>) -> Result<Vec<Variant>, Failure> {
    let knobs = knobs(description)?;
    let written_out: Vec<(String, Vec<String>)> = description
        .with
        .iter()
        .map(|text| written_out(text))
        .collect::<Result<_, _>>()?;
    let mut variants = Vec::new();
    for (scenario, stem) in description
        .scenarios
        .iter()
        .zip(stems(description.scenarios))
    {
        let is_alone = description.scenarios.len() == 1;
        let mut add = |label: String, policy: Option<String>, set: Vec<String>| {
            let name = match (label.is_empty(), is_alone) {
                (true, _) => stem.clone(),
                (false, true) => label,
                (false, false) => format!("{stem}: {label}"),
            };
            variants.push(Variant {
                name,
                scenario: scenario.clone(),
                policy,
                set,
            });
        };
        for choice in product(&knobs) {
            let (policy, set) = settings(&knobs, &choice);
            add(label(&knobs, &choice), policy, set);
        }
        for (name, set) in &written_out {
            add(name.clone(), None, set.clone());
        }
    }
    Ok(variants)
}

/// The scenario of a variant as it is, under the policy that knows the future.
pub(super) fn oracle_of(variant: &Variant) -> Variant {
    Variant {
        name: ORACLE.to_owned(),
        scenario: variant.scenario.clone(),
        policy: Some(ORACLE.to_owned()),
        set: Vec::new(),
    }
}

fn knobs(description: &Description<'_>) -> Result<Vec<Knob>, Failure> {
    let mut knobs = Vec::new();
    if !description.policies.is_empty() {
        knobs.push(Knob {
            path: POLICY.to_owned(),
            values: description.policies.to_vec(),
            is_policy: true,
        });
    }
    for text in description.vary {
        knobs.push(varied(text)?);
    }
    for (index, Knob { path, .. }) in knobs.iter().enumerate() {
        if knobs[..index].iter().any(|other| other.path == *path) {
            return Err(Failure::Input(format!(
                "`{path}` is varied twice; give all its values at once"
            )));
        }
        if description.set.iter().any(|set| path_of(set) == path) {
            return Err(Failure::Input(format!(
                "`{path}` is varied, and --set gives it one value; leave out one of them"
            )));
        }
    }
    Ok(knobs)
}

fn path_of(setting: &str) -> &str {
    let path = setting.split_once('=').map_or(setting, |(path, _)| path);
    path.trim()
}

/// `path=value,value…`.
fn varied(text: &str) -> Result<Knob, Failure> {
    let (path, values) = text.split_once('=').unwrap_or((text, ""));
    let (path, values) = (path.trim(), split(values));
    if path.is_empty() || values.is_empty() || values.iter().any(String::is_empty) {
        return Err(Failure::Input(format!(
            "`--vary {text}`: needs a path and values, such as \
             `--vary deployment.scale_up_window=15s,30s,60s`"
        )));
    }
    Ok(Knob {
        path: path.to_owned(),
        values,
        is_policy: false,
    })
}

/// `NAME: path=value, path=value…`.
fn written_out(text: &str) -> Result<(String, Vec<String>), Failure> {
    let refused = || {
        Failure::Input(format!(
            "`--with '{text}'`: needs a name and settings, such as \
             `--with 'eager: deployment.scale_up_window=10s, deployment.min_replica_count=1'`"
        ))
    };
    let (name, settings) = text.split_once(':').ok_or_else(refused)?;
    let (name, settings) = (name.trim(), split(settings));
    let is_sound = |setting: &String| setting.contains('=');
    // A name with `=` in it is a setting whose value has a colon.
    if name.is_empty()
        || name.contains('=')
        || settings.is_empty()
        || !settings.iter().all(is_sound)
    {
        return Err(refused());
    }
    Ok((name.to_owned(), settings))
}

/// Every choice of one value a knob, by their places; one empty choice without knobs.
fn product(knobs: &[Knob]) -> Vec<Vec<usize>> {
    knobs.iter().fold(vec![Vec::new()], |choices, knob| {
        let with = |choice: &Vec<usize>, value| [choice.as_slice(), &[value]].concat();
        choices
            .iter()
            .flat_map(|choice| (0..knob.values.len()).map(move |value| with(choice, value)))
            .collect()
    })
}

/// The policy of a choice, if it is a knob of its own, and what is set.
fn settings(knobs: &[Knob], choice: &[usize]) -> (Option<String>, Vec<String>) {
    let (mut policy, mut set) = (None, Vec::new());
    for (knob, &value) in knobs.iter().zip(choice) {
        let value = &knob.values[value];
        if knob.is_policy {
            policy = Some(value.clone());
        } else {
            set.push(format!("{}={value}", knob.path));
        }
    }
    (policy, set)
}

/// `ray-serve, scale_up_window=15s`.
fn label(knobs: &[Knob], choice: &[usize]) -> String {
    let label = |(knob, &value): (&Knob, &usize)| match knob.path.as_str() {
        POLICY => knob.values[value].clone(),
        path => format!("{}={}", short(path, knobs), knob.values[value]),
    };
    let labels: Vec<String> = knobs.iter().zip(choice).map(label).collect();
    labels.join(", ")
}

/// The last part of a path, if no other knob has the same.
fn short<'a>(path: &'a str, knobs: &[Knob]) -> &'a str {
    let last = |path: &'a str| path.rsplit('.').next().unwrap_or(path);
    let is_same = |other: &&Knob| other.path.rsplit('.').next() == Some(last(path));
    match knobs.iter().filter(is_same).count() {
        1 => last(path),
        _ => path,
    }
}

/// What scenarios are called: their stems, or their paths where stems are equal.
fn stems(scenarios: &[PathBuf]) -> Vec<String> {
    let stem = |path: &Path| {
        path.file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
    };
    let name = |path: &PathBuf| {
        let is_same = |other: &&PathBuf| stem(other) == stem(path);
        match scenarios.iter().filter(is_same).count() {
            1 => stem(path).unwrap_or_else(|| path.display().to_string()),
            _ => path.display().to_string(),
        }
    };
    scenarios.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    /// Names and settings of all variants.
    fn described(
        scenarios: &[&str],
        policies: &[&str],
        vary: &[&str],
        with: &[&str],
    ) -> Result<Vec<(String, Vec<String>)>, String> {
        let scenarios: Vec<_> = scenarios.iter().map(PathBuf::from).collect();
        let description = Description {
            scenarios: &scenarios,
            policies: &texts(policies),
            vary: &texts(vary),
            with: &texts(with),
            set: &texts(&["seed=1", "workload.duration = 1h"]),
        };
        let variants = all(&description).map_err(|failure| failure.to_string())?;
        let described = variants.into_iter().map(|each| {
            let settings = each.settings();
            (each.name, settings)
        });
        Ok(described.collect())
    }

    fn names(scenarios: &[&str], policies: &[&str], vary: &[&str], with: &[&str]) -> Vec<String> {
        let variants = described(scenarios, policies, vary, with).unwrap();
        variants.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn every_combination_and_then_what_is_written_out() {
        let variants = described(
            &["a/chat.toml"],
            &["fireworks", "fixed"],
            &["deployment.scale_up_window=15s,60s"],
            &["eager: deployment.scale_up_window=1s, seed = 3"],
        );
        let expected = [
            (
                "fireworks, scale_up_window=15s",
                [
                    "autoscaler.policy=fireworks",
                    "deployment.scale_up_window=15s",
                ],
            ),
            (
                "fireworks, scale_up_window=60s",
                [
                    "autoscaler.policy=fireworks",
                    "deployment.scale_up_window=60s",
                ],
            ),
            (
                "fixed, scale_up_window=15s",
                ["autoscaler.policy=fixed", "deployment.scale_up_window=15s"],
            ),
            (
                "fixed, scale_up_window=60s",
                ["autoscaler.policy=fixed", "deployment.scale_up_window=60s"],
            ),
            ("eager", ["deployment.scale_up_window=1s", "seed = 3"]),
        ];
        let expected = expected.map(|(name, settings)| (name.to_owned(), texts(&settings)));
        assert_eq!(variants, Ok(expected.to_vec()));
    }

    #[test]
    fn scenarios_are_told_apart_by_as_little_as_possible() {
        assert_eq!(names(&["chat"], &[], &[], &["b: x=1"]), ["chat", "b"]);
        assert_eq!(
            names(&["x/chat.toml", "burst"], &["fixed"], &[], &["b: x=1"]),
            ["chat: fixed", "chat: b", "burst: fixed", "burst: b"]
        );
        assert_eq!(
            names(&["x/chat.toml", "y/chat.toml", "z.toml"], &[], &[], &[]),
            ["x/chat.toml", "y/chat.toml", "z"]
        );
    }

    #[test]
    fn keys_of_one_name_are_told_apart() {
        assert_eq!(
            names(&["chat"], &[], &["a.max=1,2", "b.max=3"], &[]),
            ["a.max=1, b.max=3", "a.max=2, b.max=3"]
        );
    }

    #[test]
    fn values_may_have_commas_of_their_own() {
        let vary = "workload.output_tokens={ log_normal = { mean = 1, cv = 1 } },128";
        let variants = described(&["chat"], &[], &[vary], &[]).unwrap();
        assert_eq!(variants.len(), 2);
        assert_eq!(
            variants[0].1,
            ["workload.output_tokens={ log_normal = { mean = 1, cv = 1 } }"]
        );
    }

    #[test]
    fn what_says_no_variant_is_refused_with_an_example() {
        for vary in ["x", "x=", "x=1,", "=1", " =1,2"] {
            let error = described(&["chat"], &[], &[vary], &[]).unwrap_err();
            assert!(error.contains("such as `--vary "), "{vary}: {error}");
        }
        for with in ["x", "x=1", "a:", ": x=1", "a: x", "x=a:b", "a: x=1,"] {
            let error = described(&["chat"], &[], &[], &[with]).unwrap_err();
            assert!(error.contains("such as `--with "), "{with}: {error}");
        }
    }

    #[test]
    fn a_setting_has_one_source() {
        let error = |policies: &[&str], vary: &[&str]| {
            described(&["chat"], policies, vary, &[]).unwrap_err()
        };
        assert!(error(&[], &["x=1", "x=2"]).contains("`x` is varied twice"));
        let both = error(&["fixed"], &["autoscaler.policy=fireworks"]);
        assert!(
            both.contains("`autoscaler.policy` is varied twice"),
            "{both}"
        );
        let set = error(&[], &["workload.duration=2h"]);
        assert!(set.contains("--set gives it one value"), "{set}");
    }
}
