//! Where the records of runs go: one run to the folder that is named, several
//! to folders in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::failure::Failure;

/// The folder of a run. A scenario is named if there are several, and so are a
/// deployment and a seed.
pub(crate) fn of_run(
    out: &Path,
    scenario: Option<&str>,
    deployment: Option<&str>,
    seed: Option<u64>,
) -> PathBuf {
    let mut folder = out.to_owned();
    folder.extend(scenario);
    folder.extend(deployment);
    folder.extend(seed.map(|seed| format!("seed-{seed}")));
    folder
}

/// The names of scenarios, or whatever `kind` says, become folders: none may be
/// that of another, or lead elsewhere.
pub(crate) fn check_names<'a>(
    kind: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for name in names {
        let mut components = Path::new(name).components();
        let (first, second) = (components.next(), components.next());
        if !matches!((first, second), (Some(Component::Normal(_)), None)) {
            return Err(Failure::Input(format!(
                "a {kind} is called `{name}`, which cannot be the name of a folder in --out; \
                 give it another `name`"
            )));
        }
        if !seen.insert(name) {
            return Err(Failure::Input(format!(
                "two {kind}s are called `{name}`, so --out would need one folder for both; \
                 give one of them another `name`"
            )));
        }
    }
    Ok(())
}

/// Folders that did not exist before the runs, which share them. Each run
/// removes what is its own if it fails; the last to go removes what none of
/// them filled.
#[derive(Debug)]
pub(crate) struct Unfilled(BTreeSet<PathBuf>);

impl Unfilled {
    pub(crate) fn among<'a>(folders: impl Iterator<Item = &'a Path>) -> Self {
        let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let missing = folders.flat_map(|folder| folder.ancestors().take_while(is_missing));
        Self(missing.map(Path::to_owned).collect())
    }
}

impl Drop for Unfilled {
    fn drop(&mut self) {
        // A folder comes before those in it, so backwards is inside out.
        for folder in self.0.iter().rev() {
            // Only goes if it is empty, which is what is wanted.
            let _ = fs::remove_dir(folder);
        }
    }
}
