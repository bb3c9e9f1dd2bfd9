//! Shards of a measured run, put together by the command.

use std::path::Path;

use foresail_reports::records::{
    MeasuredTotals, Outcome, RecordSink as _, RequestRecord, TokensFrom, Wire,
};
use foresail_reports::summary::{Measured, Shard, Source};
use foresail_reports::window::WindowTally;
use foresail_reports::{
    Histograms, Latency, MeasuredFiles, Measurements, ObjectiveMetric, ObjectiveSpec,
    RunDescription, Statistic,
};
use serde_json::Value;

use crate::sandbox::Sandbox;

const MILLISECOND: u64 = 1_000_000;

/// A request that was sent when it was due and took 100 ms for its first token.
fn request(id: u64) -> RequestRecord {
    let due_ns = id * 500 * MILLISECOND;
    RequestRecord {
        id,
        due_ns,
        prompt_tokens: 100,
        output_tokens: 11,
        session: None,
        adapter: None,
        attempts: 1,
        replica: None,
        cached_tokens: 0,
        preemptions: 0,
        outcome: Outcome::Completed,
        first_token_ns: Some(due_ns + 100 * MILLISECOND),
        end_ns: due_ns + 200 * MILLISECOND,
        parts: None,
        wire: Some(Wire {
            sent_ns: Some(due_ns),
            last_output_ns: Some(due_ns + 200 * MILLISECOND),
            status: Some(200),
            chunks: 11,
            tokens_from: TokensFrom::Usage,
            is_connection_reused: true,
            body_bytes: 2_000,
            is_in_window: true,
        }),
    }
}

/// Records one of two shards of a run of 20 requests in ten seconds.
fn record(folder: &Path, part: u32, ttft_s_max: f64) {
    let objective = ObjectiveSpec {
        name: "ttft_p99".into(),
        metric: ObjectiveMetric::Latency(Latency::Ttft, Statistic::Percentile(99.0)),
        limit: ttft_s_max,
    };
    let mut measurements = Measurements::new(&[objective]);
    let end_ns = 10_000 * MILLISECOND;
    let mut tally = WindowTally::new(0, end_ns);
    let mut files = MeasuredFiles::create(folder).unwrap();
    for record in (0..20)
        .filter(|id| id % 2 == u64::from(part - 1))
        .map(request)
    {
        tally.request(&record);
        measurements.request(&record);
        files.request(&record);
    }
    let measured = Measured {
        window: tally.window("all of it".into(), end_ns),
        rates: tally.rates(),
        client: tally.client(Default::default()),
        shard: Some(Shard {
            parts: vec![part],
            of: 2,
            plan_digest: "5f3a".into(),
        }),
        ..Measured::default()
    };
    let totals = MeasuredTotals {
        offered: 10,
        end_ns,
        deployment: None,
        measured,
    };
    let description = RunDescription {
        source: Source::Measured,
        ..RunDescription::default()
    };
    let summary = measurements.measured_summary(&description, &totals);
    files
        .finish(&summary, &Histograms::of(&measurements))
        .unwrap();
}

fn shards(ttft_s_max: f64) -> Sandbox {
    let sandbox = Sandbox::new();
    record(&sandbox.path("shard-1"), 1, ttft_s_max);
    record(&sandbox.path("shard-2"), 2, ttft_s_max);
    sandbox
}

#[test]
fn shards_become_one_run() {
    let sandbox = shards(0.2);
    let arguments = [
        "merge", "shard-2", "shard-1", "--out", "all", "--format", "json",
    ];
    let ended = sandbox.run(&arguments).with_code(0);
    assert_eq!(ended.stderr, "");
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(summary["requests"]["completed"], 20);
    assert_eq!(
        summary["measured"]["shard"]["parts"],
        serde_json::json!([1, 2])
    );
    assert_eq!(ended.stdout, sandbox.read("all/summary.json"));
    let requests = sandbox.read("all/requests.csv");
    let ids = requests
        .lines()
        .skip(1)
        .map(|row| row.split(',').next().unwrap());
    let expected: Vec<_> = (0..20).map(|id| id.to_string()).collect();
    assert!(ids.eq(expected.iter().map(String::as_str)), "{requests}");

    let ended = sandbox.run(&["merge", "shard-1", "shard-2", "--out", "all"]);
    let text = ended.with_code(0).stdout;
    assert!(text.contains("open loop · shards 1, 2 of 2"), "{text}");
}

#[test]
fn an_objective_that_all_shards_together_miss_is_not_met() {
    let sandbox = shards(0.05);
    let ended = sandbox.run(&["merge", "shard-1", "shard-2", "--out", "all"]);
    assert!(ended.with_code(3).stdout.contains("0 of 1 met"));
}

#[test]
fn a_shard_is_not_written_over() {
    let sandbox = shards(0.2);
    let before = sandbox.read("shard-1/requests.csv");
    let ended = sandbox.run(&["merge", "shard-1", "shard-2", "--out", "shard-1"]);
    let text = ended.with_code(2).stderr;
    assert!(text.contains("name another folder"), "{text}");
    assert_eq!(sandbox.read("shard-1/requests.csv"), before);
}

/// Half a load says nothing of the whole.
#[test]
fn one_shard_alone_is_not_judged_and_no_run_counts_twice() {
    let sandbox = shards(0.2);
    let ended = sandbox
        .run(&["gate", "--candidate", "shard-1"])
        .with_code(4);
    assert!(ended.stdout.contains("1 of 2 shards"), "{}", ended.stdout);
    let twice = sandbox.run(&["gate", "--candidate", "shard-1", "./shard-1"]);
    let text = twice.with_code(2).stderr;
    assert!(text.contains("named twice"), "{text}");
}

#[test]
fn a_run_without_one_of_its_shards_is_degraded() {
    let sandbox = shards(0.2);
    let ended = sandbox.run(&["merge", "shard-2", "--out", "all"]);
    let text = ended.with_code(4).stdout;
    assert!(
        text.contains("shards_missing: shard 1 of 2 is missing"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_merged_is_bad_input_and_leaves_nothing() {
    let sandbox = shards(0.2);
    for (folders, why) in [
        (["shard-1", "shard-1"], "leave one out"),
        (["shard-1", "shard-3"], "name the folder of a run"),
    ] {
        let arguments = ["merge", folders[0], folders[1], "--out", "all"];
        let ended = sandbox.run(&arguments).with_code(2);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert!(!sandbox.path("all").exists());
    }
    // Every run is expensive: one folder is not taken for another.
    let ended = sandbox.run(&["merge", "shard-1", "shard-2"]).with_code(2);
    assert!(ended.stderr.contains("--out"), "{}", ended.stderr);
}
