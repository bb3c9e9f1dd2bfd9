//! Traffic as the flags of others mean it.

use foresail_scenarios::workload::{Content, Request};

use super::*;

fn requests(traffic: &Traffic) -> Vec<Request> {
    let workload = traffic.workload().unwrap();
    let requests = workload.open(5).unwrap();
    requests.collect::<Result<_, _>>().unwrap()
}

fn at_rate(rate: f64, pattern: Pattern) -> Traffic {
    Traffic {
        rate: Rate::PerSecond(rate),
        pattern,
        requests: Some(20_000),
        ..Traffic::default()
    }
}

#[test]
fn inf_sends_all_at_once() {
    let requests = requests(&Traffic::default());
    assert_eq!(requests.len(), 1000);
    assert!(requests.iter().all(|request| request.due < 1_000));
    let lengths = requests.iter().map(|r| (r.prompt_tokens, r.output_tokens));
    assert!(lengths.clone().all(|lengths| lengths == (1024, 128)));
}

#[test]
fn burstiness_is_the_shape_of_the_gaps() {
    for (burstiness, cv) in [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5), (f64::INFINITY, 0.0)] {
        let requests = requests(&at_rate(10.0, Pattern::Gamma { burstiness }));
        let gaps = requests.windows(2).map(|pair| pair[1].due - pair[0].due);
        let gaps: Vec<f64> = gaps.map(|gap| gap as f64 / SECOND as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
        let found = (squares / gaps.len() as f64).sqrt() / mean;
        assert!((mean - 0.1).abs() < 0.005, "{burstiness}: mean gap {mean}");
        assert!((found - cv).abs() < 0.06, "{burstiness}: cv {found}");
    }
}

#[test]
fn a_range_gives_each_length_its_share_up_to_both_ends() {
    let traffic = Traffic {
        prompt_tokens: 10,
        range_ratio: 0.25,
        ..at_rate(1.0, Pattern::Constant)
    };
    // 10 * 0.75 rounded down to 10 * 1.25 rounded up: 7 to 13.
    let mut counts = [0_u32; 20];
    for request in requests(&traffic) {
        counts[request.prompt_tokens as usize] += 1;
    }
    let expected = 20_000.0 / 7.0;
    for (length, count) in counts.into_iter().enumerate() {
        let share = f64::from(count) / expected;
        match length {
            7..=13 => assert!((share - 1.0).abs() < 0.1, "{length}: {share}"),
            _ => assert_eq!(count, 0, "{length}"),
        }
    }
}

#[test]
fn a_prefix_is_shared_by_all_and_comes_on_top() {
    let traffic = Traffic {
        prefix_tokens: 100,
        prompt_tokens: 20,
        ..Traffic::default()
    };
    let requests = requests(&traffic);
    assert!(requests.iter().all(|request| request.prompt_tokens == 120));
    let sessions = requests.iter().map(|request| match request.content {
        Content::Session {
            group: 0,
            shared_tokens: 100,
            session,
        } => session,
        _ => panic!("{request:?}"),
    });
    assert_eq!(sessions.collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_ramp_goes_from_the_first_request_to_the_last() {
    for strategy in [GrowthLaw::Linear, GrowthLaw::Exponential] {
        let (start_per_s, end_per_s) = (1.0, 100.0);
        let rate = Rate::RampUp(RampUp {
            strategy,
            start_per_s,
            end_per_s,
        });
        let traffic = Traffic {
            rate,
            ..at_rate(1.0, Pattern::Constant)
        };
        let requests = requests(&traffic);
        let gap = |index: usize| requests[index + 1].due - requests[index].due;
        let rate = |index| SECOND as f64 / gap(index) as f64;
        let middle = match strategy {
            GrowthLaw::Linear => 50.5,
            GrowthLaw::Exponential => 10.0,
        };
        for (index, expected) in [(0, 1.0), (9_999, middle), (19_998, 100.0)] {
            let found = rate(index);
            assert!((found / expected - 1.0).abs() < 0.01, "{index}: {found}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_the_name_of_its_flag() {
    let ramp = |start_per_s| {
        Rate::RampUp(RampUp {
            strategy: GrowthLaw::Linear,
            start_per_s,
            end_per_s: 2.0,
        })
    };
    let base = at_rate(1.0, Pattern::Poisson);
    let edited = |edit: &dyn Fn(&mut Traffic)| {
        let mut traffic = base.clone();
        edit(&mut traffic);
        traffic.workload().unwrap_err().to_string()
    };
    let messages = [
        edited(&|traffic| traffic.rate = Rate::PerSecond(0.0)),
        edited(&|traffic| traffic.rate = Rate::PerSecond(f64::NAN)),
        edited(&|traffic| traffic.pattern = Pattern::Gamma { burstiness: -1.0 }),
        edited(&|traffic| traffic.range_ratio = 1.0),
        edited(&|traffic| traffic.prompt_tokens = 0),
        edited(&|traffic| traffic.requests = None),
        edited(&|traffic| traffic.rate = ramp(0.0)),
        edited(&|traffic| (traffic.rate, traffic.requests) = (ramp(1.0), Some(1))),
        edited(&|traffic| (traffic.rate, traffic.pattern) = (Rate::AtOnce, Pattern::Constant)),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    --request-rate: expected a number above 0, found 0
    --request-rate: expected a number above 0, found NaN
    --burstiness: expected a number from 0.000001 to 1000000, or inf, found -1
    --random-range-ratio: expected a number from 0 to below 1, found 1
    --random-input-len: expected at least 1 token, found 0
    the traffic has no end: give --num-prompts or --duration
    --ramp-up-start-rps: expected a number above 0, found 0
    a ramp goes from the first request to the last: give --num-prompts, at least 2
    --request-rate inf sends everything at once: give --num-prompts, and no --arrival-pattern or --burstiness
    ");
}
