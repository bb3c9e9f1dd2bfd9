//! What the server said of itself, in the few figures of a summary, and whether it counted the tokens that the client did.

use std::fmt;

use foresail_core::time::Nanos;
use foresail_reports::summary::Server;

use super::sample::ServerSample;
use super::scraped::{Point, Scraped, mean};

/// Server and client may differ by so much before it is told.
const DIFFERENCE_MAX: f64 = 0.01;

/// The server and the client counted tokens differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokensDiffer {
    /// Which tokens: `prompt` or `output`.
    pub which: &'static str,
    /// As many as the server counted.
    pub server: u64,
    /// As many as the client counted.
    pub client: u64,
}

impl fmt::Display for TokensDiffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            which,
            server,
            client,
        } = self;
        let percent = 100.0 * (*server as f64 / *client as f64 - 1.0);
        let why = if server > client {
            "others used it meanwhile, or answers were cut off"
        } else {
            "it has replicas that were not asked, or the client's count is an assumption"
        };
        write!(
            formatter,
            "the server counted {server} {which} tokens, the client {client} ({percent:+.1} %): {why}"
        )
    }
}

impl Scraped {
    /// The figures of a summary: means and maxima over the measured window, counters over the whole run.
    #[must_use]
    pub fn summary(&self, from_ns: Nanos, until_ns: Nanos) -> Server {
        let in_window = |point: &Point| (from_ns..until_ns).contains(&point.at_ns);
        let points: Vec<Point> = self.timeline(until_ns).filter(in_window).collect();
        let mean_of = |of: fn(&Point) -> Option<f64>| mean(points.iter().filter_map(of));
        let max_of = |of: fn(&Point) -> Option<f64>| points.iter().filter_map(of).reduce(f64::max);
        let running = |point: &Point| point.running.map(|count| count as f64);
        let waiting = |point: &Point| point.waiting.map(|count| count as f64);
        Server {
            targets: self
                .targets
                .iter()
                .map(|target| target.name.clone())
                .collect(),
            samples: self.samples(),
            failures: self.failures(),
            running_mean: mean_of(running),
            running_max: max_of(running),
            waiting_mean: mean_of(waiting),
            waiting_max: max_of(waiting),
            kv_usage_mean: mean_of(|point| point.kv_usage),
            kv_usage_max: max_of(|point| point.kv_usage),
            prompt_tokens: self.increase(|sample| sample.prompt_tokens_total),
            output_tokens: self.increase(|sample| sample.generation_tokens_total),
            prefix_cache_hit_rate: self.cache_hit_rate(from_ns, until_ns),
            preemptions: self.increase(|sample| sample.preemptions_total),
            gpu_utilization_mean: mean_of(|point| point.gpu_utilisation),
            gpu_power_w_mean: mean_of(|point| point.gpu_power_w),
            gpu_memory_bytes_max: max_of(|point| {
                point.gpu_memory_used_bytes.map(|bytes| bytes as f64)
            }),
        }
    }

    /// How much a counter of all targets rose in the run; `None` if none tells.
    fn increase(&self, counter: fn(&ServerSample) -> Option<u64>) -> Option<u64> {
        let as_float = |sample: &ServerSample| counter(sample).map(|count| count as f64);
        let rises = self
            .targets
            .iter()
            .filter_map(|target| target.increase(as_float));
        rises
            .reduce(|sum, rise| sum + rise)
            .map(|rise| rise.round() as u64)
    }

    /// By the counters, or else what the server says of late (SGLang without them).
    fn cache_hit_rate(&self, from_ns: Nanos, until_ns: Nanos) -> Option<f64> {
        let queries = self.increase(|sample| sample.cache_queries_total);
        let hits = self.increase(|sample| sample.cache_hits_total);
        if let (Some(queries), Some(hits)) = (queries, hits) {
            return (queries > 0).then(|| hits as f64 / queries as f64);
        }
        let samples = self.targets.iter().flat_map(|target| target.samples());
        let in_window = samples.filter(|sample| (from_ns..until_ns).contains(&sample.at_ns));
        mean(in_window.filter_map(|sample| sample.cache_hit_rate))
    }
}

/// Where the server's count of the whole run's tokens is off the client's by more than 1 %.
#[must_use]
pub fn tokens_differ(
    server: &Server,
    client_prompt_tokens: u64,
    client_output_tokens: u64,
) -> Vec<TokensDiffer> {
    let counts = [
        ("prompt", server.prompt_tokens, client_prompt_tokens),
        ("output", server.output_tokens, client_output_tokens),
    ];
    let told = counts.into_iter().filter_map(|(which, server, client)| {
        Some(TokensDiffer {
            which,
            server: server?,
            client,
        })
    });
    told.filter(TokensDiffer::is_large).collect()
}

impl TokensDiffer {
    fn is_large(&self) -> bool {
        self.server.abs_diff(self.client) as f64 > DIFFERENCE_MAX * self.client as f64
    }
}

#[cfg(test)]
mod tests {
    use foresail_core::time::SECOND;

    use super::super::sample::GpuSample;
    use super::super::scraped::tests::{scraped, target};
    use super::*;

    fn sample(running: u64, tokens: u64) -> Option<ServerSample> {
        Some(ServerSample {
            running: Some(running),
            waiting: Some(2 * running),
            kv_usage: Some(running as f64 / 16.0),
            prompt_tokens_total: Some(10 * tokens),
            generation_tokens_total: Some(tokens),
            preemptions_total: Some(0),
            cache_queries_total: Some(10 * tokens),
            cache_hits_total: Some(tokens),
            ..ServerSample::default()
        })
    }

    #[test]
    fn means_are_of_the_window_and_counts_of_the_run() {
        let a = target(
            "a:1/metrics",
            [
                sample(0, 100),
                sample(2, 150),
                sample(4, 180),
                sample(9, 200),
            ],
        );
        let b = target(
            "b:1/metrics",
            [sample(0, 0), sample(4, 50), None, sample(1, 100)],
        );
        let gpu = GpuSample {
            name: "GPU-a".into(),
            utilisation: Some(0.5),
            memory_used_bytes: Some(1 << 30),
            power_w: Some(250.0),
        };
        let exporter = ServerSample {
            gpus: vec![gpu],
            ..ServerSample::default()
        };
        let c = target("c:1/metrics", vec![Some(exporter); 4]);
        let server = scraped(vec![a, b, c]).summary(SECOND, 3 * SECOND);
        let expected = Server {
            targets: vec![
                "a:1/metrics".into(),
                "b:1/metrics".into(),
                "c:1/metrics".into(),
            ],
            samples: 11,
            failures: 1,
            // 2 + 4 at 1 s; 4 + 4 at 2 s, where `b` is bridged.
            running_mean: Some(7.0),
            running_max: Some(8.0),
            waiting_mean: Some(14.0),
            waiting_max: Some(16.0),
            kv_usage_mean: Some(0.21875),
            kv_usage_max: Some(0.25),
            prompt_tokens: Some(2_000),
            output_tokens: Some(200),
            prefix_cache_hit_rate: Some(0.1),
            preemptions: Some(0),
            gpu_utilization_mean: Some(0.5),
            gpu_power_w_mean: Some(250.0),
            gpu_memory_bytes_max: Some(f64::from(1 << 30)),
        };
        assert_eq!(server, expected);
    }

    #[test]
    fn what_nobody_told_is_not_known() {
        let server = scraped(vec![target("a", [None, None])]).summary(0, SECOND);
        let expected = Server {
            targets: vec!["a".into()],
            failures: 2,
            ..Server::default()
        };
        assert_eq!(server, expected);
    }

    #[test]
    fn a_rate_is_taken_where_there_are_no_counters() {
        let rate = |rate| {
            Some(ServerSample {
                cache_hit_rate: Some(rate),
                ..ServerSample::default()
            })
        };
        let server = scraped(vec![target("a", [rate(0.0), rate(0.25), rate(0.75)])]);
        assert_eq!(
            server.summary(SECOND, 3 * SECOND).prefix_cache_hit_rate,
            Some(0.5)
        );
    }

    #[test]
    fn counts_that_differ_by_more_than_a_hundredth_are_told() {
        let server = Server {
            prompt_tokens: Some(100_000),
            output_tokens: Some(10_200),
            ..Server::default()
        };
        let told = tokens_differ(&server, 99_500, 10_000);
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join("\n"), @"the server counted 10200 output tokens, the client 10000 (+2.0 %): others used it meanwhile, or answers were cut off");
        let fewer = tokens_differ(&server, 100_000, 20_400);
        insta::assert_snapshot!(fewer[0], @"the server counted 10200 output tokens, the client 20400 (-50.0 %): it has replicas that were not asked, or the client's count is an assumption");
        assert!(tokens_differ(&Server::default(), 1, 1).is_empty());
        assert_eq!(tokens_differ(&server, 100_000, 0).len(), 1);
    }
}
