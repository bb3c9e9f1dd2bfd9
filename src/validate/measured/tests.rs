use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn of(text: &str) -> Result<Measured, String> {
    let (folder, path) = file("result", text);
    let name = folder.path().display().to_string();
    read(&path).map_err(|error| error.to_string().replace(&name, "FOLDER"))
}

const LINES: &str = r#"
{"request_id": "b-1", "input_toks": 10, "output_toks": 3, "arrival_time": 1000.5, "queued_ts": 50.6, "scheduled_ts": 50.6, "first_token_ts": 50.8, "last_token_ts": 51.0}
{"request_id": "b-0", "input_toks": 20, "output_toks": 1, "arrival_time": 1000.0, "queued_ts": 50.0, "scheduled_ts": 50.0, "first_token_ts": 50.25, "last_token_ts": 50.25}
"#;

#[test]
fn lines_of_two_clocks_are_laid_over_each_other() {
    let measured = of(LINES.trim_start()).unwrap();
    let [first, second] = &measured.requests[..] else {
        panic!("there are two: {measured:?}");
    };
    assert_eq!(
        (first.id, first.request.due, first.request.prompt_tokens),
        (1, 0, 20)
    );
    assert_eq!((second.id, second.request.due), (0, 500_000_000));
    assert!((first.times.ttft_s - 0.25).abs() < 1e-6);
    assert_eq!(first.times.tpot_s, None);
    // It was queued 0.1 s later than the other after it arrived.
    assert!((second.times.ttft_s - 0.3).abs() < 1e-6, "{second:?}");
    assert!((second.times.tpot_s.unwrap() - 0.1).abs() < 1e-6);
}

#[test]
fn a_line_that_is_wrong_is_named() {
    let wrong = LINES
        .trim_start()
        .replace("\"input_toks\": 20", "\"input_toks\": 0");
    let error = of(&wrong).unwrap_err();
    assert!(
        error.contains("FOLDER/result, line 2: without tokens"),
        "{error}"
    );
}

const DETAILS: &str = r#"{"num_prompts": 3, "max_concurrency": null,
    "input_lens": [10, 20, 30], "output_lens": [3, 1, 0], "start_times": [7.5, 7.0, 8.0],
    "ttfts": [0.1, 0.2, 0.0], "itls": [[0.01, 0.03], [], []], "errors": ["", "", "refused"]}"#;

#[test]
fn details_of_a_benchmark_are_requests() {
    let measured = of(DETAILS).unwrap();
    assert_eq!(measured.failed, 1);
    let [first, second] = &measured.requests[..] else {
        panic!("there are two: {measured:?}");
    };
    assert_eq!((first.request.due, first.request.prompt_tokens), (0, 20));
    assert_eq!(second.request.due, 500_000_000);
    assert!((second.times.tpot_s.unwrap() - 0.02).abs() < 1e-9);
    assert!((second.times.e2e_s - 0.14).abs() < 1e-9);
}

#[test]
fn files_without_arrivals_are_refused_with_what_would_do() {
    let without = DETAILS.replace("start_times", "begins");
    let error = of(&without).unwrap_err();
    assert!(error.contains("it has no `start_times`"), "{error}");
    assert!(error.contains("foresail load --out"), "{error}");
    let aggregates = r#"{"mean_ttft_ms": 5.0, "p99_ttft_ms": 9.0}"#;
    let error = of(aggregates).unwrap_err();
    assert!(error.contains("it has no `input_lens`"), "{error}");
    let error = of("source,licence,gpu\nx,y,h100\n").unwrap_err();
    assert!(error.contains("it is no JSON"), "{error}");
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let error = of(&DETAILS.replace("[0.1, 0.2, 0.0]", "[0.1]")).unwrap_err();
    assert!(
        error.contains("its lists have different lengths"),
        "{error}"
    );
    let error = of(&DETAILS.replace("[0.1, 0.2, 0.0]", "[0.1, 0.2, -1.0]")).unwrap_err();
    assert!(error.contains("a time is negative"), "{error}");
}

#[test]
fn nothing_that_completed_is_nothing_to_compare() {
    let error =
        of(&DETAILS.replace("[\"\", \"\", \"refused\"]", "[\"a\", \"b\", \"c\"]")).unwrap_err();
    assert!(error.contains("has no request that completed"), "{error}");
}
