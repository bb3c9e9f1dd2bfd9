//! Generated workloads: their statistics, their ends, and what leaves what unchanged.

use std::fmt::Write as _;

use foresail_core::time::{MINUTE, SECOND};

use super::*;
use crate::workload::testing::{all, trace};

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
fn workloads_describe_themselves() {
    let mut workload = generated(conversations());
    workload.transforms.rate_scale = 2.0;
    insta::assert_snapshot!(workload.describe(), @"poisson arrivals, 2 conversations/s, prompts of log-normal (mean 512.0) tokens, answers of log-normal (mean 256.0) tokens, conversations of uniform 1 to 9 turns, exponential (mean 20) s apart, behind 100 tokens shared by each of 3 groups, at 2 times the rate");
    insta::assert_snapshot!(trace("day.csv").describe(), @"trace day.csv");
}
