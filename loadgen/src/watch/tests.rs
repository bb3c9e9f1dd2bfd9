//! A reason for each way in which a client can be the limit, and none where it is not.

use foresail_core::time::{MICROSECOND, MILLISECOND, SECOND};
use proptest::prelude::*;

use super::*;

/// A run of 100 requests, 10 a second, each sent so late; ticks and processor are fine.
fn run(late: Nanos) -> Watch {
    let mut watch = Watch::new();
    for request in 0..100 {
        let due = request * SECOND / 10;
        watch.sent(due, due + late);
    }
    let mut next = TICK;
    while next < 10 * SECOND {
        next = watch.tick(next, next + 50 * MICROSECOND);
    }
    for second in 0..=10 {
        watch.sample(sample(second, SECOND / 5));
    }
    watch
}

/// After so many seconds, of each of which a worker computed for so long.
fn sample(second: u64, busy: Nanos) -> Sample {
    Sample {
        monotonic_ns: second * SECOND,
        wall_ns: 1_700_000_000 * SECOND + second * SECOND,
        boot_ns: Some(77 * SECOND + second * SECOND),
        process_cpu_ns: second * (busy + SECOND / 10),
        worker_cpu_ns: vec![second * busy, second * busy / 2],
        resident_bytes: Some(1_000_000 + second),
        descriptors: 20 - second,
    }
}

const CONTEXT: Context = Context {
    sent: 100,
    ttft_p50_ns: Some(40 * MILLISECOND),
    is_rate_asked: true,
};

fn codes(watch: &Watch) -> Vec<ReasonCode> {
    let verdict = watch.verdict(&CONTEXT);
    verdict.degraded.iter().map(|reason| reason.code).collect()
}

/// The only reason there is.
#[track_caller]
fn reason(watch: &Watch, code: ReasonCode) -> String {
    assert_eq!(codes(watch), [code]);
    watch.verdict(&CONTEXT).degraded.remove(0).text
}

#[test]
fn a_run_that_went_well_is_not_degraded() {
    let watch = run(200 * MICROSECOND);
    assert_eq!(watch.verdict(&CONTEXT), Verdict::default());
    assert_eq!(watch.worker_cpu_share(), Some(0.2));
    let cpus = watch.process_cpus().unwrap();
    assert!((cpus - 0.3).abs() < 1e-9);
    assert_eq!(watch.resident_bytes_max(), Some(1_000_010));
    assert_eq!(watch.descriptors_max(), 20);
}

#[test]
fn nothing_seen_is_nothing_wrong() {
    assert_eq!(
        Watch::new().verdict(&Context::default()),
        Verdict::default()
    );
}

#[test]
fn late_sends_are_the_clients_fault() {
    let watch = run(1_900 * MICROSECOND);
    insta::assert_snapshot!(reason(&watch, ReasonCode::LateSends), @"requests were sent late: 1.9 ms after they were due at p99, 1 ms is allowed; raise --threads, lower the rate, or give the client processors of its own");
}

/// Of fewer than a hundred the p99 is the latest, and that is an accident of this machine.
#[test]
fn one_late_send_of_few_is_let_pass_and_two_are_not() {
    let is_degraded = |late: usize, of: usize| {
        let mut watch = Watch::new();
        for send in 0..of {
            let by = if send < late { 5 * MILLISECOND } else { 0 };
            let due = send as Nanos * MILLISECOND;
            watch.sent(due, due + by);
        }
        let verdict = watch.verdict(&Context::default());
        verdict
            .degraded
            .iter()
            .any(|reason| reason.code == ReasonCode::LateSends)
    };
    for of in [2, 3, 60, 99] {
        assert!(!is_degraded(1, of), "{of}");
        assert!(is_degraded(2, of), "{of}");
    }
    assert!(is_degraded(1, 1));
    assert!(!is_degraded(1, 100) && is_degraded(2, 100));
}

#[test]
fn a_slow_server_allows_more_lateness() {
    let watch = run(1_900 * MICROSECOND);
    let slow = Context {
        ttft_p50_ns: Some(SECOND),
        ..CONTEXT
    };
    assert!(!watch.verdict(&slow).is_degraded());
    assert_eq!(verdict::lateness_max(Some(SECOND)), 20 * MILLISECOND);
    assert_eq!(verdict::lateness_max(None), MILLISECOND);
}

#[test]
fn a_lagging_loop_is_the_clients_fault() {
    let mut watch = run(0);
    for tick in 0..20 {
        let due = 20 * SECOND + tick * TICK;
        watch.tick(due, due + 7 * MILLISECOND);
    }
    insta::assert_snapshot!(reason(&watch, ReasonCode::LoopLag), @"the client's event loop was late by 7 ms at p99, 5 ms is allowed: arrivals were seen that much too late; raise --threads, lower the rate, or give the client processors of its own");
}

#[test]
fn a_loop_that_stood_still_was_late_for_every_tick() {
    let mut watch = Watch::new();
    let next = watch.tick(TICK, TICK + 205 * MILLISECOND);
    assert_eq!(watch.loop_lag().count(), 21, "205, 195, … 5 ms");
    assert_eq!(next, TICK + 210 * MILLISECOND);
    let on_time = Watch::new().tick(TICK, TICK);
    assert_eq!(on_time, 2 * TICK);
    // A timer that fires a little early is on time, and does not fire for the same tick again.
    assert_eq!(Watch::new().tick(TICK, TICK - 5), 2 * TICK);
}

#[test]
fn a_busy_worker_is_the_clients_fault() {
    let mut watch = run(0);
    watch.processor = Processor::default();
    watch.previous = None;
    for second in 0..=10 {
        watch.sample(sample(second, SECOND * 95 / 100));
    }
    insta::assert_snapshot!(reason(&watch, ReasonCode::Processor), @"a worker of the client computed 95 % of the time, 90 % is allowed; raise --threads, or share the load among machines with --shard");
}

#[test]
fn a_rate_that_was_not_reached_is_the_clients_fault() {
    let mut watch = run(0);
    // One request in a hundred: p99 of the lateness does not see it.
    watch.sent(99 * SECOND / 10, 11 * SECOND);
    let text = reason(&watch, ReasonCode::Rate);
    insta::assert_snapshot!(text, @"requests were sent at 90.0 % of the rate that was asked for, the last of them 1.1 s late; raise --threads, or lower the rate");
    let capped = Context {
        is_rate_asked: false,
        ..CONTEXT
    };
    assert!(!watch.verdict(&capped).is_degraded());
}

#[test]
fn a_burst_asks_for_no_rate() {
    let mut watch = Watch::new();
    for request in 0..10 {
        watch.sent(0, request * 10 * MICROSECOND);
    }
    assert_eq!(watch.rate_share(), None);
    assert_eq!(watch.verdict(&CONTEXT), Verdict::default());
}

#[test]
fn errors_of_this_machine_are_the_clients_fault() {
    let mut watch = run(0);
    watch.local_errors(4);
    insta::assert_snapshot!(reason(&watch, ReasonCode::LocalErrors), @"4 connections for 100 requests could not be opened because this machine had no files, ports or memory left for them; raise `ulimit -n`, bound what is in flight with --max-concurrency, or share the load among machines with --shard");
    let many = Context {
        sent: 100_000,
        ..CONTEXT
    };
    assert!(!watch.verdict(&many).is_degraded());
}

#[test]
fn bodies_that_were_not_ready_are_the_clients_fault() {
    let mut watch = run(0);
    watch.feeder_behind(300 * MICROSECOND);
    watch.feeder_behind(100 * MICROSECOND);
    insta::assert_snapshot!(reason(&watch, ReasonCode::Feeder), @"the bodies of 2 of 100 requests were not ready when they were due, by up to 300 µs; start the run later, shorten the prompts, or share the load among machines with --shard");
}

#[test]
fn a_client_that_stood_still_measured_wrong() {
    let mut watch = run(0);
    // Long enough ticks around it, so that p99 does not see it.
    let mut next = 20 * SECOND;
    for _ in 0..100_000 {
        next = watch.tick(next, next);
    }
    watch.tick(next, next + 2 * SECOND);
    insta::assert_snapshot!(reason(&watch, ReasonCode::Paused), @"the client stood still once, for up to 2 s: what was in flight meanwhile was measured wrong; run it again");
}

#[test]
fn a_machine_that_was_suspended_measured_wrong() {
    let mut watch = run(0);
    let mut after = sample(11, SECOND / 5);
    after.boot_ns = after.boot_ns.map(|boot| boot + 3_600 * SECOND);
    after.wall_ns += 3_600 * SECOND;
    watch.sample(after);
    insta::assert_snapshot!(reason(&watch, ReasonCode::Paused), @"the machine was suspended for 3600 s: what was in flight meanwhile was measured wrong; run it again");
    assert!(
        watch.clock_jumps().is_empty(),
        "the time of day only went on"
    );
}

#[test]
fn a_clock_that_jumps_is_told_and_harms_nothing() {
    let mut watch = run(0);
    let mut after = sample(11, SECOND / 5);
    after.wall_ns -= 90 * SECOND;
    watch.sample(after);
    let verdict = watch.verdict(&CONTEXT);
    assert!(!verdict.is_degraded());
    insta::assert_snapshot!(verdict.notes[0].text, @"the time of day jumped back by 90 s; latencies are of the monotonic clock, so they are right");
}

#[test]
fn a_slewed_clock_is_no_jump() {
    let mut watch = run(0);
    let mut after = sample(11, SECOND / 5);
    after.wall_ns += MILLISECOND / 2;
    watch.sample(after);
    assert_eq!(watch.verdict(&CONTEXT), Verdict::default());
}

#[test]
fn what_a_cap_held_back_is_told_and_is_not_lateness() {
    let mut watch = run(0);
    watch.held_back(3 * SECOND);
    watch.held_back(SECOND);
    let verdict = watch.verdict(&CONTEXT);
    assert!(!verdict.is_degraded());
    insta::assert_snapshot!(verdict.notes[0].text, @"2 requests waited for others to end, 3 s at p99: --max-concurrency allows no more in flight; the wait is in their latencies");
}

proptest! {
    /// What threads see adds up to what one would have seen.
    #[test]
    fn watches_add_up(sends in prop::collection::vec((0..SECOND, 0..SECOND), 1..50), cut in 0..50_usize) {
        let mut whole = Watch::new();
        let mut parts = [Watch::new(), Watch::new()];
        for (index, (due, late)) in sends.iter().enumerate() {
            let part = &mut parts[usize::from(index >= cut)];
            for watch in [&mut whole, part] {
                watch.sent(*due, due + late);
                watch.tick(*due, due + late / 100);
                if late % 7 == 0 {
                    watch.feeder_behind(*late);
                }
            }
        }
        let [mut one, two] = parts;
        one.add(&two);
        prop_assert_eq!(one, whole);
    }

    #[test]
    fn no_tick_is_due_twice_or_in_the_past(due in 0..SECOND, late in 0..SECOND) {
        let next = Watch::new().tick(due, due + late);
        prop_assert!(next > due + late && (next - due).is_multiple_of(TICK));
    }
}
