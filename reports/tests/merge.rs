//! Shards that are put together again are the run that was not split.

mod fixture;

use fixture::measured::{Part, record};
use foresail_reports::Summary;
use foresail_reports::files::{
    HISTOGRAMS, INTERVALS, REQUESTS, SUMMARY, read_histograms, read_summary,
};
use foresail_reports::merge::{MergeError, merge};
use foresail_reports::summary::{Load, Measured, Source, Tool};
use std::fs;
use std::path::{Path, PathBuf};

fn tool() -> Tool {
    fixture::description("", 0).tool
}

/// Records the named shards of so many, each in a folder of its own.
fn split(parent: &Path, parts: &[u32], of: u32) -> Vec<PathBuf> {
    let folder = |part: &u32| {
        let folder = parent.join(format!("shard-{part}"));
        record(Part { part: *part, of }, Some(&folder));
        folder
    };
    parts.iter().map(folder).collect()
}

/// Changes what the summary of a folder says.
fn change(folder: &Path, change: impl FnOnce(&mut Summary)) {
    let mut summary = read_summary(folder).unwrap();
    change(&mut summary);
    fs::write(folder.join(SUMMARY), summary.to_json().unwrap()).unwrap();
}

fn change_measured(folder: &Path, of: impl FnOnce(&mut Measured)) {
    change(folder, |summary| of(summary.measured.as_mut().unwrap()));
}

fn codes(summary: &Summary) -> Vec<&str> {
    let degraded = &summary.measured.as_ref().unwrap().degraded;
    degraded.iter().map(|reason| reason.code.as_str()).collect()
}

#[test]
fn the_merge_of_a_split_run_is_the_run() {
    let parent = tempfile::tempdir().unwrap();
    let whole = parent.path().join("whole");
    let unsplit = record(Part { part: 1, of: 1 }, Some(&whole));
    for of in [2, 3, 7] {
        let parts: Vec<u32> = (1..=of).rev().collect();
        let folders = split(parent.path(), &parts, of);
        let target = parent.path().join("merged");
        let summary = merge(&folders, &target, tool()).unwrap();

        let read = |folder: &Path, name| fs::read_to_string(folder.join(name)).unwrap();
        for name in [
            REQUESTS,
            INTERVALS,
            HISTOGRAMS,
            "attempts.csv",
            "timeline.csv",
        ] {
            assert_eq!(read(&target, name), read(&whole, name), "{name} of {of}");
        }
        assert_eq!(read_histograms(&target).unwrap(), unsplit.histograms);
        assert_eq!(read_summary(&target).unwrap(), summary);

        // What clients did adds up; everything else is as it was.
        let mut expected = unsplit.summary.clone();
        let (merged, alone) = (
            summary.measured.as_ref().unwrap(),
            expected.measured.as_mut().unwrap(),
        );
        assert_eq!(merged.client.threads, of);
        assert_eq!(merged.client.connections.opened, 9 * u64::from(of));
        assert_eq!(
            merged.shard.as_ref().unwrap().parts,
            (1..=of).collect::<Vec<_>>()
        );
        alone.shard = merged.shard.clone();
        alone.steadiness = merged.steadiness.clone();
        alone.client.threads = of;
        alone.client.cpu_s = merged.client.cpu_s;
        alone.client.connections = merged.client.connections;
        assert_eq!(summary, expected);
        assert_eq!(codes(&summary), [""; 0]);
    }
}

#[test]
fn what_was_merged_can_be_merged_again() {
    let parent = tempfile::tempdir().unwrap();
    let folders = split(parent.path(), &[1, 2, 3], 3);
    let (pair, all) = (parent.path().join("pair"), parent.path().join("all"));
    let summary = merge(&folders[..2], &pair, tool()).unwrap();
    assert_eq!(codes(&summary), ["shards_missing"]);
    let again = merge(&[pair, folders[2].clone()], &all, tool()).unwrap();
    let at_once = merge(&folders, parent.path().join("at-once"), tool()).unwrap();
    assert_eq!(again.ttft_s, at_once.ttft_s);
    assert_eq!(again.requests, at_once.requests);
}

#[test]
fn a_shard_that_is_missing_degrades_the_run_and_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let folders = split(parent.path(), &[1, 3], 3);
    let summary = merge(&folders, parent.path().join("merged"), tool()).unwrap();
    assert_eq!(codes(&summary), ["shards_missing"]);
    let text = &summary.measured.unwrap().degraded[0].text;
    assert!(text.starts_with("shard 2 of 3 is missing"), "{text}");
}

#[test]
fn what_a_shard_doubts_the_run_doubts() {
    let parent = tempfile::tempdir().unwrap();
    let folders = split(parent.path(), &[1, 2], 2);
    change_measured(&folders[1], |measured| {
        *measured = fixture::measured::doubtful()
            .measured
            .map(|doubtful| Measured {
                load: Load::Open,
                server: measured.server.clone(),
                shard: measured.shard.clone(),
                ..*doubtful
            })
            .unwrap();
    });
    let summary = merge(&folders, parent.path().join("merged"), tool()).unwrap();
    assert_eq!(codes(&summary), ["sends_late", "shard_interrupted"]);
    let measured = summary.measured.unwrap();
    assert!(measured.is_interrupted);
    assert!(!measured.steadiness.unwrap().is_steady);
    assert!(measured.degraded[0].text.starts_with("shard 2: 1 % of"));
}

#[test]
fn windows_are_intersected() {
    let parent = tempfile::tempdir().unwrap();
    let folders = split(parent.path(), &[1, 2], 2);
    change_measured(&folders[0], |measured| measured.window.from_s = 20.0);
    change_measured(&folders[1], |measured| measured.window.until_s = 40.0);
    let summary = merge(&folders, parent.path().join("merged"), tool()).unwrap();
    let window = &summary.measured.as_ref().unwrap().window;
    assert_eq!((window.from_s, window.until_s), (20.0, 40.0));
    assert!(
        window
            .rule
            .starts_with("what the windows of all shards have in common")
    );
    assert_eq!(summary.requests.offered, 80);
    assert_eq!(window.warm_up.requests, 80);

    change_measured(&folders[1], |measured| measured.window.until_s = 15.0);
    let summary = merge(&folders, parent.path().join("merged"), tool()).unwrap();
    assert_eq!(codes(&summary), ["no_common_window"]);
    assert_eq!(summary.requests.offered, 0);
}

#[test]
fn shards_that_began_apart_are_no_one_load() {
    let parent = tempfile::tempdir().unwrap();
    let folders = split(parent.path(), &[1, 2], 2);
    change_measured(&folders[1], |measured| measured.began_unix_s += 0.020);
    let summary = merge(&folders, parent.path().join("merged"), tool()).unwrap();
    assert_eq!(codes(&summary), ["shards_apart"]);
    let text = &summary.measured.unwrap().degraded[0].text;
    assert!(text.starts_with("the shards began 20 ms apart"), "{text}");
}

#[test]
fn what_is_not_of_one_run_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("merged");
    let message = |folders: &[PathBuf]| {
        let error = merge(folders, &target, tool()).unwrap_err().to_string();
        assert!(!target.exists(), "{error}");
        error.replace(&format!("{}/", parent.path().display()), "")
    };
    assert_eq!(
        message(&[]),
        "there is nothing to merge; name the folders of the shards of a run"
    );

    let folders = split(parent.path(), &[1, 2], 2);
    let twice = [folders[0].clone(), folders[0].clone()];
    assert_eq!(
        message(&twice),
        "shard-1 and shard-1 are both shard 1; leave one out"
    );

    change_measured(&folders[1], |measured| {
        measured.shard.as_mut().unwrap().plan_digest = "another".into();
    });
    assert_eq!(
        message(&folders),
        "shard-1 and shard-2 are not of the same run: they differ in their plan; \
         name shards that were run with the same arguments"
    );

    change_measured(&folders[1], |measured| measured.shard = None);
    let refused = message(&folders);
    assert!(
        refused.starts_with("shard-2 is not a shard of a measured run"),
        "{refused}"
    );

    change(&folders[1], |summary| {
        summary.measured = None;
        summary.source = Source::Simulated;
    });
    assert!(matches!(
        merge(&folders, &target, tool()).unwrap_err(),
        MergeError::NoShard { .. }
    ));

    fs::remove_file(folders[1].join(SUMMARY)).unwrap();
    let refused = message(&folders);
    assert!(refused.contains("name the folder of a run"), "{refused}");
}

/// Records that end in the middle, as a full disk leaves them, are no run.
#[test]
fn a_table_that_is_not_whole_leaves_no_merge() {
    let parent = tempfile::tempdir().unwrap();
    let folders = split(parent.path(), &[1, 2], 2);
    let path = folders[1].join(REQUESTS);
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let target = parent.path().join("merged");
    let error = merge(&folders, &target, tool()).unwrap_err().to_string();
    assert!(error.contains("line 121"), "{error}");
    assert!(!target.exists());
}
