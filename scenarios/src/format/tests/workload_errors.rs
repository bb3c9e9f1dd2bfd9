//! Which requests come, and what is asked of the run.

use super::{BASE, broken, broken_by, render, try_set};

#[test]
fn no_workload() {
    insta::assert_snapshot!(render(&try_set("[deployment]\nmodel = \"llama-3-8b\"\ngpu = \"h100\"\n", &[]).unwrap_err()), @r#"
    scenario::missing

      × there is no `[workload]`
       ╭─[s.toml:1:1]
     1 │ [deployment]
       · ▲
       · ╰── not in this file
     2 │ model = "llama-3-8b"
       ╰────
      help: it needs at least duration, arrivals, prompt_tokens and output_tokens, or a trace
    "#);
}

#[test]
fn a_rate_of_zero() {
    insta::assert_snapshot!(render(&try_set(&BASE.replace("= 2.0", "= 0"), &[]).unwrap_err()), @r#"
    scenario::range

      × `workload.arrivals.rate_per_s` must be above 0
       ╭─[s.toml:7:27]
     6 │ duration = "10m"
     7 │ arrivals = { rate_per_s = 0 }
       ·                           ┬
       ·                           ╰── this is 0
     8 │ prompt_tokens = 512
       ╰────
      help: write a number above 0
    "#);
}

#[test]
fn a_rate_that_is_not_finite() {
    insta::assert_snapshot!(broken_by(&["workload.arrivals.rate_per_s=nan"]), @r"
    scenario::range

      × `workload.arrivals.rate_per_s` must be a finite number
       ╭─[--set:1:30]
     1 │ workload.arrivals.rate_per_s=nan
       ·                              ─┬─
       ·                               ╰── this is not finite
       ╰────
      help: write a decimal number such as 1.5
    ");
}

#[test]
fn two_distributions_at_once() {
    insta::assert_snapshot!(render(&try_set(&BASE.replace("= 512", "= { log_normal = { mean = 512, cv = 1 } }"), &["workload.prompt_tokens.fixed=9"]).unwrap_err()), @r"
    scenario::distribution

      × `workload.prompt_tokens` has two distributions
       ╭─[--set:1:24]
     1 │ workload.prompt_tokens.fixed=9
       ·                        ──┬──
       ·                          ╰── one
       ╰────
      help: keep `fixed` or `log_normal`

    Advice:
      ☞ the other value involved is here
       ╭─[s.toml:8:19]
     7 │ arrivals = { rate_per_s = 2.0 }
     8 │ prompt_tokens = { log_normal = { mean = 512, cv = 1 } }
       ·                   ─────┬────
       ·                        ╰── and another
     9 │ output_tokens = 128
       ╰────
    ");
}

#[test]
fn a_setting_without_effect() {
    insta::assert_snapshot!(broken("rate_per_s = 2.0 }", "shape = { kind = \"steady\", at = \"10m\" }"), @r#"
    scenario::unused

      × `workload.shape.at` has no effect with this kind of shape
       ╭─[s.toml:8:28]
     7 │ arrivals = { rate_per_s = 2.0 }
     8 │ shape = { kind = "steady", at = "10m" }
       ·                            ─┬
       ·                             ╰── this would be ignored
     9 │ prompt_tokens = 512
       ╰────
      help: remove `at`
    "#);
}

#[test]
fn a_trace_that_is_not_there() {
    insta::assert_snapshot!(render(&try_set("[deployment]\nmodel = \"llama-3-8b\"\ngpu = \"h100\"\n[workload]\ntrace = \"azure.csv\"\n", &[]).unwrap_err()), @r#"
    scenario::file

      × there is no trace `azure.csv`
       ╭─[s.toml:5:9]
     4 │ [workload]
     5 │ trace = "azure.csv"
       ·         ─────┬─────
       ·              ╰── not found
       ╰────
      help: a path is relative to the scenario's folder; on the command line, to the working directory
    "#);
}

#[test]
fn an_empty_slice() {
    insta::assert_snapshot!(broken("[workload]", "slice = { from = \"2h\", to = \"1h\" }"), @r#"
    scenario::slice

      × `workload.slice` is empty
       ╭─[s.toml:6:18]
     5 │ [workload]
     6 │ slice = { from = "2h", to = "1h" }
       ·                  ──┬─       ──┬─
       ·                    │          ╰── and ends no later
       ·                    ╰── it begins here
     7 │ duration = "10m"
       ╰────
      help: `to` must be after `from`, which is 0 if left out
    "#);
}

#[test]
fn an_unknown_objective() {
    insta::assert_snapshot!(broken("output_tokens = 128", "[objectives]\nttft_p59x = \"500ms\""), @r#"
    scenario::unknown_key

      × unknown objective `ttft_p59x`
        ╭─[s.toml:11:1]
     10 │ [objectives]
     11 │ ttft_p59x = "500ms"
        · ────┬────
        ·     ╰── not an objective
        ╰────
      help: did you mean `ttft_p95`? objectives are ttft, itl, tpot, e2e or queue with _mean, _max or
            a percentile such as _p95 or _p99_9, and: requests_per_s, output_tokens_per_s,
            success_rate, cost_usd, cost_usd_per_million_output_tokens
    "#);
}
