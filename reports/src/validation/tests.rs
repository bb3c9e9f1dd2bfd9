use super::*;
use crate::summary::Tool;
use crate::text;

/// Requests a second apart that take 100 ms to their first token and 10 ms a token after it, a little
/// more or less.
fn measured(count: u64) -> Vec<Times> {
    let times = |index: u64| {
        let jitter = (index * 7 % 11) as f64 * 1e-3;
        let (ttft_s, tpot_s) = (0.1 + jitter, 0.01 + jitter / 10.0);
        let e2e_s = ttft_s + 9.0 * tpot_s;
        Times {
            due_ns: index * 1_000_000_000,
            last_ns: index * 1_000_000_000 + (e2e_s * 1e9) as u64,
            ttft_s,
            tpot_s: Some(tpot_s),
            e2e_s,
            output_tokens: 10,
            service_s: Some(ttft_s),
        }
    };
    (0..count).map(times).collect()
}

/// The same with times to first token and of tokens changed.
fn changed(times: &[Times], change: impl Fn(f64, f64) -> (f64, f64)) -> Vec<Option<Times>> {
    let times = times.iter().map(|times| {
        let (ttft_s, tpot_s) = change(times.ttft_s, times.tpot_s.unwrap());
        let e2e_s = ttft_s + 9.0 * tpot_s;
        Some(Times {
            ttft_s,
            tpot_s: Some(tpot_s),
            e2e_s,
            last_ns: times.due_ns + (e2e_s * 1e9) as u64,
            ..*times
        })
    });
    times.collect()
}

fn comparison(measured: Vec<Times>, predicted: Vec<Option<Times>>) -> Comparison {
    Comparison {
        facts: MeasuredFacts {
            name: "runs/monday".into(),
            format: "a measured run".into(),
            requests: measured.len() as u64,
            ..MeasuredFacts::default()
        },
        scenario: ScenarioName {
            name: "chat".into(),
            model: "llama-3-8b".into(),
            gpu: "h100".into(),
            world_size: 1,
            step_times: "calibrated step times".into(),
        },
        is_idle: vec![true; measured.len()],
        measured,
        predicted,
        draws: Vec::new(),
        include_calibration_error: false,
        variants: Variants::default(),
        replicas: None,
        throughput_is_given: None,
        tolerances: Tolerances::default(),
        notes: Vec::new(),
    }
}

/// Numbers that are spread well, and the same each time.
fn pick() -> impl FnMut(usize) -> usize {
    let mut state = 1_u64;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below
    }
}

fn judged(comparison: Comparison) -> Validation {
    comparison.judge(Tool::default(), pick())
}

fn metric<'a>(validation: &'a Validation, name: &str) -> &'a MetricVerdict {
    let found = validation.metrics.iter().find(|metric| metric.name == name);
    found.expect("there is such a metric")
}

#[test]
fn the_same_is_without_error() {
    let measured = measured(200);
    let same = changed(&measured, |ttft, tpot| (ttft, tpot));
    let validation = judged(comparison(measured, same));
    assert_eq!(validation.verdict, Verdict::Within);
    for metric in &validation.metrics {
        assert_eq!(metric.error, Some(0.0), "{}", metric.name);
        assert_ne!(metric.is_within_noise, Some(false));
    }
    for source in &validation.sources {
        let overhead_s = source.overhead_s.unwrap();
        let parts = [
            source.tokens_s,
            source.step_time_s,
            overhead_s,
            source.queueing_s,
        ];
        assert!(parts.iter().all(|part| part.abs() < 1e-12), "{source:?}");
    }
}

#[test]
fn errors_are_signed_and_judged_by_their_tolerances() {
    let measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft * 0.92, tpot * 1.04));
    let validation = judged(comparison(measured, predicted));
    assert_eq!(validation.verdict, Verdict::Beyond);
    let near = |name: &str, expected: f64| {
        let error = metric(&validation, name).error.unwrap();
        assert!((error - expected).abs() < 1e-9, "{name}: {error}");
    };
    near("ttft.mean", -0.08);
    near("ttft.p99", -0.08);
    near("tpot.mean", 0.04);
    // 8 % is too much of a mean, and not of a tail.
    assert_eq!(metric(&validation, "ttft.mean").verdict, Verdict::Beyond);
    assert_eq!(metric(&validation, "ttft.p99").verdict, Verdict::Within);
    assert_eq!(metric(&validation, "tpot.mean").verdict, Verdict::Within);
}

#[test]
fn few_values_have_no_tail() {
    let measured = measured(60);
    let same = changed(&measured, |ttft, tpot| (ttft, tpot));
    let validation = judged(comparison(measured, same));
    let tail = metric(&validation, "ttft.p99");
    assert_eq!(tail.verdict, Verdict::NotJudged);
    assert_eq!(
        tail.problem.as_deref(),
        Some("60 values are too few; it takes 100")
    );
    assert_eq!(metric(&validation, "ttft.p90").verdict, Verdict::Within);
}

#[test]
fn requests_that_are_not_predicted_are_counted_and_left_out() {
    let measured = measured(200);
    let mut predicted = changed(&measured, |ttft, tpot| (ttft, tpot));
    predicted[3] = None;
    let validation = judged(comparison(measured, predicted));
    assert_eq!(validation.measured.compared, 199);
    assert_eq!(validation.measured.not_predicted, 1);
    let completed = metric(&validation, "completed");
    assert_eq!(
        (completed.measured, completed.predicted),
        (Some(1.0), Some(0.995))
    );
    assert_eq!(validation.verdict, Verdict::Within);
}

/// What survives may be predicted well: a prediction that loses the rest is none.
#[test]
fn a_prediction_that_loses_requests_is_beyond_tolerance() {
    let measured = measured(200);
    let mut predicted = changed(&measured, |ttft, tpot| (ttft, tpot));
    for index in 0..80 {
        predicted[index * 2] = None;
    }
    let validation = judged(comparison(measured, predicted));
    assert_eq!(metric(&validation, "ttft.mean").verdict, Verdict::Within);
    for name in ["completed", "requests_per_s", "output_tokens_per_s"] {
        let metric = metric(&validation, name);
        assert_eq!(metric.verdict, Verdict::Beyond, "{metric:?}");
        assert!((metric.error.unwrap() + 0.4).abs() < 0.01, "{metric:?}");
    }
    assert_eq!(validation.verdict, Verdict::Beyond);
}

#[test]
fn many_failures_in_the_measurement_leave_nothing_to_agree_with() {
    let measured = measured(200);
    let same = changed(&measured, |ttft, tpot| (ttft, tpot));
    let with = |failed| {
        let mut comparison = comparison(measured.clone(), same.clone());
        comparison.facts.failed = failed;
        comparison.facts.requests += failed;
        judged(comparison)
    };
    assert_eq!(with(2).verdict, Verdict::Within);
    let validation = with(20);
    assert_eq!(validation.verdict, Verdict::NotJudged);
    assert!(validation.notes[0].contains("20 of 220 requests failed"));
}

/// Two of four requests are off, and four requests say nothing.
#[test]
fn where_noise_may_be_all_no_source_is_named() {
    let measured = measured(4);
    let predicted = changed(&measured, |ttft, tpot| (ttft * 3.0, tpot));
    let validation = judged(Comparison {
        is_idle: vec![false; 4],
        ..comparison(measured, predicted)
    });
    assert_eq!(validation.verdict, Verdict::Beyond);
    let text = text::validation(&validation, text::Style::default());
    assert!(!text.contains("mostly"), "{text}");
}

#[test]
fn a_scale_is_told_only_where_it_explains() {
    let measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft, tpot * 0.8));
    // Steps as they are would be right, by the scale that was found.
    let with = |scale| {
        let scaled = Scaled {
            scale,
            times: changed(&measured, |ttft, tpot| (ttft, tpot)),
        };
        let variants = Variants {
            server_tokens: None,
            scaled: Some(scaled),
        };
        let validation = judged(Comparison {
            variants,
            ..comparison(measured.clone(), predicted.clone())
        });
        text::validation(&validation, text::Style::default())
    };
    let told = "steps take 1.25 times as long as predicted";
    assert!(with(1.25).contains(told), "{}", with(1.25));
    for scale in [1.0, 0.9, 1.01] {
        let text = with(scale);
        assert!(
            text.contains("mostly step time: steps do not take as long as predicted"),
            "{text}"
        );
    }
}

#[test]
fn draws_say_how_far_the_prediction_may_be_off() {
    let measured = measured(200);
    let best = changed(&measured, |ttft, tpot| (ttft * 1.1, tpot));
    let draws = [0.95, 1.0, 1.1, 1.2, 1.25];
    let draws = draws.map(|scale| changed(&measured, |ttft, tpot| (ttft * scale, tpot * 1.02)));
    let validation = judged(Comparison {
        draws: draws.to_vec(),
        include_calibration_error: true,
        ..comparison(measured, best)
    });
    let ttft = metric(&validation, "ttft.mean");
    assert_eq!(
        (ttft.verdict, ttft.is_within_prediction),
        (Verdict::Beyond, Some(true))
    );
    // All draws have the same error there.
    assert_eq!(
        metric(&validation, "tpot.mean").is_within_prediction,
        Some(false)
    );
    assert_eq!(validation.draws, 5);
}

#[test]
fn noise_is_wider_where_neighbours_are_alike() {
    let alternating: Vec<f64> = (0..400).map(|index| f64::from(index % 2)).collect();
    let in_stretches: Vec<f64> = (0..400).map(|index| f64::from(index / 100 % 2)).collect();
    let width = |values: &[f64]| {
        let nothing = vec![0.0; values.len()];
        let of = noise::error_interval(&nothing, values, Statistic::Mean, &mut pick());
        let (low, high) = of.unwrap();
        assert!((low..=high).contains(&0.5), "{low} {high}");
        high - low
    };
    assert!(width(&in_stretches) > 3.0 * width(&alternating));
    assert_eq!(
        noise::error_interval(&[1.0; 8], &[1.0; 8], Statistic::Mean, &mut pick()),
        None
    );
}

#[test]
fn a_small_error_of_all_requests_is_not_noise_however_much_requests_differ() {
    let mut measured = measured(200);
    for (index, times) in measured.iter_mut().enumerate() {
        times.ttft_s *= (1 + index % 50) as f64;
    }
    let predicted = changed(&measured, |ttft, tpot| (ttft - 0.001, tpot));
    let validation = judged(comparison(measured, predicted));
    let ttft = metric(&validation, "ttft.mean");
    assert!(ttft.error.unwrap().abs() < 0.001, "{ttft:?}");
    assert_eq!(ttft.is_within_noise, Some(false));
    let tpot = metric(&validation, "tpot.mean");
    assert_eq!(tpot.is_within_noise, Some(true));
}

#[test]
fn errors_of_single_requests_that_cancel_are_noise() {
    let measured = measured(200);
    let mut predicted = changed(&measured, |ttft, tpot| (ttft, tpot));
    for (index, times) in predicted.iter_mut().flatten().enumerate() {
        times.ttft_s += if index % 4 < 2 { 0.021 } else { -0.02 };
    }
    let validation = judged(comparison(measured, predicted));
    let ttft = metric(&validation, "ttft.mean");
    assert!(ttft.error.unwrap() > 0.0);
    assert_eq!(ttft.is_within_noise, Some(true));
    assert!(ttft.error_low.unwrap() < 0.0 && ttft.error_high.unwrap() > 0.0);
}

#[test]
fn slower_steps_are_told_as_step_time() {
    let measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft / 1.25, tpot / 1.25));
    let scaled = changed(&measured, |ttft, tpot| (ttft, tpot));
    let validation = judged(Comparison {
        variants: Variants {
            server_tokens: None,
            scaled: Some(Scaled {
                scale: 1.25,
                times: scaled,
            }),
        },
        ..comparison(measured, predicted)
    });
    for source in &validation.sources {
        assert!(
            (source.step_time_s - source.error_s).abs() < 1e-9,
            "{source:?}"
        );
    }
    let text = text::validation(&validation, text::Style::default());
    assert!(
        text.contains("mostly step time: steps take 1.25 times as long as predicted"),
        "{text}"
    );
}

#[test]
fn what_only_requests_in_a_busy_system_wait_for_is_queueing() {
    let mut measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft, tpot));
    let is_idle: Vec<bool> = (0..200).map(|index| index % 2 == 0).collect();
    for (times, is_idle) in measured.iter_mut().zip(&is_idle) {
        if !is_idle {
            times.ttft_s += 0.05;
            times.e2e_s += 0.05;
        }
    }
    let validation = judged(Comparison {
        is_idle,
        ..comparison(measured, predicted)
    });
    let ttft = &validation.sources[0];
    assert!((ttft.queueing_s + 0.025).abs() < 1e-9, "{ttft:?}");
    assert!(ttft.step_time_s.abs() < 1e-9, "{ttft:?}");
    assert_eq!(validation.sources[1].queueing_s, 0.0);
    let text = text::validation(&validation, text::Style::default());
    assert!(
        text.contains("mostly queueing: waits for a step are predicted too short"),
        "{text}"
    );
}

#[test]
fn what_all_first_tokens_take_is_overhead_where_idle_requests_show_it() {
    let measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft - 0.03, tpot));
    let validation = judged(comparison(measured, predicted));
    let ttft = &validation.sources[0];
    assert!((ttft.overhead_s.unwrap() + 0.03).abs() < 1e-9, "{ttft:?}");
    assert!(ttft.queueing_s.abs() < 1e-9 && ttft.step_time_s.abs() < 1e-9);
    let text = text::validation(&validation, text::Style::default());
    assert!(text.contains("mostly overhead: "), "{text}");
}

#[test]
fn without_idle_requests_overhead_is_not_told_from_queueing() {
    let measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft - 0.03, tpot));
    let validation = judged(Comparison {
        is_idle: vec![false; 200],
        ..comparison(measured, predicted)
    });
    let ttft = &validation.sources[0];
    assert_eq!(ttft.overhead_s, None);
    assert!((ttft.queueing_s + 0.03).abs() < 1e-9, "{ttft:?}");
    let text = text::validation(&validation, text::Style::default());
    assert!(text.contains("mostly queueing or overhead: "), "{text}");
    assert!(text.contains("too few to tell"), "{text}");
}

#[test]
fn other_tokens_than_the_servers_are_told_as_tokens() {
    let measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft / 2.0, tpot));
    let server_tokens = changed(&measured, |ttft, tpot| (ttft, tpot));
    let validation = judged(Comparison {
        variants: Variants {
            server_tokens: Some(server_tokens),
            scaled: None,
        },
        ..comparison(measured, predicted)
    });
    let ttft = &validation.sources[0];
    assert!((ttft.tokens_s - ttft.error_s).abs() < 1e-9, "{ttft:?}");
    assert!(ttft.queueing_s.abs() < 1e-9 && ttft.step_time_s.abs() < 1e-9);
}

#[test]
fn pictures_have_both_distributions() {
    let measured = measured(50);
    let predicted = changed(&measured, |ttft, tpot| (ttft * 30.0, tpot));
    let plots = pictures(&measured, &predicted);
    assert_eq!(plots.len(), 3);
    let names: Vec<_> = plots[0]
        .series
        .iter()
        .map(|series| series.name.as_str())
        .collect();
    assert_eq!(names, ["measured", "predicted"]);
    // 30 times as long is easier seen where factors are equal distances.
    assert_eq!(plots[0].x.scale, crate::picture::Scale::Log);
    assert_eq!(plots[1].x.scale, crate::picture::Scale::Linear);
}

#[test]
fn a_validation_is_read_from_top_to_bottom() {
    let measured = measured(200);
    let predicted = changed(&measured, |ttft, tpot| (ttft * 0.92, tpot * 1.04));
    let draws = [0.9, 1.0, 1.1];
    let draws = draws.map(|scale| changed(&measured, |ttft, tpot| (ttft * scale, tpot * scale)));
    let mut comparison = Comparison {
        draws: draws.to_vec(),
        include_calibration_error: true,
        replicas: Some((
            Counts {
                mean: 2.0,
                max: 3.0,
            },
            Counts {
                mean: 2.2,
                max: 3.0,
            },
        )),
        notes: vec!["a note that is worth reading".into()],
        ..comparison(measured, predicted)
    };
    comparison.facts.failed = 2;
    comparison.facts.outside_window = 30;
    comparison.facts.degraded = vec![crate::summary::Degraded {
        code: "sends_late".into(),
        text: "5 % of requests were sent late".into(),
    }];
    let validation = judged(comparison);
    insta::assert_snapshot!(text::validation(&validation, text::Style::default()));
}
