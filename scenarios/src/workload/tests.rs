//! Workloads as their users meet them: files in, requests out.

use std::fmt::Write as _;

use foresail_core::time::{HOUR, MILLISECOND, MINUTE, Nanos, SECOND};
use proptest::prelude::*;

use super::testing::{all, file, shared, trace, workload};
use super::*;
use crate::distribution::Distribution;

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
    2023-11-16 18:15:46.6805900,374,44\r\n\
    2023-11-16 18:15:50.9951690,396,109\r\n\
    2023-11-16 18:15:51.2224670,879,55";

fn dues(requests: &[Request]) -> Vec<Nanos> {
    requests.iter().map(|request| request.due).collect()
}

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
        assert_eq!(error(&azure_rows(rows)), expected, "{rows}");
    }
    assert_eq!(
        error(&azure_rows("2023-11-16 18:15:46,1,2\x00")),
        "FILE:2:24: text: expected text without NUL bytes, found `\\u{0}`"
    );
    assert_eq!(error(b""), "FILE: the trace holds no requests");
    let mut latin = azure_rows("2023-11-16 18:15:46,1,2");
    latin.push(0xe9);
    assert_eq!(
        error(&latin),
        "FILE:2:24: text: expected UTF-8 text, found `\u{fffd}`"
    );
    let long = error(&azure_rows(&"9".repeat(200)));
    assert!(
        long.ends_with(&format!("found `{}…`", "9".repeat(80))),
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
fn transforms_apply_in_their_order() {
    let file =
        file("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n10,2,1\n20,3,1\n40,4,1\n");
    let played = |transforms: Transforms| {
        let mut workload = trace(file.path());
        workload.transforms = transforms;
        let requests = all(&workload, 1).unwrap();
        requests
            .iter()
            .map(|r| (r.due as f64 / SECOND as f64, r.prompt_tokens))
            .collect::<Vec<_>>()
    };
    let slice = Some(Slice {
        from: 5 * SECOND,
        to: Some(40 * SECOND),
    });
    let base = Transforms::default();
    assert_eq!(played(Transforms { slice, ..base }), [(5.0, 2), (15.0, 3)]);
    assert_eq!(
        played(Transforms {
            slice,
            rate_scale: 2.0,
            ..base
        }),
        [(2.5, 2), (7.5, 3)]
    );
    assert_eq!(
        played(Transforms {
            time_stretch: 3.0,
            ..base
        })[3],
        (120.0, 4)
    );
    // A mean gap of 40/3 s, rounded up to a nanosecond.
    let twice = played(Transforms { repeat: 2, ..base });
    assert_eq!(twice.len(), 8);
    assert!((twice[4].0 - (40.0 + 40.0 / 3.0)).abs() < 1e-8 && twice[4].1 == 1);
    assert_eq!(twice[7].0 - twice[4].0, 40.0);
    let all = played(Transforms {
        slice,
        rate_scale: 2.0,
        time_stretch: 4.0,
        repeat: 3,
    });
    assert_eq!(
        all,
        [
            (10.0, 2),
            (30.0, 3),
            (50.0, 2),
            (70.0, 3),
            (90.0, 2),
            (110.0, 3)
        ]
    );
}

#[test]
fn transforms_that_cannot_be_are_errors() {
    let file = file(AZURE);
    let error = |transforms: Transforms| {
        let mut workload = trace(file.path());
        workload.transforms = transforms;
        all(&workload, 1).unwrap_err().to_string()
    };
    let base = Transforms::default();
    let slice = |from, to| Transforms {
        slice: Some(Slice { from, to }),
        ..base
    };
    assert!(
        error(Transforms {
            rate_scale: 0.0,
            ..base
        })
        .contains("rate_scale: expected")
    );
    assert!(
        error(Transforms {
            time_stretch: f64::NAN,
            ..base
        })
        .contains("time_stretch: expected")
    );
    assert!(error(Transforms { repeat: 0, ..base }).contains("repeat: expected at least 1"));
    assert!(error(slice(5, Some(5))).contains("slice.to: expected later"));
    assert_eq!(
        error(slice(HOUR, None)),
        "the slice from 3600.000000000 s to the end holds no requests"
    );
    let one = Transforms {
        repeat: 2,
        ..slice(0, Some(1))
    };
    assert!(error(one).contains("at least two requests"));
    let far = Transforms {
        time_stretch: 1e9,
        repeat: 100,
        ..base
    };
    assert!(error(far).contains("584 years"));
}

#[test]
fn copies_have_other_conversations_and_the_same_blocks() {
    let file = file(
        "due_ns,prompt_tokens,output_tokens,session,group,shared_tokens,content_session,block_tokens,block_ids\n\
        0,9,1,4,2,3,4,,\n5,9,1,,,,,8,1 2\n9,9,1,4,2,3,4,,\n",
    );
    let mut workload = trace(file.path());
    workload.transforms.repeat = 2;
    let requests = all(&workload, 1).unwrap();
    assert_eq!(requests[0].session, requests[2].session);
    assert_eq!(requests[3].session, requests[5].session);
    assert_ne!(requests[0].session, requests[3].session);
    let Content::Session {
        group: 2,
        shared_tokens: 3,
        session,
    } = requests[3].content
    else {
        panic!("{:?}", requests[3]);
    };
    assert_eq!(Some(session), requests[3].session);
    assert_eq!(requests[1].content, requests[4].content);
}

fn generator() -> Generator {
    Generator {
        duration: None,
        requests: Some(20_000),
        arrivals: Arrivals {
            process: Process::Poisson,
            rate_per_s: 50.0,
        },
        shape: Shape::Steady,
        prompt_tokens: Lengths {
            distribution: Distribution::log_normal_mean(512.0, 1.0),
            max: None,
        },
        output_tokens: Lengths {
            distribution: Distribution::log_normal_mean(256.0, 1.0),
            max: None,
        },
        sessions: None,
    }
}

fn generated(generator: Generator) -> Workload {
    workload(Source::Generated(generator))
}

fn stats(workload: &Workload) -> TraceStats {
    TraceStats::collect(workload.open(11).unwrap())
        .unwrap()
        .unwrap()
}

#[test]
fn generated_arrivals_have_the_rate_and_burstiness_asked_for() {
    for (process, cv) in [
        (Process::Constant, 0.0),
        (Process::Poisson, 1.0),
        (Process::Gamma { cv: 2.0 }, 2.0),
        (Process::Weibull { cv: 0.5 }, 0.5),
    ] {
        let arrivals = Arrivals {
            process,
            rate_per_s: 50.0,
        };
        let found = stats(&generated(Generator {
            arrivals,
            ..generator()
        }));
        assert!(
            (found.rate_per_s_mean.unwrap() / 50.0 - 1.0).abs() < 0.03,
            "{process:?}"
        );
        assert!(
            (found.interarrival_cv.unwrap() - cv).abs() < 0.05,
            "{process:?}"
        );
        assert!(
            (found.prompt_tokens.mean / 512.0 - 1.0).abs() < 0.03,
            "{process:?}"
        );
        assert!(
            (found.output_tokens.mean / 256.0 - 1.0).abs() < 0.03,
            "{process:?}"
        );
    }
}

#[test]
fn one_seed_is_one_workload_and_another_seed_another() {
    let workload = generated(generator());
    assert_eq!(all(&workload, 1).unwrap(), all(&workload, 1).unwrap());
    assert_ne!(all(&workload, 1).unwrap(), all(&workload, 2).unwrap());
    // The first draws, held for ever: a change here changes every result.
    let first = &all(&workload, 1).unwrap()[..3];
    let shown = first.iter().fold(String::new(), |mut shown, request| {
        let _ = writeln!(
            shown,
            "{} {} {}",
            request.due, request.prompt_tokens, request.output_tokens
        );
        shown
    });
    insta::assert_snapshot!(shown, @r"
    13809296 189 178
    31921721 276 253
    45423102 303 48
    ");
}

#[test]
fn other_lengths_leave_the_arrivals_as_they_were() {
    let prompt_tokens = Lengths {
        distribution: Distribution::Exponential { mean: 9.0 },
        max: Some(20),
    };
    let base = all(&generated(generator()), 1).unwrap();
    let other = all(
        &generated(Generator {
            prompt_tokens,
            ..generator()
        }),
        1,
    )
    .unwrap();
    assert_eq!(dues(&base), dues(&other));
    assert!(
        base.iter()
            .zip(&other)
            .all(|(a, b)| a.output_tokens == b.output_tokens)
    );
}

#[test]
fn rate_scale_moves_generated_arrivals_and_not_the_shape() {
    let shape = Shape::OnOff {
        on: MINUTE,
        off: MINUTE,
        low_factor: 0.0,
    };
    let mut workload = generated(Generator {
        shape,
        duration: Some(10 * MINUTE),
        requests: None,
        ..generator()
    });
    let hint = workload.open(1).unwrap().len_hint().unwrap();
    assert_eq!(hint, 15_000);
    workload.transforms.rate_scale = 2.0;
    let requests = all(&workload, 1).unwrap();
    assert!(
        (requests.len() as f64 / 30_000.0 - 1.0).abs() < 0.03,
        "{}",
        requests.len()
    );
    assert!(
        requests
            .iter()
            .all(|request| request.due % (2 * MINUTE) <= MINUTE)
    );
}

#[test]
fn the_end_is_by_duration_or_by_count() {
    let arrivals = Arrivals {
        process: Process::Constant,
        rate_per_s: 10.0,
    };
    let count = |duration, requests| {
        all(
            &generated(Generator {
                arrivals,
                duration,
                requests,
                ..generator()
            }),
            1,
        )
        .unwrap()
        .len()
    };
    assert_eq!(count(Some(SECOND), None), 10);
    assert_eq!(count(Some(SECOND), Some(3)), 3);
    assert_eq!(count(Some(SECOND), Some(30)), 10);
    assert_eq!(count(None, Some(30)), 30);
    let endless = generated(Generator {
        requests: None,
        ..generator()
    });
    assert!(
        endless
            .open(1)
            .unwrap_err()
            .to_string()
            .contains("`duration` or `requests`")
    );
}

fn conversations() -> Generator {
    Generator {
        arrivals: Arrivals {
            process: Process::Poisson,
            rate_per_s: 2.0,
        },
        requests: Some(5_000),
        sessions: Some(Sessions {
            turns: Distribution::Uniform { min: 1.0, max: 9.0 },
            think_time_s: Distribution::Exponential { mean: 20.0 },
            groups: 3,
            shared_tokens: 100,
            max_context_tokens: None,
        }),
        ..generator()
    }
}

#[test]
fn a_turn_begins_with_all_that_was_said_before() {
    let requests = all(&generated(conversations()), 1).unwrap();
    assert!(requests.is_sorted_by_key(|request| request.due));
    let mut contexts = std::collections::BTreeMap::new();
    let mut groups = [0_u32; 3];
    for request in &requests {
        let Content::Session {
            group,
            shared_tokens: 100,
            session,
        } = request.content
        else {
            panic!("{request:?}");
        };
        assert_eq!(request.session, Some(session));
        groups[group as usize] += 1;
        let (before, of_group) = contexts.get(&session).copied().unwrap_or((100, group));
        assert!(request.prompt_tokens > before, "{request:?} after {before}");
        assert_eq!(group, of_group);
        contexts.insert(
            session,
            (request.prompt_tokens + request.output_tokens, group),
        );
    }
    assert!(groups.iter().all(|&count| count > 1_200), "{groups:?}");
    // 5 turns on average, less those that are still to come at the end.
    let turns = requests.len() as f64 / contexts.len() as f64;
    assert!((4.0..5.1).contains(&turns), "{turns}");
}

#[test]
fn a_conversation_ends_at_the_largest_context_and_is_counted() {
    let mut generator = conversations();
    if let Some(sessions) = &mut generator.sessions {
        sessions.max_context_tokens = Some(2_000);
    }
    let mut requests = generated(generator).open(1).unwrap();
    let found: Vec<_> = requests.by_ref().map(Result::unwrap).collect();
    assert!(
        found
            .iter()
            .all(|request| request.prompt_tokens + request.output_tokens <= 2_000)
    );
    assert!(requests.sessions_ended_early() > 100);
}

#[test]
fn think_times_leave_the_lengths_of_conversations_as_they_were() {
    let mut slow = conversations();
    if let Some(sessions) = &mut slow.sessions {
        sessions.think_time_s = Distribution::Fixed { value: 1.0 };
    }
    let lengths_of_first = |generator: Generator| {
        let requests = all(&generated(generator), 1).unwrap();
        let turns = requests
            .into_iter()
            .filter(|request| request.session == Some(5));
        turns
            .map(|turn| (turn.prompt_tokens, turn.output_tokens))
            .collect::<Vec<_>>()
    };
    assert_eq!(lengths_of_first(conversations()), lengths_of_first(slow));
}

#[test]
fn azure_has_the_statistics_of_its_data_sheet() {
    let Some(path) = shared("data/traces/azure2023/AzureLLMInferenceTrace_conv.csv") else {
        return;
    };
    let found = stats(&trace(path));
    assert_eq!(found.requests, 19_366);
    assert_eq!(found.span / (SECOND / 10), 35_017);
    let near = |found: Option<f64>, expected: f64, tolerance: f64| {
        assert!(
            (found.unwrap() - expected).abs() < tolerance,
            "{found:?}, expected {expected}"
        );
    };
    near(found.rate_per_s_mean, 5.53, 0.005);
    near(found.interarrival_cv, 1.094, 0.0005);
    near(found.dispersion_1_s, 1.39, 0.02);
    near(found.dispersion_10_s, 3.9, 0.1);
    near(found.dispersion_60_s, 16.1, 0.5);
    near(Some(found.rate_per_s_60_s_max), 8.45, 0.005);
    assert_eq!(found.requests_in_1_s_max, 16);
    near(Some(found.prompt_tokens.mean), 1154.7, 0.05);
    near(Some(found.output_tokens.mean), 211.1, 0.05);
    let LengthStats {
        p50, p90, p99, max, ..
    } = found.prompt_tokens;
    // The data sheet interpolates between 2734 and 2735.
    assert_eq!([p50, p90, p99, max], [1020, 2735, 4142, 14_050]);
    let LengthStats {
        p50, p90, p99, max, ..
    } = found.output_tokens;
    assert_eq!([p50, p90, p99, max], [129, 424, 601, 1000]);
    assert_eq!(found.requests_with_prefix, 0);
}

#[test]
fn mooncake_has_the_statistics_of_its_data_sheet() {
    let Some(path) = shared("data/traces/mooncake/conversation_trace.jsonl") else {
        return;
    };
    let found = stats(&trace(&path));
    assert_eq!((found.requests, found.span / SECOND), (12_031, 3_536));
    assert!((found.rate_per_s_mean.unwrap() - 3.40).abs() < 0.005);
    assert_eq!(found.requests_in_1_s_max, 28);
    assert!((found.prompt_tokens.mean - 12_035.0).abs() < 0.5);
    assert!((found.output_tokens.mean - 342.6).abs() < 0.05);
    let LengthStats {
        p50,
        p90,
        p99,
        min,
        max,
        ..
    } = found.prompt_tokens;
    assert_eq!(
        [p50, p90, p99, min, max],
        [6909, 27_367, 85_401, 891, 126_195]
    );
    let LengthStats {
        p50,
        p90,
        p99,
        min,
        max,
        ..
    } = found.output_tokens;
    assert_eq!([p50, p90, p99, min, max], [350, 597, 1120, 1, 2000]);
    assert_eq!(found.requests_with_prefix, 12_031);

    let source = TraceSource {
        timestamps: Timestamps::Spread,
        ..TraceSource::new(path)
    };
    let spread = stats(&workload(Source::Trace(source)));
    assert_eq!(spread.requests, 12_031);
    // Bursts of a 3 s tick make it 7.9 as recorded.
    assert!(
        spread.dispersion_1_s.unwrap() < 1.5,
        "{:?}",
        spread.dispersion_1_s
    );
    assert!(
        (spread.dispersion_60_s.unwrap() - 2.9).abs() < 0.5,
        "{:?}",
        spread.dispersion_60_s
    );
}

fn any_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Unique),
        (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(group, shared_tokens, session)| {
            Content::Session {
                group,
                shared_tokens,
                session,
            }
        }),
        (1..u32::MAX, proptest::collection::vec(any::<u64>(), 0..20)).prop_map(
            |(block_tokens, ids)| Content::Blocks {
                block_tokens,
                ids: ids.into()
            }
        ),
    ]
}

fn any_requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (
        any::<u64>(),
        1..=u32::MAX,
        1..=u32::MAX,
        any::<Option<u64>>(),
        any_content(),
    )
        .prop_map(
            |(due, prompt_tokens, output_tokens, session, content)| Request {
                due,
                prompt_tokens,
                output_tokens,
                session,
                content,
            },
        );
    proptest::collection::vec(request, 1..20).prop_map(|mut requests| {
        requests.sort_by_key(|request| request.due);
        requests
    })
}

fn any_generator() -> impl Strategy<Value = Generator> {
    let process = prop_oneof![
        Just(Process::Constant),
        Just(Process::Poisson),
        (0.01..20.0).prop_map(|cv| Process::Gamma { cv }),
        (0.01..20.0).prop_map(|cv| Process::Weibull { cv }),
    ];
    let shape = prop_oneof![
        Just(Shape::Steady),
        (1..HOUR, 0..HOUR, 0.0..2.0).prop_map(|(on, off, low_factor)| Shape::OnOff {
            on,
            off,
            low_factor
        }),
        (0.0..5.0, 1..HOUR).prop_map(|(to_factor, over)| Shape::Ramp { to_factor, over }),
        (0..HOUR, 0..HOUR, 0.0..50.0).prop_map(|(at, duration, factor)| Shape::Spike {
            at,
            duration,
            factor
        }),
        (1..24 * HOUR, 1.0..1000.0).prop_map(|(period, peak_to_trough)| Shape::Diurnal {
            period,
            peak_to_trough
        }),
    ];
    let sessions =
        proptest::option::of((1.0..10.0, 0.0..100.0).prop_map(|(turns, think)| Sessions {
            turns: Distribution::Fixed { value: turns },
            think_time_s: Distribution::Exponential { mean: think },
            groups: 2,
            shared_tokens: 10,
            max_context_tokens: Some(5_000),
        }));
    (process, shape, sessions, 0.001..1e6_f64).prop_map(|(process, shape, sessions, rate_per_s)| {
        let arrivals = Arrivals {
            process,
            rate_per_s,
        };
        Generator {
            arrivals,
            shape,
            sessions,
            requests: Some(500),
            ..generator()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_native_format_loses_nothing(requests in any_requests()) {
        let mut writer = NativeWriter::new(Vec::new()).unwrap();
        for request in &requests {
            writer.write(request).unwrap();
        }
        let file = file(writer.finish().unwrap());
        prop_assert_eq!(TraceFormat::detect(file.path()).unwrap(), TraceFormat::Native);
        prop_assert_eq!(all(&trace(file.path()), 1).unwrap(), requests);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        format in 0..TraceFormat::ALL.len(),
        row in 0..8_usize,
        cut in 0..40_usize,
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let rows = [
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2",
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,m,1,2,3,x",
            "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,3,4",
            "request_id,prefix_group,input_tokens,output_tokens,arrival_time_us\n1,g,\"3\",4,5",
            "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [0]}",
            "due_ns,prompt_tokens,output_tokens,session,group,shared_tokens,content_session,block_tokens,block_ids\n0,1,1,,,,,1,1 2",
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,,1,m,1,2,3,x",
            "",
        ];
        let mut content = rows[row].as_bytes().to_vec();
        content.truncate(content.len().saturating_sub(cut));
        content.extend(&noise);
        let file = file(&content);
        let _ = all(&trace(file.path()), 1);
        let format = Some(TraceFormat::ALL[format]);
        let _ = all(&workload(Source::Trace(TraceSource { format, ..TraceSource::new(file.path()) })), 1);
    }

    #[test]
    fn due_times_never_decrease(generator in any_generator(), seed in any::<u64>()) {
        let requests = all(&generated(generator), seed).unwrap();
        prop_assert!(requests.is_sorted_by_key(|request| request.due));
        prop_assert!(requests.iter().all(|r| r.prompt_tokens > 0 && r.output_tokens > 0));
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let good = Request {
        due: 5,
        prompt_tokens: 1,
        output_tokens: 1,
        session: None,
        content: Content::Unique,
    };
    let mut writer = NativeWriter::new(Vec::new()).unwrap();
    writer.write(&good).unwrap();
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
            writer.write(&bad).unwrap_err().kind(),
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

#[test]
fn workloads_describe_themselves() {
    let mut workload = generated(conversations());
    workload.transforms.rate_scale = 2.0;
    insta::assert_snapshot!(workload.describe(), @"poisson arrivals, 2 conversations/s, prompts of log-normal (mean 512.0) tokens, answers of log-normal (mean 256.0) tokens, conversations of uniform 1 to 9 turns, exponential (mean 20) s apart, behind 100 tokens shared by each of 3 groups, at 2 times the rate");
    insta::assert_snapshot!(trace("day.csv").describe(), @"trace day.csv");
}
