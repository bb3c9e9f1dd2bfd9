//! Starts that find nothing of the model in the page cache.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::server::Started;
use crate::failure::Failure;

/// A start is cold if at least this share of what it read came from storage. The rest is what the
/// program reads beside the model, which is never dropped.
const FROM_STORAGE_MIN: f64 = 0.5;

/// The files of a model.
#[derive(Debug)]
pub(super) struct ModelFiles(Vec<PathBuf>);

impl ModelFiles {
    pub(super) fn of_folder(folder: &Path) -> Result<Self, Failure> {
        let wrong = |error: io::Error| {
            Failure::Input(format!(
                "{}: {error}; name the folder of a model with --model",
                folder.display()
            ))
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            // Through links: the files of downloaded models often are some.
            if path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(Self(files))
    }

    /// Drops them from the page cache.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        self.0.iter().try_for_each(|path| {
            forget(path).map_err(|error| {
                Failure::Input(format!(
                    "{} cannot be dropped from the page cache: {error}; leave --cold away",
                    path.display()
                ))
            })
        })
    }
}

/// Pages that are still to be written are not dropped, so they are written first.
#[cfg(target_os = "linux")]
fn forget(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_data()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn forget(path: &Path) -> io::Result<()> {
    File::open(path)?;
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system has no way to",
    ))
}

/// What a process has read so far (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BytesRead {
    /// With calls, from wherever.
    pub(super) in_all: u64,
    /// From storage.
    pub(super) from_storage: u64,
}

impl BytesRead {
    /// Of a process that runs; nothing where the system does not say.
    pub(super) fn of_process(id: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/io")).ok()?)
    }

    /// From the text of `/proc/PID/io`, described in proc_pid_io(5).
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(':')?.trim().parse().ok()
        };
        Some(Self {
            in_all: field("rchar")?,
            from_storage: field("read_bytes")?,
        })
    }

    /// How much came from storage, as a share; more than 1 where it read ahead.
    pub(super) fn storage_share(self) -> f64 {
        self.from_storage as f64 / self.in_all.max(1) as f64
    }
}

/// Refuses a start that was to be cold and was not, or of which that cannot be known.
pub(super) fn check_cold(started: &Started, what: &str) -> Result<(), Failure> {
    match started.bytes_read {
        None => Err(Failure::Input(format!(
            "{what}: the system does not say what a process reads from storage, so that nobody knows \
             whether the start was cold; leave --cold away"
        ))),
        Some(read) if read.storage_share() < FROM_STORAGE_MIN => Err(Failure::Input(format!(
            "{what} was not cold: of {} kB that it read, {} came from storage; the model's files stay in \
             memory here (a file system in memory, or another process that uses them): leave --cold away",
            read.in_all / 1000,
            read.from_storage / 1000
        ))),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_in_the_text_of_the_kernel() {
        let text = "rchar: 6976\nwchar: 0\nsyscr: 10\nsyscw: 0\nread_bytes: 4096\nwrite_bytes: 0\n\
                    cancelled_write_bytes: 0\n";
        let read = BytesRead::parse(text).expect("it has both");
        assert_eq!((read.in_all, read.from_storage), (6976, 4096));
        assert!((read.storage_share() - 0.587).abs() < 1e-3);
        assert_eq!(BytesRead::parse("rchar: 1\n"), None);
    }
}
