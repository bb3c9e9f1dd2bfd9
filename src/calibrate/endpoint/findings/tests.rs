use std::collections::BTreeMap;
use std::time::Duration;

use foresail_reports::records::Wire;

use super::super::design::{self, Job, Sizes};
use super::*;

pub(in super::super) fn record(
    id: u64,
    due_ns: u64,
    first_ns: u64,
    end_ns: u64,
    output_tokens: u32,
) -> RequestRecord {
    RequestRecord {
        id,
        due_ns,
        prompt_tokens: 100,
        output_tokens,
        session: None,
        adapter: None,
        attempts: 1,
        replica: None,
        cached_tokens: 0,
        preemptions: 0,
        outcome: Outcome::Completed,
        first_token_ns: Some(first_ns),
        end_ns: end_ns + 7,
        parts: None,
        wire: Some(Wire {
            sent_ns: Some(due_ns),
            last_output_ns: Some(end_ns),
            status: Some(200),
            chunks: output_tokens,
            tokens_from: TokensFrom::Usage,
            is_connection_reused: true,
            body_bytes: 1,
            is_in_window: true,
        }),
    }
}

pub(in super::super) fn done(job: Job, records: Vec<RequestRecord>) -> Done {
    Done {
        job,
        records,
        degraded: Vec::new(),
        failures: BTreeMap::new(),
        took: Duration::from_secs(1),
    }
}

pub(in super::super) fn job(kind: Kind, requests: usize) -> Job {
    let request = Request {
        due: 0,
        prompt_tokens: 100,
        output_tokens: 5,
        session: None,
        adapter: None,
        content: Content::Unique,
    };
    Job {
        name: "a run".to_owned(),
        kind,
        load: Load::Open,
        requests: vec![request; requests],
    }
}

#[test]
fn a_prompt_that_comes_faster_again_was_cached() {
    let sizes = Sizes {
        prompt_tokens_min: 32,
        prompt_tokens_max: 512,
        concurrency_max: 1,
        burst: 1,
        output_tokens: 1,
    };
    let of = |second_ns: u64| {
        let records = (0..6).map(|id| {
            let took = if id % 2 == 0 { 100 } else { second_ns };
            record(id, 1000 * id, 1000 * id + took, 1000 * id + took, 1)
        });
        let runs = [done(design::prefix(&sizes), records.collect())];
        prefix_cache(runs.iter())
    };
    assert_eq!(of(20), PrefixCache::Seen(0.2));
    assert_eq!(of(95), PrefixCache::NotSeen(0.95));
    assert_eq!(prefix_cache([].iter()), PrefixCache::NotMeasured);
}

/// Runs of both halves; the second takes so many times as long, and each is off by so much.
fn halves(factor: f64, off: f64) -> Vec<FitRun> {
    let run = |half: usize, index: u32| {
        let sign = if (index + half as u32).is_multiple_of(2) {
            1.0
        } else {
            -1.0
        };
        let slower = if half == 1 { factor } else { 1.0 };
        let again = if half == 0 { "" } else { ", again" };
        let value = f64::from(index + 1) * slower * (1.0 + sign * off);
        FitRun {
            run: Run {
                name: format!("run {index}{again}"),
                traffic: Traffic::Recorded(Vec::new()),
                observed: vec![Observed {
                    figure: Figure::Tpot(Statistic::Mean),
                    value,
                    relative_deviation: 0.0,
                }],
            },
            kind: Kind::Loaded,
            prompt_tokens: None,
            half,
        }
    };
    let halves = (0..2).flat_map(|half| (0..8).map(move |index| run(half, index)));
    halves.collect()
}

#[test]
fn what_two_halves_differ_by_is_noise_or_drift() {
    let quiet = noise(&halves(1.0, 0.0));
    assert_eq!((quiet.tpot, quiet.drift), (Some(DEVIATION_MIN), None));
    assert_eq!(quiet.ttft, None);
    assert_eq!(quiet.run_to_run(), DEVIATION_MIN);
    // A half alone shows none, which is not the same as there being none.
    let half = noise(&halves(1.0, 0.0)[..8]);
    assert_eq!((half.tpot, half.run_to_run()), (None, DEVIATION_UNKNOWN));
    // What took no time in both is no noise of any size.
    let mut untimed = halves(1.0, 0.0);
    for run in untimed
        .iter_mut()
        .filter(|run| run.run.name.starts_with("run 0"))
    {
        run.run.observed[0].value = 0.0;
    }
    assert_eq!(noise(&untimed).tpot, Some(DEVIATION_MIN));
    let noisy = noise(&halves(1.0, 0.01));
    // Each pair differs by 2 %: 1.4826 / sqrt(2) times that.
    assert!((noisy.tpot.unwrap() - 0.021).abs() < 5e-4, "{noisy:?}");
    assert_eq!(noisy.drift, None);
    let drifting = noise(&halves(1.1, 0.0));
    assert!((drifting.drift.unwrap() - 0.1).abs() < 1e-9);
    let mut runs = halves(1.0, 0.01);
    with_noise(&mut runs, &noisy);
    assert_eq!(
        runs[0].run.observed[0].relative_deviation,
        noisy.tpot.unwrap()
    );
}

#[test]
fn single_prompts_are_a_run_for_each_length() {
    let mut both = job(Kind::Idle, 4);
    both.requests[1].prompt_tokens = 300;
    both.requests[3].prompt_tokens = 300;
    let records = (0..4).map(|id| record(id, 100 * id, 100 * id + 10 + id, 100 * id + 50, 1));
    let done = done(both, records.collect());
    let runs = fit_runs(&done, 1);
    let names: Vec<&str> = runs.iter().map(|run| run.run.name.as_str()).collect();
    let expected = [
        "a prompt of 100 tokens alone, again",
        "a prompt of 300 tokens alone, again",
    ];
    assert_eq!(names, expected);
    assert_eq!(runs[1].prompt_tokens, Some(300));
    // The second and the fourth: 11 and 13 ns.
    assert!((runs[1].run.observed[0].value - 12e-9).abs() < 1e-15);
}

#[test]
fn what_failed_is_not_replayed_and_a_run_of_failures_is_not_sound() {
    let records: Vec<RequestRecord> = (0..60)
        .map(|id| record(id, id, id + 10, id + 50, 5))
        .collect();
    let mut run = done(job(Kind::Loaded, 60), records);
    assert!(is_sound(&run) && is_counted(&run));
    run.records[0].outcome = Outcome::FailedReset;
    assert!(is_sound(&run));
    assert_eq!(fit_runs(&run, 0)[0].run.traffic.requests().len(), 59);
    run.records[1].outcome = Outcome::FailedReset;
    assert!(!is_sound(&run));
    run.records[2].wire.as_mut().unwrap().tokens_from = TokensFrom::Chunks;
    assert!(!is_counted(&run));
}
