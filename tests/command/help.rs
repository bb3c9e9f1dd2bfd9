//! What the command says of itself.

use crate::sandbox::Sandbox;

fn printed(arguments: &[&str]) -> String {
    let ended = Sandbox::new().run(arguments).with_code(0);
    assert_eq!(ended.stderr, "");
    ended.stdout
}

#[test]
fn help_of_the_command() {
    insta::assert_snapshot!("help", printed(&["--help"]));
}

#[test]
fn help_of_simulate() {
    insta::assert_snapshot!("help_simulate", printed(&["simulate", "--help"]));
}

#[test]
fn help_of_compare() {
    insta::assert_snapshot!("help_compare", printed(&["compare", "--help"]));
}

#[test]
fn help_of_gate() {
    insta::assert_snapshot!("help_gate", printed(&["gate", "--help"]));
}

#[test]
fn help_of_validate() {
    insta::assert_snapshot!("help_validate", printed(&["validate", "--help"]));
}

#[test]
fn help_of_autoscale() {
    let mut settings = insta::Settings::clone_current();
    // Policies come and go without the help being another.
    settings.add_filter("values: fireworks[^]]*", "values: (policies)");
    settings.bind(|| {
        insta::assert_snapshot!("help_autoscale", printed(&["autoscale", "--help"]));
    });
}

#[test]
fn help_of_serve() {
    insta::assert_snapshot!("help_serve", printed(&["serve", "--help"]));
}

#[test]
fn help_of_load() {
    insta::assert_snapshot!("help_load", printed(&["load", "--help"]));
}

#[test]
fn help_of_bench() {
    insta::assert_snapshot!("help_bench", printed(&["bench", "--help"]));
}

#[test]
fn help_of_trace_convert() {
    insta::assert_snapshot!(
        "help_trace_convert",
        printed(&["trace", "convert", "--help"])
    );
}

#[test]
fn the_version() {
    let version = printed(&["--version"]);
    assert!(
        version.starts_with(concat!("foresail ", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
}

#[test]
fn nothing_to_do_is_bad_usage() {
    let ended = Sandbox::new().run(&[]).with_code(2);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("Usage: foresail"), "{}", ended.stderr);
}

#[test]
fn completions_know_the_options() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("step-by-step"), "{shell}");
    }
}

#[test]
fn manual_pages_of_commands_and_their_commands() {
    let page = printed(&["man"]);
    assert!(
        page.contains(".TH foresail 1") && page.contains("interrupted"),
        "{page}"
    );
    let page = printed(&["man", "trace", "convert"]);
    assert!(page.contains(".TH foresail-trace-convert 1"), "{page}");
    assert!(page.contains("rate\\-scale"), "{page}");
    let ended = Sandbox::new().run(&["man", "traces"]).with_code(2);
    assert!(
        ended.stderr.contains("there is no command `traces`"),
        "{}",
        ended.stderr
    );
}
