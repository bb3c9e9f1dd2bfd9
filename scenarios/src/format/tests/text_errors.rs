//! Texts, keys, types, and arguments of the command line.

use super::{BASE, broken, broken_by, render, try_set};

#[test]
fn not_toml() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "world_size = = 2"), @r#"
    scenario::syntax

      × not TOML: extra `=`, expected nothing
       ╭─[s.toml:4:14]
     3 │ gpu = "h100"
     4 │ world_size = = 2
       ·              ┬
       ·              ╰── here
     5 │
       ╰────
    "#);
}

#[test]
fn a_key_given_twice() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "gpu = \"h200\""), @r#"
    scenario::syntax

      × not TOML: duplicate key
       ╭─[s.toml:4:1]
     3 │ gpu = "h100"
     4 │ gpu = "h200"
       · ─┬─
       ·  ╰── here
     5 │
       ╰────
    "#);
}

#[test]
fn a_misspelt_key() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "scale_up_windw = \"30s\""), @r#"
    scenario::unknown_key

      × unknown key `scale_up_windw` in `[deployment]`
       ╭─[s.toml:4:1]
     3 │ gpu = "h100"
     4 │ scale_up_windw = "30s"
       · ───────┬──────
       ·        ╰── not a key here
     5 │
       ╰────
      help: did you mean `scale_up_window`? the keys are: model, shape, gpu, max_model_len, precision,
            kv_precision, gpu_memory_utilization, world_size, min_replica_count, max_replica_count,
            initial_replica_count, scale_up_window, scale_down_window, scale_to_zero_window,
            load_targets, unused_auto_delete_duration
    "#);
}

#[test]
fn an_unknown_table() {
    insta::assert_snapshot!(broken("output_tokens = 128", "[objectivs]"), @r"
    scenario::unknown_key

      × unknown key `objectivs` in the top level
        ╭─[s.toml:10:2]
      9 │ output_tokens = 128
     10 │ [objectivs]
        ·  ────┬────
        ·      ╰── not a key here
        ╰────
      help: did you mean `objectives`? the keys are: name, description, seed, deployments, account,
            deployment, autoscaler, router, batching, adapters, step_time, cold_start, failures,
            price, workload, clients, objectives, operations, gpu_pool
    ");
}

#[test]
fn a_value_of_the_wrong_type() {
    insta::assert_snapshot!(broken_by(&["deployment.min_replica_count=two"]), @r#"
    scenario::type

      × `deployment.min_replica_count` must be a whole number
       ╭─[--set:1:30]
     1 │ deployment.min_replica_count=two
       ·                              ─┬─
       ·                               ╰── this is the text "two"
       ╰────
    "#);
}

#[test]
fn a_week_is_168h() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "unused_auto_delete_duration = \"7d\""), @r#"
    scenario::duration

      × `deployment.unused_auto_delete_duration`: time: unknown unit "d" in duration "7d"
       ╭─[s.toml:4:31]
     3 │ gpu = "h100"
     4 │ unused_auto_delete_duration = "7d"
       ·                               ──┬─
       ·                                 ╰── Go has no such unit
     5 │
       ╰────
      help: write `168h`; the units are h, m, s, ms, us and ns; a day is `24h` and a week is `168h`
    "#);
}

#[test]
fn a_number_needs_a_unit() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "scale_up_window = 30"), @r#"
    scenario::duration

      × `deployment.scale_up_window`: time: missing unit in duration "30"
       ╭─[s.toml:4:19]
     3 │ gpu = "h100"
     4 │ scale_up_window = 30
       ·                   ─┬
       ·                    ╰── a number needs a unit
     5 │
       ╰────
      help: for example `30s`; the units are h, m, s, ms, us and ns; a day is `24h` and a week is
            `168h`
    "#);
}

#[test]
fn a_tick_too_short_for_a_run_to_end() {
    insta::assert_snapshot!(broken_by(&["autoscaler.tick=1us"]), @r"
    scenario::duration

      × `autoscaler.tick` must be at least 1ms
       ╭─[--set:1:17]
     1 │ autoscaler.tick=1us
       ·                 ─┬─
       ·                  ╰── this is shorter
       ╰────
      help: write a duration such as `100ms`
    ");
    assert_eq!(
        super::set(super::BASE, &["autoscaler.tick=1ms"]).name,
        "s",
        "the shortest tick there is"
    );
}

#[test]
fn a_negative_duration() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "scale_down_window = \"-5s\""), @r#"
    scenario::duration

      × `deployment.scale_down_window` cannot be negative
       ╭─[s.toml:4:21]
     3 │ gpu = "h100"
     4 │ scale_down_window = "-5s"
       ·                     ──┬──
       ·                       ╰── below 0
     5 │
       ╰────
      help: write `5s`, or `0` if there is none
    "#);
}

#[test]
fn a_duration_beyond_64_bits() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "scale_down_window = \"3000000h\""), @r#"
    scenario::duration

      × `deployment.scale_down_window`: time: invalid duration "3000000h"
       ╭─[s.toml:4:21]
     3 │ gpu = "h100"
     4 │ scale_down_window = "3000000h"
       ·                     ─────┬────
       ·                          ╰── not a duration
     5 │
       ╰────
      help: for example `1h30m`; the units are h, m, s, ms, us and ns; a day is `24h` and a week is
            `168h`
    "#);
}

#[test]
fn an_argument_against_the_file() {
    insta::assert_snapshot!(render(&try_set(&BASE.replace("gpu", "min_replica_count = 4\ngpu"), &["deployment.max_replica_count=2"]).unwrap_err()), @r#"
    scenario::replicas

      × min_replica_count cannot be greater than max_replica_count
       ╭─[s.toml:3:21]
     2 │ model = "llama-3-8b"
     3 │ min_replica_count = 4
       ·                     ┬
       ·                     ╰── the floor is 4
     4 │ gpu = "h100"
       ╰────
      help: raise max_replica_count to at least 4, or lower min_replica_count

    Advice:
      ☞ the other value involved is here
       ╭─[--set:1:30]
     1 │ deployment.max_replica_count=2
       ·                              ┬
       ·                              ╰── the ceiling is below it
       ╰────
    "#);
}

#[test]
fn an_argument_with_an_unknown_path() {
    insta::assert_snapshot!(broken_by(&["deployment.scale_up=15s"]), @r"
    scenario::unknown_key

      × unknown key `scale_up` in `[deployment]`
       ╭─[--set:1:12]
     1 │ deployment.scale_up=15s
       ·            ────┬───
       ·                ╰── not a key here
       ╰────
      help: did you mean `scale_up_window`? the keys are: model, shape, gpu, max_model_len, precision,
            kv_precision, gpu_memory_utilization, world_size, min_replica_count, max_replica_count,
            initial_replica_count, scale_up_window, scale_down_window, scale_to_zero_window,
            load_targets, unused_auto_delete_duration
    ");
}

#[test]
fn an_argument_without_a_value() {
    insta::assert_snapshot!(broken_by(&["deployment.gpu"]), @r"
    scenario::set

      × `--set` needs a path and a value
       ╭─[--set:1:1]
     1 │ deployment.gpu
       · ───────┬──────
       ·        ╰── there is no `=` here
       ╰────
      help: for example `--set deployment.scale_up_window=15s`
    ");
}

#[test]
fn an_argument_into_a_value() {
    insta::assert_snapshot!(broken_by(&["deployment.gpu.name=h100"]), @r#"
    scenario::set

      × `gpu` has no keys in it
       ╭─[--set:1:12]
     1 │ deployment.gpu.name=h100
       ·            ─┬─
       ·             ╰── there is no `gpu.name`
       ╰────
      help: set `gpu` itself

    Advice:
      ☞ the other value involved is here
       ╭─[s.toml:3:7]
     2 │ model = "llama-3-8b"
     3 │ gpu = "h100"
       ·       ───┬──
       ·          ╰── `gpu` is the text "h100"
     4 │
       ╰────
    "#);
}
