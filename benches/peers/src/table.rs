//! The results as text.

use crate::measure::{Latency, Means, Run, Spread, share_alike};

/// One simulator's rounds: `min median max` of its speeds.
pub(crate) fn speeds(name: &str, runs: &[Run]) -> String {
    let Some(first) = runs.first() else {
        return String::new();
    };
    let requests = first.latencies.len() as f64;
    let per_cpu_s = |count: f64| Spread::of(runs.iter().map(|r| count / r.elapsed.cpu_s).collect());
    let cpu = Spread::of(runs.iter().map(|r| r.elapsed.cpu_s).collect());
    let wall = Spread::of(runs.iter().map(|r| r.elapsed.wall_s).collect());
    let mut text = format!("{name}: {} iterations\n", first.iterations);
    text += &line("CPU s", cpu, 3);
    text += &line("wall s", wall, 3);
    text += &line("requests / CPU s", per_cpu_s(requests), 0);
    text += &line("iterations / CPU s", per_cpu_s(first.iterations as f64), 0);
    text + "\n"
}

fn line(label: &str, spread: Spread, decimals: usize) -> String {
    let Spread { min, median, max } = spread;
    format!(
        "  {label:20} min {min:>12.decimals$}  median {median:>12.decimals$}  max {max:>12.decimals$}\n"
    )
}

/// Whether the two predicted the same.
pub(crate) fn agreement(ours: &Run, peer: &Run) -> String {
    let (a, b) = (Means::of(&ours.latencies), Means::of(&peer.latencies));
    let mut text = String::from("mean, ms              foresail         peer    difference\n");
    for (label, ours, peer) in [
        ("TTFT", a.ttft_ms, b.ttft_ms),
        ("TPOT", a.tpot_ms, b.tpot_ms),
        ("E2E", a.e2e_ms, b.e2e_ms),
    ] {
        let difference = (ours / peer - 1.0) * 100.0;
        text += &format!("  {label:12} {ours:>15.3} {peer:>12.3} {difference:>+11.2} %\n");
    }
    let share = |part: fn(&Latency) -> f64| {
        100.0 * share_alike(&ours.latencies, &peer.latencies, 0.01, part)
    };
    let (ttft, e2e) = (share(|l| l.ttft_ms), share(|l| l.e2e_ms));
    text + &format!("requests alike within 1 %: TTFT {ttft:.1} % of them, E2E {e2e:.1} %\n\n")
}

/// How many times as many requests a CPU second foresail simulates, round by round.
pub(crate) fn ratio(ours: &[Run], peers: &[Run]) -> String {
    let rounds = ours.iter().zip(peers);
    let Spread { min, median, max } = Spread::of(
        rounds
            .map(|(ours, peer)| peer.elapsed.cpu_s / ours.elapsed.cpu_s)
            .collect(),
    );
    format!(
        "foresail / peer, requests per CPU second: {median:.1}x (min {min:.1}x, max {max:.1}x)\n"
    )
}

/// The most memory that this process has held, where the system tells it.
pub(crate) fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    peak.map_or(String::new(), |peak| {
        format!(
            "peak memory of the process, input rows included: {}\n",
            peak.trim()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Elapsed;

    fn run(cpu_s: f64, e2e_ms: f64) -> Run {
        Run {
            elapsed: Elapsed {
                cpu_s,
                wall_s: 2.0 * cpu_s,
            },
            iterations: 3_000,
            latencies: vec![
                Latency {
                    ttft_ms: 100.0,
                    e2e_ms,
                    output_tokens: 10,
                };
                100
            ],
        }
    }

    #[test]
    fn the_ratio_is_taken_round_by_round() {
        let ours = [run(0.1, 1.0), run(0.2, 1.0), run(0.1, 1.0)];
        let peers = [run(1.0, 1.0), run(1.0, 1.0), run(2.0, 1.0)];
        assert_eq!(
            ratio(&ours, &peers),
            "foresail / peer, requests per CPU second: 10.0x (min 5.0x, max 20.0x)\n"
        );
    }

    #[test]
    fn speeds_are_per_cpu_second() {
        let text = speeds("peer", &[run(0.5, 1.0)]);
        assert!(text.starts_with("peer: 3000 iterations\n"), "{text}");
        for expected in ["0.500", "1.000", " 200  median", " 6000  median"] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert_eq!(speeds("peer", &[]), "");
    }

    #[test]
    fn a_difference_in_latency_shows() {
        let text = agreement(&run(0.1, 1_020.0), &run(0.1, 1_000.0));
        assert!(text.contains("+2.00 %"), "{text}");
        assert!(text.contains("TTFT 100.0 % of them, E2E 0.0 %"), "{text}");
    }
}
