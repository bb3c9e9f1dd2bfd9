use super::*;

const TABLE: &str = r#"{
    "schema": "foresail.profile/1",
    "provenance": {
        "engine": "vllm 0.19.0", "model": "llama-3-8b", "gpu": "h200", "world_size": 1,
        "precision": "bf16", "measured_on": "2026-11-01", "source": "made up"
    },
    "decode": [
        {"batch": 8, "past_tokens": 1000, "seconds": 0.0060},
        {"batch": 8, "past_tokens": 9000, "seconds": 0.0064},
        {"batch": 8, "past_tokens": 17000, "seconds": 0.0088},
        {"batch": 1, "past_tokens": 0, "seconds": 0.0050},
        {"batch": 1, "past_tokens": 8000, "seconds": 0.0050},
        {"batch": 1, "past_tokens": 16000, "seconds": 0.0058}
    ],
    "prefill": [
        {"tokens": 512, "past_tokens": 0, "seconds": 0.0120},
        {"tokens": 512, "past_tokens": 8192, "seconds": 0.0140},
        {"tokens": 2048, "past_tokens": 0, "seconds": 0.0450},
        {"tokens": 2048, "past_tokens": 8192, "seconds": 0.0530}
    ]
}"#;

const MILLISECOND: Picos = 1_000_000_000;

fn table() -> ProfileTable {
    serde_json::from_str(TABLE).unwrap()
}

fn error(change: impl FnOnce(&mut ProfileTable)) -> String {
    let mut table = table();
    change(&mut table);
    Profile::new(&table, 8).unwrap_err().to_string()
}

fn decode(profile: &Profile, batch: u32, past: u64) -> Picos {
    profile.decode(batch, past).at(past)
}

fn prefill(profile: &Profile, len: u32, past: u32) -> Picos {
    let chunks = [Chunk {
        past,
        len,
        sample: true,
    }];
    profile.step(&StepLoad {
        decodes: 0,
        decode_past: 0,
        chunks: &chunks,
    })
}

#[test]
fn measured_rows_come_back_as_they_are() {
    let profile = Profile::new(&table(), 8).unwrap();
    for row in table().decode {
        assert_eq!(
            decode(&profile, row.batch, row.past_tokens),
            picos(row.seconds),
            "{row:?}"
        );
    }
    for row in table().prefill {
        assert_eq!(
            prefill(&profile, row.tokens, row.past_tokens as u32),
            picos(row.seconds),
            "{row:?}"
        );
    }
}

#[test]
fn between_and_beyond_the_rows_it_is_straight() {
    let profile = Profile::new(&table(), 8).unwrap();
    // Flat, then 0.1 us a token, also beyond the last row.
    assert_eq!(decode(&profile, 1, 3000), 5 * MILLISECOND);
    assert_eq!(decode(&profile, 1, 12_000), 54 * MILLISECOND / 10);
    assert_eq!(decode(&profile, 1, 26_000), 68 * MILLISECOND / 10);
    // 0.05 us a token before 9000, also before the first row.
    assert_eq!(decode(&profile, 8, 0), 595 * MILLISECOND / 100);
    // Three sevenths of the way from batch 1 to batch 8.
    let expected = (4.0 * 5.0 + 3.0 * 6.0) / 7.0 * 1e-3;
    assert!(decode(&profile, 4, 1000).abs_diff(picos(expected)) <= 1000);
    assert_eq!(prefill(&profile, 1280, 0), 285 * MILLISECOND / 10);
    assert_eq!(prefill(&profile, 1280, 4096), 31 * MILLISECOND);
    assert_eq!(prefill(&profile, 2048, 16384), 61 * MILLISECOND);
    assert_eq!(prefill(&profile, 3584, 0), 78 * MILLISECOND);
    assert_eq!(prefill(&profile, 256, 0), 65 * MILLISECOND / 10);
}

#[test]
fn a_piece_that_begins_far_out_may_start_below_zero() {
    let profile = Profile::new(&table(), 8).unwrap();
    let piece = profile.decode(8, 100_000);
    // From 6.4 ms at 9000 tokens it rises by 0.3 us a token.
    assert_eq!(piece.per_past_token, 300_000);
    assert_eq!(piece.fixed, 3_700_000_000);
    let mut steep = table();
    steep.decode[2].seconds = 0.02;
    let piece = Profile::new(&steep, 8).unwrap().decode(8, 100_000);
    assert!(piece.fixed < 0, "{piece:?}");
    assert_eq!(piece.at(17_000), 20 * MILLISECOND);
    assert_eq!(
        piece.leap(8, 17_000, 2),
        piece.at(17_000) + piece.at(17_008)
    );
}

#[test]
fn one_row_is_a_constant_step_time() {
    let mut table = table();
    table.decode = vec![DecodeRow {
        batch: 1,
        past_tokens: 0,
        seconds: 0.001,
    }];
    table.prefill = vec![PrefillRow {
        tokens: 1,
        past_tokens: 0,
        seconds: 0.0,
    }];
    let profile = Profile::new(&table, 1).unwrap();
    let piece = DecodePiece {
        fixed: 1_000_000_000,
        per_past_token: 0,
        past_last: u64::MAX,
    };
    for past in [0, 1, 1_000_000] {
        assert_eq!(profile.decode(1, past), piece);
    }
    assert_eq!(prefill(&profile, 700, 3), 0);
}

#[test]
fn an_affine_table_gives_affine_steps_of_every_kind() {
    let seconds = |tokens: u64, past: u64| {
        (4_000_000_000 + 70_000_000 * tokens + 30_000 * past) as f64 / 1e12
    };
    let mut table = table();
    let corners = [(1, 0), (1, 100_000), (64, 0), (64, 100_000)];
    let row = |(batch, past_tokens)| DecodeRow {
        batch,
        past_tokens,
        seconds: seconds(batch.into(), past_tokens),
    };
    table.decode = corners.into_iter().map(row).collect();
    let row = |(tokens, past_tokens)| PrefillRow {
        tokens,
        past_tokens,
        seconds: seconds(tokens.into(), past_tokens),
    };
    table.prefill = corners.into_iter().map(row).collect();
    let profile = Profile::new(&table, 64).unwrap();
    let chunks = [
        Chunk {
            past: 0,
            len: 500,
            sample: true,
        },
        Chunk {
            past: 300,
            len: 20,
            sample: false,
        },
    ];
    for chunks in [&chunks[..0], &chunks[..1], &chunks] {
        let load = StepLoad {
            decodes: 30,
            decode_past: 7000,
            chunks,
        };
        let tokens = 30 + chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
        let past = 7000
            + chunks
                .iter()
                .map(|chunk| u64::from(chunk.past))
                .sum::<u64>();
        let (actual, expected) = (profile.step(&load), picos(seconds(tokens, past)));
        assert!(
            actual.abs_diff(expected) <= 3,
            "{actual} against {expected}"
        );
    }
}

#[test]
fn decodes_ride_along_with_a_chunk_for_what_they_add() {
    let profile = Profile::new(&table(), 8).unwrap();
    let chunks = [Chunk {
        past: 0,
        len: 512,
        sample: true,
    }];
    let mixed = profile.step(&StepLoad {
        decodes: 8,
        decode_past: 9000,
        chunks: &chunks,
    });
    let (chunk, decodes) = (prefill(&profile, 512, 0), decode(&profile, 8, 9000));
    assert!(mixed > chunk && mixed < chunk + decodes, "{mixed}");
}

#[test]
fn the_file_round_trips_and_unknown_keys_are_refused() {
    let text = serde_json::to_string(&table()).unwrap();
    assert_eq!(
        serde_json::from_str::<ProfileTable>(&text).unwrap(),
        table()
    );
    let misspelt = TABLE.replacen("past_tokens", "past", 1);
    let message = serde_json::from_str::<ProfileTable>(&misspelt)
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("unknown field `past`"), "{message}");
}

#[test]
fn errors_name_the_rows() {
    let cases = [
        (
            error(|table| table.schema = "foresail.profile/2".into()),
            "the profile's schema is `foresail.profile/2`, expected `foresail.profile/1`",
        ),
        (
            error(|table| table.decode.clear()),
            "the profile has no decode rows",
        ),
        (
            error(|table| table.prefill.clear()),
            "the profile has no prefill rows",
        ),
        (
            error(|table| table.decode[3].seconds = f64::NAN),
            "decode[3]: seconds must be from 0 to 3600, got NaN",
        ),
        (
            error(|table| table.prefill[1].seconds = -0.5),
            "prefill[1]: seconds must be from 0 to 3600, got -0.5",
        ),
        (
            error(|table| table.decode[2].past_tokens = u64::MAX),
            "decode[2]: past_tokens must be at most 1000000000000, got 18446744073709551615",
        ),
        (
            error(|table| {
                (table.decode[4].past_tokens, table.decode[5].past_tokens) =
                    (999_999_999, 1_000_000_000);
                table.decode[5].seconds = 3000.0;
            }),
            "decode rises too steeply around batch 1, past_tokens 999999999: are these seconds?",
        ),
        (
            error(|table| table.prefill[2].tokens = 0),
            "prefill[2]: tokens must be at least 1",
        ),
        (
            error(|table| table.decode[5].past_tokens = 8000),
            "decode[5] repeats decode[4]: batch 1, past_tokens 8000",
        ),
        (
            error(|table| table.decode[2].seconds = 0.0063),
            "decode[2] does more work than decode[1] in less time: 0.0063 s against 0.0064 s",
        ),
        (
            error(|table| table.prefill[2].seconds = 0.011),
            "prefill[2] does more work than prefill[0] in less time: 0.011 s against 0.012 s",
        ),
        (
            error(|table| table.decode[0].seconds = 0.004),
            "decode[0] does more work than decode[3] in less time: 0.004 s against 0.005 s",
        ),
        (
            error(|table| table.prefill[3].past_tokens = 4096),
            "prefill has no row of tokens 512, past_tokens 4096, though both occur in other rows",
        ),
        (
            error(|table| table.decode.truncate(5)),
            "decode has 3 rows of batch 8 but 2 of batch 1; measure each batch at as many contexts",
        ),
        (
            error(|table| table.prefill[0].seconds = 0.0001),
            "prefill[0]: the line through it and the next row is negative at zero tokens; add a row with less",
        ),
        (
            error(|table| table.decode.drain(3..).for_each(drop)),
            "the smallest batch of the profile is 8; measure batch 1",
        ),
    ];
    for (actual, expected) in cases {
        assert_eq!(actual, expected);
    }
    let message = Profile::new(&table(), 9).unwrap_err().to_string();
    assert_eq!(
        message,
        "the profile was measured up to batch 8, but max_num_seqs is 9"
    );
}
