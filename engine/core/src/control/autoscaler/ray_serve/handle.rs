//! Ray Serve's handle: it counts the requests that wait for a replica and those that
//! each replica has, records both now and then, and reports them to the controller.
//!
//! Source: `RouterMetricsManager` in `serve/_private/router.py`, Ray 2.60.0.

use super::super::ReplicaLoad;
use super::config::AggregationFunction;
use super::total::{Point, Total};

/// The gauges of a handle, each in order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges {
    queued: Vec<Point>,
    /// By replica, in order of id.
    running: Vec<(u32, Vec<Point>)>,
}

/// What a handle counts at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'a> {
    pub(super) now_s: f64,
    /// Requests that wait for a replica.
    pub(super) queued: u64,
    /// What each replica that runs has.
    pub(super) replicas: &'a [ReplicaLoad],
}

impl Counted<'_> {
    fn point(&self, requests: u64) -> Point {
        Point {
            time_s: self.now_s,
            value: requests as f64,
        }
    }

    /// A handle knows the replicas that it has given a request.
    fn known(&self) -> impl Iterator<Item = (u32, Point)> {
        let is_known = |load: &&ReplicaLoad| load.requests() + load.tokens_generated > 0;
        let known = self.replicas.iter().filter(is_known);
        known.map(|load| (load.replica, self.point(load.requests())))
    }
}

impl ReplicaLoad {
    fn requests(&self) -> u64 {
        u64::from(self.running) + u64::from(self.waiting)
    }
}

impl Gauges {
    /// Notes what is counted (`_add_autoscaling_metrics_point`).
    pub(super) fn record(&mut self, counted: &Counted<'_>, look_back_s: f64) {
        self.queued.push(counted.point(counted.queued));
        for (id, point) in counted.known() {
            match self.running.binary_search_by_key(&id, |gauge| gauge.0) {
                Ok(place) => self.running[place].1.push(point),
                Err(place) => self.running.insert(place, (id, vec![point])),
            }
        }
        self.forget(counted.now_s - look_back_s);
    }

    /// What the controller is told (`_get_metrics_report`): all that was recorded
    /// in the look-back period. What is counted now is only told of gauges that
    /// have no record.
    pub(super) fn report(&mut self, counted: &Counted<'_>, look_back_s: f64) -> Self {
        self.forget(counted.now_s - look_back_s);
        let mut report = self.clone();
        if report.queued.is_empty() {
            report.queued.push(counted.point(counted.queued));
        }
        for (id, point) in counted.known() {
            if let Err(place) = report.running.binary_search_by_key(&id, |gauge| gauge.0) {
                report.running.insert(place, (id, vec![point]));
            }
        }
        report
    }

    /// `prune_keys_and_compact_data`. A gauge whose last value is from then or
    /// before is gone altogether.
    fn forget(&mut self, until_s: f64) {
        let forget = |gauge: &mut Vec<Point>| gauge.retain(|point| point.time_s > until_s);
        forget(&mut self.queued);
        for (_, gauge) in &mut self.running {
            forget(gauge);
        }
        self.running.retain(|(_, gauge)| !gauge.is_empty());
    }

    /// Requests that wait, and those of the replicas that run (`get_total_num_requests`).
    pub(super) fn total(&self, running: &[u32], function: AggregationFunction) -> Total {
        let is_running = |gauge: &&(u32, Vec<Point>)| running.binary_search(&gauge.0).is_ok();
        let of_replicas = self.running.iter().filter(is_running);
        let mut gauges: Vec<&[Point]> = of_replicas.map(|gauge| gauge.1.as_slice()).collect();
        gauges.push(&self.queued);
        Total::of(&gauges, function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(replica: u32, running: u32, tokens_generated: u64) -> ReplicaLoad {
        ReplicaLoad {
            replica,
            running,
            tokens_generated,
            ..ReplicaLoad::default()
        }
    }

    fn counted(now_s: f64, queued: u64, replicas: &[ReplicaLoad]) -> Counted<'_> {
        Counted {
            now_s,
            queued,
            replicas,
        }
    }

    fn mean(gauges: &Gauges, running: &[u32], now_s: f64) -> f64 {
        gauges.total(running, AggregationFunction::Mean).at(now_s)
    }

    #[test]
    fn a_report_has_what_was_recorded_and_not_what_is_counted() {
        let mut gauges = Gauges::default();
        gauges.record(&counted(0.0, 0, &[]), 30.0);
        let report = gauges.report(&counted(4.0, 9, &[]), 30.0);
        assert_eq!(mean(&report, &[], 5.0), 0.0);
        let report = Gauges::default().report(&counted(4.0, 9, &[]), 30.0);
        assert_eq!(mean(&report, &[], 5.0), 9.0, "nothing was recorded");
    }

    #[test]
    fn a_replica_counts_from_its_first_request_on_and_while_it_runs() {
        let mut gauges = Gauges::default();
        let idle = load(2, 0, 0);
        gauges.record(&counted(0.0, 0, &[load(1, 4, 9), idle]), 30.0);
        gauges.record(&counted(6.0, 0, &[load(1, 4, 99), idle]), 30.0);
        let report = gauges.report(&counted(10.0, 0, &[load(1, 4, 99), load(2, 6, 1)]), 30.0);
        assert_eq!(mean(&report, &[1, 2], 10.0), 10.0);
        assert_eq!(mean(&report, &[1], 10.0), 4.0, "the other has left");
        assert_eq!(mean(&report, &[], 10.0), 0.0);
    }

    #[test]
    fn what_is_older_than_the_look_back_period_is_forgotten() {
        let mut gauges = Gauges::default();
        gauges.record(&counted(0.0, 8, &[]), 10.0);
        gauges.record(&counted(6.0, 2, &[]), 10.0);
        let report = gauges.report(&counted(10.0, 0, &[]), 10.0);
        assert_eq!(mean(&report, &[], 10.0), 2.0);
        let report = gauges.report(&counted(16.0, 5, &[]), 10.0);
        assert_eq!(
            mean(&report, &[], 17.0),
            5.0,
            "only what is counted is left"
        );
    }
}
