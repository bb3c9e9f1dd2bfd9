//! Which batches of decoding sequences share a recording.
//!
//! A recording has fixed shapes, so a batch is padded to the next bucket. Small
//! batches are told apart, as there a row more is a step slower; large ones are
//! padded by at most a tenth. SGLang records 1, 2, 4 and multiples of 8 up to 256.

/// The largest batch of decoding sequences that is recorded.
pub const BUCKET_MAX: usize = 256;

/// The rows that a batch is padded to, if it is recorded at all.
#[must_use]
pub fn bucket(rows: usize) -> Option<usize> {
    match rows {
        0 => None,
        1..=2 => Some(rows),
        3..=4 => Some(4),
        5..=64 => Some(rows.next_multiple_of(8)),
        65..=BUCKET_MAX => Some(rows.next_multiple_of(16)),
        _ => None,
    }
}

/// All buckets that batches of up to so many rows need.
pub fn buckets(rows_max: usize) -> impl Iterator<Item = usize> {
    let mut last = 0;
    (1..=rows_max.min(BUCKET_MAX)).filter_map(move |rows| {
        let bucket = bucket(rows)?;
        let is_new = bucket > last;
        last = bucket;
        is_new.then_some(bucket)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fits_into_its_bucket_and_wastes_little() {
        for rows in 1..=BUCKET_MAX {
            let bucket = bucket(rows).unwrap();
            assert!(bucket >= rows);
            assert_eq!(super::bucket(bucket), Some(bucket), "a bucket is its own");
            let is_small = rows <= 8;
            assert!(is_small || (bucket - rows) * 100 < rows * 90, "{rows}");
        }
        assert_eq!(bucket(0), None);
        assert_eq!(bucket(257), None);
    }

    #[test]
    fn there_are_few_buckets() {
        let all: Vec<_> = buckets(1000).collect();
        assert_eq!(all[..7], [1, 2, 4, 8, 16, 24, 32]);
        assert_eq!(all.last(), Some(&256));
        assert_eq!(all.len(), 23);
        assert_eq!(buckets(3).collect::<Vec<_>>(), [1, 2, 4]);
    }
}
