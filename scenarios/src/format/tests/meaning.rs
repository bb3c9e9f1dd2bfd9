//! What a valid scenario means.

use std::path::Path;

use foresail_core::control::autoscaler::{AutoscalerConfig, FireworksConfig, WindowSemantics};
use foresail_core::time::{HOUR, MINUTE, SECOND};

use super::super::{Overrides, parse};
use super::{BASE, ok, set, try_set};
use crate::scenario::{AtZero, LatencyMetric, Metric, Scenario, Statistic};

fn fireworks(scenario: &Scenario) -> &FireworksConfig {
    match &scenario.deployment.autoscaler {
        AutoscalerConfig::Fireworks(config) => config,
        other => panic!("{other:?}"),
    }
}

/// The defaults of the specification: S12, S13, S21, S22, S26 to S28.
#[test]
fn defaults_are_those_of_the_specification() {
    let scenario = ok(BASE);
    let config = fireworks(&scenario);
    assert_eq!((config.min_replica_count, config.max_replica_count), (0, 1));
    assert_eq!(config.scale_up_window, 30 * SECOND);
    assert_eq!(config.scale_down_window, 10 * MINUTE);
    assert_eq!(config.scale_to_zero_window, HOUR);
    assert_eq!(config.load_targets.default, Some(0.8));
    let deployment = &scenario.deployment;
    let resolved = deployment.spec.settings.resolve(deployment.spec.profile, 1);
    assert_eq!(
        resolved.map(|it| it.unused_auto_delete),
        Ok(Some(168 * HOUR))
    );
    assert_eq!(deployment.initial_replica_count, 0);
    assert_eq!(deployment.world_size, 1);
    assert_eq!(deployment.at_zero, AtZero::Hold);
    assert_eq!(scenario.seed, 1);
    assert_eq!(scenario.name, "s");
}

#[test]
fn the_maximum_defaults_to_the_minimum_above_zero() {
    let scenario = set(BASE, &["deployment.min_replica_count=3"]);
    assert_eq!(fireworks(&scenario).max_replica_count, 3);
    assert_eq!(scenario.deployment.initial_replica_count, 3);
}

#[test]
fn a_maximum_of_zero_parks_the_deployment() {
    let scenario = set(BASE, &["deployment.max_replica_count=0"]);
    assert_eq!(fireworks(&scenario).max_replica_count, 0);
    assert_eq!(scenario.deployment.initial_replica_count, 0);
}

#[test]
fn set_takes_toml_or_plain_text() {
    let scenario = set(
        BASE,
        &[
            "deployment.scale_up_window=15s",
            "deployment.gpu = \"h200\"",
            "deployment.unused_auto_delete_duration=0",
            "workload.prompt_tokens={ uniform = { min = 1, max = 9 } }",
            "name=plain text",
        ],
    );
    assert_eq!(fireworks(&scenario).scale_up_window, 15 * SECOND);
    assert_eq!(scenario.deployment.gpu, "h200");
    let spec = &scenario.deployment.spec;
    let resolved = spec.settings.resolve(spec.profile, 1);
    assert_eq!(resolved.map(|it| it.unused_auto_delete), Ok(None));
    assert_eq!(scenario.name, "plain text");
}

#[test]
fn the_last_set_wins_and_seed_has_its_own_argument() {
    let overrides = Overrides {
        set: vec!["seed=2".to_owned(), "seed=3".to_owned()],
        ..Overrides::default()
    };
    assert_eq!(
        parse("s.toml", BASE, Path::new(""), &overrides)
            .unwrap()
            .seed,
        3
    );
    let overrides = Overrides {
        seed: Some(u64::MAX),
        ..Overrides::default()
    };
    assert_eq!(
        parse("s.toml", BASE, Path::new(""), &overrides)
            .unwrap()
            .seed,
        u64::MAX
    );
}

#[test]
fn a_seed_that_is_given_twice_is_refused() {
    let overrides = Overrides {
        set: vec!["seed = 2".to_owned()],
        seed: Some(2),
        ..Overrides::default()
    };
    let error = parse("s.toml", BASE, Path::new(""), &overrides).unwrap_err();
    insta::assert_snapshot!(super::render(&error), @r"
    scenario::set

      × the seed is given twice
       ╭─[--set:1:1]
     1 │ seed = 2
       · ────┬───
       ·     ╰── and `--seed 2` says it too
       ╰────
      help: leave out one of them
    ");
}

#[test]
fn the_profile_of_2026_rejects_at_zero_and_reads_zero_as_unset() {
    let scenario = set(
        BASE,
        &[
            "autoscaler.profile=fireworks-2026",
            "deployment.scale_to_zero_window=0",
        ],
    );
    assert_eq!(scenario.deployment.at_zero, AtZero::Reject);
    assert_eq!(fireworks(&scenario).scale_to_zero_window, HOUR);
}

#[test]
fn the_world_size_defaults_to_the_smallest_that_fits() {
    let world_size = |model: &str, gpu: &str| {
        let set_model = format!("deployment.model={model}");
        let set_gpu = format!("deployment.gpu={gpu}");
        set(BASE, &[&set_model, &set_gpu]).deployment.world_size
    };
    assert_eq!(world_size("llama-3-8b", "a100"), 1);
    assert_eq!(world_size("llama-3-70b", "h100"), 4);
    assert_eq!(world_size("llama-3-70b", "b300"), 1);
}

#[test]
fn blocks_fill_the_memory_unless_the_scenario_says_how_many() {
    let scenario = ok(BASE);
    let batching = scenario.deployment.batching;
    let tokens = u64::from(batching.num_blocks) * u64::from(batching.block_size);
    // 71 GiB usable less 15 GiB of weights and 2 GiB of others, at 128 KiB a token.
    assert!((430_000..450_000).contains(&tokens), "{tokens}");
    assert_eq!(
        batching.watermark,
        (f64::from(batching.num_blocks) * 0.01).ceil() as u32
    );
    let few = set(BASE, &["batching.num_blocks=100"]).deployment.batching;
    assert_eq!((few.num_blocks, few.watermark), (100, 1));
}

#[test]
fn a_price_is_exact_and_says_where_it_comes_from() {
    let scenario = ok(BASE);
    assert_eq!(
        scenario.deployment.price.nanodollars_per_gpu_hour,
        8_000_000_000
    );
    assert!(scenario.deployment.price_source.starts_with("Fireworks"));
    let own = set(BASE, &["price.usd_per_gpu_hour=3.9492"]).deployment;
    assert_eq!(own.price.nanodollars_per_gpu_hour, 3_949_200_000);
    assert_eq!(own.price_source, "the scenario");
}

#[test]
fn objectives_keep_their_order_and_units() {
    let scenario = set(
        BASE,
        &["objectives={ ttft_p95 = \"500ms\", success_rate = 0.999, tpot_p99_9 = \"2s\" }"],
    );
    let objectives: Vec<_> = scenario
        .objectives
        .iter()
        .map(|objective| (objective.metric, objective.limit))
        .collect();
    assert_eq!(
        objectives,
        [
            (
                Metric::Latency(LatencyMetric::Ttft, Statistic::Percentile(95.0)),
                0.5
            ),
            (Metric::SuccessRate, 0.999),
            (
                Metric::Latency(LatencyMetric::Tpot, Statistic::Percentile(99.9)),
                2.0
            ),
        ]
    );
}

#[test]
fn a_shape_of_ones_own_is_a_model() {
    let shape = "deployment.shape={ num_hidden_layers = 2, hidden_size = 64, \
                 num_attention_heads = 4, num_key_value_heads = 2, intermediate_size = 128, \
                 vocab_size = 100, max_position_embeddings = 4096 }";
    let deployment = set(BASE, &[shape, "deployment.model=tiny"]).deployment;
    assert_eq!(deployment.model, "tiny");
    assert_eq!(deployment.shape.head_dim, 16);
    assert_eq!(deployment.batching.max_model_len, 4096);
}

#[test]
fn cold_starts_are_a_preset_a_total_or_stages() {
    let stages = |arguments: &[&str]| set(BASE, arguments).deployment.cold_start.stages;
    assert_eq!(stages(&[]).len(), 9);
    let total = stages(&["cold_start.total=75s"]);
    assert_eq!(total[0].outcomes[0].seconds.mean(), 75.0);
    let own = stages(&["cold_start.stages=[{ name = \"weights\", outcomes = [\
                        { probability = 0.9, seconds = 8 }, \
                        { probability = 0.1, seconds = { exponential = { mean = 60 } } }] }]"]);
    assert_eq!(own[0].outcomes[1].seconds.mean(), 60.0);
}

#[test]
fn a_scripted_autoscaler_follows_its_steps() {
    let scenario = set(
        BASE,
        &[
            "autoscaler={ policy = \"scripted\", steps = [{ at = \"10m\", replicas = 3 }] }",
            "deployment.max_replica_count=5",
            "deployment.initial_replica_count=2",
        ],
    );
    let expected = AutoscalerConfig::Scripted {
        steps: vec![(10 * MINUTE, 3)],
        initial: 2,
    };
    assert_eq!(scenario.deployment.autoscaler, expected);
}

#[test]
fn every_problem_is_reported_not_only_the_first() {
    let error = try_set(BASE, &["deployment.gpu=h1000", "seed=-1", "typo=1"]).unwrap_err();
    assert_eq!(error.diagnostics().count(), 3);
    assert_eq!(error.to_string(), "3 problems in the scenario");
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "\\PC*", argument in "[a-z_.]{0,20}=?\\PC{0,20}") {
        let _ = try_set(&text, &[&argument]);
        let _ = try_set(BASE, &[&argument]);
    }
}

#[test]
fn never_panics_on_any_value_of_any_key() {
    for key in KEYS {
        for value in VALUES {
            let _ = try_set(BASE, &[&format!("{key}={value}")]);
        }
    }
}

const KEYS: [&str; 22] = [
    "deployment",
    "deployment.model",
    "deployment.shape",
    "deployment.gpu",
    "deployment.world_size",
    "deployment.max_model_len",
    "deployment.max_replica_count",
    "deployment.scale_up_window",
    "deployment.load_targets",
    "autoscaler.steps",
    "batching.max_num_seqs",
    "batching.block_size",
    "batching.num_blocks",
    "batching.watermark",
    "cold_start.stages",
    "cold_start.total",
    "price.usd_per_gpu_hour",
    "workload.arrivals",
    "workload.prompt_tokens",
    "workload.slice",
    "workload.sessions",
    "objectives",
];

const VALUES: [&str; 16] = [
    "0",
    "1",
    "-1",
    "4294967295",
    "18446744073709551616",
    "1e308",
    "nan",
    "-inf",
    "true",
    "[]",
    "[[]]",
    "{}",
    "\"\"",
    "2562047h47m16.854775807s",
    "[{}]",
    "1979-05-27",
];

#[test]
fn another_policy_leaves_out_what_it_would_not_know() {
    let text =
        format!("{BASE}\n[autoscaler]\nwindow_semantics = \"average\"\ndrain_timeout = \"1m\"\n");
    let under = |policy: &str, set: &[&str]| {
        let overrides = Overrides {
            policy: Some(policy.to_owned()),
            set: set.iter().map(|&set| set.to_owned()).collect(),
            ..Overrides::default()
        };
        parse("s.toml", &text, Path::new(""), &overrides).map_err(|error| error.to_string())
    };
    let counts = [
        "deployment.min_replica_count=2",
        "deployment.max_replica_count=2",
    ];
    let fixed = under("fixed", &counts).unwrap().deployment;
    assert_eq!(fixed.autoscaler, AutoscalerConfig::Fixed { replicas: 2 });
    assert_eq!(fixed.drain_timeout, 60 * SECOND);
    let AutoscalerConfig::Fireworks(kept) = under("fireworks", &[]).unwrap().deployment.autoscaler
    else {
        panic!("it is the policy that was asked for")
    };
    assert_eq!(kept.window_semantics, WindowSemantics::Average);
    // What the command line says is meant: it is an error where it has no effect.
    let set = [&counts[..], &["autoscaler.window_semantics=average"]].concat();
    let error = under("fixed", &set).unwrap_err();
    assert!(error.contains("window_semantics"), "{error}");
    let error = under("fixd", &[]).unwrap_err();
    assert!(error.contains("fixd"), "{error}");
}
