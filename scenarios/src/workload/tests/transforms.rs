//! Slices, scales and copies.

use foresail_core::time::{HOUR, SECOND};

use super::*;
use crate::distribution::Distribution;
use crate::workload::testing::{all, file, trace};

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
            // A slice that ends lasts to its end: 35 s, twice as long when stretched.
            (80.0, 2),
            (100.0, 3),
            (150.0, 2),
            (170.0, 3)
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
        "the slice from 1h0m0s to the end holds no requests"
    );
    let one = Transforms {
        repeat: 2,
        ..slice(4_400_000_000, None)
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

/// A generator's duration is part of it: copies follow each other at that distance.
#[test]
fn copies_of_what_has_a_duration_follow_at_its_end() {
    let fixed = |value| Lengths {
        distribution: Distribution::Fixed { value },
        max: None,
    };
    let generator = Generator {
        duration: Some(100 * SECOND),
        requests: Some(3),
        arrivals: Arrivals {
            process: Process::Constant,
            rate_per_s: 1.0,
        },
        shape: Shape::Steady,
        prompt_tokens: fixed(8.0),
        output_tokens: fixed(8.0),
        sessions: None,
    };
    let workload = Workload {
        source: Source::Generated(generator),
        transforms: Transforms {
            repeat: 2,
            ..Transforms::default()
        },
        adapters: Adapters::default(),
    };
    let due: Vec<_> = all(&workload, 1)
        .unwrap()
        .iter()
        .map(|r| r.due / SECOND)
        .collect();
    assert_eq!(due, [0, 1, 2, 100, 101, 102]);
    assert_eq!(workload.duration(), Some(200 * SECOND));
}
