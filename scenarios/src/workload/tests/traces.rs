//! Hand-written files of every format, with every oddity.

use foresail_core::time::{MILLISECOND, SECOND};

use super::*;
use crate::workload::testing::{all, file, trace};

fn read(content: &str) -> Result<Vec<Request>, WorkloadError> {
    all(&trace(file(content).path()), 1)
}

/// The error of this content, without the file's path.
fn error(content: &[u8]) -> String {
    let file = file(content);
    let error = all(&trace(file.path()), 1).unwrap_err().to_string();
    error.replace(&file.path().display().to_string(), "FILE")
}

fn azure_rows(rows: &str) -> Vec<u8> {
    format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}").into_bytes()
}

#[test]
fn azure_begins_at_zero_and_keeps_hundred_nanoseconds() {
    let requests = read(AZURE).unwrap();
    assert_eq!(dues(&requests), [0, 4_314_579_000, 4_541_877_000]);
    assert_eq!(
        (requests[2].prompt_tokens, requests[2].output_tokens),
        (879, 55)
    );
    let requests = read(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2024-05-12 23:59:59.999999+00:00,1,2\n2024-05-13 00:00:00+00:00,3,4\n",
    )
    .unwrap();
    assert_eq!(dues(&requests), [0, 1_000]);
}

#[test]
fn burstgpt_counts_what_it_skips() {
    let file = file(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
        3,GPT-4,300,0,300,API log\n5,ChatGPT,472,18,490,Conversation log\n\
        45,GPT-4,300,0,300,API log\n118,GPT-4,417,276,693,Conversation log\n",
    );
    let mut requests = trace(file.path()).open(1).unwrap();
    let found: Vec<_> = requests.by_ref().map(Result::unwrap).collect();
    assert_eq!(dues(&found), [0, 113 * SECOND]);
    assert_eq!(
        requests.skipped(),
        Skipped {
            rows: 2,
            reason: "failed requests (0 response tokens)"
        }
    );
}

#[test]
fn vidur_and_blis_and_mooncake_are_read() {
    let vidur = "arrived_at,num_prefill_tokens,num_decode_tokens\n1e-05,3,4\n0.125,547,248\n";
    assert_eq!(dues(&read(vidur).unwrap()), [0, 125 * MILLISECOND - 10_000]);
    let blis = "request_id,session_id,input_tokens,output_tokens,arrival_time_us,error_message\n\
        0,s,10,5,1000,\"two\nlines, and \"\"quotes\"\"\"\n1,,20,6,1001,\n";
    let requests = read(blis).unwrap();
    assert_eq!(dues(&requests), [0, 1_000]);
    assert!(requests[0].session.is_some() && requests[1].session.is_none());
    let mooncake = r#"{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [0, 7]}
{"timestamp": 3000, "input_length": 1, "output_length": 5, "hash_ids": [0]}
{"timestamp": 6002, "input_length": 1, "output_length": 5, "hash_ids": [0]}
"#;
    assert_eq!(dues(&read(mooncake).unwrap()), [0, 0, 3_002 * MILLISECOND]);
}

#[test]
fn mooncake_can_be_spread_and_others_cannot() {
    let row = |time: u32| {
        format!(
            "{{\"timestamp\": {time}, \"input_length\": 1, \"output_length\": 5, \"hash_ids\": [0]}}\n"
        )
    };
    let content: String = [0, 0, 0, 3000, 6003, 6003].map(row).concat();
    let mooncake = file(content);
    let spread = |path: &std::path::Path| {
        let source = TraceSource {
            timestamps: Timestamps::Spread,
            ..TraceSource::new(path)
        };
        all(&workload(Source::Trace(source)), 1)
    };
    let expected = [0, 1000, 2000, 3000, 6003].map(|time| time * MILLISECOND);
    let found = dues(&spread(mooncake.path()).unwrap());
    assert_eq!(found[..5], expected);
    assert_eq!(found[5], 6_003 * MILLISECOND + 3_003 * MILLISECOND / 2);
    let error = spread(file(AZURE).path()).unwrap_err().to_string();
    assert!(
        error.contains("only a mooncake-jsonl trace can be spread"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_with_a_row_is_said_with_its_place() {
    let cases = [
        (
            "2023-11-16 18:15:46,1,2\n2023-11-16 18:15:45,1,2",
            "FILE:3: rows must be in time order, but this one is at -1.000000000 s and the one before it at 0.000000000 s after the first; sort the file by its time column",
        ),
        (
            "2023-11-16 18:15:46,0,2",
            "FILE:2:21: ContextTokens: expected a whole number from 1 to 4294967295, found `0`",
        ),
        (
            "2023-11-16 18:15:46,1,-2",
            "FILE:2:23: GeneratedTokens: expected a whole number from 1 to 4294967295, found `-2`",
        ),
        (
            "2023-11-16 18:15:46,1,4294967296",
            "FILE:2:23: GeneratedTokens: expected a whole number from 1 to 4294967295, found `4294967296`",
        ),
        (
            "2023-11-16 18:15:46,1",
            "FILE:2:22: GeneratedTokens: expected a field; the row ends before it, found `2023-11-16 18:15:46,1`",
        ),
        (
            "2023-11-16 18:15:46,1,2,3",
            "FILE:2:25: row: expected no more fields, found `3`",
        ),
        (
            "\n2023-11-16 18:15:46,1,2",
            "FILE:2:1: row: expected a row; this line is blank, found ``",
        ),
        (
            "2023-11-16 18:15:46,1,2\n\n",
            "FILE:3:1: row: expected a row; this line is blank, found ``",
        ),
        (
            "noon,1,2",
            "FILE:2:1: TIMESTAMP: expected a time from 1970 to 2499 such as `2023-11-16 18:15:46.6805900`, with or without `+00:00`, found `noon`",
        ),
        ("", "FILE: the trace holds no requests"),
    ];
    for (rows, expected) in cases {
        // A remedy may come after it.
        let told = error(&azure_rows(rows));
        assert!(told.starts_with(expected), "{rows}: {told}");
    }
    assert_eq!(
        error(&azure_rows("2023-11-16 18:15:46,1,2\x00")),
        "FILE:2:24: text: expected text without NUL bytes, found `\\u{0}`; correct or remove the line, or name the right format"
    );
    assert_eq!(
        error(b""),
        "FILE: the trace holds no requests; name another trace, or the right format"
    );
    let mut latin = azure_rows("2023-11-16 18:15:46,1,2");
    latin.push(0xe9);
    assert_eq!(
        error(&latin),
        "FILE:2:24: text: expected UTF-8 text, found `\u{fffd}`; correct or remove the line, or name the right format"
    );
    let long = error(&azure_rows(&"9".repeat(200)));
    assert!(
        long.contains(&format!("found `{}…`; ", "9".repeat(80))),
        "{long}"
    );
}

#[test]
fn a_named_format_must_fit() {
    let file = file(AZURE);
    let source = TraceSource {
        format: Some(TraceFormat::Vidur),
        ..TraceSource::new(file.path())
    };
    let error = workload(Source::Trace(source))
        .open(1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("header: expected `arrived_at,"), "{error}");
    assert!(error.contains("found `TIMESTAMP,"), "{error}");
}

#[test]
fn after_an_error_there_is_nothing_more() {
    let file = file(azure_rows(
        "2023-11-16 18:15:46,1,2\nx\n2023-11-16 18:15:47,1,2",
    ));
    let found: Vec<bool> = trace(file.path())
        .open(1)
        .unwrap()
        .map(|request| request.is_ok())
        .collect();
    assert_eq!(found, [true, false]);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let good = Request {
        due: 5,
        prompt_tokens: 1,
        output_tokens: 1,
        session: None,
        adapter: None,
        content: Content::Unique,
    };
    let mut writer = NativeWriter::new(Vec::new()).unwrap();
    writer.write(&good, None).unwrap();
    let ids = vec![u64::MAX; 60_000].into();
    for bad in [
        Request {
            due: 4,
            ..good.clone()
        },
        Request {
            prompt_tokens: 0,
            ..good.clone()
        },
        Request {
            output_tokens: 0,
            ..good.clone()
        },
        Request {
            content: Content::Blocks {
                block_tokens: 0,
                ids: Box::default(),
            },
            ..good.clone()
        },
        Request {
            content: Content::Blocks {
                block_tokens: 1,
                ids,
            },
            ..good.clone()
        },
    ] {
        assert_eq!(
            writer.write(&bad, None).unwrap_err().kind(),
            std::io::ErrorKind::InvalidInput
        );
    }
    let text = String::from_utf8(writer.finish().unwrap()).unwrap();
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn native_rows_are_one_kind_of_content() {
    let header = "due_ns,prompt_tokens,output_tokens,session,group,shared_tokens,content_session,block_tokens,block_ids\n";
    let error = |row: &str| error(format!("{header}{row}").as_bytes());
    assert!(error("0,1,1,,1,1,1,8,").contains("expected nothing, because `group` is given"));
    assert!(error("0,1,1,,1,,1,,").contains("shared_tokens"));
    assert!(error("0,1,1,,,,,0,1").contains("block_tokens: expected a whole number from 1"));
    assert!(error("0,1,1,,,,,8,1  2").contains("separated by blanks"));
    assert!(error("-1,1,1,,,,,,").contains("due_ns: expected a whole number"));
    // Times are kept as they stand.
    assert_eq!(dues(&read(&format!("{header}7,1,1,,,,,,\n")).unwrap()), [7]);
}
