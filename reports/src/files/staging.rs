//! The staging folder that files grow in before they are moved into place.

use super::{ALL, FilesError, INCOMPLETE, REPORT, SUMMARY};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Staging folders are called this and the process that writes to them.
const PREFIX: &str = ".partial-";

/// A folder inside the target, removed when it is dropped, together with those
/// folders above it that were created for it.
#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    /// Folders that did not exist before, innermost first.
    created: Vec<PathBuf>,
}

impl Staging {
    pub(super) fn create(target: &Path) -> Result<Self, FilesError> {
        if target.is_dir() {
            refuse_what_is_not_ours(target)?;
        } else if target.exists() {
            return Err(FilesError::NotAFolder {
                path: target.to_owned(),
            });
        }
        let created = missing_folders(target);
        let folder = target.join(format!("{PREFIX}{}", std::process::id()));
        // From here on, dropping the value removes whatever was created.
        let mut staging = Self {
            target: target.to_owned(),
            folder,
            created,
        };
        if let Err(error) = fs::create_dir_all(target) {
            return Err(FilesError::new(target, error));
        }
        if let Err(error) = fs::create_dir(&staging.folder) {
            if error.kind() == io::ErrorKind::AlreadyExists {
                // It belongs to another run of this process, which removes it.
                staging.folder = PathBuf::new();
                return Err(FilesError::Busy {
                    path: target.to_owned(),
                });
            }
            return Err(FilesError::new(&staging.folder, error));
        }
        Ok(staging)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Moves the files into the target. The summaries go first and come last,
    /// so that at no time a summary stands beside records of another run. What
    /// another run has that this one has not goes as well.
    pub(super) fn publish(mut self) -> Result<(), FilesError> {
        for name in [REPORT, SUMMARY] {
            remove_if_there(&self.target.join(name))?;
        }
        for name in ALL {
            let (source, target) = (self.folder.join(name), self.target.join(name));
            if source.exists() {
                fs::rename(source, &target).map_err(|error| FilesError::new(&target, error))?;
            } else {
                remove_if_there(&target)?;
            }
        }
        self.created.clear();
        Ok(())
    }

    /// Leaves what there is in a folder whose name says that it is not whole, and says which.
    pub(super) fn keep(mut self) -> PathBuf {
        let incomplete = self.target.join(INCOMPLETE);
        // Nothing is there: a folder that holds one is refused at the beginning.
        let kept = match fs::rename(&self.folder, &incomplete) {
            Ok(()) => incomplete,
            Err(_) => self.folder.clone(),
        };
        self.folder = PathBuf::new();
        self.created.clear();
        kept
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            // Nobody is left to hear of an error, and the next run cleans up.
            let _ = fs::remove_dir_all(&self.folder);
        }
        for folder in &self.created {
            // Only goes if it is empty, which is what is wanted.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The target and the folders above it that do not exist, innermost first.
fn missing_folders(target: &Path) -> Vec<PathBuf> {
    target
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .map(Path::to_owned)
        .collect()
}

fn remove_if_there(path: &Path) -> Result<(), FilesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FilesError::new(path, error)),
        _ => Ok(()),
    }
}

/// Refuses a folder that holds anything but the files of a run, and removes
/// what a run left that was killed.
fn refuse_what_is_not_ours(target: &Path) -> Result<(), FilesError> {
    let entries = fs::read_dir(target).map_err(|error| FilesError::new(target, error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| FilesError::new(target, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let is_ours = |name: &str| name == REPORT || ALL.contains(&name);
    let foreign = |name: &&String| !is_ours(name) && process_of(name).is_none();
    if let Some(found) = names.iter().find(foreign) {
        return Err(FilesError::NotOurs {
            path: target.to_owned(),
            found: found.clone(),
        });
    }
    for name in names
        .iter()
        .filter(|name| process_of(name).is_some_and(is_gone))
    {
        let folder = target.join(name);
        fs::remove_dir_all(&folder).map_err(|error| FilesError::new(&folder, error))?;
    }
    Ok(())
}

/// The process that a staging folder belongs to, by its name.
fn process_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Whether a process has surely ended. Without `/proc` nothing is sure, and
/// the folder stays.
fn is_gone(process: u32) -> bool {
    let processes = Path::new("/proc");
    processes.join("self").exists() && !processes.join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::super::REQUESTS;
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let target = tempfile::tempdir().unwrap();
        // No process has this number: Linux gives out at most 2^22.
        let left = target.path().join(".partial-4294967295");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(REQUESTS), "half a row").unwrap();
        drop(Staging::create(target.path()).unwrap());
        assert_eq!(left.exists(), !Path::new("/proc/self").exists());
    }

    #[test]
    fn a_folder_that_was_there_stays() {
        let target = tempfile::tempdir().unwrap();
        drop(Staging::create(target.path()).unwrap());
        assert!(target.path().exists());
    }

    #[cfg(unix)]
    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_read_only_folder_is_not_permitted() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let read_only = fs::Permissions::from_mode(0o555);
        fs::set_permissions(parent.path(), read_only).unwrap();
        if fs::write(parent.path().join("probe"), "").is_ok() {
            eprintln!("SKIPPED: this user may write to read-only folders");
            return;
        }
        let error = Staging::create(&parent.path().join("run")).unwrap_err();
        assert!(
            matches!(error, FilesError::NotPermitted { .. }),
            "{error:?}"
        );
    }
}
