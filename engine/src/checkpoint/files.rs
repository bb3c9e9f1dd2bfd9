//! Files, read whole or in part.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::CheckpointError;

/// The longest text file, or header, that is read into memory (bytes); that of
/// the reference implementation (`MAX_HEADER_SIZE` in safetensors/src/tensor.rs).
pub(super) const TEXT_BYTES_MAX: u64 = 100_000_000;

/// The content of a text file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no such file");
    read_if_there(path)?.ok_or_else(|| failed(path, missing()))
}

/// The content of a text file, or `None` if there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let metadata = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(|error| failed(path, error))?,
    };
    if metadata.len() > TEXT_BYTES_MAX {
        let reason = format!("{} bytes; expected a short text", metadata.len());
        return Err(CheckpointError::File {
            file: path.to_owned(),
            reason,
        });
    }
    let bytes = std::fs::read(path).map_err(|error| failed(path, error))?;
    Ok(Some(bytes))
}

/// An error of the operating system about a file.
pub(super) fn failed(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Fills `bytes` from a place in a file. Several threads may do so at once.
#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from a place in a file. Several threads may do so at once.
#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let place = offset + done as u64;
        let read = std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], place)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += read;
    }
    Ok(())
}
