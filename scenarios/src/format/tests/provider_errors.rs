//! What the provider says: tiers, quotas, and what is done to a deployment while it runs.

use super::{BASE, render};
use crate::format::{Overrides, parse};
use crate::scenario::{Action, Scenario};
use std::path::Path;

fn with(more: &str) -> Result<Scenario, String> {
    let text = format!("{BASE}{more}");
    let overrides = Overrides::default();
    parse("s.toml", &text, Path::new(""), &overrides).map_err(|error| render(&error))
}

#[test]
fn a_gpu_that_the_tier_may_not_use() {
    let error = with("[account]\ntier = \"developer\"\n").unwrap_err();
    insta::assert_snapshot!(error, @r#"
    scenario::account

      × H100 80 GB is for enterprise accounts, and my-account is developer: choose another GPU
       ╭─[s.toml:3:7]
     2 │ model = "llama-3-8b"
     3 │ gpu = "h100"
       ·       ───┬──
       ·          ╰── on this GPU
     4 │
       ╰────
        ╭─[s.toml:11:8]
     10 │ [account]
     11 │ tier = "developer"
        ·        ─────┬─────
        ·             ╰── of this tier
        ╰────
    "#);
    assert!(with("[account]\ntier = \"enterprise\"\n").is_ok());
}

#[test]
fn more_gpus_than_the_quota_has() {
    let error = with("[account.gpu_quota]\nh100 = 0\n").unwrap_err();
    assert!(error.contains("more than the 0 that are"), "{error}");
    assert!(error.contains("the quota of the account"), "{error}");
}

#[test]
fn operations_say_when_and_what() {
    let scenario = with(
        r#"
        [[operations]]
        at = "1h"
        update = { scale_up_window = "10s", max_replica_count = 4, world_size = 2 }
        [[operations]]
        at = "2h"
        scale = 3
        [[operations]]
        at = "3h"
        delete = true
        "#,
    )
    .expect("sound operations");
    let actions: Vec<_> = scenario.operations.iter().map(|each| each.action).collect();
    let [Action::Update(update), Action::Scale(3), Action::Delete] = actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(update.scale_up_window, Some(10_000_000_000));
    assert_eq!(
        (update.max_replica_count, update.min_replica_count),
        (Some(4), None)
    );
    let [other] = &scenario.other_world_sizes[..] else {
        panic!("one other world size");
    };
    assert_eq!((scenario.deployment.world_size, other.world_size), (1, 2));
    assert!(other.batching.num_blocks > scenario.deployment.batching.num_blocks);
}

#[test]
fn an_update_that_the_provider_refuses() {
    let error = with(
        "[[operations]]\nat = \"1h\"\nupdate = { min_replica_count = 3, max_replica_count = 2 }\n",
    );
    insta::assert_snapshot!(error.unwrap_err(), @r#"
    scenario::operations

      × min_replica_count cannot be greater than max_replica_count (3 > 2)
        ╭─[s.toml:12:10]
     11 │ at = "1h"
     12 │ update = { min_replica_count = 3, max_replica_count = 2 }
        ·          ────────────────────────┬───────────────────────
        ·                                  ╰── after this update
        ╰────
      help: the settings of an update add to those before it
    "#);
    let profile = "[autoscaler]\nprofile = \"fireworks-2026\"\n";
    let long = "[[operations]]\nat = \"1h\"\nupdate = { scale_up_window = \"2h\" }\n";
    let error = with(&format!("{profile}{long}")).unwrap_err();
    assert!(
        error.contains("scale_up_window must be at most 1 hour"),
        "{error}"
    );
}

#[test]
fn operations_that_are_none() {
    for (operation, message) in [
        ("at = \"1h\"\nupdate = {}", "changes nothing"),
        ("at = \"1h\"\nscale = 9", "`scale` must be 0 to 1"),
        ("at = \"1h\"", "an operation does one thing"),
        (
            "at = \"1h\"\nscale = 1\ndelete = true",
            "an operation does one thing",
        ),
        ("scale = 1", "has no `at`"),
        ("at = \"1h\"\ndelete = false", "can only be `true`"),
        (
            "at = \"1h\"\nupdate = { gpu = \"b200\" }",
            "unknown key `gpu`",
        ),
        ("at = \"1h\"\nupdate = { world_size = 3 }", "world_size"),
    ] {
        let error = with(&format!("[[operations]]\n{operation}\n")).unwrap_err();
        assert!(error.contains(message), "{operation}: {error}");
    }
    let late = "[[operations]]\nat = \"2h\"\nscale = 1\n[[operations]]\nat = \"1h\"\nscale = 1\n";
    assert!(with(late).unwrap_err().contains("in order of time"));
    let fixed =
        "[autoscaler]\npolicy = \"scripted\"\nsteps = []\n[[operations]]\nat = \"1h\"\nscale = 1\n";
    assert!(
        with(fixed)
            .unwrap_err()
            .contains("only a deployment with the policy `fireworks`")
    );
}

#[test]
fn an_account_that_may_spend_nothing() {
    let error = with("[account]\nspend_limit_usd = 0\n").unwrap_err();
    assert!(error.contains("nothing may be spent"), "{error}");
    assert!(!error.contains("on this GPU"), "{error}");
}
