//! What the tests of workloads share.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Adapters, Request, Source, TraceSource, Transforms, Workload, WorkloadError};

/// A file or folder of the recorded data that is kept outside of the
/// repository, or `None`, loudly, where it is absent.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FORESAIL_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    // Past the capture of the test harness: a test that does not run must say so.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: {} is absent; set FORESAIL_SHARED to the folder of recorded data",
        path.display()
    );
    None
}

/// A source as it is.
pub(crate) fn workload(source: Source) -> Workload {
    Workload {
        source,
        transforms: Transforms::default(),
        adapters: Adapters::default(),
    }
}

/// The trace in this file.
pub(crate) fn trace(path: impl Into<PathBuf>) -> Workload {
    workload(Source::Trace(TraceSource::new(path)))
}

/// All requests of a workload, or its first error.
pub(crate) fn all(workload: &Workload, seed: u64) -> Result<Vec<Request>, WorkloadError> {
    workload.open(seed)?.collect()
}

/// A file with this content.
pub(crate) fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}
