//! What a person sees when a scenario is wrong, and what a scenario means when it is right.

mod adapters;
mod deployment_errors;
mod files;
mod groups;
mod knative_and_aibrix;
mod meaning;
mod mishap_errors;
mod other_autoscalers;
mod profiles;
mod provider_errors;
mod ray_serve;
mod text_errors;
mod workload_errors;

use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::{LoadError, Overrides, parse};
use crate::scenario::Scenario;

/// A valid scenario in which each test breaks one thing.
const BASE: &str = r#"[deployment]
model = "llama-3-8b"
gpu = "h100"

[workload]
duration = "10m"
arrivals = { rate_per_s = 2.0 }
prompt_tokens = 512
output_tokens = 128
"#;

fn render(error: &LoadError) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .without_syntax_highlighting();
    let mut text = String::new();
    for diagnostic in error.diagnostics() {
        handler.render_report(&mut text, diagnostic).unwrap();
    }
    // Lines have no trailing blanks in the expected texts.
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}

fn ok(text: &str) -> Scenario {
    set(text, &[])
}

fn set(text: &str, arguments: &[&str]) -> Scenario {
    try_set(text, arguments).unwrap_or_else(|error| panic!("{}", render(&error)))
}

fn try_set(text: &str, arguments: &[&str]) -> Result<Scenario, LoadError> {
    let set = arguments
        .iter()
        .map(|&argument| argument.to_owned())
        .collect();
    parse(
        "s.toml",
        text,
        Path::new(""),
        &Overrides {
            set,
            ..Overrides::default()
        },
    )
}

/// The diagnostics of the base scenario with a line put in after another.
fn broken(after: &str, line: &str) -> String {
    assert!(BASE.contains(after), "{after}");
    let text = BASE.replacen(after, &format!("{after}\n{line}"), 1);
    render(&try_set(&text, &[]).expect_err(line))
}

/// The diagnostics of the base scenario with `--set` arguments.
fn broken_by(arguments: &[&str]) -> String {
    render(&try_set(BASE, arguments).expect_err("the arguments should be wrong"))
}
