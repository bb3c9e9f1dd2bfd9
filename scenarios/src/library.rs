//! The scenarios that come with foresail, and the template for a new one.
//!
//! They need no other file, so `foresail simulate chat` works anywhere. The
//! texts are in `scenarios/library/*.toml`; each says what it shows.

/// A ready scenario.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// The text of its file.
    pub text: &'static str,
}

macro_rules! entry {
    ($name:literal) => {
        Entry {
            name: $name,
            text: include_str!(concat!("../library/", $name, ".toml")),
        }
    };
}

/// Every ready scenario, a good first one first.
pub const SCENARIOS: &[Entry] = &[
    entry!("chat"),
    entry!("one-replica"),
    entry!("scale-to-zero"),
    entry!("two-to-three"),
    entry!("world-size-1"),
    entry!("world-size-2"),
    entry!("burst"),
    entry!("diurnal"),
    entry!("long-prompts"),
    entry!("multi-turn"),
    entry!("adapters"),
    entry!("failures"),
    entry!("two-teams"),
    entry!("thrash"),
    entry!("hold-or-503"),
    entry!("stock-out"),
    entry!("spend-limit"),
    entry!("update"),
    entry!("shoot-out"),
    entry!("million"),
];

/// The ready scenario of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    SCENARIOS.iter().find(|entry| entry.name == name)
}

/// A scenario with every key, explained: what `foresail init` writes.
#[must_use]
pub fn template() -> &'static str {
    include_str!("../library/template.toml")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use foresail_core::step_time::{Profile, ProfileTable};

    use super::*;
    use crate::format::{Overrides, load_group, parse};
    use crate::scenario::{Group, Scenario};

    fn group(name: &str) -> Group {
        load_group(Path::new(name), &Overrides::default()).unwrap_or_else(|error| {
            let texts: Vec<_> = error.diagnostics().map(ToString::to_string).collect();
            panic!("{name}: {texts:?}")
        })
    }

    fn ready(name: &str) -> Scenario {
        group(name).deployments.swap_remove(0)
    }

    #[test]
    fn every_scenario_is_valid_and_says_what_it_is_for() {
        for entry in SCENARIOS {
            let group = group(entry.name);
            assert_eq!(group.name, entry.name);
            assert!(group.description.ends_with('.'), "{}", entry.name);
            let has_objectives = |scenario: &Scenario| !scenario.objectives.is_empty();
            assert!(
                group.deployments.iter().all(has_objectives),
                "{}",
                entry.name
            );
            assert!(entry.text.starts_with("# "), "{}", entry.name);
        }
    }

    #[test]
    fn every_workload_can_be_opened_and_fits_the_model() {
        let groups = SCENARIOS.iter().map(|entry| (entry, group(entry.name)));
        let all = groups.flat_map(|(entry, group)| {
            let deployments = group.deployments.into_iter();
            deployments.map(move |scenario| (entry, scenario))
        });
        for (entry, scenario) in all {
            let longest = scenario.deployment.batching.max_model_len;
            let requests = scenario.workload.open(scenario.seed).unwrap();
            for request in requests.take(2_000) {
                let request = request.unwrap();
                let tokens = request.prompt_tokens + request.output_tokens;
                assert!(tokens <= longest, "{}: {tokens}", entry.name);
            }
        }
    }

    #[test]
    fn the_million_is_a_million() {
        let scenario = ready("million");
        assert_eq!(scenario.workload.open(1).unwrap().count(), 1_000_000);
        assert_eq!(scenario.deployment.initial_replica_count, 8);
    }

    #[test]
    fn world_sizes_differ_in_nothing_else() {
        let twins = [
            find("world-size-1").unwrap().text,
            find("world-size-2").unwrap().text,
        ];
        let settings = twins.map(|text| {
            let is_setting = |line: &&str| {
                !["#", "name", "description", "world_size"]
                    .iter()
                    .any(|s| line.starts_with(s))
            };
            text.lines().filter(is_setting).collect::<Vec<_>>()
        });
        assert_eq!(settings[0], settings[1]);
    }

    #[test]
    fn the_template_is_valid() {
        let overrides = Overrides::default();
        assert!(parse("template.toml", template(), Path::new(""), &overrides).is_ok());
    }

    #[test]
    fn the_profile_in_the_template_can_be_used() {
        let lines = template()
            .lines()
            .skip_while(|line| *line != "# {")
            .map(|line| line.trim_start_matches("# "));
        let mut json = String::new();
        for line in lines {
            json += line;
            if line == "}" {
                break;
            }
        }
        let table: ProfileTable = serde_json::from_str(&json).unwrap();
        let max_num_seqs = 256;
        assert!(template().contains("# max_num_seqs = 256"));
        Profile::new(&table, max_num_seqs).unwrap();
    }

    /// The keys of every table, as the decoder itself lists them in "the keys are: …".
    #[test]
    fn the_template_has_every_key() {
        let tables = [
            "",
            "deployment",
            "deployment.shape",
            "deployment.load_targets",
            "autoscaler",
            "router",
            "batching",
            "adapters",
            "step_time",
            "cold_start",
            "failures",
            "failures.start_failure",
            "failures.start_retry",
            "failures.slow_start",
            "failures.crash",
            "clients",
            "clients.retry",
            "price",
            "account",
            "gpu_pool",
            "gpu_pool.random_stock_outs",
            "workload",
            "workload.arrivals",
            "workload.shape",
            "workload.prompt_tokens",
            "workload.sessions",
            "workload.adapters",
        ];
        for table in tables {
            let keys = keys_of(table);
            assert!(!keys.is_empty(), "{table}");
            for key in keys {
                let has_key = |line: &str| {
                    let line = line.trim_start_matches(['#', ' ', '[']);
                    let end = line.find(['=', ']', ' ']).unwrap_or(line.len());
                    let name = line[..end].trim();
                    name == key || name.rsplit('.').next() == Some(key.as_str())
                };
                let is_distribution = table == "workload.prompt_tokens";
                let found = template().lines().any(has_key)
                    || is_distribution && template().contains(&format!("{{ {key} = "));
                assert!(found, "`{table}.{key}`");
            }
        }
    }

    /// The keys of a table: what the error about a key that cannot be one says.
    fn keys_of(table: &str) -> Vec<String> {
        let path = if table.is_empty() {
            "no_such".to_owned()
        } else {
            format!("{table}.no_such")
        };
        let overrides = Overrides {
            set: vec![format!("{path}=1")],
            ..Overrides::default()
        };
        let error = parse("template.toml", template(), Path::new(""), &overrides).unwrap_err();
        let help = error
            .diagnostics()
            .filter(|problem| problem.to_string().contains("`no_such`"))
            .find_map(|problem| problem.help().map(|help| help.to_string()))
            .unwrap_or_default();
        let (_, list) = help.split_once("the keys are: ").unwrap_or_default();
        list.split(", ")
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect()
    }
}
