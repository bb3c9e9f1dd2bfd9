//! `foresail serve`: what it refuses before it starts, and how it starts, answers and ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::sandbox::{Ended, Sandbox};

fn refused(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let mut all = vec!["serve"];
    all.extend(arguments);
    let ended = sandbox.run(&all).with_code(2);
    assert_eq!(ended.stdout, "");
    ended.stderr
}

#[test]
fn what_cannot_be_served_says_what_to_change() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.keys", "# nobody\n");
    let texts = [
        &["--dummy", "tiny", "--backend", "cuda", "--threads", "2"][..],
        &["--dummy", "tiny", "--backend", "emulated"],
        &["--model", "here", "--backend", "emulated", "--gpu", "h100"],
        &["--dummy", "tiny", "--gpu", "h100"],
        &["--dummy", "tiny", "--speed", "2"],
        &["--model", "here", "--seed", "2"],
        &["--dummy", "tiny", "--adapter", "tiny=here"],
        &["--dummy", "tiny", "--host", "0.0.0.0"],
        &["--dummy", "tiny", "--api-key-file", "empty.keys"],
        &[
            "--dummy",
            "tiny",
            "--port",
            "0",
            "--world-size",
            "3",
            "--access-log",
            "none",
        ],
        &["--model", "nowhere", "--port", "0", "--access-log", "none"],
        &["--dummy", "tiny", "--served-model-name", ""],
        &["--scenario", "chat"],
        &[
            "--scenario",
            "chat",
            "--backend",
            "emulated",
            "--gpu",
            "h200",
            "--max-loras",
            "2",
        ],
        &[
            "--scenario",
            "adapters",
            "--backend",
            "emulated",
            "--served-model-name",
            "adapter-1",
        ],
    ]
    .map(|arguments| refused(&sandbox, arguments));
    insta::assert_snapshot!(texts.concat(), @r#"
    error: --threads is for the CPU; leave it away with a GPU
    error: --backend emulated needs --gpu: which one to emulate, such as h100
    error: --backend emulated needs no weights; name a shape of the catalogue with --dummy instead of --model
    error: --gpu and --speed are of the GPU to emulate; add --backend emulated, or leave them away
    error: --gpu and --speed are of the GPU to emulate; add --backend emulated, or leave them away
    error: --seed is what random weights are made from, and those of --model are not
    error: --adapter tiny: there is a model of this name already; choose another
    error: 0.0.0.0 can be reached from other machines, and everybody would be let in; give keys with --api-key-file, or listen at 127.0.0.1
    error: empty.keys: there is no key in it; write one a line, or `sha256:` and the hash of one
    error: 8 query heads cannot be split over 3 ranks; choose a world size that divides them
    error: nowhere: there is no such folder; get the files of the model again, or name another folder with --model
    error: --served-model-name "": a name has 1 to 256 bytes, and no control characters
    error: --scenario is emulated: add --backend emulated, or name --model or --dummy
    error: --gpu, --max-loras: the scenario says it; change it with --set, such as --set deployment.gpu=h200
    error: --adapter adapter-1: there is a model of this name already; choose another
    "#);
}

/// Whether this machine has a GPU that can be used, as the program itself says.
fn has_gpu(sandbox: &Sandbox) -> bool {
    let told = sandbox.run(&["devices", "--format", "json"]).with_code(0);
    let devices: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    devices["cuda"]["missing"].is_null()
}

#[test]
fn without_a_gpu_it_is_said_in_a_line_what_is_missing() {
    let sandbox = Sandbox::new();
    if has_gpu(&sandbox) {
        eprintln!("SKIPPED: there is a GPU, and nothing is missing");
        return;
    }
    let text = refused(
        &sandbox,
        &[
            "--dummy",
            "tiny",
            "--backend",
            "cuda",
            "--port",
            "0",
            "--access-log",
            "none",
        ],
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: no "), "{text}");
    let text = sandbox.run(&["devices"]).with_code(0).stdout;
    assert!(
        text.starts_with("cpu ") && text.contains("cuda  not usable: no "),
        "{text}"
    );
    let bench = ["bench", "--dummy", "tiny", "--backend", "cuda"];
    assert!(
        sandbox
            .run(&bench)
            .with_code(2)
            .stderr
            .starts_with("error: no ")
    );
}

/// Copies a folder of a model into the sandbox.
fn copy_of_model(sandbox: &Sandbox, name: &str) {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/engine/goldens/llama");
    let to = sandbox.path(name);
    fs::create_dir(&to).expect("it can be made");
    for entry in fs::read_dir(golden).expect("it is a folder") {
        let file = entry.expect("it can be read").path();
        if file.is_file() {
            fs::copy(&file, to.join(file.file_name().expect("it has a name")))
                .expect("it is copied");
        }
    }
}

#[test]
fn a_damaged_model_is_refused_with_its_file_and_what_to_do() {
    let sandbox = Sandbox::new();
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        copy_of_model(&sandbox, name);
        damage(&sandbox.path(name));
        refused(
            &sandbox,
            &["--model", name, "--port", "0", "--access-log", "none"],
        )
    };
    let cut = |file: PathBuf| {
        let bytes = fs::read(&file).expect("it is there");
        fs::write(&file, &bytes[..bytes.len() - 100]).expect("it is written");
    };
    let texts = [
        damaged("short", &|folder| cut(folder.join("model.safetensors"))),
        damaged("broken", &|folder| {
            fs::write(folder.join("config.json"), "{").expect("it is written");
        }),
        damaged("speechless", &|folder| {
            fs::remove_file(folder.join("tokenizer.json")).expect("it is removed");
        }),
        damaged("mismatched", &|folder| {
            let file = folder.join("tokenizer.json");
            let text = fs::read_to_string(&file).expect("it is there");
            let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            tokenizer["added_tokens"]
                .as_array_mut()
                .expect("it is a list")
                .push(serde_json::json!({
                    "id": 9999, "content": "<other>", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true,
                }));
            fs::write(&file, tokenizer.to_string()).expect("it is written");
        }),
    ];
    insta::assert_snapshot!(texts.concat(), @r"
    error: short/model.safetensors: tensor model.norm.weight: its bytes end at 90368, and the file has 90268: it is truncated; get the files of the model again, or name another folder with --model
    error: broken/config.json: not valid JSON: EOF while parsing an object at line 1 column 1; get the files of the model again, or name another folder with --model
    error: speechless/tokenizer.json: No such file or directory (os error 2); get the files of the model again, or name another folder with --model
    error: mismatched/tokenizer.json: has tokens up to 269, and the model has a vocabulary of 269; they are not of the same model; get the files of the model again, or name another folder with --model
    ");
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let text = refused(&Sandbox::new(), &["--dummy", "tiny", "--port", &port]);
    assert!(text.contains("choose another --port"), "{text}");
}

/// A server that was started, and has said that it is ready.
struct Served {
    child: Child,
    address: String,
    line: String,
    rest: BufReader<std::process::ChildStdout>,
}

impl Served {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command();
        command.args(["serve", "--port", "0"]).args(arguments);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("it starts");
        let mut rest = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        rest.read_line(&mut line).expect("it can be read");
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_default().to_owned();
        Self {
            child,
            address,
            line,
            rest,
        }
    }

    /// Sends a request; what it gives back reads the answer.
    fn ask(&self, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it connects");
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("it is sent");
        stream
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(status.expect("there is `kill`").success());
    }

    fn end(mut self) -> Ended {
        let mut rest = String::new();
        self.rest.read_to_string(&mut rest).expect("it can be read");
        let output = self.child.wait_with_output().expect("it ends");
        let ended = Ended::of(output);
        Ended {
            stdout: self.line + &rest,
            ..ended
        }
    }
}

fn all_of(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it can be read");
    text
}

#[cfg(unix)]
#[test]
fn what_was_taken_is_finished_after_sigterm() {
    let sandbox = Sandbox::new();
    let small = [
        "--dummy",
        "tiny",
        "--max-num-seqs",
        "2",
        "--access-log",
        "log.jsonl",
    ];
    let served = Served::start(&sandbox, &small);
    assert!(
        served.line.starts_with("ready: http://127.0.0.1:"),
        "{}",
        served.line
    );
    assert!(
        served.line.contains("serves tiny on the CPU"),
        "{}",
        served.line
    );
    let body = r#"{"model": "tiny", "prompt": "Hello", "max_tokens": 60, "ignore_eos": true,
        "stream": true}"#;
    let streams: Vec<_> = (0..6)
        .map(|_| served.ask("/v1/completions", body))
        .collect();
    // Each has been taken when its answer has begun.
    for stream in &streams {
        stream.peek(&mut [0]).expect("it can be read");
    }
    served.signal("TERM");
    let readers = streams
        .into_iter()
        .map(|stream| thread::spawn(move || all_of(stream)));
    for reader in readers.collect::<Vec<_>>() {
        let text = reader.join().expect("it can be read");
        assert!(text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{text}");
    }
    let ended = served.end().with_code(0);
    assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
    let log = sandbox.read("log.jsonl");
    assert_eq!(log.matches("\"output_tokens\":60").count(), 6, "{log}");
    assert!(!log.contains("Hello"), "{log}");
}

#[cfg(unix)]
#[test]
fn a_context_shorter_than_the_models_is_said() {
    let sandbox = Sandbox::new();
    let small = ["--dummy", "tiny", "--kv-cache-memory", "1MiB"];
    let served = Served::start(&sandbox, &small);
    served.signal("TERM");
    let ended = served.end().with_code(0);
    // 6 layers with 4 heads of 16 have 1,536 bytes a token in bf16: 42 blocks of 16.
    assert!(
        ended.stderr.contains(
            "the context is 672 tokens, as many as the KV cache holds; the model was made for 4096"
        ),
        "{}",
        ended.stderr
    );
}

#[cfg(unix)]
#[test]
fn a_scenario_is_served_with_its_adapters_as_models() {
    let sandbox = Sandbox::new();
    let scenario = ["--backend", "emulated", "--scenario", "adapters"];
    let two = [
        "--set",
        "deployment.max_replica_count=2",
        "--access-log",
        "none",
    ];
    let served = Served::start(&sandbox, &[&scenario[..], &two].concat());
    assert!(
        served.line.contains("serves llama-3-8b on 1 emulated h100"),
        "{}",
        served.line
    );
    for model in ["llama-3-8b", "adapter-3"] {
        let body = format!(r#"{{"model": "{model}", "prompt": "Hello", "max_tokens": 3}}"#);
        let answer = all_of(served.ask("/v1/completions", &body));
        assert!(answer.contains(r#""completion_tokens":3"#), "{answer}");
    }
    served.signal("TERM");
    let ended = served.end().with_code(0);
    assert!(
        ended
            .stderr
            .contains("has 1 to 2 replicas, and this is one of them"),
        "{}",
        ended.stderr
    );
}

#[cfg(unix)]
#[test]
fn what_a_scenarios_server_takes_for_a_request_is_waited_for() {
    let sandbox = Sandbox::new();
    let scenario = ["--backend", "emulated", "--scenario", "one-replica"];
    let slow = [
        "--set",
        "step_time.request_overhead=400ms",
        "--access-log",
        "none",
    ];
    let served = Served::start(&sandbox, &[&scenario[..], &slow].concat());
    let began = Instant::now();
    let body = r#"{"model": "llama-3-8b", "prompt": "Hello", "max_tokens": 1}"#;
    let answer = all_of(served.ask("/v1/completions", body));
    let took = began.elapsed();
    assert!(answer.contains(r#""completion_tokens":1"#), "{answer}");
    assert!(took >= Duration::from_millis(400), "{took:?}");
    // Who is on the way when the server is stopped was taken, and is answered.
    let asked = served.ask("/v1/completions", body);
    thread::sleep(Duration::from_millis(150));
    served.signal("TERM");
    let answer = all_of(asked);
    assert!(answer.contains(r#""completion_tokens":1"#), "{answer}");
    served.end().with_code(0);
}

#[cfg(unix)]
#[test]
fn what_takes_too_long_is_broken_off_and_said() {
    let sandbox = Sandbox::new();
    let emulated = [
        "--backend",
        "emulated",
        "--dummy",
        "llama-3-8b",
        "--gpu",
        "h100",
    ];
    let hasty = ["--drain-timeout", "10ms", "--access-log", "none"];
    let served = Served::start(&sandbox, &[&emulated[..], &hasty].concat());
    assert!(
        served.line.contains("serves llama-3-8b on 1 emulated h100"),
        "{}",
        served.line
    );
    let body = r#"{"model": "llama-3-8b", "prompt": "Hello", "max_tokens": 8000, "stream": true}"#;
    let stream = served.ask("/v1/completions", body);
    stream.peek(&mut [0]).expect("it can be read");
    served.signal("INT");
    let ended = served.end().with_code(4);
    assert!(
        ended.stderr.contains("1 requests were broken off"),
        "{}",
        ended.stderr
    );
}
