//! A file that is written whole or not at all, or standard output.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use crate::failure::Failure;

/// Bytes gather until there are so many of them.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where a command writes what it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Standard output.
    Stdout,
    /// A file.
    Path(PathBuf),
}

impl Place {
    /// The place that an argument names: `-` is standard output.
    pub(crate) fn of_argument(path: &Path) -> Self {
        match path.to_str() {
            Some("-") => Self::Stdout,
            _ => Self::Path(path.to_owned()),
        }
    }

    /// What an error while writing there means.
    pub(crate) fn failure(&self, error: io::Error) -> Failure {
        match self {
            Self::Stdout => Failure::stdout(error),
            Self::Path(path) => Failure::output(path, error),
        }
    }
}

/// A file that is being written, or standard output.
///
/// What is still in the buffer when this is dropped unfinished is not written:
/// a command that fails early leaves nothing on standard output either.
#[derive(Debug)]
pub(crate) struct OutputFile {
    place: Place,
    sink: Sink,
    buffer: Vec<u8>,
}

impl OutputFile {
    /// Begins to write. What is there stays as it is until [`OutputFile::finish`].
    pub(crate) fn create(place: &Place) -> Result<Self, Failure> {
        let sink = match place {
            Place::Stdout => Sink::Stdout(io::stdout()),
            Place::Path(path) => Sink::open(path)?,
        };
        Ok(Self {
            place: place.clone(),
            sink,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Writes the rest and puts the file in place.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let finished = self.flush().and_then(|()| self.sink.publish());
        finished.map_err(|error| self.place.failure(error))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.sink.write(&self.buffer);
        self.buffer.clear();
        written
    }
}

/// The file that an option names, of a command whose standard output has something else.
#[derive(Debug)]
pub(crate) struct NamedFile {
    place: Place,
    file: OutputFile,
}

impl NamedFile {
    /// Begins to write, as [`OutputFile::create`] does, but not to standard output.
    pub(crate) fn create(option: &str, path: &Path) -> Result<Self, Failure> {
        let place = Place::of_argument(path);
        if place == Place::Stdout {
            return Err(Failure::Input(format!(
                "{option} needs the name of a file; standard output has the figures"
            )));
        }
        let file = OutputFile::create(&place)?;
        Ok(Self { place, file })
    }

    /// Writes all of it, and puts the file in place.
    pub(crate) fn write(mut self, text: &str) -> Result<(), Failure> {
        self.file
            .write_all(text.as_bytes())
            .map_err(|error| self.place.failure(error))?;
        self.file.finish()
    }
}

#[derive(Debug)]
enum Sink {
    Stdout(io::Stdout),
    /// A pipe or a device, which cannot be put in place later, nor replaced.
    Special(File),
    Staged(Staged),
}

impl Sink {
    fn open(path: &Path) -> Result<Self, Failure> {
        // Through links, so that the file a link names is replaced and not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let opened = match fs::metadata(&target) {
            Ok(metadata) if metadata.is_dir() => {
                let message = format!("{} is a folder; name a file", path.display());
                return Err(Failure::Input(message));
            }
            Ok(metadata) if !metadata.is_file() => {
                File::options().write(true).open(&target).map(Self::Special)
            }
            _ => Staged::create(target).map(Self::Staged),
        };
        opened.map_err(|error| Failure::output(path, error))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.write_all(bytes).and_then(|()| stdout.flush()),
            Self::Special(file) => file.write_all(bytes),
            Self::Staged(staged) => staged.file.write_all(bytes),
        }
    }

    fn publish(&self) -> io::Result<()> {
        match self {
            Self::Stdout(_) | Self::Special(_) => Ok(()),
            Self::Staged(staged) => staged.publish(),
        }
    }
}

/// A file that grows beside its target until it takes the target's place.
#[derive(Debug)]
struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Staged {
    fn create(target: PathBuf) -> io::Result<Self> {
        let name = target
            .file_name()
            .ok_or(io::ErrorKind::InvalidInput)?
            .to_string_lossy();
        let path = target.with_file_name(format!(".{name}.partial-{}", process::id()));
        let file = File::create_new(&path)?;
        Ok(Self { file, path, target })
    }

    fn publish(&self) -> io::Result<()> {
        // Some file systems say only now that there was no space.
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a success it has another name; after a failure nobody is left to hear of a second one.
        let _ = fs::remove_file(&self.path);
    }
}
