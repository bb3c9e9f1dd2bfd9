//! Requests into a file of the native format.

use std::path::Path;

use foresail_scenarios::workload::{NativeWriter, Requests};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output_file::{OutputFile, Place};
use crate::terminal::Terminal;

/// Writes all requests to `path`, or to standard output if that is `-`.
pub(super) fn requests(
    mut requests: Requests,
    path: &Path,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let place = Place::of_argument(path);
    let mut output = OutputFile::create(&place)?;
    let count = copy(&mut requests, &mut output, &place, &interrupt)?;
    output.finish()?;
    let skipped = requests.skipped();
    if skipped.rows > 0 {
        terminal.note(&format!(
            "rows of the trace that were skipped: {} ({})",
            skipped.rows, skipped.reason
        ));
    }
    if let Place::Path(path) = place {
        terminal.note(&format!("requests in {}: {count}", path.display()));
    }
    Ok(())
}

fn copy(
    requests: &mut Requests,
    output: &mut OutputFile,
    place: &Place,
    interrupt: &Interrupt,
) -> Result<u64, Failure> {
    let mut count = 0;
    let writer = if requests.names_adapters() {
        NativeWriter::with_adapters(output)
    } else {
        NativeWriter::new(output)
    };
    let mut writer = writer.map_err(|error| place.failure(error))?;
    while let Some(request) = requests.next() {
        interrupt.check()?;
        let request = request?;
        let adapter = request.adapter.and_then(|id| requests.adapter_name(id));
        writer
            .write(&request, adapter)
            .map_err(|error| place.failure(error))?;
        count += 1;
    }
    Ok(count)
}
