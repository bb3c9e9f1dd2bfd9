//! What is deployed on what, and how many replicas there are.

use super::{BASE, broken, broken_by, render, try_set};

#[test]
fn min_above_max() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "min_replica_count = 4\nmax_replica_count = 2"), @r#"
    scenario::replicas

      × min_replica_count cannot be greater than max_replica_count
       ╭─[s.toml:4:21]
     3 │ gpu = "h100"
     4 │ min_replica_count = 4
       ·                     ┬
       ·                     ╰── the floor is 4
     5 │ max_replica_count = 2
       ·                     ┬
       ·                     ╰── the ceiling is below it
     6 │
       ╰────
      help: raise max_replica_count to at least 4, or lower min_replica_count
    "#);
}

#[test]
fn a_fixed_deployment_with_a_range() {
    insta::assert_snapshot!(broken_by(&["autoscaler.policy=fixed", "deployment.max_replica_count=3", "deployment.min_replica_count=2"]), @r"
    scenario::replicas

      × a fixed deployment has one replica count
       ╭─[--set:1:19]
     1 │ autoscaler.policy=fixed
       ·                   ──┬──
       ·                     ╰── always the same number of replicas
       ╰────
      help: give `min_replica_count` and `max_replica_count` the same number, above 0

    Advice:
      ☞ the other value involved is here
       ╭─[--set:1:30]
     1 │ deployment.min_replica_count=2
       ·                              ┬
       ·                              ╰── at least 2
       ╰────

    Advice:
      ☞ the other value involved is here
       ╭─[--set:1:30]
     1 │ deployment.max_replica_count=3
       ·                              ┬
       ·                              ╰── at most 3
       ╰────
    ");
}

#[test]
fn windows_beyond_the_limits_of_2026() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "scale_to_zero_window = \"1m\"\n[autoscaler]\nprofile = \"fireworks-2026\""), @r#"
    scenario::window

      × `deployment.scale_to_zero_window` must be at least 5 minutes
       ╭─[s.toml:4:24]
     3 │ gpu = "h100"
     4 │ scale_to_zero_window = "1m"
       ·                        ──┬─
       ·                          ╰── shorter than the provider allows
     5 │ [autoscaler]
       ╰────
      help: write `5m` or more, or leave out `profile = "fireworks-2026"`
    "#);
}

#[test]
fn an_unknown_model() {
    insta::assert_snapshot!(broken_by(&["deployment.model=llama-3-9b"]), @r#"
    scenario::unknown_name

      × unknown model "llama-3-9b"
       ╭─[--set:1:18]
     1 │ deployment.model=llama-3-9b
       ·                  ─────┬────
       ·                       ╰── not in the catalogue
       ╰────
      help: did you mean `llama-3-8b`? the catalogue has: llama-2-7b, llama-2-13b, llama-2-70b, llama-
            3-8b, llama-3-70b, llama-3.1-8b, llama-3.1-70b, llama-3.1-405b, llama-3.2-1b, llama-3.2-
            3b, smollm2-135m, qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-3b, qwen2.5-7b, qwen2.5-14b,
            qwen2.5-32b, qwen2.5-72b, qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen3-14b, qwen3-
            32b, qwen3-30b-a3b, qwen3-235b-a22b, mistral-7b, mistral-nemo-12b, mixtral-8x7b, mixtral-
            8x22b; any other model can be described in `[deployment.shape]`
    "#);
}

#[test]
fn an_unknown_gpu() {
    insta::assert_snapshot!(broken_by(&["deployment.gpu=H100_40GB"]), @r#"
    scenario::unknown_name

      × unknown GPU "H100_40GB"
       ╭─[--set:1:16]
     1 │ deployment.gpu=H100_40GB
       ·                ────┬────
       ·                    ╰── not in the catalogue
       ╰────
      help: did you mean `h100`? the catalogue has: a100, h100, h200, b200, b300, cpu
    "#);
}

#[test]
fn a_world_size_that_does_not_divide_the_heads() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "world_size = 3"), @r#"
    scenario::world_size

      × world size 3 does not divide 32 attention heads
       ╭─[s.toml:2:9]
     1 │ [deployment]
     2 │ model = "llama-3-8b"
       ·         ──────┬─────
       ·               ╰── it has 32 heads
     3 │ gpu = "h100"
     4 │ world_size = 3
       ·              ┬
       ·              ╰── each GPU needs as many heads as the others
     5 │
       ╰────
      help: world sizes that divide 32: 1, 2, 4 or 8
    "#);
}

#[test]
fn weights_that_do_not_fit() {
    insta::assert_snapshot!(render(&try_set(&BASE.replace("-8b", "-70b"), &["deployment.world_size=1"]).unwrap_err()), @r#"
    scenario::memory

      × llama-3-70b does not fit on 1 h100
       ╭─[s.toml:2:9]
     1 │ [deployment]
     2 │ model = "llama-3-70b"
       ·         ──────┬──────
       ·               ╰── the weights take 131.4 GiB of each GPU's usable 71.2 GiB
     3 │ gpu = "h100"
       ·       ───┬──
       ·          ╰── 79.1 GiB of memory
     4 │
       ╰────
      help: what would fit: `world_size` = 2, 4 or 8; `gpu` = b200 or b300

    Advice:
      ☞ the other value involved is here
       ╭─[--set:1:23]
     1 │ deployment.world_size=1
       ·                       ┬
       ·                       ╰── GPUs a replica
       ╰────
    "#);
}

#[test]
fn weights_that_do_not_fit_whatever_the_number_of_blocks() {
    let arguments = ["deployment.world_size=1", "batching.num_blocks=1000"];
    let error = try_set(&BASE.replace("-8b", "-70b"), &arguments).unwrap_err();
    let text = render(&error);
    assert!(text.contains("the weights take 131.4 GiB"), "{text}");
}

#[test]
fn steps_whose_tensors_do_not_fit() {
    let arguments = ["batching.max_num_seqs=65536"];
    let text = render(&try_set(BASE, &arguments).unwrap_err());
    insta::assert_snapshot!(text, @r#"
    scenario::memory

      × llama-3-8b does not fit on 1 h100
       ╭─[s.toml:2:9]
     1 │ [deployment]
     2 │ model = "llama-3-8b"
       ·         ──────┬─────
       ·               ╰── weights take 15.0 GiB and the largest step 85.5 GiB of each GPU's usable 71.2 GiB
     3 │ gpu = "h100"
       ·       ───┬──
       ·          ╰── 79.1 GiB of memory
     4 │
       ╰────
      help: what would fit: `max_num_seqs` = 256 and `max_num_batched_tokens` = 8192; `gpu` = h200,
            b200 or b300
    "#);
}

#[test]
fn no_room_for_one_sequence() {
    insta::assert_snapshot!(render(&try_set(&BASE.replace("llama-3-8b", "llama-3.1-70b"), &["deployment.world_size=2", "deployment.precision=fp8", "deployment.gpu_memory_utilization=0.6"]).unwrap_err()), @r#"
    scenario::memory

      × llama-3.1-70b does not fit on 2 h100
       ╭─[s.toml:2:9]
     1 │ [deployment]
     2 │ model = "llama-3.1-70b"
       ·         ───────┬───────
       ·                ╰── 11.7 GiB are left for KV cache; one sequence of 131072 tokens takes 20.0 GiB
     3 │ gpu = "h100"
       ·       ───┬──
       ·          ╰── 79.1 GiB of memory
     4 │
       ╰────
      help: what would fit: `world_size` = 4 or 8; `max_model_len` = 75776 or less; `gpu` = h200, b200
            or b300

    Advice:
      ☞ the other value involved is here
       ╭─[--set:1:23]
     1 │ deployment.world_size=2
       ·                       ┬
       ·                       ╰── GPUs a replica
       ╰────
    "#);
}

#[test]
fn fp8_on_a_gpu_without_it() {
    insta::assert_snapshot!(broken_by(&["deployment.gpu=a100", "deployment.precision=fp8"]), @r#"
    scenario::step_time

      × no step times: the GPU has no fp8 units
       ╭─[--set:1:16]
     1 │ deployment.gpu=a100
       ·                ──┬─
       ·                  ╰── this GPU
       ╰────
      help: write `precision = "bf16"`, or choose a GPU from h100 on

    Advice:
      ☞ the other value involved is here
       ╭─[--set:1:22]
     1 │ deployment.precision=fp8
       ·                      ─┬─
       ·                       ╰── this precision
       ╰────
    "#);
}

#[test]
fn longer_than_the_model_was_made_for() {
    insta::assert_snapshot!(broken("gpu = \"h100\"", "max_model_len = 9000"), @r#"
    scenario::range

      × `deployment.max_model_len` is above the model's 8192
       ╭─[s.toml:4:17]
     3 │ gpu = "h100"
     4 │ max_model_len = 9000
       ·                 ──┬─
       ·                   ╰── longer than the model was made for
     5 │
       ╰────
      help: write at most 8192, or leave it out
    "#);
}

#[test]
fn fewer_tokens_than_sequences_in_a_step() {
    insta::assert_snapshot!(broken("output_tokens = 128", "[batching]\nmax_num_seqs = 256\nmax_num_batched_tokens = 128"), @r"
    scenario::batching

      × max_num_batched_tokens (128) is less than max_num_seqs (256)
        ╭─[s.toml:11:16]
     10 │ [batching]
     11 │ max_num_seqs = 256
        ·                ─┬─
        ·                 ╰── each of these decodes one token a step
     12 │ max_num_batched_tokens = 128
        ·                          ─┬─
        ·                           ╰── a step cannot hold one token for each
        ╰────
      help: raise max_num_batched_tokens to at least 256, or lower max_num_seqs
    ");
}

#[test]
fn money_that_is_not_exact() {
    insta::assert_snapshot!(broken_by(&["price.usd_per_gpu_hour=1e-12"]), @r"
    scenario::price

      × `price.usd_per_gpu_hour` is not an amount of US dollars
       ╭─[--set:1:24]
     1 │ price.usd_per_gpu_hour=1e-12
       ·                        ──┬──
       ·                          ╰── not exact, or out of range
       ╰────
      help: write a decimal of 0 or more with at most 9 digits after the point, such as 8.00
    ");
}

#[test]
fn probabilities_that_do_not_add_up() {
    insta::assert_snapshot!(broken_by(&["cold_start.stages=[{ name = \"x\", outcomes = [{ probability = 0.5, seconds = 1 }] }]"]), @r#"
    scenario::cold_start

      × `cold_start.stages.outcomes` must have probabilities that add up to 1
       ╭─[--set:1:45]
     1 │ cold_start.stages=[{ name = "x", outcomes = [{ probability = 0.5, seconds = 1 }] }]
       ·                                             ──────────────────┬─────────────────
       ·                                                               ╰── they add up to 0.5
       ╰────
      help: for example `outcomes = [{ probability = 0.8, seconds = 8 }, { probability = 0.2, seconds
            = 40 }]`
    "#);
}

#[test]
fn steps_that_would_last_for_days() {
    let text = broken_by(&["step_time.weight_read=0.001"]);
    assert!(text.contains("must be at least 0.01"), "{text}");
    let text = broken_by(&["step_time.sequence_overhead=1h"]);
    assert!(text.contains("must be at most 1ms"), "{text}");
    let text = broken_by(&["step_time.step_overhead=2s"]);
    assert!(text.contains("must be at most 1s"), "{text}");
}
