//! Kernels that were compiled before, on disk.
//!
//! A file's name is a hash of everything that its contents follow from, so that nothing
//! in the cache is ever wrong, only not used any more. It is written under another name and then renamed, and
//! carries a checksum: a file that was cut off is compiled again. A folder that cannot be written
//! costs the time of compiling at every start, and nothing else.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that names the folder of what foresail keeps from one run to the next.
pub const VARIABLE: &str = "FORESAIL_CACHE";

/// What a file begins with. The number changes with the format.
const HEADING: &[u8] = b"foresail cubin 1\n";

/// The folder for what is kept from one run to the next, if there is anywhere to put one.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    folder_of(|name| env::var_os(name).filter(|value| !value.is_empty()))
}

/// The same, for any environment: `$FORESAIL_CACHE`, or where the XDG Base Directory Specification puts caches.
fn folder_of(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(folder) = variable(VARIABLE) {
        return Some(folder.into());
    }
    let caches = match variable("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(variable("HOME")?).join(".cache"),
    };
    // The specification has relative paths ignored.
    caches.is_absolute().then(|| caches.join("foresail"))
}

/// What a cubin follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these parts, in this order.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = blake3::Hasher::new();
        for part in parts {
            // With its length, so that no two lists of parts run into one.
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash.finalize().into())
    }

    fn file(self) -> String {
        format!("{}.cubin", blake3::Hash::from(self.0).to_hex())
    }
}

/// A folder of cubins, or none.
#[derive(Clone, Debug, Default)]
pub struct CubinCache {
    folder: Option<PathBuf>,
}

impl CubinCache {
    /// The cubins under a folder for everything that is kept.
    #[must_use]
    pub fn under(folder: Option<&Path>) -> Self {
        Self {
            folder: folder.map(|folder| folder.join("cubins")),
        }
    }

    /// What was stored, if it was and is whole.
    #[must_use]
    pub fn load(&self, key: Key) -> Option<Vec<u8>> {
        let file = fs::read(self.folder.as_ref()?.join(key.file())).ok()?;
        let rest = file.strip_prefix(HEADING)?;
        let (checksum, cubin) = rest.split_first_chunk::<32>()?;
        (blake3::hash(cubin) == blake3::Hash::from(*checksum)).then(|| cubin.to_vec())
    }

    /// Stores it; without a folder, does nothing.
    ///
    /// # Errors
    /// If it cannot be written. It is compiled again next time then.
    pub fn store(&self, key: Key, cubin: &[u8]) -> io::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let checksum = blake3::hash(cubin);
        let file = [HEADING, checksum.as_bytes(), cubin].concat();
        write_whole(&folder.join(key.file()), &file)
    }
}

/// Writes a file so that it is there as a whole or, whatever happens meanwhile, as it was before.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Other processes and threads may be about to write the same.
    let serial = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let unfinished = folder.join(format!(".{}.{serial}.unfinished", std::process::id()));
    let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, CubinCache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = CubinCache::under(Some(folder.path()));
        (folder, cache)
    }

    fn only_file(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder.join("cubins")).expect("it was made");
        let file = files.next().expect("one").expect("readable").path();
        assert!(files.next().is_none(), "nothing unfinished stays behind");
        file
    }

    #[test]
    fn what_is_stored_is_loaded_by_its_key_alone() {
        let (folder, cache) = cache();
        let key = Key::of(&["source", "sm_90a"]);
        assert_eq!(cache.load(key), None);
        cache.store(key, b"machine code").expect("stored");
        assert_eq!(cache.load(key).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(cache.load(Key::of(&["source", "sm_80"])), None);
        only_file(folder.path());
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert_ne!(Key::of(&["a"]), Key::of(&["a", ""]));
    }

    #[test]
    fn a_file_that_is_cut_off_or_changed_is_not_used() {
        let (folder, cache) = cache();
        let key = Key::of(&["source"]);
        cache.store(key, b"machine code").expect("stored");
        let file = only_file(folder.path());
        let whole = fs::read(&file).expect("it is there");
        for bytes in [0, 5, HEADING.len(), HEADING.len() + 32, whole.len() - 1] {
            fs::write(&file, &whole[..bytes]).expect("written");
            assert_eq!(cache.load(key), None, "{bytes} bytes");
        }
        let mut changed = whole.clone();
        *changed.last_mut().expect("it is not empty") ^= 1;
        fs::write(&file, &changed).expect("written");
        assert_eq!(cache.load(key), None);
        cache.store(key, b"machine code").expect("stored again");
        assert_eq!(fs::read(&file).expect("it is there"), whole);
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_nothing_fails() {
        let cache = CubinCache::under(None);
        let key = Key::of(&["source"]);
        cache.store(key, b"machine code").expect("nothing to do");
        assert_eq!(cache.load(key), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("cubins"), "a file").expect("written");
        let cache = CubinCache::under(Some(folder.path()));
        assert!(cache.store(Key::of(&["source"]), b"machine code").is_err());
    }

    #[test]
    fn the_folder_is_the_one_named_or_that_of_caches() {
        let of = |variables: &[(&str, &str)]| {
            folder_of(|name| {
                let (_, value) = variables.iter().find(|(other, _)| *other == name)?;
                Some(OsString::from(value))
            })
        };
        let path = |text: &str| Some(PathBuf::from(text));
        let (named, xdg, home) = ((VARIABLE, "kept"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(of(&[named, xdg, home]), path("kept"));
        assert_eq!(of(&[xdg, home]), path("/x/foresail"));
        assert_eq!(of(&[home]), path("/h/.cache/foresail"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "x"), home]), None);
        assert_eq!(of(&[]), None);
    }
}
