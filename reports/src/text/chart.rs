//! Small charts out of block characters: a line of a chart is a row of text.

use crate::series::TimeSeries;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One character a value, from 0 to `max`. Exactly nothing is a dot, so that
/// a deployment at zero replicas looks different from one at a few.
pub(super) fn blocks(values: &[Option<f64>], max: f64) -> String {
    let block = |value: f64| {
        if value <= 0.0 || max <= 0.0 {
            return '·';
        }
        let level = (value / max * 8.0).ceil() as usize;
        BLOCKS[level.clamp(1, 8) - 1]
    };
    values
        .iter()
        .map(|value| value.map_or(' ', block))
        .collect()
}

/// The largest of the values, 0 if there are none.
pub(super) fn largest(values: &[Option<f64>]) -> f64 {
    values.iter().flatten().copied().fold(0.0, f64::max)
}

/// A bar of parts: each has its character for its share of the width. Widths
/// are cut at rounded running sums, so that they add up to the whole.
pub(super) fn parts_bar(parts: &[(f64, char)], width: usize) -> String {
    let total: f64 = parts.iter().map(|(part, _)| part).sum();
    if total <= 0.0 {
        return String::new();
    }
    let (mut sum, mut drawn, mut bar) = (0.0, 0, String::new());
    for (part, character) in parts {
        sum += part;
        let end = (sum / total * width as f64).round() as usize;
        bar.extend(std::iter::repeat_n(*character, end - drawn));
        drawn = end;
    }
    bar
}

/// A time series put into columns of equal width.
pub(super) struct Columns<'a> {
    series: &'a TimeSeries,
    duration_s: f64,
    columns: usize,
}

impl<'a> Columns<'a> {
    /// `None` if nothing happened over time.
    pub(super) fn new(series: &'a TimeSeries, duration_s: f64, columns: usize) -> Option<Self> {
        let drawable = duration_s > 0.0 && series.bucket_s > 0.0 && !series.arrivals.is_empty();
        drawable.then_some(Self {
            series,
            duration_s,
            columns,
        })
    }

    /// The buckets that a column overlaps, each with how long (s).
    fn overlaps(&self, column: usize) -> impl Iterator<Item = (usize, f64)> {
        let (width_s, bucket_s) = (self.duration_s / self.columns as f64, self.series.bucket_s);
        let (from_s, until_s) = (column as f64 * width_s, (column + 1) as f64 * width_s);
        let last = self.series.arrivals.len() - 1;
        let first = ((from_s / bucket_s) as usize).min(last);
        let end = ((until_s / bucket_s).ceil() as usize).clamp(first + 1, last + 1);
        (first..end).map(move |bucket| {
            let start_s = bucket as f64 * bucket_s;
            let overlap_s = until_s.min(start_s + bucket_s) - from_s.max(start_s);
            (bucket, overlap_s.max(0.0))
        })
    }

    /// A value that holds over time, averaged.
    pub(super) fn average(&self, values: &[f64]) -> Vec<Option<f64>> {
        let average = |column| {
            let (mut sum, mut time_s) = (0.0, 0.0);
            for (bucket, overlap_s) in self.overlaps(column) {
                sum += values[bucket] * overlap_s;
                time_s += overlap_s;
            }
            (time_s > 0.0).then(|| sum / time_s)
        };
        (0..self.columns).map(average).collect()
    }

    /// A count, as a rate a second.
    pub(super) fn rate(&self, counts: &[u64]) -> Vec<Option<f64>> {
        let bucket_s = self.series.bucket_s;
        // The last bucket ends with the run.
        let covered_s = |bucket: usize| bucket_s.min(self.duration_s - bucket as f64 * bucket_s);
        let rates: Vec<f64> = counts
            .iter()
            .enumerate()
            .map(|(bucket, count)| match covered_s(bucket) {
                covered_s if covered_s > 0.0 => *count as f64 / covered_s,
                _ => 0.0,
            })
            .collect();
        self.average(&rates)
    }

    /// The largest value in each column, where there is one.
    pub(super) fn maximum(&self, values: &[Option<f64>]) -> Vec<Option<f64>> {
        let maximum = |column| {
            self.overlaps(column)
                .filter_map(|(bucket, _)| values[bucket])
                .reduce(f64::max)
        };
        (0..self.columns).map(maximum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(arrivals: &[u64]) -> TimeSeries {
        TimeSeries {
            bucket_s: 2.0,
            arrivals: arrivals.to_vec(),
            ..TimeSeries::default()
        }
    }

    #[test]
    fn blocks_rise_from_a_dot_to_the_maximum() {
        let values = [0.0, 0.1, 1.0, 4.0, 7.9, 8.0].map(Some);
        assert_eq!(blocks(&values, 8.0), "·▁▁▄██");
        assert_eq!(blocks(&[None, Some(1.0)], 0.0), " ·");
    }

    #[test]
    fn bars_fill_their_width() {
        assert_eq!(
            parts_bar(&[(1.0, 'a'), (1.0, 'b'), (1.0, 'c')], 10),
            "aaabbbbccc"
        );
        assert_eq!(parts_bar(&[(0.0, 'a')], 10), "");
    }

    #[test]
    fn columns_share_buckets_by_time() {
        let series = series(&[4, 0, 3]);
        // 5 s: the last bucket is 1 s long.
        let columns = Columns::new(&series, 5.0, 5).unwrap();
        assert_eq!(
            columns.rate(&series.arrivals),
            [2.0, 2.0, 0.0, 0.0, 3.0].map(Some)
        );
        let columns = Columns::new(&series, 5.0, 1).unwrap();
        assert_eq!(columns.rate(&series.arrivals), [Some(7.0 / 5.0)]);
        assert_eq!(columns.maximum(&[Some(1.0), None, Some(9.0)]), [Some(9.0)]);
    }

    #[test]
    fn nothing_over_time_is_no_chart() {
        assert!(Columns::new(&series(&[]), 5.0, 5).is_none());
        assert!(Columns::new(&series(&[1]), 0.0, 5).is_none());
    }
}
