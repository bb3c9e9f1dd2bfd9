//! `foresail load`: what it refuses, what it sends, what it writes and how it ends. The endpoint is
//! one that answers as it is told to; times are asserted only where they are a bound from below.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use foresail_mock_endpoint::{Behaviour, Fault, MockEndpoint, Rule, When};
use serde_json::Value;

use crate::sandbox::{Ended, Sandbox};

/// An endpoint that answers at once.
fn quick() -> Behaviour {
    Behaviour {
        ttft: Duration::from_millis(5),
        itl: Duration::from_millis(1),
        ..Behaviour::default()
    }
}

fn endpoint(behaviour: Behaviour) -> MockEndpoint {
    MockEndpoint::start(behaviour).expect("a port is free")
}

/// The command with these options, against this endpoint. What this machine's load does to the client is
/// no matter here, so a run that is degraded for that alone is let through.
fn load(sandbox: &Sandbox, endpoint: &MockEndpoint, options: &str) -> Ended {
    let url = endpoint.base_url();
    // All requests count, so that they can be counted.
    let mut arguments = vec!["load", "--url", &url, "--warmup", "0s"];
    arguments.extend(options.split_whitespace());
    sandbox.run(&arguments)
}

fn summary(sandbox: &Sandbox, folder: &str) -> Value {
    let text = sandbox.read(format!("{folder}/summary.json"));
    serde_json::from_str(&text).expect("it is JSON")
}

/// The code of a run that is sound, whether or not this machine was too busy for the client.
#[track_caller]
fn assert_ended(ended: &Ended, code: i32) {
    assert!(
        ended.code == code || ended.code == 4,
        "{}\n{}\n{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
}

#[test]
fn what_cannot_be_loaded_says_what_to_change() {
    let sandbox = Sandbox::new();
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = gone.local_addr().expect("it is bound").port().to_string();
    drop(gone);
    let url = format!("http://127.0.0.1:{port}");
    let refused = |options: &str| {
        let mut arguments = vec!["load", "--url", &url];
        arguments.extend(options.split_whitespace());
        let ended = sandbox.run(&arguments).with_code(2);
        assert_eq!(ended.stdout, "");
        ended.stderr.replace(&port, "PORT")
    };
    let texts = [
        refused(""),
        refused("small.toml --request-rate 5"),
        refused("--request-rate 5 --concurrency 5"),
        refused("--request-rate 5 --endpoint /v1/embeddings"),
        refused("--request-rate 5 --api-key-env NO_SUCH_VARIABLE_HERE"),
        refused("--request-rate 5 --trace nowhere.csv"),
        refused("--trace nowhere.csv"),
        refused("--request-rate 5 --model m --objective ttft.p99<fast"),
        refused("--request-rate 5 --model m"),
    ];
    insta::assert_snapshot!(texts.concat(), @r"
    error: what is to be sent? Name a scenario, such as chat, a --trace, a --request-rate, such as 5, or a --concurrency, such as 8
    error: --request-rate: the traffic is the scenario's; change it with --set, such as --set workload.arrivals.rate_per_s=5, or leave the scenario out
    error: --concurrency and --request-rate: users of a closed loop ask when they have their answer, so there is no rate; leave one of them out
    error: --endpoint /v1/embeddings: only completions can be asked for; name /v1/completions or /v1/chat/completions
    error: --api-key-env NO_SUCH_VARIABLE_HERE: the environment has no such variable, or it is empty; set it
    error: --request-rate: the traffic is that of --trace; leave one of them out
    error: --trace nowhere.csv: there is no such file, nor a folder of client pools
    error: --objective: a number belongs here, such as `500ms`
      ttft.p99<fast
               ^
    error: the endpoint cannot be reached: Connection refused (os error 111); start it, or name another with --url
    ");
}

#[test]
fn a_run_has_the_files_of_a_simulation_and_the_figures_of_the_endpoint() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let options =
        "--request-rate 100 --num-prompts 60 --isl 40 --osl 8 --tokenizer bytes --out run";
    let ended = load(&sandbox, &endpoint, options);
    assert_ended(&ended, 0);
    assert!(ended.stdout.contains("measured"), "{}", ended.stdout);
    let summary = summary(&sandbox, "run");
    assert_eq!(summary["source"], "measured");
    assert_eq!(summary["requests"]["offered"], 60);
    assert_eq!(summary["requests"]["completed"], 60);
    assert_eq!(
        summary["scenario"]["model"], "mock",
        "asked of the endpoint"
    );
    assert!(summary["ttft_s"]["p50"].as_f64().expect("it was measured") >= 0.005);
    for file in [
        "requests.csv",
        "timeline.csv",
        "intervals.csv",
        "histograms.json",
    ] {
        assert!(sandbox.path("run").join(file).is_file(), "{file}");
    }
    let received = endpoint.received();
    assert!(received.iter().all(|one| one.max_tokens == Some(8)));
}

#[test]
fn objectives_decide_the_exit_code() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let options = "--request-rate 100 --num-prompts 30 --isl 10 --osl 4";
    let missed = sandbox_objective(&sandbox, &endpoint, options, "ttft.p50 < 1ms");
    assert_ended(&missed, 3);
    assert!(missed.stdout.contains("0 of 1 met"), "{}", missed.stdout);
    let met = sandbox_objective(&sandbox, &endpoint, options, "success_rate >= 99%");
    assert_ended(&met, 0);
}

fn sandbox_objective(
    sandbox: &Sandbox,
    endpoint: &MockEndpoint,
    options: &str,
    objective: &str,
) -> Ended {
    let url = endpoint.base_url();
    let mut arguments = vec!["load", "--url", &url, "--objective", objective];
    arguments.extend(options.split_whitespace());
    sandbox.run(&arguments)
}

#[test]
fn a_scenario_has_its_traffic_and_a_shard_has_its_part() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let small = "small.toml --set workload.duration=2s --model mock --set objectives.ttft_p95=60s";
    let whole = load(&sandbox, &endpoint, &format!("{small} --out whole"));
    assert_ended(&whole, 0);
    let offered = |folder: &str| summary(&sandbox, folder)["requests"]["offered"].as_u64();
    let offered_whole = offered("whole").expect("it is a number");
    let simulated = sandbox.run(&[
        "simulate",
        "small.toml",
        "--set",
        "workload.duration=2s",
        "--out",
        "simulated",
    ]);
    assert_eq!(simulated.code, 0, "{}", simulated.stderr);
    assert_eq!(
        offered("simulated"),
        Some(offered_whole),
        "the same requests"
    );
    for shard in [1, 2] {
        let options = format!("{small} --shard {shard}/2 --out shard-{shard}");
        assert_ended(&load(&sandbox, &endpoint, &options), 0);
    }
    let sum = offered("shard-1")
        .zip(offered("shard-2"))
        .map(|(a, b)| a + b);
    assert_eq!(sum, Some(offered_whole));
}

#[test]
fn a_closed_loop_has_no_more_in_flight_than_its_users() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let options = "--concurrency 3 --num-prompts 30 --isl 10 --osl 4 --out run";
    assert_ended(&load(&sandbox, &endpoint, options), 0);
    let summary = summary(&sandbox, "run");
    assert_eq!(summary["requests"]["completed"], 30);
    assert_eq!(summary["measured"]["load"]["loop"], "closed");
    assert_eq!(summary["measured"]["rates"]["in_flight_max"], 3);
}

#[test]
fn a_sweep_has_a_line_and_a_folder_a_rate() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let options = "--rate 20,40 --num-prompts 10 --isl 10 --osl 4 --out sweep";
    let ended = load(&sandbox, &endpoint, options);
    assert_ended(&ended, 0);
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert!(lines[1].trim_start().starts_with("20.000"), "{lines:?}");
    assert!(lines[2].trim_start().starts_with("40.000"), "{lines:?}");
    for (rate, seed) in [("rate-20.000", 0), ("rate-40.000", 1)] {
        let summary = summary(&sandbox, &format!("sweep/{rate}/run-1"));
        assert_eq!(summary["requests"]["offered"], 10);
        assert_eq!(summary["seed"], seed, "each run has a seed of its own");
    }
}

#[test]
fn servers_that_are_asked_are_billed_and_told_of() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let url = endpoint.base_url();
    let options = "--request-rate 100 --num-prompts 50 --isl 10 --osl 4 --out run";
    let servers = format!("--metrics-url {url}/metrics --usd-per-gpu-hour 3.60 --world-size 2");
    let limits = "--goodput ttft:60000 e2el:60000";
    let ended = load(
        &sandbox,
        &endpoint,
        &format!("{options} {servers} {limits}"),
    );
    assert_ended(&ended, 0);
    let summary = summary(&sandbox, "run");
    assert!(
        summary["measured"]["server"]["samples"].as_u64() >= Some(1),
        "{summary}"
    );
    assert_eq!(summary["replicas"]["max"], 1, "a target is a replica");
    // Two GPUs at 3.60 USD an hour are 2 USD in 1000 s.
    let (usd, end_s) = (
        summary["cost"]["usd"].as_f64(),
        summary["duration_s"].as_f64(),
    );
    let expected = end_s.expect("it has an end") * 0.002;
    let usd = usd.expect("it is billed");
    assert!(
        (usd / expected - 1.0).abs() < 0.01,
        "{usd} USD, not {expected}"
    );
    assert!(
        summary["goodput_per_s"].as_f64() > Some(0.0),
        "every request is within a minute"
    );
}

/// The metric need not be of replicas: without one of its name there is no count, and no bill.
#[test]
fn replicas_are_what_the_metric_says_that_is_named_for_them() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let url = endpoint.base_url();
    let options = "--request-rate 100 --num-prompts 20 --isl 10 --osl 4 --usd-per-gpu-hour 3.60";
    for (metric, are_known) in [
        ("vllm:generation_tokens_total", true),
        ("no_such_metric", false),
    ] {
        let servers = format!("--metrics-url {url}/metrics --replicas-metric {metric}");
        let ended = load(
            &sandbox,
            &endpoint,
            &format!("{options} {servers} --out {are_known}"),
        );
        assert_ended(&ended, 0);
        let summary = summary(&sandbox, &are_known.to_string());
        assert_eq!(summary["replicas"].is_object(), are_known, "{summary}");
        assert_eq!(summary["cost"].is_object(), are_known, "{summary}");
    }
    let alone = sandbox.run(&["load", "--url", &url, "--replicas-metric", "replicas"]);
    let refused = alone.with_code(2).stderr;
    assert!(refused.contains("--metrics-url"), "{refused}");
}

#[test]
fn figures_of_no_request_are_not_to_be_trusted() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let options = "--request-rate 100 --num-prompts 5 --isl 10 --osl 4 --cooldown 1h";
    let ended = load(&sandbox, &endpoint, options);
    assert_eq!(ended.code, 4, "{}", ended.stdout);
    assert!(ended.stdout.contains("empty_window"), "{}", ended.stdout);
}

#[test]
fn a_closed_loop_and_all_at_once_ask_for_no_rate() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    for how in ["--concurrency 4", "--request-rate inf"] {
        let options = format!("{how} --num-prompts 40 --isl 10 --osl 4 --out run");
        let ended = load(&sandbox, &endpoint, &options);
        assert_ended(&ended, 0);
        let summary = summary(&sandbox, "run");
        assert!(summary["measured"]["rates"]["asked_per_s"].is_null());
        let workload = summary["scenario"]["workload"].as_str();
        let workload = workload.expect("it is said what was sent");
        assert!(
            workload.starts_with("as fast as can be, prompts"),
            "{workload}"
        );
        let per_s = summary["throughput"]["requests_per_s"].as_f64();
        assert!(per_s > Some(1.0), "{how}: {per_s:?}");
    }
}

#[test]
fn refusals_are_counted_and_not_fatal() {
    let behaviour = Behaviour {
        rules: vec![Rule {
            when: When::Every(2),
            fault: Fault::Status {
                status: 429,
                retry_after_s: None,
            },
        }],
        ..quick()
    };
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(behaviour));
    let options = "--request-rate 100 --num-prompts 20 --isl 10 --osl 4 --out run";
    assert_ended(&load(&sandbox, &endpoint, options), 0);
    let requests = &summary(&sandbox, "run")["requests"];
    assert_eq!(requests["completed"], 10);
    assert_eq!(requests["measured"]["rejected_rate_limited"], 10);
}

#[test]
fn no_answer_at_all_is_said() {
    let behaviour = Behaviour {
        rules: vec![Rule {
            when: When::Always,
            fault: Fault::NeverAnswer,
        }],
        ..quick()
    };
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(behaviour));
    let options = "--request-rate 50 --num-prompts 5 --isl 10 --osl 4 --timeout 200ms --model mock";
    let ended = load(&sandbox, &endpoint, options).with_code(4);
    assert!(
        ended.stderr.contains("not one of 5 requests was answered"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("the first: failed timeout"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_results_of_other_tools_are_written_too() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let options = "--request-rate 100 --num-prompts 20 --isl 10 --osl 4 --out run --export vllm,aiperf,hdr,csv \
        --save-result --result-dir results --result-filename one.json";
    assert_ended(&load(&sandbox, &endpoint, options), 0);
    let vllm: Value = serde_json::from_str(&sandbox.read("results/one.json")).expect("it is JSON");
    assert_eq!(vllm["completed"], 20);
    assert!(vllm["mean_ttft_ms"].as_f64().expect("a number") >= 5.0);
}

#[cfg(unix)]
#[test]
fn what_is_interrupted_keeps_its_records_and_says_so() {
    let (sandbox, endpoint) = (Sandbox::new(), endpoint(quick()));
    let url = endpoint.base_url();
    let mut command = sandbox.command();
    command.args([
        "load",
        "--url",
        &url,
        "--request-rate",
        "50",
        "--duration",
        "60s",
    ]);
    command.args(["--isl", "10", "--osl", "4", "--out", "run"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("it starts");
    // Some answers have to be there; how long that takes is not asserted.
    while endpoint.stats().answers < 20 {
        thread::sleep(Duration::from_millis(20));
    }
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(status.expect("there is `kill`").success());
    let ended = Ended::of(child.wait_with_output().expect("it ends")).with_code(130);
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    let summary = summary(&sandbox, "run");
    assert_eq!(summary["measured"]["is_interrupted"], true);
    let requests = &summary["requests"];
    assert!(requests["completed"].as_u64() >= Some(15), "{requests}");
    assert!(
        requests["measured"]["unsent"].as_u64() > Some(0),
        "{requests}"
    );
}
