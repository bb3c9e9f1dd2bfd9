//! What the provider decides, carried out in virtual time: deletion when unused, the
//! spend limit, and changes while a deployment runs.

mod support;

use foresail_reports::records::{ChangeKind, Outcome, RequestRecord};
use foresail_scenarios::scenario::Scenario;
use foresail_simulator::{Options, SimulationError};
use support::Records;

const SECOND: u64 = 1_000_000_000;

/// A deployment on H100s at 8 USD an hour, with requests at a constant rate.
fn scenario(deployment: &str, more: &str, every_s: f64, duration: &str) -> Scenario {
    support::scenario(&format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        {deployment}
        [cold_start]
        total = "60s"
        [price]
        usd_per_gpu_hour = 8
        [workload]
        duration = "{duration}"
        prompt_tokens = 256
        output_tokens = 200
        arrivals = {{ process = "constant", rate_per_s = {} }}
        {more}
        "#,
        1.0 / every_s
    ))
}

fn run(deployment: &str, more: &str, every_s: f64, duration: &str) -> Records {
    support::run(&scenario(deployment, more, every_s, duration), 1)
}

/// What became of the deployment as a whole: (second, what).
fn story(records: &Records) -> Vec<(u64, String)> {
    let changes = records.changes.iter();
    let whole = changes.filter(|change| change.kind == ChangeKind::Deployment);
    whole
        .map(|change| (change.at_ns / SECOND, change.reason.clone()))
        .collect()
}

fn ended(records: &Records, outcome: Outcome) -> usize {
    let requests = records.requests.iter();
    requests.filter(|record| record.outcome == outcome).count()
}

fn is_completed(record: &&RequestRecord) -> bool {
    record.outcome == Outcome::Completed
}

#[test]
fn what_is_unused_is_deleted_and_answers_no_more() {
    // The first request comes after 100 s, and the next one would after 200 s.
    let unused = "min_replica_count = 1\nunused_auto_delete_duration = \"1m\"";
    let records = run(unused, "", 100.0, "5m");
    let expected = [
        (60, "DELETING: no request received for 1m".to_owned()),
        (60, "refuses requests: the model is not deployed".to_owned()),
        (60, "DELETED: all replicas gone".to_owned()),
    ];
    assert_eq!(story(&records), expected);
    // All but the first, which comes at once.
    let rejected = ended(&records, Outcome::RejectedDeleted);
    assert_eq!(rejected, records.requests.len() - 1);
    // Nothing is billed any more: a minute of one GPU.
    assert_eq!(records.totals.gpu_ns.billed, 60 * u128::from(SECOND));
}

#[test]
fn received_requests_keep_a_deployment_and_zero_keeps_it_for_ever() {
    let kept = "min_replica_count = 1\nunused_auto_delete_duration = \"101s\"";
    assert_eq!(story(&run(kept, "", 100.0, "10m")), []);
    let never = "min_replica_count = 1\nunused_auto_delete_duration = \"0\"";
    assert_eq!(story(&run(never, "", 100.0, "200h")), []);
    // B08: the newer documentation spares what has a minimum.
    let unused = "min_replica_count = 1\nunused_auto_delete_duration = \"1m\"";
    let newer = "[autoscaler]\nprofile = \"fireworks-2026\"";
    assert_eq!(story(&run(unused, newer, 100.0, "5m")), []);
}

#[test]
fn the_spend_limit_deletes_or_pauses() {
    // 8 USD an hour: 1 USD lasts for 450 s.
    let limit = "[account]\nspend_limit_usd = 1";
    let deleted = run("min_replica_count = 1", limit, 10.0, "20m");
    let (at, what) = &story(&deleted)[0];
    assert_eq!((*at, what.as_str()), (450, "DELETING: spend limit reached"));
    assert!(ended(&deleted, Outcome::RejectedDeleted) > 60);
    let newer = format!("{limit}\n[autoscaler]\nprofile = \"fireworks-2026\"");
    let paused = run("min_replica_count = 1", &newer, 10.0, "20m");
    assert_eq!(
        story(&paused),
        [(
            450,
            "refuses requests: the account has reached its spend limit".to_owned()
        )]
    );
    assert!(ended(&paused, Outcome::RejectedPaused) > 60);
    for records in [deleted, paused] {
        // What was being served when the limit was reached was finished.
        assert_eq!(ended(&records, Outcome::FailedDrain), 0);
        let spent = records.totals.cost_nanodollars;
        assert!((1_000_000_000..1_010_000_000).contains(&spent), "{spent}");
    }
}

#[test]
fn another_world_size_replaces_replicas_and_drops_nobody() {
    let update = "[[operations]]\nat = \"5m\"\nupdate = { world_size = 2 }";
    let scaling = "min_replica_count = 2\nmax_replica_count = 2";
    let records = run(scaling, update, 0.2, "10m");
    assert!(records.requests.iter().all(|record| is_completed(&record)));
    let states: Vec<_> = story(&records).into_iter().map(|(_, what)| what).collect();
    assert_eq!(
        states,
        ["UPDATING: updated", "READY: all replicas as updated"]
    );
    // Capacity never sinks below what it was.
    let after = records.changes.iter().filter(|change| change.at_ns > 0);
    assert_eq!(after.map(|change| change.replicas.ready).min(), Some(2));
    // Two replicas of one GPU for 5 min and more, then two of two.
    let gpu_ns = records.totals.gpu_ns;
    let held = gpu_ns.busy + gpu_ns.idle + gpu_ns.starting + gpu_ns.draining;
    assert!(held > 2 * u128::from(records.totals.end_ns) * 4 / 3);
    // Tokens come faster from two GPUs.
    let late = |record: &&RequestRecord| record.due_ns > 480 * SECOND;
    let early = |record: &&RequestRecord| record.due_ns < 290 * SECOND;
    let mean = |which: &dyn Fn(&&RequestRecord) -> bool| {
        let times: Vec<_> = records.requests.iter().filter(which).collect();
        times
            .iter()
            .map(|r| (r.end_ns - r.due_ns) as f64)
            .sum::<f64>()
            / times.len() as f64
    };
    assert!(mean(&late) < 0.9 * mean(&early));
}

#[test]
fn windows_and_counts_change_while_it_runs() {
    let scaling = "min_replica_count = 1\nmax_replica_count = 1";
    let more = r#"
        [batching]
        max_num_seqs = 4
        [[operations]]
        at = "2m"
        update = { max_replica_count = 4, scale_up_window = "10s" }
        [[operations]]
        at = "6m"
        update = { min_replica_count = 2 }
        [[operations]]
        at = "8m"
        scale = 3
    "#;
    let records = run(scaling, more, 0.1, "10m");
    let targets = records
        .changes
        .iter()
        .filter(|c| c.kind == ChangeKind::Target);
    let targets: Vec<_> = targets
        .map(|change| (change.at_ns / SECOND, change.replicas.target))
        .collect();
    // Overloaded from the beginning, and allowed to grow from two minutes on.
    assert_eq!(targets.first(), Some(&(130, 4)));
    assert!(targets.contains(&(480, 3)), "{targets:?}");
}

#[test]
fn deleted_and_taken_back() {
    let more =
        "[[operations]]\nat = \"1m\"\ndelete = true\n[[operations]]\nat = \"5m\"\nundelete = true";
    let records = run("min_replica_count = 1", more, 10.0, "10m");
    let states = story(&records);
    let what: Vec<_> = states.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(
        what,
        [
            "DELETING: delete requested",
            "refuses requests: the model is not deployed",
            "DELETED: all replicas gone",
            "CREATING: undeleted",
            "takes requests again",
            "READY: first replica ready",
        ]
    );
    assert_eq!(states.last().map(|(at, _)| *at), Some(360));
    let rejected = ended(&records, Outcome::RejectedDeleted);
    assert!((22..=25).contains(&rejected), "{rejected}");
    // Those who came while it was created again waited.
    assert_eq!(
        ended(&records, Outcome::Completed),
        records.requests.len() - rejected
    );
}

#[test]
fn operations_after_the_last_request_are_done_before_the_run_ends() {
    let more = "[[operations]]\nat = \"10m\"\ndelete = true";
    let records = run("min_replica_count = 1", more, 10.0, "1m");
    assert_eq!(story(&records).first().map(|(at, _)| *at), Some(600));
}

#[test]
fn what_the_provider_refuses_ends_the_run_with_its_reason() {
    let quota = r#"
        [account.gpu_quota]
        h100 = 4
        [[operations]]
        at = "1m"
        update = { world_size = 2 }
    "#;
    let scaling = "min_replica_count = 2\nmax_replica_count = 2";
    let scenario = scenario(scaling, quota, 0.2, "5m");
    let options = Options {
        seed: 1,
        leaps: true,
    };
    let error = support::try_run(&scenario, options, Records::default()).unwrap_err();
    assert!(matches!(error, SimulationError::Refused { .. }));
    let text = error.to_string();
    assert!(text.contains("would strand requests"), "{text}");
    assert!(
        text.starts_with("the provider refuses what is asked of it at 60 s"),
        "{text}"
    );
}

#[test]
fn a_parked_deployment_refuses() {
    let records = run("max_replica_count = 0", "", 10.0, "1m");
    assert_eq!(
        ended(&records, Outcome::RejectedParked),
        records.requests.len()
    );
    assert_eq!(records.totals.cost_nanodollars, 0);
}

#[test]
fn a_replica_that_waits_for_gpus_can_be_given_up() {
    let planned = r#"
        [autoscaler]
        policy = "scripted"
        steps = [{ at = "60s", replicas = 2 }, { at = "90s", replicas = 0 }]
        [gpu_pool]
        stock_outs = [{ at = "30s", lasts = "2m" }]
        "#;
    let records = run("initial_replica_count = 0", planned, 200.0, "5m");
    let cancelled = |change: &&foresail_reports::records::Change| {
        change.kind == ChangeKind::Cancelled && change.at_ns == 90 * SECOND
    };
    assert_eq!(records.changes.iter().filter(cancelled).count(), 2);
    // They never had GPUs.
    assert_eq!(records.totals.replica_ns, 0);
}

#[test]
fn what_is_unused_is_deleted_before_a_later_operation() {
    let unused = "min_replica_count = 1\nunused_auto_delete_duration = \"1m\"";
    let later = "[[operations]]\nat = \"20m\"\nundelete = true";
    // The only request comes after 100 s, when the deployment is no more.
    let records = run(unused, later, 100.0, "101s");
    let story = story(&records);
    assert_eq!(
        story[0],
        (60, "DELETING: no request received for 1m".to_owned())
    );
    assert!(story.iter().any(|(at, _)| *at == 20 * 60), "{story:?}");
}

#[test]
fn what_an_operation_leaves_unused_for_too_long_is_deleted_at_once() {
    // The newer documentation spares what has a minimum, until it has none.
    let deployment = "min_replica_count = 1\nunused_auto_delete_duration = \"1m\"";
    let more = "[autoscaler]\nprofile = \"fireworks-2026\"\n\
         [[operations]]\nat = \"90s\"\nupdate = { min_replica_count = 0 }";
    let records = run(deployment, more, 100.0, "5m");
    assert_eq!(
        story(&records)[0],
        (90, "DELETING: no request received for 1m".to_owned())
    );
}

#[test]
fn a_run_lasts_until_the_last_operation_with_a_pool_or_without() {
    let late = "[[operations]]\nat = \"20m\"\nupdate = { scale_up_window = \"5s\" }";
    let pooled = format!("{late}\n[gpu_pool.gpus]\nh100 = 100");
    for more in [late, &pooled] {
        let records = run("min_replica_count = 1", more, 10.0, "5m");
        assert_eq!(records.totals.end_ns, 20 * 60 * SECOND);
    }
}
