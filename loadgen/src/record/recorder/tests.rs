//! Every request comes out once, in the order of ends, whoever told of it and when.

use foresail_core::time::{MILLISECOND, SECOND};
use foresail_reports::records::{AttemptRecord, Gaps, RequestRecord};
use proptest::prelude::*;

use super::super::testing::ended;
use super::*;
use crate::exchange::Ending;

/// Keeps everything.
#[derive(Debug, Default)]
struct Kept {
    window: Option<(u64, u64)>,
    records: Vec<RequestRecord>,
    gaps: usize,
    attempts: Vec<AttemptRecord>,
}

impl Sink for Kept {
    fn window(&mut self, from_ns: u64, until_ns: u64) {
        assert!(
            self.window.is_none() && self.records.is_empty(),
            "told once, and first"
        );
        self.window = Some((from_ns, until_ns));
    }
    fn request(&mut self, record: &RequestRecord) {
        self.records.push(record.clone());
    }
    fn gaps(&mut self, _: Gaps) {
        self.gaps += 1;
    }
    fn attempt(&mut self, attempt: &AttemptRecord) {
        self.attempts.push(attempt.clone());
    }
}

fn whole(settings: WindowSettings, last_due: Nanos, workers: usize) -> Recorder<Kept> {
    Recorder::new(Kept::default(), settings, Some(last_due), workers)
}

const NO_WARM_UP: WindowSettings = WindowSettings {
    warm_up_ns: Some(0),
    cool_down_ns: 0,
};

fn batch(worker: usize, until_ns: Nanos, ended: Vec<Ended>) -> Batch {
    Batch {
        worker,
        until_ns,
        sent_ns: ended.iter().map(|ended| ended.asked.due_ns).collect(),
        ended,
    }
}

#[test]
fn workers_that_tell_late_hold_the_others_up() {
    let mut recorder = whole(NO_WARM_UP, SECOND, 2);
    recorder.batch(batch(0, 50_000, vec![ended(0, 20_000, Ending::Complete)]));
    assert_eq!(
        recorder.tally().offered,
        0,
        "worker 1 may have had an earlier one"
    );
    recorder.batch(batch(1, 40_000, vec![ended(1, 10_000, Ending::Complete)]));
    assert_eq!(recorder.tally().offered, 2);
    let recorded = recorder.finish(SECOND);
    let ids: Vec<_> = recorded
        .sink
        .records
        .iter()
        .map(|record| record.id)
        .collect();
    assert_eq!(ids, [1, 0]);
    assert_eq!(recorded.sink.gaps, 4);
}

#[test]
fn requests_wait_until_it_is_known_what_counts() {
    let mut recorder = whole(WindowSettings::default(), SECOND, 1);
    // Three are sent, and end one after the other.
    for (id, due) in [(0, 0), (1, 1_000), (2, 2_000)] {
        let mut told = batch(0, due + 6_000, vec![ended(id, due, Ending::Complete)]);
        if id == 0 {
            told.sent_ns = vec![0, 1_000, 2_000];
        } else {
            told.sent_ns.clear();
        }
        recorder.batch(told);
        let expected = if id == 0 { 0 } else { id + 1 };
        assert_eq!(
            recorder.tally().offered,
            expected,
            "1 of 2 in flight is too few"
        );
    }
    let recorded = recorder.finish(SECOND);
    assert_eq!(recorded.sink.window, Some((7_000, SECOND + 1)));
    let counts = |record: &RequestRecord| record.wire.unwrap().is_in_window;
    assert!(!recorded.sink.records.iter().any(counts));
    assert_eq!(
        recorded.sink.gaps, 0,
        "gaps are those of requests that count"
    );
}

#[test]
fn what_never_ended_its_warm_up_is_recorded_all_the_same() {
    let mut recorder = whole(WindowSettings::default(), SECOND, 1);
    let mut told = batch(0, 10_000, vec![ended(0, 0, Ending::Truncated)]);
    told.sent_ns = vec![0; 9];
    recorder.batch(told);
    recorder.unsent([Ended {
        attempts: Vec::new(),
        ..ended(7, 500, Ending::Cancelled)
    }]);
    let recorded = recorder.finish(SECOND);
    assert_eq!(recorded.sink.records.len(), 2);
    assert_eq!(recorded.sink.window, Some((0, SECOND + 1)));
    let tally = recorded.tally;
    assert_eq!(
        (tally.offered, tally.unsent, tally.sent, tally.completed),
        (2, 1, 9, 0)
    );
    assert_eq!((tally.in_window, tally.in_window_sent), (2, 1));
    assert_eq!(recorded.sink.attempts.len(), 1);
}

#[test]
fn what_is_found_late_not_to_be_sent_does_not_disturb_the_order() {
    let mut recorder = whole(NO_WARM_UP, SECOND, 1);
    let of_worker = vec![ended(0, 0, Ending::Complete)];
    recorder.batch(batch(0, 50_000, of_worker));
    let unsent = Ended {
        attempts: Vec::new(),
        end_ns: 1_000,
        ..ended(1, 500, Ending::Cancelled)
    };
    recorder.unsent([unsent]);
    let ends = recorder.finish(SECOND).sink.records;
    let ends: Vec<_> = ends.iter().map(|record| record.end_ns).collect();
    assert_eq!(ends, [6_000, 6_000]);
}

#[test]
fn the_end_of_a_closed_loop_is_known_at_its_end() {
    let mut recorder = Recorder::new(Kept::default(), WindowSettings::default(), None, 1);
    for id in 0..9 {
        let due = id * MILLISECOND;
        recorder.batch(batch(
            0,
            due + 6_000,
            vec![ended(id, due, Ending::Complete)],
        ));
    }
    let recorded = recorder.finish(8 * MILLISECOND);
    assert_eq!(recorded.sink.window, Some((6_000, u64::MAX)));
    assert_eq!(recorded.window.until_ns, 8 * MILLISECOND + 1);
    let counts = |record: &&RequestRecord| record.wire.unwrap().is_in_window;
    assert_eq!(recorded.sink.records.iter().filter(counts).count(), 8);
    assert_eq!(recorded.tally.ttft.count(), 8);
}

proptest! {
    #[test]
    fn everything_comes_out_once_and_in_order(
        dues in prop::collection::vec((0..1_000_000_u64, 0..3_usize), 0..80),
        cuts in prop::collection::vec(0..1_100_000_u64, 0..6),
        warm_up in prop::option::of(0..500_000_u64),
    ) {
        let settings = WindowSettings { warm_up_ns: warm_up, cool_down_ns: 0 };
        let mut recorder = whole(settings, 1_000_000, 3);
        let mut requests: Vec<_> = (0..).zip(&dues)
            .map(|(id, (due, worker))| (*worker, ended(id, *due, Ending::Complete)))
            .collect();
        let mut cuts = cuts;
        cuts.sort_unstable();
        for until in cuts {
            for worker in 0..3 {
                let told = requests.extract_if(.., |(of, ended)| *of == worker && ended.end_ns <= until);
                let told = told.map(|(_, ended)| ended).collect();
                recorder.batch(batch(worker, until, told));
            }
        }
        for (worker, ended) in requests {
            recorder.batch(batch(worker, 0, vec![ended]));
        }
        let recorded = recorder.finish(1_000_000);
        let records = recorded.sink.records;
        prop_assert!(records.is_sorted_by_key(|record| record.end_ns));
        let mut ids: Vec<_> = records.iter().map(|record| record.id).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, (0..dues.len() as u64).collect::<Vec<_>>());
        let tally = recorded.tally;
        let in_window = records.iter().filter(|record| record.wire.unwrap().is_in_window);
        prop_assert_eq!(tally.in_window, in_window.count() as u64);
        prop_assert_eq!(tally.completed, tally.offered);
        prop_assert!(tally.in_flight_max <= tally.sent);
    }
}
