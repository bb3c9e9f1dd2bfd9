use super::*;
use crate::files::{
    RecordFiles, SUMMARY, read_attempts, read_changes, read_histograms, read_intervals,
    read_requests, read_summary,
};
use crate::measurements::Measurements;
use crate::records::{
    ChangeKind, MeasuredTotals, Outcome, Parts, ReplicaCounts, RunTotals, TokensFrom, Wire,
};
use crate::summary::{Measured, RunDescription};
use proptest::prelude::*;
use std::fs;

fn measured_summary(is_interrupted: bool) -> Summary {
    let totals = MeasuredTotals {
        offered: 2,
        end_ns: 9,
        deployment: None,
        measured: Measured {
            is_interrupted,
            ..Measured::default()
        },
    };
    Measurements::new(&[]).measured_summary(&RunDescription::default(), &totals)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn completed() -> RequestRecord {
    RequestRecord {
        id: 3,
        due_ns: 1_500_000_000,
        prompt_tokens: 512,
        output_tokens: 128,
        session: None,
        adapter: None,
        attempts: 1,
        replica: None,
        cached_tokens: 64,
        preemptions: 0,
        outcome: Outcome::Completed,
        first_token_ns: Some(1_563_000_001),
        end_ns: 2_000_000_000,
        parts: None,
        wire: Some(Wire {
            sent_ns: Some(1_500_000_123),
            last_output_ns: Some(1_999_000_000),
            status: Some(200),
            chunks: 64,
            tokens_from: TokensFrom::Usage,
            is_connection_reused: true,
            body_bytes: 12_345,
            is_in_window: true,
        }),
    }
}

fn refused() -> RequestRecord {
    RequestRecord {
        id: 4,
        attempts: 2,
        output_tokens: 0,
        cached_tokens: 0,
        first_token_ns: None,
        outcome: Outcome::FailedConnect,
        wire: Some(Wire {
            sent_ns: None,
            last_output_ns: None,
            status: None,
            chunks: 0,
            tokens_from: TokensFrom::Asked,
            is_connection_reused: false,
            body_bytes: 0,
            is_in_window: false,
        }),
        ..completed()
    }
}

fn attempt(number: u32) -> AttemptRecord {
    AttemptRecord {
        id: 4,
        attempt: number,
        sent_ns: None,
        connect_ns: Some(250_000),
        status: None,
        first_token_ns: None,
        end_ns: 1_900_000_000,
        outcome: Outcome::FailedConnect,
        retry_after_ns: None,
        detail: "connection refused, \"twice\"\nby 127.0.0.1".into(),
    }
}

fn change() -> Change {
    Change {
        at_ns: 12,
        kind: ChangeKind::Ready,
        replica: Some(1),
        reason: "was scraped".into(),
        replicas: ReplicaCounts {
            ready: 1,
            ..ReplicaCounts::default()
        },
    }
}

fn histograms() -> Histograms {
    let mut histograms = Histograms::default();
    histograms.ttft.record(63_000_001);
    histograms
}

fn load(running: f64) -> ServerLoad {
    ServerLoad {
        running: Some(running),
        ..ServerLoad::default()
    }
}

fn write(files: &mut MeasuredFiles) {
    files.request(&completed());
    files.request(&refused());
    files.attempt(&attempt(1));
    files.attempt(&attempt(2));
    files.change(&change());
    files.server(1_700_000_000, &load(1.5));
}

#[test]
fn the_columns_of_a_simulation_come_first() {
    let target = tempfile::tempdir().unwrap();
    let mut files = MeasuredFiles::create(target.path()).unwrap();
    write(&mut files);
    files
        .finish(&measured_summary(false), &histograms())
        .unwrap();
    let read = |name| fs::read_to_string(target.path().join(name)).unwrap();
    insta::assert_snapshot!(read(REQUESTS), @r"
    id,due_s,prompt_tokens,output_tokens,session,adapter,attempts,replica,cached_tokens,preemptions,outcome,first_token_s,end_s,retry_s,cold_start_s,queue_s,adapter_s,prefill_s,preemption_s,decode_s,sent_s,last_output_s,status,chunks,tokens_from,connection,body_bytes,in_window
    3,1.500000000,512,128,,,1,,64,0,completed,1.563000001,2.000000000,,,,,,,,1.500000123,1.999000000,200,64,usage,reused,12345,true
    4,1.500000000,512,0,,,2,,0,0,failed_connect,,2.000000000,,,,,,,,,,,0,asked,,0,false
    ");
    insta::assert_snapshot!(read(ATTEMPTS), @r#"
    id,attempt,sent_s,connect_s,status,first_token_s,end_s,outcome,retry_after_s,detail
    4,1,,0.000250000,,,1.900000000,failed_connect,,"connection refused, ""twice""
    by 127.0.0.1"
    4,2,,0.000250000,,,1.900000000,failed_connect,,"connection refused, ""twice""
    by 127.0.0.1"
    "#);
    insta::assert_snapshot!(read(INTERVALS), @r"
    from_s,until_s,asked,sent,completed,failed,rejected,in_flight,output_tokens,ttft_s_p50,ttft_s_p99,running,waiting,kv_usage,ready_replicas
    0.000000000,1.000000000,0,0,0,0,0,0,0,,,,,,
    1.000000000,2.000000000,2,1,0,0,0,1,128,0.063000001,0.063000001,1.5,,,
    2.000000000,3.000000000,0,0,1,1,0,0,0,,,,,,
    ");
}

#[test]
fn what_was_written_is_read_back() {
    let target = tempfile::tempdir().unwrap();
    let mut files = MeasuredFiles::create(target.path()).unwrap();
    write(&mut files);
    files
        .finish(&measured_summary(true), &histograms())
        .unwrap();
    let requests: Result<Vec<_>, _> = read_requests(target.path()).unwrap().collect();
    assert_eq!(requests.unwrap(), [completed(), refused()]);
    assert_eq!(
        read_attempts(target.path()).unwrap(),
        [attempt(1), attempt(2)]
    );
    assert_eq!(read_changes(target.path()).unwrap(), [change()]);
    assert_eq!(read_histograms(target.path()).unwrap(), histograms());
    let intervals = read_intervals(target.path()).unwrap();
    assert_eq!(intervals[1].server, load(1.5));
    let summary = read_summary(target.path()).unwrap();
    assert!(summary.measured.unwrap().is_interrupted);
}

/// What a measured run left would otherwise stand beside the records of another.
#[test]
fn a_simulated_run_replaces_all_files_of_a_measured_one() {
    let target = tempfile::tempdir().unwrap();
    let mut files = MeasuredFiles::create(target.path()).unwrap();
    write(&mut files);
    files
        .finish(&measured_summary(false), &histograms())
        .unwrap();
    assert_eq!(names(target.path()).len(), 6);
    let summary = Measurements::new(&[]).summary(&RunDescription::default(), &RunTotals::default());
    let files = RecordFiles::create(target.path()).unwrap();
    files.finish(&summary).unwrap();
    assert_eq!(names(target.path()), [REQUESTS, SUMMARY, TIMELINE]);
}

#[test]
fn a_measured_run_that_is_dropped_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let mut files = MeasuredFiles::create(parent.path().join("run")).unwrap();
    write(&mut files);
    drop(files);
    assert!(names(parent.path()).is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_what_was_written_and_says_where() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("run");
    let mut files = MeasuredFiles::create(&target).unwrap();
    write(&mut files);
    files.attempts = Some(CsvFile::create("/dev/full".into(), ATTEMPTS_HEADER).unwrap());
    let error = files
        .finish(&measured_summary(false), &histograms())
        .unwrap_err();
    let FilesError::Incomplete { kept, source } = &error else {
        panic!("{error}");
    };
    assert_eq!(kept, &target.join("incomplete"));
    assert!(matches!(**source, FilesError::DiskFull { .. }), "{source}");
    assert!(error.to_string().contains("not the whole run"), "{error}");
    // No summary anywhere: nothing takes it for a run that is whole.
    assert_eq!(names(&target), ["incomplete"]);
    assert!(!kept.join(SUMMARY).exists());
    let requests: Result<Vec<_>, _> = read_requests(kept).unwrap().collect();
    assert_eq!(requests.unwrap(), [completed(), refused()]);
    // Nor is it overwritten by the next run.
    let error = MeasuredFiles::create(&target).unwrap_err();
    assert!(matches!(&error, FilesError::NotOurs { found, .. } if found == "incomplete"));
}

#[cfg(target_os = "linux")]
#[test]
fn records_that_can_be_had_again_are_written_whole_or_not_at_all() {
    let parent = tempfile::tempdir().unwrap();
    let mut files = MeasuredFiles::create(parent.path().join("run")).unwrap();
    write(&mut files);
    files.timeline = CsvFile::create("/dev/full".into(), TIMELINE_HEADER).unwrap();
    let error = files
        .finish_whole(&measured_summary(false), &histograms())
        .unwrap_err();
    assert!(matches!(error, FilesError::DiskFull { .. }), "{error}");
    assert!(names(parent.path()).is_empty());
}

#[test]
fn what_is_wrong_with_a_row_is_said_with_its_line() {
    let target = tempfile::tempdir().unwrap();
    let mut files = MeasuredFiles::create(target.path()).unwrap();
    write(&mut files);
    files
        .finish(&measured_summary(false), &histograms())
        .unwrap();
    let path = target.path().join(REQUESTS);
    let whole = fs::read_to_string(&path).unwrap();
    let message = |from: &str, to: &str| {
        fs::write(&path, whole.replacen(from, to, 1)).unwrap();
        let error = match read_requests(target.path()) {
            Ok(mut requests) => requests.find_map(Result::err),
            Err(error) => Some(error),
        };
        let text = error.unwrap().to_string();
        text.replace(&path.display().to_string(), "requests.csv")
    };
    assert_eq!(
        message("completed", "finished"),
        "requests.csv, line 2: `outcome` is `finished`; expected an outcome such as `completed`"
    );
    assert_eq!(
        message("4,1.500000000", "4,-1"),
        "requests.csv, line 3: `due_s` is `-1`; expected seconds with at most nine decimals, \
         such as 1.250000000"
    );
    assert_eq!(
        message("outcome", "end"),
        "requests.csv has no column `outcome`; expected the table of a run of foresail"
    );
    assert_eq!(
        message(",0,false", ""),
        "requests.csv, line 3: 26 fields where the header has 28; is the file whole?"
    );
    assert_eq!(
        message("1.563000001", "1.400000000"),
        "requests.csv, line 2: its times are not in order; expected due_s, first_token_s, \
         last_output_s, end_s"
    );
}

#[test]
fn tokens_that_came_before_the_last_byte_are_counted_there() {
    let target = tempfile::tempdir().unwrap();
    let mut files = MeasuredFiles::create(target.path()).unwrap();
    let record = RequestRecord {
        end_ns: 5_000_000_000,
        ..completed()
    };
    files.request(&record);
    files
        .finish(&measured_summary(false), &histograms())
        .unwrap();
    let intervals = read_intervals(target.path()).unwrap();
    let tokens: Vec<_> = intervals.iter().map(|row| row.output_tokens).collect();
    assert_eq!(tokens, [0, 128, 0, 0, 0, 0]);
}

fn any_record() -> impl Strategy<Value = RequestRecord> {
    let times = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        prop::option::of(any::<u64>()),
    );
    let counts = (
        any::<u64>(),
        any::<[u32; 6]>(),
        prop::option::of(any::<u64>()),
    );
    let options = (
        prop::option::of(any::<u32>()),
        prop::option::of(any::<u32>()),
        prop::option::of(any::<u16>()),
        prop::option::of(any::<[u64; 7]>()),
    );
    let flags = (any::<[bool; 4]>(), 0..Outcome::ALL.len(), 0..3_usize);
    (times, counts, options, flags).prop_map(|(times, counts, options, flags)| {
        let mut ordered = [times.0, times.1, times.2];
        ordered.sort_unstable();
        let [due_ns, first_ns, end_ns] = ordered;
        let (id, numbers, session) = counts;
        let (adapter, replica, status, parts) = options;
        let ([has_wire, has_first, is_in_window, is_reused], outcome, tokens_from) = flags;
        RequestRecord {
            id,
            due_ns,
            prompt_tokens: numbers[0],
            output_tokens: numbers[1],
            session,
            adapter,
            attempts: numbers[2],
            replica,
            cached_tokens: numbers[3],
            preemptions: numbers[4],
            outcome: Outcome::ALL[outcome],
            first_token_ns: has_first.then_some(first_ns),
            end_ns,
            parts: parts.map(|parts| Parts {
                retry_ns: parts[0],
                outside_ns: 0,
                cold_start_ns: parts[1],
                queue_ns: parts[2],
                adapter_ns: parts[3],
                prefill_ns: parts[4],
                preemption_ns: parts[5],
                decode_ns: parts[6],
            }),
            wire: has_wire.then_some(Wire {
                sent_ns: times.3,
                last_output_ns: has_first.then_some(end_ns),
                status,
                chunks: numbers[5],
                tokens_from: TokensFrom::ALL[tokens_from],
                is_connection_reused: is_reused,
                body_bytes: times.0,
                is_in_window,
            }),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_record_is_read_as_it_was_written(records in prop::collection::vec(any_record(), 0..20)) {
        let target = tempfile::tempdir().unwrap();
        let mut measured = MeasuredFiles::create(target.path()).unwrap();
        records.iter().for_each(|record| measured.request(record));
        measured.finish(&measured_summary(false), &histograms()).unwrap();
        let read: Result<Vec<_>, _> = read_requests(target.path()).unwrap().collect();
        prop_assert_eq!(&read.unwrap(), &records);

        // A simulated run has the same table without what its client saw.
        let mut simulated = RecordFiles::create(target.path()).unwrap();
        records.iter().for_each(|record| simulated.request(record));
        simulated.finish(&measured_summary(false)).unwrap();
        let read: Result<Vec<_>, _> = read_requests(target.path()).unwrap().collect();
        let without_wire = records.into_iter().map(|record| RequestRecord { wire: None, ..record });
        prop_assert_eq!(read.unwrap(), without_wire.collect::<Vec<_>>());
    }
}
