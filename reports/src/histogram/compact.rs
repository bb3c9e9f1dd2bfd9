//! A histogram as short text, for files that are committed: the buckets as
//! pairs of numbers (how many buckets further on, and the count), seven bits a
//! byte with the low ones first (LEB128), in base64. Two or three characters a bucket.

use super::plain::{Bucket, PlainHistogram};
use super::{Histogram, HistogramError, bucket_of, highest_ns};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A histogram as short text, with what is known exactly beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactHistogram {
    /// How many durations.
    pub count: u64,
    /// Their sum (ps), in decimal digits.
    pub sum_ps: String,
    /// The smallest (ns); `null` without any.
    pub min_ns: Option<u64>,
    /// The largest (ns); `null` without any.
    pub max_ns: Option<u64>,
    /// The buckets: base64 of pairs of LEB128 numbers, gap and count.
    pub buckets: String,
}

impl From<&Histogram> for CompactHistogram {
    fn from(histogram: &Histogram) -> Self {
        let plain = PlainHistogram::from(histogram.clone());
        let mut bytes = Vec::new();
        let mut next = 0;
        for bucket in plain.buckets {
            let place = bucket_of(bucket.highest_ns);
            push(&mut bytes, (place - next) as u64);
            push(&mut bytes, bucket.count);
            next = place + 1;
        }
        Self {
            count: plain.count,
            sum_ps: plain.sum_ps,
            min_ns: plain.min_ns,
            max_ns: plain.max_ns,
            buckets: STANDARD.encode(bytes),
        }
    }
}

impl TryFrom<CompactHistogram> for Histogram {
    type Error = HistogramError;

    fn try_from(compact: CompactHistogram) -> Result<Self, HistogramError> {
        let buckets = buckets(&compact.buckets).ok_or(HistogramError::Unfit { what: "text" })?;
        Histogram::try_from(PlainHistogram {
            count: compact.count,
            sum_ps: compact.sum_ps,
            min_ns: compact.min_ns,
            max_ns: compact.max_ns,
            buckets,
        })
    }
}

/// `None` if the text is not what was written.
fn buckets(text: &str) -> Option<Vec<Bucket>> {
    let bytes = STANDARD.decode(text).ok()?;
    let mut rest = bytes.as_slice();
    let (mut buckets, mut next) = (Vec::new(), 0_u64);
    while !rest.is_empty() {
        let place = next.checked_add(pull(&mut rest)?)?;
        let count = pull(&mut rest)?;
        // Beyond the last bucket there is none that could be named.
        let is_there = place <= bucket_of(u64::MAX) as u64;
        let highest_ns = is_there.then(|| highest_ns(place as usize))?;
        buckets.push(Bucket { highest_ns, count });
        next = place + 1;
    }
    Some(buckets)
}

fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn pull(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            durations in prop::collection::vec(prop_oneof![any::<u64>(), 0..5_000_u64], 0..100),
        ) {
            let mut histogram = Histogram::new();
            durations.iter().for_each(|&ns| histogram.record(ns));
            let read = Histogram::try_from(CompactHistogram::from(&histogram));
            prop_assert_eq!(read, Ok(histogram));
        }

        #[test]
        fn no_text_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0..4_u64) {
            let compact = CompactHistogram {
                count,
                sum_ps: "0".to_owned(),
                min_ns: None,
                max_ns: None,
                buckets: STANDARD.encode(bytes),
            };
            let _ = Histogram::try_from(compact);
        }
    }

    #[test]
    fn a_thousand_requests_take_a_few_kilobytes() {
        let mut histogram = Histogram::new();
        // Spread over two octaves, hardly two in one bucket.
        (0..1_000).for_each(|step: u64| histogram.record(50_000_000 + step * 100_000));
        let compact = CompactHistogram::from(&histogram);
        assert!(compact.buckets.len() < 4_000, "{}", compact.buckets.len());
    }
}
