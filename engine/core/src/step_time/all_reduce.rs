//! The time of an all-reduce, in three size ranges.

/// `alpha + bytes / beta` up to a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AllReduceRange {
    /// Largest message of the range [bytes].
    pub bytes_last: u64,
    /// Latency [s].
    pub alpha_s: f64,
    /// Algorithmic bandwidth [bytes/s].
    pub beta_bytes_per_s: f64,
}

/// For each world size, its ranges in order of size.
#[derive(Clone, Debug, PartialEq)]
pub struct AllReduce {
    /// (world size, ranges).
    pub by_world_size: Vec<(u32, Vec<AllReduceRange>)>,
}
