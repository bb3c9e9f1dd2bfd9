//! What is measured of a run, and what is compared between two.

use std::time::Instant;

use anyhow::{Result, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::workload::Row;

/// CPU time of this process (user and system, all threads) and wall time.
pub(crate) struct Stopwatch {
    cpu: Timespec,
    wall: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            cpu: clock_gettime(ClockId::ProcessCPUTime),
            wall: Instant::now(),
        }
    }

    pub(crate) fn elapsed(&self) -> Elapsed {
        let now = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = (now.tv_sec - self.cpu.tv_sec) as f64;
        let nanos = (now.tv_nsec - self.cpu.tv_nsec) as f64;
        Elapsed {
            cpu_s: seconds + nanos / 1e9,
            wall_s: self.wall.elapsed().as_secs_f64(),
        }
    }
}

/// Seconds that a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elapsed {
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
}

/// One simulator's run of the workload.
pub(crate) struct Run {
    pub(crate) elapsed: Elapsed,
    /// Engine steps that the run stands for, whether or not each was an event.
    pub(crate) iterations: u64,
    /// Of each request, in the order of the rows.
    pub(crate) latencies: Vec<Latency>,
}

/// What a client sees of a request (ms).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    /// From due to the first token.
    pub(crate) ttft_ms: f64,
    /// From due to the last token.
    pub(crate) e2e_ms: f64,
    /// Tokens generated.
    pub(crate) output_tokens: u32,
}

impl Latency {
    /// `(last - first token) / (output tokens - 1)`; a single token has none.
    pub(crate) fn tpot_ms(&self) -> Option<f64> {
        (self.output_tokens > 1)
            .then(|| (self.e2e_ms - self.ttft_ms) / f64::from(self.output_tokens - 1))
    }
}

/// Fails unless every request got as many tokens as its row asks for.
pub(crate) fn check_tokens(rows: &[Row], latencies: &[Latency]) -> Result<()> {
    for (index, (row, latency)) in rows.iter().zip(latencies).enumerate() {
        let (asked, got) = (row.output_tokens, latency.output_tokens);
        ensure!(asked == got, "request {index} got {got} of {asked} tokens");
    }
    Ok(())
}

/// The means that tell whether two simulators did like work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    pub(crate) ttft_ms: f64,
    pub(crate) tpot_ms: f64,
    pub(crate) e2e_ms: f64,
}

impl Means {
    pub(crate) fn of(latencies: &[Latency]) -> Self {
        Self {
            ttft_ms: mean(latencies.iter().map(|latency| latency.ttft_ms)),
            tpot_ms: mean(latencies.iter().filter_map(Latency::tpot_ms)),
            e2e_ms: mean(latencies.iter().map(|latency| latency.e2e_ms)),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}

/// The share of requests whose `part` differs by at most `tolerance` of the peer's.
pub(crate) fn share_alike(
    ours: &[Latency],
    peer: &[Latency],
    tolerance: f64,
    part: fn(&Latency) -> f64,
) -> f64 {
    let alike = ours
        .iter()
        .zip(peer)
        .filter(|(ours, peer)| (part(ours) - part(peer)).abs() <= tolerance * part(peer))
        .count();
    alike as f64 / peer.len() as f64
}

/// Smallest, median and largest of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one round; the median of an even number is the mean of the middle two.
    pub(crate) fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let last = rounds.len() - 1;
        Self {
            min: rounds[0],
            median: (rounds[last / 2] + rounds[last.div_ceil(2)]) / 2.0,
            max: rounds[last],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(ttft_ms: f64, e2e_ms: f64, output_tokens: u32) -> Latency {
        Latency {
            ttft_ms,
            e2e_ms,
            output_tokens,
        }
    }

    #[test]
    fn a_single_token_takes_no_part_in_the_mean_time_per_output_token() {
        let means = Means::of(&[latency(10.0, 10.0, 1), latency(20.0, 50.0, 4)]);
        assert_eq!((means.ttft_ms, means.e2e_ms), (15.0, 30.0));
        assert_eq!(means.tpot_ms, 10.0);
    }

    #[test]
    fn requests_are_alike_within_the_tolerance_of_the_peers_figure() {
        let peer = [latency(100.0, 1_000.0, 2), latency(100.0, 1_000.0, 2)];
        let ours = [latency(100.9, 1_000.0, 2), latency(101.1, 1_000.0, 2)];
        assert_eq!(share_alike(&ours, &peer, 0.01, |l| l.ttft_ms), 0.5);
        assert_eq!(share_alike(&ours, &peer, 0.01, |l| l.e2e_ms), 1.0);
    }

    #[test]
    fn a_missing_token_is_an_error() {
        let row = Row {
            due_ns: 0,
            prompt_tokens: 1,
            output_tokens: 4,
        };
        assert!(check_tokens(&[row], &[latency(1.0, 4.0, 4)]).is_ok());
        let error = check_tokens(&[row], &[latency(1.0, 3.0, 3)]).unwrap_err();
        assert_eq!(error.to_string(), "request 0 got 3 of 4 tokens");
    }

    #[test]
    fn the_spread_of_rounds_is_in_order() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
    }

    #[test]
    fn the_stopwatch_counts_cpu_time_and_not_sleep() {
        let watch = Stopwatch::start();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let slept = watch.elapsed();
        assert!(slept.wall_s >= 0.05);
        assert!(slept.cpu_s < slept.wall_s);
    }
}
