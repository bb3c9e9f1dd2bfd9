//! `foresail calibrate engine`: measured steps, and the formula that they follow.

use serde_json::Value;

use crate::sandbox::{Ended, Sandbox};

/// A design that takes no time.
const TINY: [&str; 11] = [
    "calibrate",
    "engine",
    "--dummy=tiny",
    "--backend=cpu",
    "--threads=2",
    "--max-num-seqs=4",
    "--max-batched-tokens=64",
    "--max-model-len=256",
    "--kv-tokens=1024",
    "--budget=20s",
    "--quiet",
];

fn tiny(sandbox: &Sandbox, more: &[&str]) -> Ended {
    sandbox.run(&[&TINY, more].concat())
}

/// Must refuse to measure, with all of `told` and nothing written.
#[track_caller]
fn assert_refused(more: &[&str], told: &[&str]) {
    let sandbox = Sandbox::new();
    let before = sandbox.names();
    let ended = sandbox
        .run(&[&["calibrate", "engine"], more].concat())
        .with_code(2);
    assert_eq!(ended.stdout, "");
    for text in told {
        let stderr = &ended.stderr;
        assert!(stderr.contains(text), "no `{text}` in:\n{stderr}");
    }
    assert_eq!(sandbox.names(), before);
}

/// Measures, or says that the machine is too noisy for steps of microseconds to have a formula: that
/// is a refusal, and nothing is written then.
fn measured(sandbox: &Sandbox, more: &[&str]) -> Option<Ended> {
    let ended = tiny(sandbox, more);
    // What else is refused is no matter of noise.
    let is_noise = ["measure again on a quiet machine", "measure them again"];
    let is_noise = is_noise.iter().any(|said| ended.stderr.contains(said));
    if ended.code == 4 && is_noise {
        eprintln!("SKIPPED: {}", ended.stderr);
        assert!(!sandbox.names().contains(&"profile.json".to_owned()));
        return None;
    }
    assert!(
        [0, 4].contains(&ended.code),
        "{} {}",
        ended.code,
        ended.stderr
    );
    assert!(sandbox.names().contains(&"profile.json".to_owned()));
    Some(ended)
}

/// Whatever the machine, the fit is of nearly all steps, and says how far off it is and within what it is known.
fn assert_fitted(fit: &Value) {
    let cells = fit["cells"].as_array().unwrap().len() as u64;
    let count = |name: &str| fit["residuals"][name].as_u64().unwrap();
    assert_eq!(count("fitted") + count("left_out"), cells);
    assert!(4 * count("left_out") <= cells, "{}", fit["residuals"]);
    let terms = fit["terms"].as_array().unwrap();
    let of = |name: &str, what: &str| -> f64 {
        let term = terms.iter().find(|term| term["name"] == name).unwrap();
        term[what].as_f64().unwrap()
    };
    // A sequence that decodes takes something, whichever term has it.
    let decode = ["launch_s", "weights_s", "token_s", "sequence_s"];
    assert!(decode.iter().map(|name| of(name, "value")).sum::<f64>() > 0.0);
    for term in terms {
        let name = term["name"].as_str().unwrap();
        let (low, value, high) = (of(name, "low"), of(name, "value"), of(name, "high"));
        assert!(low <= value && value <= high, "{term}");
    }
}

#[test]
fn a_profile_has_cells_terms_and_what_is_not_known() {
    let sandbox = Sandbox::new();
    let more = [
        "--out=profile.json",
        "--picture=fit.svg",
        "--random-adapters=2",
    ];
    let Some(ended) = measured(&sandbox, &more) else {
        return;
    };
    for heading in ["STEPS", "TERMS", "QUALITY", "NOT IDENTIFIED"] {
        assert!(ended.stdout.contains(heading), "{}", ended.stdout);
    }
    assert_eq!(sandbox.names(), ["fit.svg", "profile.json", "small.toml"]);
    let json: Value = serde_json::from_str(&sandbox.read("profile.json")).unwrap();
    assert_eq!(json["schema"], "foresail.profile/2");
    assert_eq!(json["provenance"]["model"], "tiny");
    assert_eq!(json["provenance"]["threads"], 2);
    assert_eq!(json["batching"]["max_num_seqs"], 4);
    let fit = &json["world_sizes"][0];
    assert_eq!(fit["how"], "ranks");
    assert_fitted(fit);
    let cells = fit["cells"].as_array().unwrap();
    let with = |is_so: fn(&Value) -> bool| cells.iter().filter(|cell| is_so(cell)).count();
    assert!(with(|cell| cell["adapters"] == 2) >= 2);
    assert!(with(|cell| cell["decodes"] == 4) >= 2);
    assert!(
        with(|cell| cell["chunks"]
            .as_array()
            .is_some_and(|chunks| chunks.len() > 1))
            >= 2
    );
    assert!(
        cells
            .iter()
            .all(|cell| cell["seconds"][0].as_f64() > Some(0.0))
    );
    let svg = sandbox.read("fit.svg");
    assert!(svg.starts_with("<svg") || svg.starts_with("<?xml"), "{svg}");
}

#[test]
fn world_sizes_are_measured_with_ranks_or_with_shards_apart() {
    for (more, how) in [
        (&["--world-size=2"][..], "ranks"),
        (&["--world-size=2", "--shard-alone=threads"], "shard-alone"),
        (&["--world-size=2", "--shard-alone=h100"], "shard-alone"),
    ] {
        let sandbox = Sandbox::new();
        let more = [more, &["--out=profile.json", "--format=json"]].concat();
        let Some(ended) = measured(&sandbox, &more) else {
            continue;
        };
        let json: Value = serde_json::from_str(&ended.stdout).unwrap();
        let fit = &json["world_sizes"][0];
        assert_eq!((&fit["world_size"], &fit["how"]), (&2.into(), &how.into()));
        assert_fitted(fit);
        // Two a layer and one for the embedding, if they are modelled.
        let layers = json["provenance"]["shape"]["num_hidden_layers"].as_f64();
        let exchanges = layers.map(|layers| 2.0 * layers + 1.0);
        let expected = exchanges.filter(|_| how == "shard-alone");
        assert_eq!(fit["all_reduce"]["per_step"].as_f64(), expected);
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_it_is() {
    let with = |more: &[&'static str]| [&["--dummy=tiny", "--out=p.json"], more].concat();
    assert_refused(&["--out=p.json"], &["--model", "--dummy"]);
    assert_refused(&["--dummy=tiny"], &["--out"]);
    assert_refused(
        &["--dummy=tiny", "--out=-"],
        &["--out needs the name of a file"],
    );
    assert_refused(
        &["--dummy=tiny", "--out=no/such/folder/p.json"],
        &["cannot write"],
    );
    assert_refused(
        &with(&["--max-model-len=40"]),
        &["too few points", "--max-model-len"],
    );
    assert_refused(
        &with(&["--max-num-seqs=1"]),
        &["too few points", "--max-num-seqs"],
    );
    assert_refused(
        &with(&["--max-num-seqs=64", "--max-batched-tokens=32"]),
        &["each sequence computes a token"],
    );
    assert_refused(&with(&["--world-size=2,2"]), &["--world-size has 2 twice"]);
    assert_refused(&with(&["--shard-alone=h100"]), &["add --world-size"]);
    assert_refused(
        &with(&["--world-size=2", "--shard-alone=abacus"]),
        &["unknown GPU abacus"],
    );
    assert_refused(
        &with(&["--world-size=2", "--threads=3"]),
        &["3 threads cannot be shared equally by 2 ranks"],
    );
    assert_refused(&with(&["--budget=0s"]), &["above 0"]);
    for limit in [
        "max-num-seqs",
        "max-batched-tokens",
        "kv-tokens",
        "block-size",
    ] {
        let more = [&format!("--{limit}={}", u64::MAX)[..]];
        let all = [&["--dummy=tiny", "--out=p.json"][..], &more].concat();
        assert_refused(&all, &["--", limit, "give"]);
    }
    let half = format!("--max-batched-tokens={}", i64::MAX);
    assert_refused(
        &["--dummy=tiny", "--out=p.json", &half],
        &["more than any engine"],
    );
    assert_refused(&with(&["--random-adapters=100000"]), &["256 at most"]);
    assert_refused(&with(&["--temperature=3"]), &["from 0 to 2"]);
    assert_refused(
        &with(&["--adapter=nowhere"]),
        &["nowhere", "adapter_config.json"],
    );
}

#[test]
fn a_budget_that_is_too_small_says_what_a_round_takes() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&[
        "calibrate",
        "engine",
        "--dummy=tiny",
        "--backend=cpu",
        "--threads=1",
        "--budget=1ms",
        "--out=p.json",
    ]);
    let ended = ended.with_code(2);
    for text in [
        "one round of the grid takes",
        "s would do",
        "raise --budget",
    ] {
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
    }
    assert_eq!(sandbox.names(), ["small.toml"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_calibration_removes_what_it_began() {
    use std::process::{Command, Stdio};

    use crate::bad_output::wait_until;

    let sandbox = Sandbox::new();
    let mut command = sandbox.command();
    command.args(["calibrate", "engine", "--dummy=tiny", "--backend=cpu"]);
    command.args(["--threads=1", "--out=p.json", "--budget=1h"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until(|| sandbox.names().len() > 1);
    let process = child.id().to_string();
    let told = Command::new("kill").args(["-INT", &process]).status();
    assert!(told.unwrap().success());
    let ended = Ended::of(child.wait_with_output().unwrap()).with_code(130);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    assert_eq!(sandbox.names(), ["small.toml"]);
}
