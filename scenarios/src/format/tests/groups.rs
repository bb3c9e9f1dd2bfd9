//! Several deployments in one file, and the GPUs they share.

use std::path::Path;

use super::render;
use crate::format::{Overrides, parse, parse_group};
use crate::scenario::Group;

const TWO: &str = r#"
name = "teams"
seed = 5
[gpu_pool]
stock_outs = [{ at = "1h", lasts = "20m" }]
random_stock_outs = { every = { exponential = { mean = 7200 } }, lasts = "10m" }
[gpu_pool.gpus]
H100 = 3

[[deployments]]
name = "chat"
description = "Talks."
[deployments.deployment]
model = "llama-3-8b"
gpu = "h100"
min_replica_count = 1
max_replica_count = 3
[deployments.workload]
duration = "10m"
arrivals = { rate_per_s = 2.0 }
prompt_tokens = 512
output_tokens = 128

[[deployments]]
name = "batch"
[deployments.deployment]
model = "llama-3-8b"
gpu = "h100"
[deployments.autoscaler]
drain_timeout = "1m"
[deployments.workload]
duration = "20m"
arrivals = { rate_per_s = 1.0 }
prompt_tokens = 512
output_tokens = 128
"#;

fn parsed(text: &str, set: &[&str]) -> Result<Group, String> {
    let overrides = Overrides {
        set: set.iter().map(|&argument| argument.to_owned()).collect(),
        ..Overrides::default()
    };
    parse_group("teams.toml", text, Path::new(""), &overrides).map_err(|error| render(&error))
}

#[test]
fn each_deployment_has_tables_of_its_own_and_they_share_a_pool() {
    let group = parsed(TWO, &[]).expect("a sound file");
    assert_eq!(group.name, "teams");
    let [chat, batch] = &group.deployments[..] else {
        panic!("two deployments");
    };
    assert_eq!((chat.name.as_str(), batch.name.as_str()), ("chat", "batch"));
    assert_eq!(chat.deployment.initial_replica_count, 1);
    assert_eq!(batch.deployment.drain_timeout, 60_000_000_000);
    for deployment in [chat, batch] {
        let pool = deployment.gpu_pool.as_ref().expect("a pool");
        assert_eq!(pool.kinds.len(), 1);
        assert_eq!(pool.kinds[0].gpus, Some(3));
        assert_eq!(pool.stock_outs.fixed.len(), 1);
        assert!(pool.stock_outs.random.is_some());
    }
    assert_ne!(group.seed_of(chat, 5), group.seed_of(batch, 5));
}

#[test]
fn settings_reach_one_deployment_by_its_name() {
    let group = parsed(TWO, &["deployments.batch.deployment.max_replica_count=7"]);
    let group = group.expect("a sound file");
    let max = |index: usize| match &group.deployments[index].deployment.autoscaler {
        foresail_core::control::autoscaler::AutoscalerConfig::Fireworks(config) => {
            config.max_replica_count
        }
        other => panic!("not {other:?}"),
    };
    assert_eq!((max(0), max(1)), (3, 7));
}

#[test]
fn a_file_with_one_deployment_is_a_group_of_one() {
    let group = parsed(super::BASE, &[]).expect("a sound file");
    assert_eq!(group.deployments.len(), 1);
    assert_eq!(group.seed_of(&group.deployments[0], 9), 9);
}

#[test]
fn where_one_deployment_is_needed_two_are_an_error() {
    let error = parse("teams.toml", TWO, Path::new(""), &Overrides::default()).unwrap_err();
    insta::assert_snapshot!(render(&error), @"
    scenario::file

      × `teams` has 2 deployments, and this takes one
      help: `foresail simulate` runs several together
    ");
}

#[test]
fn a_trace_or_a_policy_is_for_one_deployment() {
    let overrides = Overrides {
        trace: Some("monday.csv".into()),
        ..Overrides::default()
    };
    let error = parse_group("teams.toml", TWO, Path::new(""), &overrides).unwrap_err();
    insta::assert_snapshot!(render(&error), @r#"
    scenario::deployments

      × `--trace` is for one deployment, and this is a list of them
       ╭─[--trace:1:1]
     1 │ monday.csv
       · ─────┬────
       ·      ╰── for which of them?
       ╰────
      help: say whose: `--set 'deployments.chat.workload={ trace = "monday.csv" }'`
    "#);
    let overrides = Overrides {
        policy: Some("hpa".to_owned()),
        ..Overrides::default()
    };
    let error = parse_group("teams.toml", TWO, Path::new(""), &overrides).unwrap_err();
    let error = render(&error);
    assert!(
        error.contains("`--policies` is for one deployment"),
        "{error}"
    );
}

#[test]
fn two_deployments_of_one_name() {
    let text = TWO.replace("name = \"batch\"", "name = \"chat\"");
    let error = parsed(&text, &[]).unwrap_err();
    insta::assert_snapshot!(error, @r#"
    scenario::deployments

      × two deployments are called `chat`
        ╭─[teams.toml:11:8]
     10 │ [[deployments]]
     11 │ name = "chat"
        ·        ───┬──
        ·           ╰── the first
     12 │ description = "Talks."
        ╰────
        ╭─[teams.toml:25:8]
     24 │ [[deployments]]
     25 │ name = "chat"
        ·        ───┬──
        ·           ╰── the second
     26 │ [deployments.deployment]
        ╰────
      help: give each a name of its own
    "#);
}

#[test]
fn tables_of_one_deployment_have_no_place_beside_a_list() {
    let text = format!("{TWO}\n[router]\npolicy = \"round-robin\"\n");
    let error = parsed(&text, &[]).unwrap_err();
    assert!(
        error
            .contains("`router` has no effect beside `[[deployments]]`, each of which has its own"),
        "{error}"
    );
    let error = parsed("deployments = 3", &[]).unwrap_err();
    assert!(
        error.contains("`deployments` must be a list of deployments"),
        "{error}"
    );
}

#[test]
fn a_pool_too_small_for_the_beginning() {
    let error = parsed(&TWO.replace("H100 = 3", "h100 = 0"), &[]).unwrap_err();
    assert!(
        error.contains("the pool has 0 h100, and the run begins with replicas on 1"),
        "{error}"
    );
    let error = parsed(&TWO.replace("H100 = 3", "h101 = 4"), &[]).unwrap_err();
    assert!(error.contains("unknown GPU `h101`"), "{error}");
}

#[test]
fn stock_outs_that_leave_no_time() {
    for every in ["0", "{ uniform = { min = 0, max = 1 } }"] {
        let text = TWO.replace("{ exponential = { mean = 7200 } }", every);
        let error = parsed(&text, &[]).unwrap_err();
        let message = "`gpu_pool.random_stock_outs.every` is too short";
        assert!(error.contains(message), "{error}");
        assert!(error.contains("write a mean of at least 1 s"), "{error}");
    }
}
