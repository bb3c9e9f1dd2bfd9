//! `--columns`: what each policy reads from a trace.

use std::fmt::Write as _;

use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_core::control::autoscaler::trace::{Column, ColumnKind};
use foresail_scenarios::format;

use super::{Arguments, chosen};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// The columns of the policy that was named, or of all.
pub(super) fn explained(arguments: &Arguments, terminal: &Terminal) -> Result<String, Failure> {
    if arguments.scenario.is_some() {
        return Ok(of(&chosen::of(arguments, terminal)?.config));
    }
    let named = |policy: &&str| {
        arguments
            .policy
            .as_deref()
            .is_none_or(|name| name == *policy)
    };
    let mut texts = Vec::new();
    for policy in format::policy_names().filter(named) {
        // What the parameters are makes no difference to the columns.
        let chosen = chosen::load(None, Some(policy), &plan_of(policy))
            .map_err(|error| Failure::Defect(error.to_string()))?;
        texts.push(of(&chosen.config));
    }
    Ok(texts.join("\n"))
}

/// What a policy must be told that has no default for it.
pub(super) fn plan_of(policy: &str) -> Vec<String> {
    let plan = match policy {
        "aibrix-apa" => "max_replica_count=1",
        "fixed" => "min_replica_count=1",
        "scripted" => "steps=[{ at = \"1m\", replicas = 1 }]",
        _ => return Vec::new(),
    };
    vec![plan.to_owned()]
}

fn of(config: &AutoscalerConfig) -> String {
    let time = Column::required("time_s", "seconds; may stay, never goes back");
    let columns = || std::iter::once(&time).chain(config.columns());
    let width = columns().map(|column| column.name.len()).max().unwrap_or(0);
    let mut text = format!("{}\n", config.name());
    for column in columns() {
        let (name, about, kind) = (column.name, column.about, of_kind(column));
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:width$}  {about}{kind}");
    }
    text
}

fn of_kind(column: &Column) -> &'static str {
    match (column.kind, column.is_required) {
        (ColumnKind::Number, true) => "",
        (ColumnKind::Number, false) => " (can be left out)",
        (ColumnKind::PerReplica, true) => " (one number a replica, with ; between them)",
        (ColumnKind::PerReplica, false) => {
            " (one number a replica, with ; between them; can be left out)"
        }
    }
}
