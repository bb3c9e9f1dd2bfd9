//! `foresail calibrate endpoint`: what it refuses, what it writes and how it ends. The endpoint is one that answers
//! as it is told to; how close a fit comes is a matter of an example and not of a test, as machines are busy.

use std::net::TcpListener;
use std::time::Duration;

use foresail_mock_endpoint::{
    Behaviour, EventStyle, Fault, Garbage, MockEndpoint, Rule, UsageReport, When, Writes,
};
use serde_json::Value;

use crate::sandbox::{Ended, Sandbox};

/// Small enough for a test: a few seconds.
const SMALL: &str = "--concurrency-max 2 --burst 8 --prompt-tokens-max 256 --budget 3m";

fn endpoint(behaviour: Behaviour) -> MockEndpoint {
    MockEndpoint::start(behaviour).expect("a port is free")
}

fn quick() -> Behaviour {
    Behaviour {
        ttft: Duration::from_millis(20),
        itl: Duration::from_millis(4),
        ..Behaviour::default()
    }
}

fn always(fault: Fault) -> Behaviour {
    let when = When::Always;
    Behaviour {
        rules: vec![Rule { fault, when }],
        ..quick()
    }
}

fn calibrate(sandbox: &Sandbox, url: &str, options: &str) -> Ended {
    let mut arguments = vec![
        "calibrate",
        "endpoint",
        "--url",
        url,
        "--out",
        "profile.json",
    ];
    arguments.extend(options.split_whitespace());
    sandbox.run(&arguments)
}

/// It ended so, said that, and wrote nothing.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, ended: Ended, code: i32, said: &[&str]) {
    let ended = ended.with_code(code);
    assert_eq!(ended.stdout, "");
    for said in said {
        assert!(ended.stderr.contains(said), "{said}\n{}", ended.stderr);
    }
    assert_eq!(sandbox.names(), ["small.toml"]);
}

fn status(status: u16) -> Fault {
    Fault::Status {
        status,
        retry_after_s: None,
    }
}

#[test]
fn an_endpoint_becomes_a_profile_with_what_is_open() {
    let sandbox = Sandbox::new();
    // Nobody counts tokens, neither the endpoint nor a tokenizer.
    let mock = endpoint(Behaviour {
        usage: UsageReport::Never,
        ..quick()
    });
    let options = format!("{SMALL} --picture fit.svg --format json --engine mock");
    let ended = calibrate(&sandbox, &mock.base_url(), &options);
    // On a machine so busy that the client was the limit, or that no two answers took as long, that is the answer.
    let is_busy = ["the client was the limit", "no step times explain"];
    if ended.code == 4 && is_busy.iter().any(|said| ended.stderr.contains(said)) {
        eprintln!("SKIPPED: {}", ended.stderr);
        assert!(ended.stderr.contains("no profile was written"));
        assert_eq!(sandbox.names(), ["small.toml"]);
        return;
    }
    let ended = ended.with_code(0);
    assert_eq!(sandbox.names(), ["fit.svg", "profile.json", "small.toml"]);
    let profile: Value = serde_json::from_str(&sandbox.read("profile.json")).expect("it is JSON");
    assert_eq!(profile["schema"], "foresail.profile/2");
    assert_eq!(profile["provenance"]["engine"], "mock");
    assert_eq!(profile["provenance"]["model"], "mock");
    // All of a burst of 8 began at once, so that only a bound is known.
    assert_eq!(profile["batching"]["max_num_seqs"], Value::Null);
    let open = profile["not_identified"].to_string();
    for said in [
        "The batch limit is at least 8",
        "The endpoint does not count tokens",
        "Prompts are about as long as was planned",
        "How many tokens fit into the KV cache was not looked for",
        "`adapter_s` (each adapter in a step) was not looked for",
    ] {
        assert!(open.contains(said), "{said}\n{open}");
    }
    // It has none, which is open where the machine held up the run that looks for one.
    let none = [
        "No prefix cache was seen",
        "Whether there is a prefix cache is open",
    ];
    assert!(none.iter().any(|said| open.contains(said)), "{open}");
    let fit = &profile["world_sizes"][0];
    assert_eq!(fit["how"], "requests");
    assert_eq!(fit["draws"].as_array().map(Vec::len), Some(64));
    let report: Value = serde_json::from_str(&ended.stdout).expect("it is JSON");
    assert_eq!(report["profile"], profile);
    assert!(
        report["runs"]
            .as_array()
            .is_some_and(|runs| runs.len() > 10)
    );
    let figures = report["runs"].as_array().into_iter().flatten();
    let figures = figures.flat_map(|run| run["figures"].as_array().into_iter().flatten());
    for figure in figures {
        // However busy the machine is, the endpoint answers no sooner than it was told to.
        let least_s = match figure["figure"].as_str() {
            Some(name) if name.contains("TPOT") => 0.0039,
            _ => 0.0199,
        };
        assert!(figure["measured"].as_f64() > Some(least_s), "{figure}");
        assert!(figure["fitted"].as_f64() > Some(0.0), "{figure}");
    }
    assert!(sandbox.read("fit.svg").starts_with("<svg"));
}

#[test]
fn an_endpoint_that_fails_half_the_time_becomes_no_profile() {
    let sandbox = Sandbox::new();
    let mock = endpoint(Behaviour {
        rules: vec![Rule {
            fault: status(500),
            when: When::Every(2),
        }],
        ..quick()
    });
    let ended = calibrate(&sandbox, &mock.base_url(), SMALL);
    let said = ["requests failed", "status 500", "no profile was written"];
    assert_refused(&sandbox, ended, 4, &said);
}

#[test]
fn what_cannot_be_calibrated_says_why() {
    let sandbox = Sandbox::new();
    let refused = |behaviour: Behaviour, code: i32, said: &[&str]| {
        let mock = endpoint(behaviour);
        let ended = calibrate(&sandbox, &mock.base_url(), SMALL);
        assert_refused(&sandbox, ended, code, said);
    };
    let no_model = ["answers no request", "status 404", "check --model"];
    refused(always(status(404)), 2, &no_model);
    refused(
        always(status(503)),
        4,
        &["answers no request", "status 503"],
    );
    let garbage = Fault::Garbage(Garbage::Html);
    refused(always(garbage), 4, &["answers no request"]);
    let whole = Behaviour {
        tokens_per_chunk: 1000,
        ..quick()
    };
    refused(whole, 2, &["does not stream"]);
    // As many events as tokens, all written at once.
    let gathered = Behaviour {
        events: EventStyle {
            writes: Writes::Together(1000),
            ..EventStyle::default()
        },
        ..quick()
    };
    refused(gathered, 2, &["does not stream"]);
}

#[test]
fn bad_usage_is_said_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    let mock = endpoint(quick());
    let refused = |options: &str, said: &[&str]| {
        let ended = calibrate(&sandbox, &mock.base_url(), options);
        assert_refused(&sandbox, ended, 2, said);
    };
    refused(
        "--shape no-such-model",
        &["--shape no-such-model", "catalogue"],
    );
    refused("--shape llama-3.1-8b --gpu abacus", &["--gpu abacus"]);
    let heads = "--shape llama-3.1-8b --gpu h100 --world-size 3";
    refused(heads, &["--world-size", "attention heads"]);
    refused("--gpu h100", &["--shape"]);
    let tight = "--max-num-seqs 512 --max-num-batched-tokens 256";
    refused(tight, &["256 is less than --max-num-seqs 512"]);
    for option in ["burst", "concurrency-max", "max-num-seqs"] {
        let all = format!("--{option} 4000000000");
        refused(&all, &["4000000000", option, "from 1 to 65536"]);
    }
    refused("--prompt-tokens-max 4000000000", &["from 1 to 16777216"]);
    refused("--picture -", &["--picture needs the name of a file"]);
    let ended = sandbox.run(&[
        "calibrate",
        "endpoint",
        "--url",
        &mock.base_url(),
        "--out=-",
    ]);
    assert_refused(&sandbox, ended, 2, &["--out needs the name of a file"]);
    refused(
        "--prompt-tokens-max 64",
        &["--prompt-tokens-max 64", "4 times as long"],
    );
    refused("--tokenizer nowhere", &["nowhere", "tokenizer.json"]);
    assert_eq!(mock.stats().requests, 0);
    refused("--budget 1s", &["--budget", "give it more"]);
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", gone.local_addr().expect("it is bound"));
    drop(gone);
    let ended = calibrate(&sandbox, &url, "");
    assert_refused(&sandbox, ended, 2, &["cannot be reached"]);
}
