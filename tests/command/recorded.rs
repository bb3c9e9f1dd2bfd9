//! Real recorded traces, where they lie beside the repository.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::Sandbox;

/// A file of the shared data, or `None` after saying loudly that it is not there.
fn shared(file: &str) -> Option<String> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = env::var_os("FORESAIL_SHARED").map_or_else(beside, PathBuf::from);
    let path = folder.join("data/traces").join(file);
    if path.is_file() {
        return Some(path.to_str().expect("the path is text").to_owned());
    }
    // Past the capture of the test harness: a test that does not run must say so.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: {} is absent; set FORESAIL_SHARED to the folder of recorded data",
        path.display()
    );
    None
}

/// Replays a trace on a deployment that is large enough for it.
fn replayed(trace: &str) -> Value {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&[
        "simulate",
        "small.toml",
        "--trace",
        trace,
        "--set",
        "deployment.max_replica_count=16",
        "--set",
        "deployment.gpu=h200",
        "--format",
        "json",
    ]);
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn the_azure_conversation_trace_of_2023() {
    let Some(trace) = shared("azure2023/AzureLLMInferenceTrace_conv.csv") else {
        return;
    };
    let summary = replayed(&trace);
    assert_eq!(summary["requests"]["offered"], 19_366);
    assert_eq!(summary["requests"]["failed"], 0);
}

#[test]
fn the_mooncake_conversation_trace() {
    let Some(trace) = shared("mooncake/conversation_trace.jsonl") else {
        return;
    };
    let summary = replayed(&trace);
    assert_eq!(summary["requests"]["offered"], 12_031);
    // Prefixes are shared, so some of the prompts were in the cache.
    assert!(
        summary["tokens"]["cached"].as_u64() > Some(0) || summary["requests"]["completed"] == 0
    );
}
