//! A histogram as it is written: readable, exact, and mergeable.

use super::{Histogram, PICOS_PER_NANO, bucket_of};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Durations that a histogram does not tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Bucket {
    /// The longest duration that falls into it (ns).
    pub highest_ns: u64,
    /// How many did.
    pub count: u64,
}

impl From<(u64, u64)> for Bucket {
    fn from((highest_ns, count): (u64, u64)) -> Self {
        Self { highest_ns, count }
    }
}

impl From<Bucket> for (u64, u64) {
    fn from(bucket: Bucket) -> Self {
        (bucket.highest_ns, bucket.count)
    }
}

/// A histogram as it is written: its buckets as pairs of the longest duration
/// (ns) and the count, shortest first and none empty, and what is known exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainHistogram {
    /// How many durations.
    pub count: u64,
    /// Their sum (ps), in decimal digits: more than a JSON number holds everywhere.
    pub sum_ps: String,
    /// The smallest (ns); `null` without any.
    pub min_ns: Option<u64>,
    /// The largest (ns); `null` without any.
    pub max_ns: Option<u64>,
    /// The buckets.
    pub buckets: Vec<Bucket>,
}

/// Why something is no histogram.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistogramError {
    /// No bucket of ours ends there, or the buckets are not in order.
    #[error("no bucket can end at {highest_ns} ns here; was the file changed by hand?")]
    Bucket {
        /// Where it is said to end.
        highest_ns: u64,
    },
    /// Count, sum, minimum and maximum are not those of what is in the buckets.
    #[error("its {what} does not fit its buckets; was the file changed by hand?")]
    Unfit {
        /// What does not fit.
        what: &'static str,
    },
}

/// More durations than any run has, and few enough that many histograms can be added.
const COUNT_MAX: u64 = 1 << 48;

impl From<Histogram> for PlainHistogram {
    fn from(histogram: Histogram) -> Self {
        Self {
            count: histogram.count,
            sum_ps: histogram.sum_ps.to_string(),
            min_ns: histogram.min_ns(),
            max_ns: histogram.max_ns(),
            buckets: histogram.buckets().collect(),
        }
    }
}

impl TryFrom<PlainHistogram> for Histogram {
    type Error = HistogramError;

    fn try_from(plain: PlainHistogram) -> Result<Self, HistogramError> {
        let unfit = |what| HistogramError::Unfit { what };
        let mut histogram = Histogram::new();
        let mut next = 0;
        for Bucket { highest_ns, count } in plain.buckets {
            let bucket = bucket_of(highest_ns);
            if bucket < next || super::highest_ns(bucket) != highest_ns {
                return Err(HistogramError::Bucket { highest_ns });
            }
            if count == 0 || count > COUNT_MAX {
                return Err(unfit("count"));
            }
            next = bucket + 1;
            histogram.add_to_bucket(bucket, count);
            histogram.count += count;
            if histogram.count > COUNT_MAX {
                return Err(unfit("count"));
            }
        }
        if histogram.count != plain.count {
            return Err(unfit("count"));
        }
        histogram.sum_ps = plain.sum_ps.parse().map_err(|_| unfit("sum"))?;
        let (min_ns, max_ns) = match (plain.min_ns, plain.max_ns) {
            (None, None) if plain.count == 0 && histogram.sum_ps == 0 => return Ok(histogram),
            (Some(min_ns), Some(max_ns)) if plain.count > 0 => (min_ns, max_ns),
            _ => return Err(unfit("minimum or maximum")),
        };
        let first = histogram.counts.iter().position(|&count| count > 0);
        if first != Some(bucket_of(min_ns)) || bucket_of(max_ns) + 1 != next || min_ns > max_ns {
            return Err(unfit("minimum or maximum"));
        }
        // Gaps are added before they are rounded down: up to a nanosecond more each.
        let highest_ps =
            u128::from(plain.count) * (u128::from(max_ns) + 1) * u128::from(PICOS_PER_NANO);
        if histogram.sum_ps > highest_ps {
            return Err(unfit("sum"));
        }
        (histogram.min_ns, histogram.max_ns) = (min_ns, max_ns);
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_json_is_what_a_person_can_read() {
        let mut histogram = Histogram::new();
        for ns in [7, 7, 5_000] {
            histogram.record(ns);
        }
        let json = serde_json::to_string(&histogram).unwrap();
        insta::assert_snapshot!(json, @r#"{"count":3,"sum_ps":"5014000","min_ns":7,"max_ns":5000,"buckets":[[7,2],[5003,1]]}"#);
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let plain = |buckets: &[(u64, u64)], count, sum_ps: &str, min_ns, max_ns| {
            Histogram::try_from(PlainHistogram {
                count,
                sum_ps: sum_ps.into(),
                min_ns,
                max_ns,
                buckets: buckets.iter().map(|&pair| pair.into()).collect(),
            })
        };
        let unfit = |what| Err(HistogramError::Unfit { what });
        let bucket = |highest_ns| Err(HistogramError::Bucket { highest_ns });
        let (one, most) = (Some(1), Some(u64::MAX));
        assert!(plain(&[(1, 1)], 1, "1000", one, one).is_ok());
        assert_eq!(plain(&[(5_000, 1)], 1, "0", one, one), bucket(5_000));
        assert_eq!(plain(&[(2, 1), (1, 1)], 2, "0", one, one), bucket(1));
        assert_eq!(plain(&[(1, 2)], 1, "1000", one, one), unfit("count"));
        assert_eq!(plain(&[(1, u64::MAX)], 1, "1", one, one), unfit("count"));
        assert_eq!(plain(&[(1, 1)], 1, "-1", one, one), unfit("sum"));
        assert_eq!(plain(&[(1, 1)], 1, "9000", one, one), unfit("sum"));
        for (min_ns, max_ns) in [(None, one), (one, most), (Some(2), one)] {
            let read = plain(&[(1, 1)], 1, "1000", min_ns, max_ns);
            assert_eq!(read, unfit("minimum or maximum"));
        }
    }
}
