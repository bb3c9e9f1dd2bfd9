//! `foresail bench`: measured steps, and the profile that the simulator reads.

use serde_json::Value;

use crate::sandbox::{Ended, Sandbox};

/// A grid that takes no time.
const TINY: [&str; 11] = [
    "bench",
    "--dummy=tiny",
    "--threads=2",
    "--batch=1,4",
    "--context=16,64",
    "--chunk=4,16",
    "--repeats=2",
    "--block-size=16",
    "--world-size=1",
    "--backend=cpu",
    "--quiet",
];

fn tiny(sandbox: &Sandbox, more: &[&str]) -> Ended {
    sandbox.run(&[&TINY, more].concat())
}

/// Must refuse to measure, with all of `told` and nothing written.
#[track_caller]
fn assert_refused(arguments: &[&str], told: &[&str]) {
    let sandbox = Sandbox::new();
    let before = sandbox.names();
    let ended = sandbox.run(&[&["bench"], arguments].concat()).with_code(2);
    assert_eq!(ended.stdout, "");
    for text in told {
        let stderr = &ended.stderr;
        assert!(stderr.contains(text), "no `{text}` in:\n{stderr}");
    }
    assert_eq!(sandbox.names(), before);
}

#[test]
fn every_step_is_shown_beside_the_ceilings() {
    let ended = tiny(&Sandbox::new(), &[]).with_code(0);
    assert_eq!(ended.stderr, "");
    let headings = ["tiny · ", "CEILINGS", "DECODE", "PREFILL", "REQUESTS"];
    for heading in headings {
        assert!(ended.stdout.contains(heading), "{}", ended.stdout);
    }
    let rows = ended.stdout.lines().filter(|line| line.ends_with(" %"));
    // Four decode steps, and two chunks at three contexts.
    assert!(rows.count() >= 4 + 6, "{}", ended.stdout);
}

#[test]
fn json_has_every_repeat() {
    let ended = tiny(&Sandbox::new(), &["--format=json"]).with_code(0);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["schema"], "foresail.bench/2");
    assert_eq!(json["model"]["name"], "tiny");
    assert_eq!(json["engine"]["threads"], 2);
    let steps = |kind: &str| json[kind].as_array().unwrap().clone();
    assert_eq!((steps("decode").len(), steps("prefill").len()), (4, 6));
    for step in [steps("decode"), steps("prefill")].concat() {
        let figures = &step["figures"];
        assert_eq!(figures["seconds"].as_array().unwrap().len(), 2);
        assert!(figures["bytes"].as_u64() > Some(0), "{figures}");
        assert!(figures["read_share"].as_f64() > Some(0.0), "{figures}");
    }
    assert_eq!(json["requests"]["batch"], 8);
    assert!(json["startup"].as_array().unwrap().len() > 1, "{json}");
    let command = json["command"].as_str().unwrap();
    assert!(command.starts_with("foresail bench --dummy=tiny"));
}

#[test]
fn the_profile_is_what_a_scenario_reads() {
    let sandbox = Sandbox::new();
    tiny(&sandbox, &["--out=profile.json"]).with_code(0);
    assert_eq!(sandbox.names(), ["profile.json", "small.toml"]);
    let json: Value = serde_json::from_str(&sandbox.read("profile.json")).unwrap();
    assert_eq!(json["schema"], "foresail.profile/1");
    assert_eq!(json["provenance"]["model"], "tiny");
    let repeats = json["measured"]["decode"][0]["seconds"].as_array();
    assert_eq!(repeats.unwrap().len(), 2);
    let simulate = |most: &str| {
        sandbox.run(&[
            "simulate",
            "small.toml",
            "--set=step_time.model=profile",
            "--set=step_time.file=profile.json",
            "--set=workload.duration=5s",
            most,
        ])
    };
    let ended = simulate("--set=batching.max_num_seqs=4");
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    assert!(ended.stdout.contains("LATENCY"), "{}", ended.stdout);
    // No larger batch was measured.
    let ended = simulate("--set=batching.max_num_seqs=5").with_code(2);
    assert!(
        ended.stderr.contains("measured up to batch 4"),
        "{}",
        ended.stderr
    );
}

#[test]
fn ranks_are_measured_together() {
    let more = ["--format=json", "--dtype=f32", "--kv-dtype=bf16"];
    let arguments = TINY.map(|argument| match argument {
        "--world-size=1" => "--world-size=2",
        argument => argument,
    });
    let ended = Sandbox::new().run(&[&arguments[..], &more].concat());
    let json: Value = serde_json::from_str(&ended.with_code(0).stdout).unwrap();
    let engine = &json["engine"];
    assert_eq!(engine["world_size"], 2);
    assert_eq!(
        (&engine["dtype"], &engine["kv_dtype"]),
        (&"f32".into(), &"bf16".into())
    );
}

#[test]
fn without_a_model_there_is_nothing_to_measure() {
    assert_refused(&[], &["--model <DIR>", "--dummy <SHAPE>"]);
    assert_refused(&["--dummy=tiny", "--model=tiny"], &["cannot be used with"]);
    assert_refused(&["--dummy=tyni"], &["there is no model shape tyni", "tiny"]);
    assert_refused(&["--model=nowhere"], &["nowhere"]);
}

#[test]
fn grids_that_make_no_sense_are_refused() {
    let refused = |argument: &str, told: &[&str]| assert_refused(&["--dummy=tiny", argument], told);
    refused("--batch=0", &["batch must be at least 1, got 0"]);
    refused("--batch=1,2,1", &["batch has 1 twice", "name each once"]);
    refused("--batch=two", &["invalid value 'two'"]);
    refused("--chunk=-5", &["invalid value '-5'"]);
    refused("--repeats=0", &["--repeats"]);
    refused(
        "--context=1000000",
        &["a context of 1000000", "shorten the longest context"],
    );
    refused("--world-size=3", &["choose a world size"]);
}

#[test]
fn a_profile_that_cannot_be_is_refused_before_anything_is_measured() {
    let refused = |arguments: &[&str], told: &[&str]| {
        assert_refused(&[&["--dummy=tiny"], arguments].concat(), told);
    };
    refused(&["--out=p.json", "--batch=2,4"], &["add 1 to --batch"]);
    refused(&["--out=-"], &["--out needs the name of a file"]);
    refused(&["--out=nowhere/p.json"], &["cannot write nowhere/p.json"]);
    refused(&["--out=."], &["is a folder; name a file"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_measurement_removes_what_it_began() {
    use std::process::{Command, Stdio};

    use crate::bad_output::wait_until;

    let sandbox = Sandbox::new();
    let mut command = sandbox.command();
    // Hours of work, if nobody stops it.
    let more = ["--repeats=1000000", "--batch=1", "--out=profile.json"];
    command
        .args(["bench", "--dummy=tiny", "--threads=2"])
        .args(more);
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
