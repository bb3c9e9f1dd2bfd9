//! `ray-serve` and `ray-serve-legacy` beside what Ray Serve itself decided.
//! `anchors/ray-serve/README.md` says how that was recorded.

use std::fs;
use std::path::PathBuf;

use foresail_core::control::autoscaler::trace::Row;
use foresail_core::control::autoscaler::{
    AggregationFunction, Autoscaler, AutoscalerConfig, Delays, Event, Observation, RayServeConfig,
    ReplicaLoad,
};
use foresail_core::time::Nanos;

const RECORDINGS: usize = 6;

fn recording(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/anchors/ray-serve", name]
        .iter()
        .collect();
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `# ray-serve min_replicas=0 …`
fn config(heading: &str) -> AutoscalerConfig {
    let mut words = heading.split(' ').skip(1);
    let mut config = RayServeConfig {
        delays: match words.next() {
            Some("ray-serve") => Delays::Clock,
            Some("ray-serve-legacy") => Delays::Looks,
            other => panic!("{other:?} is no policy"),
        },
        ..RayServeConfig::default()
    };
    for word in words {
        let (key, value) = word.split_once('=').expect("key=value");
        set(&mut config, key, value);
    }
    AutoscalerConfig::RayServe(config)
}

fn set(config: &mut RayServeConfig, key: &str, value: &str) {
    let number = || value.parse::<f64>().expect("a number");
    match key {
        "min_replicas" => config.min_replicas = number() as u32,
        "max_replicas" => config.max_replicas = number() as u32,
        "target_ongoing_requests" => config.target_ongoing_requests = number(),
        "look_back_period_s" => config.look_back_period_s = number(),
        "metrics_interval_s" => config.metrics_interval_s = number(),
        "upscale_delay_s" => config.upscale_delay_s = number(),
        "downscale_delay_s" => config.downscale_delay_s = number(),
        "downscale_to_zero_delay_s" => config.downscale_to_zero_delay_s = Some(number()),
        "upscaling_factor" => config.upscaling_factor = Some(number()),
        "downscaling_factor" => config.downscaling_factor = Some(number()),
        "aggregation_function" => {
            config.aggregation_function = match value {
                "mean" => AggregationFunction::Mean,
                "max" => AggregationFunction::Max,
                "min" => AggregationFunction::Min,
                other => panic!("{other} is no aggregation function"),
            }
        }
        other => panic!("{other} is no parameter"),
    }
}

fn start(heading: &str) -> (Autoscaler, AutoscalerConfig) {
    let config = config(heading);
    let AutoscalerConfig::RayServe(parameters) = &config else {
        panic!("it is Ray Serve's");
    };
    (Autoscaler::new(&config, parameters.initial()), config)
}

#[test]
fn every_look_decides_as_ray_serve_did() {
    for number in 0..RECORDINGS {
        let text = recording(&format!("decisions-{number}.csv"));
        let mut lines = text.lines();
        let (mut autoscaler, config) = start(lines.next().expect("a heading"));
        assert_eq!(lines.next(), Some("time_s,load,ready,desired"));
        for line in lines {
            let cells: Vec<f64> = line
                .split(',')
                .map(|cell| cell.parse().expect(line))
                .collect();
            let measured = cells[1..3].iter().map(|&cell| Some(vec![cell])).collect();
            let row = Row::new(config.columns(), measured).expect("a sound row");
            let now = (cells[0] * 1e9).round() as Nanos;
            let verdict = autoscaler.look(now, &row);
            let recorded = cells[3] as u32;
            assert_eq!(
                verdict.desired, recorded,
                "{number}: {line}: {}",
                verdict.reason
            );
        }
    }
}

/// A deployment, as its recording has it.
#[derive(Default)]
struct Deployment {
    held: u64,
    replicas: Vec<ReplicaLoad>,
}

impl Deployment {
    /// `state TIME HELD ID:REQUESTS:KNOWN…`
    fn of(words: &[&str]) -> Self {
        let number = |text: &str| text.parse::<u32>().expect("a number");
        let replica = |word: &&str| {
            let parts: Vec<u32> = word.split(':').map(number).collect();
            ReplicaLoad {
                replica: parts[0],
                running: parts[1],
                tokens_generated: parts[2].into(),
                ..ReplicaLoad::default()
            }
        };
        Self {
            held: number(words[2]).into(),
            replicas: words[3..].iter().map(replica).collect(),
        }
    }

    fn observation(&self) -> Observation {
        let running = self.replicas.iter().map(|load| u64::from(load.running));
        Observation {
            running: running.sum(),
            queued: self.held,
            held: self.held,
            ready: self.replicas.len() as u32,
            ..Observation::default()
        }
    }
}

/// The changes of target when the policy looks at times of its own choosing.
fn replay(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let (mut autoscaler, _) = start(lines.next().expect("a heading"));
    let mut deployment = Deployment::default();
    let mut targets = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let now: Nanos = words[1].parse().expect("a time");
        // A change of target is recorded after the look that made it.
        let is_target = words[0] == "target";
        let comes = |at: &Nanos| *at < now || is_target && *at == now;
        while let Some(at) = autoscaler.next_deadline().filter(comes) {
            let decision = autoscaler.observe(at, &deployment.observation(), &deployment.replicas);
            targets.extend(decision.map(|it| format!("target {at} {}", it.target)));
        }
        match words[0] {
            "request" => {
                let decision = autoscaler.on_event(now, Event::RequestReceived);
                assert_eq!(decision, None, "a request alone changes nothing");
            }
            "state" => {
                deployment = Deployment::of(&words);
                autoscaler.replicas_changed(now);
            }
            _ => assert!(is_target, "{line}"),
        }
    }
    targets
}

#[test]
fn metrics_are_reported_and_aggregated_as_in_ray_serve() {
    let mut changes = 0;
    for number in 0..RECORDINGS {
        let text = recording(&format!("deployment-{number}.txt"));
        let recorded: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("target"))
            .collect();
        assert_eq!(replay(&text), recorded, "deployment {number}");
        changes += recorded.len();
    }
    assert!(changes > 30, "{changes} changes of target were compared");
}
