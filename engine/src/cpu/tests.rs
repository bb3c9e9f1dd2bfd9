//! The fast operations against their slow clear twins, and against themselves.

mod equality;
mod fixture;
mod twin;

use self::fixture::Shape;
use super::CpuOps;
use crate::comm::Solo;
use crate::ops::KvFormat;

#[test]
fn a_cache_that_no_memory_holds_is_refused_with_its_size() {
    let shape = Shape::even();
    let mut limits = shape.limits();
    limits.num_blocks = 1 << 50;
    let refused = CpuOps::new(shape.config(), limits, KvFormat::F32, Box::new(Solo), 1);
    let message = refused.map(|_| ()).unwrap_err().to_string();
    assert!(
        message.starts_with("no memory for a KV cache of "),
        "{message}"
    );
    assert!(message.contains("1125899906842624 blocks"), "{message}");
}
