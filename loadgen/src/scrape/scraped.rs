//! All that was scraped in a run, and what it comes to along the run's time.

use foresail_core::time::Nanos;
use foresail_reports::intervals::ServerLoad;
use thiserror::Error;

use super::sample::{GpuSample, ServerSample};

/// So many failures in a row and a target counts as gone: one may be a server that is
/// busy, and three are what Kubernetes' readiness probes wait for (`failureThreshold`).
pub const GONE_AFTER_FAILURES: usize = 3;

/// All that was scraped in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scraped {
    /// From one scrape of a target to the next.
    pub every_ns: Nanos,
    /// The targets, in the order in which they were named.
    pub targets: Vec<TargetScrapes>,
}

/// What a target said in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetScrapes {
    /// Its host, port and path.
    pub name: String,
    /// Its answers and failures, in the order of time. The first is of before
    /// the first request, the last of after the last.
    pub scrapes: Vec<Scrape>,
}

/// One attempt at scraping a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    /// When it was over.
    pub at_ns: Nanos,
    /// What came of it.
    pub result: Result<ServerSample, ScrapeFailure>,
}

/// Why a target said nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScrapeFailure {
    /// No connection, or it broke.
    #[error("gave no answer: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("did not answer in {limit_ms} ms")]
    TimedOut {
        /// How long was waited.
        limit_ms: u64,
    },
    /// It answered with another status than 200.
    #[error("answered with status {0}")]
    Status(u16),
    /// It answered with something else, or with more than is read.
    #[error("answered with no metrics: {0}")]
    NotMetrics(String),
}

/// What all targets together said around one time. Counts are sums over the targets, `None` if none tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The time.
    pub at_ns: Nanos,
    /// Servers that answer and are ready.
    pub servers: u32,
    /// Requests in the batches.
    pub running: Option<u64>,
    /// Requests that wait.
    pub waiting: Option<u64>,
    /// Share of the KV caches that is held, mean over the servers.
    pub kv_usage: Option<f64>,
    /// Share of time that something ran on the GPUs, mean over the GPUs.
    pub gpu_utilisation: Option<f64>,
    /// Memory of GPUs in use (bytes).
    pub gpu_memory_used_bytes: Option<u64>,
    /// Power of the GPUs (W).
    pub gpu_power_w: Option<f64>,
    /// Replicas, by the metric that was named for it: what the first target says that has it.
    pub replicas: Option<u32>,
}

impl TargetScrapes {
    /// What it said, in the order of time.
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = &ServerSample> + Clone {
        self.scrapes
            .iter()
            .filter_map(|scrape| scrape.result.as_ref().ok())
    }

    /// Whether it has ever answered as a server of a model.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.samples().any(ServerSample::is_of_a_server)
    }

    /// How much a counter rose in all. A counter that falls was reset, and counts from 0, as in Prometheus'
    /// `increase`; `None` unless it was told twice.
    pub fn increase(&self, counter: impl Fn(&ServerSample) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.samples().filter_map(counter).collect();
        let rise = |pair: &[f64]| {
            if pair[1] < pair[0] {
                pair[1]
            } else {
                pair[1] - pair[0]
            }
        };
        (values.len() > 1).then(|| values.windows(2).map(rise).sum())
    }

    /// What it last said by that time, if it is not gone since.
    fn latest(&self, at_ns: Nanos) -> Option<&ServerSample> {
        let until = self.scrapes.partition_point(|scrape| scrape.at_ns <= at_ns);
        let recent = self.scrapes[..until].iter().rev().take(GONE_AFTER_FAILURES);
        let mut answers = recent.filter_map(|scrape| scrape.result.as_ref().ok());
        answers.next()
    }
}

impl Scraped {
    /// Answers that could be used.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.targets
            .iter()
            .map(|target| target.samples().count() as u64)
            .sum()
    }

    /// Scrapes without an answer that could be used.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let scrapes: usize = self.targets.iter().map(|target| target.scrapes.len()).sum();
        scrapes as u64 - self.samples()
    }

    /// What was said around each multiple of the interval from 0 to `until_ns`. A scrape that
    /// failed is bridged by the one before it, up to [`GONE_AFTER_FAILURES`].
    pub fn timeline(&self, until_ns: Nanos) -> impl Iterator<Item = Point> {
        let every_ns = self.every_ns.max(1);
        // A scrape begins at its time and is over a little later.
        let slack_ns = every_ns / 2;
        (0..=until_ns / every_ns).map(move |tick| {
            let at_ns = tick * every_ns;
            let latest = self
                .targets
                .iter()
                .map(|target| target.latest(at_ns + slack_ns));
            Point::of(at_ns, latest.flatten())
        })
    }
}

impl Point {
    /// What an interval of a run's files says of the server.
    #[must_use]
    pub fn load(&self) -> ServerLoad {
        let counted = self.servers > 0 || self.running.is_some();
        let servers = counted.then_some(self.servers);
        ServerLoad {
            running: self.running.map(|count| count as f64),
            waiting: self.waiting.map(|count| count as f64),
            kv_usage: self.kv_usage,
            ready_replicas: self.replicas.or(servers).map(f64::from),
        }
    }

    pub(super) fn of<'a>(at_ns: Nanos, samples: impl Iterator<Item = &'a ServerSample>) -> Self {
        let samples: Vec<&ServerSample> = samples.collect();
        let gpus = || samples.iter().flat_map(|sample| &sample.gpus);
        let serves =
            |sample: &&&ServerSample| sample.is_of_a_server() && sample.is_ready != Some(false);
        Self {
            at_ns,
            servers: samples.iter().filter(serves).count() as u32,
            running: sum(samples.iter().map(|sample| sample.running)),
            waiting: sum(samples.iter().map(|sample| sample.waiting)),
            kv_usage: mean(samples.iter().filter_map(|sample| sample.kv_usage)),
            gpu_utilisation: mean(gpus().filter_map(|gpu| gpu.utilisation)),
            gpu_memory_used_bytes: sum(gpus().map(|gpu: &GpuSample| gpu.memory_used_bytes)),
            gpu_power_w: sum(gpus().map(|gpu| gpu.power_w)),
            replicas: samples.iter().find_map(|sample| sample.replicas),
        }
    }
}

/// The sum of what is known; `None` if nothing is.
fn sum<T: std::ops::Add<Output = T>>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    values.flatten().reduce(|sum, value| sum + value)
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
pub(super) mod tests {
    use foresail_core::time::SECOND;

    use super::*;

    /// A target that is asked every second from 0 on; `None` is a failure.
    pub(in crate::scrape) fn target(
        name: &str,
        answers: impl IntoIterator<Item = Option<ServerSample>>,
    ) -> TargetScrapes {
        let scrape = |(second, answer): (u64, Option<ServerSample>)| {
            let at_ns = second * SECOND + SECOND / 100;
            let result = answer.map(|sample| ServerSample { at_ns, ..sample });
            let refused = || ScrapeFailure::Unreachable("connection refused".into());
            Scrape {
                at_ns,
                result: result.ok_or_else(refused),
            }
        };
        TargetScrapes {
            name: name.to_owned(),
            scrapes: (0..).zip(answers).map(scrape).collect(),
        }
    }

    pub(in crate::scrape) fn scraped(targets: Vec<TargetScrapes>) -> Scraped {
        Scraped {
            every_ns: SECOND,
            targets,
        }
    }

    pub(in crate::scrape) fn running(running: u64) -> Option<ServerSample> {
        Some(ServerSample {
            running: Some(running),
            ..ServerSample::default()
        })
    }

    fn counted(tokens: u64) -> Option<ServerSample> {
        Some(ServerSample {
            generation_tokens_total: Some(tokens),
            ..ServerSample::default()
        })
    }

    #[test]
    fn targets_are_added_and_short_gaps_bridged() {
        let steady = target("a", (0..7).map(running));
        let failing = target(
            "b",
            [running(10), None, running(10), None, None, None, None],
        );
        let scraped = scraped(vec![steady, failing]);
        let of = |point: Point| (point.servers, point.running);
        let points: Vec<_> = scraped.timeline(6 * SECOND).map(of).collect();
        let expected = [
            (2, Some(10)),
            (2, Some(11)),
            (2, Some(12)),
            (2, Some(13)),
            (2, Some(14)),
            // The third failure in a row.
            (1, Some(5)),
            (1, Some(6)),
        ];
        assert_eq!(points, expected);
        assert_eq!((scraped.samples(), scraped.failures()), (9, 5));
        let loads: Vec<_> = scraped
            .timeline(6 * SECOND)
            .map(|point| point.load())
            .collect();
        assert_eq!(
            (loads[2].running, loads[2].ready_replicas),
            (Some(12.0), Some(2.0))
        );
        assert_eq!(loads[6].ready_replicas, Some(1.0));
    }

    #[test]
    fn a_server_that_is_not_ready_is_not_counted_as_one() {
        let starting = ServerSample {
            is_ready: Some(false),
            ..ServerSample::default()
        };
        let ready = ServerSample {
            is_ready: Some(true),
            ..ServerSample::default()
        };
        let scraped = scraped(vec![target("a", [Some(starting), Some(ready)])]);
        let servers: Vec<u32> = scraped
            .timeline(SECOND)
            .map(|point| point.servers)
            .collect();
        assert_eq!(servers, [0, 1]);
        assert!(scraped.targets[0].is_server());
    }

    #[test]
    fn counters_rise_across_restarts_and_gaps() {
        let tokens =
            |sample: &ServerSample| sample.generation_tokens_total.map(|total| total as f64);
        let answers = [counted(100), counted(150), None, counted(20), counted(30)];
        assert_eq!(target("a", answers).increase(tokens), Some(80.0));
        assert_eq!(target("a", [counted(100), None]).increase(tokens), None);
        assert_eq!(target("a", [running(1), running(1)]).increase(tokens), None);
    }

    #[test]
    fn gpus_of_all_exporters_count() {
        let gpu = |utilisation, power_w| GpuSample {
            name: "GPU".into(),
            utilisation: Some(utilisation),
            memory_used_bytes: None,
            power_w: Some(power_w),
        };
        let exporter = |gpus| {
            Some(ServerSample {
                gpus,
                ..ServerSample::default()
            })
        };
        let scraped = scraped(vec![
            target("a", [exporter(vec![gpu(1.0, 300.0), gpu(0.5, 200.0)])]),
            target("b", [exporter(vec![gpu(0.0, 100.0)])]),
        ]);
        let point = scraped.timeline(0).next().expect("one point");
        assert_eq!(point.servers, 0);
        assert_eq!(point.gpu_utilisation, Some(0.5));
        assert_eq!(point.gpu_power_w, Some(600.0));
        assert_eq!(point.gpu_memory_used_bytes, None);
    }
}
