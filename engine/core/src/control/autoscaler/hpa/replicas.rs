//! How many replicas a metric calls for: `replica_calculator.go` of Kubernetes
//! 1.33 (`calcPlainMetricReplicas`, `GetExternalPerPodMetricReplicas`). Metrics
//! are integers in thousandths there, and so they are here.

/// What was measured of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// The sum over the pods that have the metric, and how many pods do and do not.
    Pods {
        total_milli: i64,
        /// Pods with the metric.
        ready: u32,
        /// Pods that are not running yet.
        unready: u32,
        /// Pods that run, and have no metric.
        missing: u32,
    },
    /// One value for all pods, and how many there are.
    External { total_milli: i64, pods: u32 },
}

/// How far the ratio of metric and target may be from 1 without an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub(super) scale_down: f64,
    pub(super) scale_up: f64,
}

impl Tolerances {
    fn is_within(self, ratio: f64) -> bool {
        (1.0 - self.scale_down) <= ratio && ratio <= (1.0 + self.scale_up)
    }
}

/// How many replicas the metric calls for; `None` if no pod has it.
pub(super) fn proposal(
    sample: Sample,
    replicas: u32,
    target_milli: u32,
    tolerances: Tolerances,
) -> Option<u32> {
    let target = f64::from(target_milli);
    match sample {
        Sample::External { total_milli, pods } => {
            let total = total_milli as f64;
            let ratio = total / (target * f64::from(pods));
            // 0 / 0 is not a number, and no such ratio is within the tolerance.
            if tolerances.is_within(ratio) {
                Some(pods)
            } else {
                Some(ceil(total / target))
            }
        }
        Sample::Pods { .. } => pods_proposal(sample, replicas, target_milli, tolerances),
    }
}

fn pods_proposal(
    sample: Sample,
    replicas: u32,
    target_milli: u32,
    tolerances: Tolerances,
) -> Option<u32> {
    let Sample::Pods {
        total_milli,
        ready,
        unready,
        missing,
    } = sample
    else {
        return None;
    };
    if ready == 0 {
        return None;
    }
    let ratio = usage_ratio(total_milli, ready, target_milli);
    let scales_up_with_unready = unready > 0 && ratio > 1.0;
    if !scales_up_with_unready && missing == 0 {
        let within = tolerances.is_within(ratio);
        return Some(if within {
            replicas
        } else {
            ceil(ratio * f64::from(ready))
        });
    }
    // Pods without the metric count against the action: as at the target when
    // that is to remove replicas, as idle when it is to add some.
    let (mut total, mut pods) = (total_milli, ready);
    if ratio < 1.0 {
        total += i64::from(missing) * i64::from(target_milli);
        pods += missing;
    } else if ratio > 1.0 {
        pods += missing;
    }
    if scales_up_with_unready {
        pods += unready;
    }
    let again = usage_ratio(total, pods, target_milli);
    let turns = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    if tolerances.is_within(again) || turns {
        return Some(replicas);
    }
    let proposal = ceil(again * f64::from(pods));
    // More pods than before in the sum can turn the action around, too.
    let turns = (again < 1.0 && proposal > replicas) || (again > 1.0 && proposal < replicas);
    Some(if turns { replicas } else { proposal })
}

/// `GetMetricUsageRatio`: the mean is an integer.
fn usage_ratio(total_milli: i64, pods: u32, target_milli: u32) -> f64 {
    (total_milli / i64::from(pods)) as f64 / f64::from(target_milli)
}

/// As many replicas as there can be, at most.
fn ceil(replicas: f64) -> u32 {
    replicas.ceil().min(f64::from(i32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Tolerances = Tolerances {
        scale_down: 0.1,
        scale_up: 0.1,
    };

    fn pods(total: i64, ready: u32, unready: u32, missing: u32, replicas: u32) -> Option<u32> {
        let sample = Sample::Pods {
            total_milli: total * 1000,
            ready,
            unready,
            missing,
        };
        proposal(sample, replicas, 10_000, TENTH)
    }

    fn external(total: i64, pods: u32) -> Option<u32> {
        let sample = Sample::External {
            total_milli: total * 1000,
            pods,
        };
        proposal(sample, pods, 10_000, TENTH)
    }

    #[test]
    fn a_tenth_off_the_target_changes_nothing() {
        assert_eq!(external(22, 2), Some(2));
        assert_eq!(external(23, 2), Some(3));
        assert_eq!(external(18, 2), Some(2));
        assert_eq!(external(17, 3), Some(2));
        assert_eq!(pods(22, 2, 0, 0, 2), Some(2));
        assert_eq!(pods(23, 2, 0, 0, 2), Some(3));
    }

    #[test]
    fn pods_that_start_count_as_idle_when_adding_replicas() {
        // 40 on two pods call for four; with two that start there are four.
        assert_eq!(pods(40, 2, 0, 0, 2), Some(4));
        assert_eq!(pods(40, 2, 0, 2, 4), Some(4));
        assert_eq!(pods(40, 2, 2, 0, 4), Some(4));
        assert_eq!(pods(60, 2, 0, 2, 4), Some(6));
    }

    #[test]
    fn pods_without_the_metric_count_as_full_when_removing_replicas() {
        assert_eq!(pods(2, 2, 0, 0, 4), Some(1));
        assert_eq!(pods(2, 2, 0, 2, 4), Some(3));
        // A pod that is not running yet does not stand in the way.
        assert_eq!(pods(2, 2, 2, 0, 4), Some(1));
    }

    #[test]
    fn without_any_metric_there_is_no_proposal() {
        assert_eq!(pods(0, 0, 3, 0, 3), None);
        assert_eq!(external(0, 3), Some(0));
    }
}
