//! Measured steps, reviewed as text.

mod fixture;

use foresail_reports::{Style, text};

#[test]
fn steps_stand_beside_what_the_machine_can_do() {
    let text = text::bench(&fixture::bench::bench(), Style::default());
    insta::assert_snapshot!(text, @r"
    smollm2-135m · 135 M parameters · measured 2026-11-21
    cpu (AMD EPYC 9R14, avx512) · 2 threads · world size 1
    bf16 weights · bf16 KV cache in blocks of 16 tokens
    started in 412 ms: weights 410 ms, kv cache 2.10 ms

    CEILINGS  measured just before and after, on the same threads
      read 33.3 GB/s · multiply-add 204 GFLOP/s in f32

    DECODE  a token for each sequence of the batch; context is of each
      batch  context     time  spread  tokens/s    bytes   GB/s           FLOP  GFLOP/s        floor
          1      128  9.80 ms     2 %       102   272 MB   27.7  83 %    269 M     27.4  13 %   83 %
         32    1,024  71.2 ms     2 %       449  1.02 GB   14.4  43 %   8.61 G      121  59 %   59 %

    RUNNING  the same batches going on, each step a token further
      batch  context     time   steps  tokens/s     idle  floor
         32    1,024  69.8 ms      16       459  0.420 %   60 %

    PREFILL  one chunk of one prompt; context is what it has before
      chunk  context     time  spread  tokens/s    bytes   GB/s           FLOP  GFLOP/s        floor
        128        0   212 ms     2 %       604   269 MB   1.27   4 %   34.4 G      162  80 %   80 %
        512    1,024   970 ms     2 %       528   293 MB   0.30  <1 %    138 G      142  70 %   70 %

    REQUESTS  8 at once, 128 prompt and 64 output tokens each, through scheduler and driver
      205 output tokens/s · 66 steps took 2.47 s of 2.50 s · scheduler and driver 1.20 %

    time is the median of the repeats, spread from the shortest to the longest of them;
    percentages are of the ceilings; floor is the time at the ceilings as a share of the time
    ");
}

#[test]
fn what_was_not_measured_is_not_shown() {
    let mut bench = fixture::bench::bench();
    bench.prefill.clear();
    bench.requests = None;
    let text = text::bench(&bench, Style::default());
    assert!(text.contains("DECODE"), "{text}");
    assert!(
        !text.contains("PREFILL") && !text.contains("REQUESTS"),
        "{text}"
    );
}

#[test]
fn no_line_is_wider_than_the_tables() {
    let text = text::bench(&fixture::bench::bench(), Style::default());
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(96), "{text}");
}
