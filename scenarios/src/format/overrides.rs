//! Settings from the command line: `--set path=value`, `--seed`, `--trace`.
//!
//! They change the tree before it is decoded, so they obey the same rules as
//! the file, and a problem with one points at the argument itself.

use std::path::{Path, PathBuf};

use super::autoscaler;
use super::node::{Entry, Node, Table, Value, parse_value};
use super::problem::{Context, Place, Problem};

/// What the command line changes about a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `path=value` arguments, such as `deployment.scale_up_window=15s`. A
    /// value that is not TOML is taken as text, so quotes are not needed.
    /// Relative files are relative to the working directory.
    pub set: Vec<String>,
    /// Replaces the seed.
    pub seed: Option<u64>,
    /// Replaces the workload's source by this trace, and keeps its transforms.
    pub trace: Option<PathBuf>,
    /// Replaces the policy of `[autoscaler]`, and leaves out what the file sets
    /// there for other policies: this one would not know it.
    pub policy: Option<String>,
}

/// The keys of `[workload]` that `--trace` keeps.
const TRANSFORM_KEYS: [&str; 4] = ["slice", "rate_scale", "time_stretch", "repeat"];

impl Overrides {
    /// Changes the tree; what cannot be applied is reported.
    ///
    /// Trace and policy come first, so that `--set workload.format=…` can speak about them.
    pub(super) fn apply(&self, context: &mut Context, root: &mut Table) {
        match name_of_first(root) {
            Some(first) => self.refuse_for_several(context, &first),
            None => self.replace(context, root),
        }
        if let Some(seed) = self.seed {
            let text = seed.to_string();
            let source = context.add_source("--seed", &text, Path::new(""));
            let place = Place {
                source,
                start: 0,
                end: text.len(),
            };
            put(
                root,
                "seed",
                place,
                Node {
                    value: Value::Integer(text),
                    place,
                },
            );
        }
        for argument in &self.set {
            let source = context.add_source("--set", argument, Path::new(""));
            if let Some(seed) = self.seed.filter(|_| sets_seed(argument)) {
                context.report(two_seeds(source, argument, seed));
                continue;
            }
            if let Err(problem) = set(source, argument, root) {
                context.report(problem);
            }
        }
    }
}

impl Overrides {
    fn replace(&self, context: &mut Context, root: &mut Table) {
        if let Some(trace) = &self.trace {
            replace_source(context, root, trace);
        }
        if let Some(policy) = &self.policy {
            replace_policy(context, root, policy);
        }
    }

    /// What is replaced is that of one deployment, and a list has several.
    fn refuse_for_several(&self, context: &mut Context, first: &str) {
        if let Some(trace) = &self.trace {
            let text = trace.to_string_lossy();
            let remedy = format!(
                "say whose: `--set 'deployments.{first}.workload={{ trace = \"{text}\" }}'`"
            );
            refuse(context, "--trace", &text, remedy);
        }
        if let Some(policy) = &self.policy {
            let remedy = "compare scenarios of one deployment".to_owned();
            refuse(context, "--policies", policy, remedy);
        }
    }
}

/// The name of the first deployment of a list; `None` if the file has no list.
fn name_of_first(root: &Table) -> Option<String> {
    let Value::Array(items) = &root.entry("deployments")?.node.value else {
        return None;
    };
    let name = match items.first().map(|item| &item.value) {
        Some(Value::Table(table)) => table.entry("name").map(|entry| &entry.node.value),
        _ => None,
    };
    Some(match name {
        Some(Value::Text(name)) => name.clone(),
        _ => "NAME".to_owned(),
    })
}

fn refuse(context: &mut Context, option: &str, text: &str, remedy: String) {
    let source = context.add_source(option, text, Path::new(""));
    let place = Place {
        source,
        start: 0,
        end: text.len(),
    };
    let message = format!("`{option}` is for one deployment, and this is a list of them");
    let problem = Problem::new("scenario::deployments", message)
        .at(place, "for which of them?")
        .help(remedy);
    context.report(problem);
}

fn sets_seed(argument: &str) -> bool {
    let path = argument.split_once('=').map(|(path, _)| path.trim());
    path == Some("seed")
}

fn two_seeds(source: usize, argument: &str, seed: u64) -> Problem {
    let place = Place {
        source,
        start: 0,
        end: argument.len(),
    };
    Problem::new("scenario::set", "the seed is given twice")
        .at(place, format!("and `--seed {seed}` says it too"))
        .help("leave out one of them")
}

fn put(table: &mut Table, key: &str, key_place: Place, node: Node) {
    table.put(Entry {
        key: key.to_owned(),
        key_place,
        node,
    });
}

fn replace_source(context: &mut Context, root: &mut Table, trace: &Path) {
    let text = trace.to_string_lossy().into_owned();
    let source = context.add_source("--trace", &text, Path::new(""));
    let place = Place {
        source,
        start: 0,
        end: text.len(),
    };
    let mut workload = match root.entry("workload").map(|entry| &entry.node.value) {
        Some(Value::Table(workload)) => workload.clone(),
        _ => Table::default(),
    };
    workload
        .entries
        .retain(|entry| TRANSFORM_KEYS.contains(&entry.key.as_str()));
    put(
        &mut workload,
        "trace",
        place,
        Node {
            value: Value::Text(text),
            place,
        },
    );
    put(
        root,
        "workload",
        place,
        Node {
            value: Value::Table(workload),
            place,
        },
    );
}

fn replace_policy(context: &mut Context, root: &mut Table, policy: &str) {
    let source = context.add_source("--policies", policy, Path::new(""));
    let place = Place {
        source,
        start: 0,
        end: policy.len(),
    };
    let Value::Table(autoscaler) = &mut root.entry_or_table("autoscaler", place).node.value else {
        // What is no table has no policy to replace; decoding says what it should be.
        return;
    };
    let unknown = autoscaler::keys_of_others(policy);
    autoscaler
        .entries
        .retain(|entry| !unknown.contains(&entry.key.as_str()));
    let value = Value::Text(policy.to_owned());
    put(autoscaler, "policy", place, Node { value, place });
}

/// Applies one `path=value`.
fn set(source: usize, argument: &str, root: &mut Table) -> Result<(), Problem> {
    let whole = Place {
        source,
        start: 0,
        end: argument.len(),
    };
    let Some((path, value)) = argument.split_once('=') else {
        return Err(
            Problem::new("scenario::set", "`--set` needs a path and a value")
                .at(whole, "there is no `=` here")
                .help("for example `--set deployment.scale_up_window=15s`"),
        );
    };
    if path.split('.').any(|segment| segment.trim().is_empty()) {
        return Err(
            Problem::new("scenario::set", "`--set` needs a key before the `=`")
                .at(whole.part(0, path.len()), "a part of the path is empty")
                .help("for example `--set deployment.scale_up_window=15s`"),
        );
    }
    let value_start = path.len() + 1 + (value.len() - value.trim_start().len());
    let value = value.trim();
    let value_place = whole.part(value_start, value_start + value.len());
    let node = parse_value(source, value_start, value).unwrap_or_else(|| Node {
        value: Value::Text(value.to_owned()),
        place: value_place,
    });
    insert(root, path, whole.part(0, path.len()), node)
}

/// Puts the node at a dotted path, making tables on the way.
fn insert(table: &mut Table, path: &str, path_place: Place, node: Node) -> Result<(), Problem> {
    let (segment, rest) = match path.split_once('.') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    };
    let key = segment.trim();
    let key_start = segment.len() - segment.trim_start().len();
    let key_place = path_place.part(key_start, key_start + key.len());
    let Some(rest) = rest else {
        put(table, key, key_place, node);
        return Ok(());
    };
    let rest_place = path_place.part(segment.len() + 1, path.len());
    let Node { value, place } = &mut table.entry_or_table(key, key_place).node;
    match value {
        Value::Table(inner) => return insert(inner, rest, rest_place, node),
        Value::Array(items) => {
            if let Some((inner, rest, rest_place)) = item(items, rest, rest_place) {
                return insert(inner, rest, rest_place, node);
            }
        }
        _ => {}
    }
    Err(
        Problem::new("scenario::set", format!("`{key}` has no keys in it"))
            .at(key_place, format!("there is no `{key}.{rest}`"))
            .at(*place, format!("`{key}` is {}", value.kind()))
            .help(format!("set `{key}` itself")),
    )
}

/// The table of a list whose `name` the path goes on with, and the path after that.
fn item<'t, 'p>(
    items: &'t mut [Node],
    path: &'p str,
    path_place: Place,
) -> Option<(&'t mut Table, &'p str, Place)> {
    let (name, rest) = path.split_once('.')?;
    let is_called = |node: &&mut Node| match &node.value {
        Value::Table(table) => table.entry("name").is_some_and(
            |entry| matches!(&entry.node.value, Value::Text(text) if text == name.trim()),
        ),
        _ => false,
    };
    let found = items.iter_mut().find(is_called)?;
    let Value::Table(table) = &mut found.value else {
        return None;
    };
    Some((table, rest, path_place.part(name.len() + 1, path.len())))
}
