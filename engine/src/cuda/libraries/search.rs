//! Where the libraries of CUDA may be, in the order in which they are looked for.
//!
//! A machine with a GPU often has no toolkit, and has the libraries all the same:
//! PyTorch's wheels bring them. So after what the user names, what the loader finds
//! and the toolkit's own folders, the Python environments at hand are looked through.
//! The order is a function of the environment and a view of the files, so that it is tested without either.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The variable that names a folder to look in before all others, or several, as `PATH` does.
pub const VARIABLE: &str = "FORESAIL_CUDA_PATH";

/// The packages of PyPI that bring libraries: each is a folder under `nvidia` with a `lib` in it.
/// `cu13` is the one folder of all packages since CUDA 13.
const WHEELS: [&str; 5] = ["cu13", "cuda_nvrtc", "cublas", "cudnn", "nccl"];

/// Where containers and distributions put the driver's library when the loader does not know it.
const DRIVER_FOLDERS: [&str; 5] = [
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
];

/// What decides where is looked.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// [`VARIABLE`].
    pub named: Option<OsString>,
    /// `VIRTUAL_ENV`, of an active virtual environment.
    pub virtual_environment: Option<PathBuf>,
    /// `CONDA_PREFIX`, of an active environment of Conda.
    pub conda_prefix: Option<PathBuf>,
    /// `PATH`, on which `python3` is.
    pub path: Option<OsString>,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let folder = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            named: folder(VARIABLE),
            virtual_environment: folder("VIRTUAL_ENV").map(PathBuf::from),
            conda_prefix: folder("CONDA_PREFIX").map(PathBuf::from),
            path: folder("PATH"),
        }
    }
}

/// A view of the files of a machine.
pub trait Files {
    /// The names in a folder; none if it is no folder.
    fn names(&self, folder: &Path) -> Vec<String>;

    /// The same place without symbolic links, if there is one.
    fn resolved(&self, path: &Path) -> Option<PathBuf>;

    /// Whether there is anything.
    fn exists(&self, path: &Path) -> bool {
        self.resolved(path).is_some()
    }
}

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn names(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    fn resolved(&self, path: &Path) -> Option<PathBuf> {
        fs::canonicalize(path).ok()
    }
}

/// Somewhere to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Wherever the system's loader looks: `LD_LIBRARY_PATH`, its cache, the system's folders.
    Loader,
    /// One folder.
    Folder(PathBuf),
}

/// Where the toolkit's libraries may be, those first that count most. Folders that do not exist are left out.
#[must_use]
pub fn places(environment: &Environment, files: &dyn Files) -> Vec<Place> {
    let mut found = Found::new(files);
    for root in split(environment.named.as_ref()) {
        found.add_root(&root);
    }
    found.places.push(Place::Loader);
    for toolkit in numbered(files, Path::new("/usr/local"), "cuda") {
        found.add(toolkit.join("lib64"));
    }
    for root in [&environment.virtual_environment, &environment.conda_prefix]
        .into_iter()
        .flatten()
    {
        found.add_environment(root);
    }
    for folder in split(environment.path.as_ref()) {
        found.add_python(&folder);
    }
    let opt = Path::new("/opt");
    for name in sorted(files.names(opt)) {
        found.add_environment(&opt.join(name).join(".venv"));
    }
    found.places
}

/// Where the driver's library may be.
#[must_use]
pub fn driver_places(environment: &Environment, files: &dyn Files) -> Vec<Place> {
    let mut found = Found::new(files);
    for root in split(environment.named.as_ref()) {
        found.add(root);
    }
    found.places.push(Place::Loader);
    for folder in DRIVER_FOLDERS {
        found.add(PathBuf::from(folder));
    }
    found.places
}

/// Places so far, each once.
struct Found<'a> {
    files: &'a dyn Files,
    seen: HashSet<PathBuf>,
    places: Vec<Place>,
}

impl<'a> Found<'a> {
    fn new(files: &'a dyn Files) -> Self {
        Self {
            files,
            seen: HashSet::new(),
            places: Vec::new(),
        }
    }

    fn add(&mut self, folder: PathBuf) {
        if let Some(resolved) = self.files.resolved(&folder)
            && self.seen.insert(resolved)
        {
            self.places.push(Place::Folder(folder));
        }
    }

    /// What a user may mean by a folder: the libraries' own, a toolkit's, an environment's, or that of its packages.
    fn add_root(&mut self, root: &Path) {
        self.add(root.to_owned());
        self.add(root.join("lib64"));
        self.add(root.join("lib"));
        self.add_packages(root);
        self.add_environment(root);
    }

    fn add_packages(&mut self, packages: &Path) {
        for wheel in WHEELS {
            self.add(packages.join("nvidia").join(wheel).join("lib"));
        }
    }

    /// The packages of an environment of Python.
    fn add_environment(&mut self, root: &Path) {
        for library in ["lib", "local/lib"] {
            for python in numbered(self.files, &root.join(library), "python3") {
                self.add_packages(&python.join("site-packages"));
                self.add_packages(&python.join("dist-packages"));
            }
        }
    }

    /// The packages of the `python3` of a folder of the `PATH`, which is in `bin` of its environment:
    /// by its own place, which is that of a virtual environment, and by where its link leads.
    fn add_python(&mut self, folder: &Path) {
        let python = folder.join("python3");
        let resolved = self.files.resolved(&python);
        for place in resolved
            .is_some()
            .then_some(python)
            .into_iter()
            .chain(resolved)
        {
            if let Some(root) = place.parent().and_then(Path::parent) {
                self.add_environment(root);
            }
        }
    }
}

fn split(paths: Option<&OsString>) -> Vec<PathBuf> {
    paths.map_or_else(Vec::new, |paths| env::split_paths(paths).collect())
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// Folders whose names begin so and end in a version or in nothing: that without one first, as it is what
/// the machine's owner chose, then the newest first, by numbers: 3.12 is after 3.9.
fn numbered(files: &dyn Files, folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(Vec<u32>, String)> = files
        .names(folder)
        .into_iter()
        .filter_map(|name| Some((version(name.strip_prefix(beginning)?)?, name)))
        .collect();
    versions.sort_by(|(a, _), (b, _)| a.is_empty().cmp(&b.is_empty()).then(a.cmp(b)).reverse());
    versions
        .into_iter()
        .map(|(_, name)| folder.join(name))
        .collect()
}

/// `-13.0` or `.12`, as numbers; nothing at all is a version of no numbers.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split(['-', '.'])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Folders, and links from one place to another.
    #[derive(Default)]
    struct View {
        paths: Vec<PathBuf>,
        links: BTreeMap<PathBuf, PathBuf>,
    }

    impl View {
        fn of(paths: &[&str]) -> Self {
            Self {
                paths: paths.iter().map(PathBuf::from).collect(),
                links: BTreeMap::new(),
            }
        }

        fn linking(mut self, from: &str, to: &str) -> Self {
            self.links.insert(from.into(), to.into());
            self
        }
    }

    impl Files for View {
        fn names(&self, folder: &Path) -> Vec<String> {
            let under = self
                .paths
                .iter()
                .filter_map(|path| path.strip_prefix(folder).ok());
            let first = under.filter_map(|rest| Some(rest.iter().next()?.to_str()?.to_owned()));
            let names: HashSet<String> = first.collect();
            names.into_iter().collect()
        }

        fn resolved(&self, path: &Path) -> Option<PathBuf> {
            let links = self.links.iter();
            let mut target =
                links.filter_map(|(from, to)| Some(to.join(path.strip_prefix(from).ok()?)));
            let path = target.next_back().unwrap_or_else(|| path.to_owned());
            let path: PathBuf = path.components().collect();
            self.paths
                .iter()
                .any(|there| there.starts_with(&path))
                .then_some(path)
        }
    }

    fn listed(environment: &Environment, view: &View) -> Vec<String> {
        let text = |place| match place {
            Place::Loader => "the loader".to_owned(),
            Place::Folder(folder) => folder.display().to_string(),
        };
        places(environment, view).into_iter().map(text).collect()
    }

    #[test]
    fn a_bare_machine_has_the_loader_alone() {
        assert_eq!(
            listed(&Environment::default(), &View::default()),
            ["the loader"]
        );
    }

    #[test]
    fn what_is_named_comes_before_the_loader_then_toolkits_then_environments() {
        let view = View::of(&[
            "/named/lib",
            "/usr/local/cuda/lib64",
            "/usr/local/cuda-9.2/lib64",
            "/usr/local/cuda-13.0/lib64",
            "/usr/local/cuda-samples/lib64",
            "/venv/lib/python3.12/site-packages/nvidia/cu13/lib",
            "/venv/lib/python3.12/site-packages/nvidia/nccl/lib",
            "/conda/lib/python3.11/site-packages/nvidia/cu13/lib",
            "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cu13/lib",
        ]);
        let environment = Environment {
            named: Some("/named".into()),
            virtual_environment: Some("/venv".into()),
            conda_prefix: Some("/conda".into()),
            path: None,
        };
        assert_eq!(
            listed(&environment, &view),
            [
                "/named",
                "/named/lib",
                "the loader",
                "/usr/local/cuda/lib64",
                "/usr/local/cuda-13.0/lib64",
                "/usr/local/cuda-9.2/lib64",
                "/venv/lib/python3.12/site-packages/nvidia/cu13/lib",
                "/venv/lib/python3.12/site-packages/nvidia/nccl/lib",
                "/conda/lib/python3.11/site-packages/nvidia/cu13/lib",
                "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cu13/lib",
            ]
        );
    }

    #[test]
    fn several_folders_can_be_named_and_each_can_be_an_environment_or_its_packages() {
        let view = View::of(&[
            "/a/lib/python3.13/site-packages/nvidia/cu13/lib",
            "/b/nvidia/cuda_nvrtc/lib",
        ]);
        let environment = Environment {
            named: Some("/a:/missing:/b".into()),
            ..Environment::default()
        };
        assert_eq!(
            listed(&environment, &view),
            [
                "/a",
                "/a/lib",
                "/a/lib/python3.13/site-packages/nvidia/cu13/lib",
                "/b",
                "/b/nvidia/cuda_nvrtc/lib",
                "the loader",
            ]
        );
    }

    #[test]
    fn the_python_of_the_path_is_followed_from_where_it_is_and_from_where_it_leads() {
        let view = View::of(&[
            "/venv/bin/python3",
            "/venv/lib/python3.12/site-packages/nvidia/cu13/lib",
            "/usr/bin/python3.12",
            "/usr/lib/python3.12/dist-packages/nvidia/nccl/lib",
            "/usr/local/lib/python3.9/dist-packages/nvidia/cu13/lib",
            "/usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib",
        ])
        .linking("/venv/bin/python3", "/usr/bin/python3.12");
        let environment = Environment {
            path: Some("/nothing:/venv/bin".into()),
            ..Environment::default()
        };
        assert_eq!(
            listed(&environment, &view),
            [
                "the loader",
                "/venv/lib/python3.12/site-packages/nvidia/cu13/lib",
                "/usr/lib/python3.12/dist-packages/nvidia/nccl/lib",
                "/usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib",
                "/usr/local/lib/python3.9/dist-packages/nvidia/cu13/lib",
            ]
        );
    }

    #[test]
    fn one_folder_under_two_names_is_looked_at_once() {
        let view = View::of(&["/usr/local/cuda-13.0/lib64", "/usr/local/cuda/lib64"])
            .linking("/usr/local/cuda", "/usr/local/cuda-13.0");
        assert_eq!(
            listed(&Environment::default(), &view),
            ["the loader", "/usr/local/cuda/lib64"]
        );
    }

    #[test]
    fn the_driver_is_the_systems_even_where_a_toolkit_has_a_stub_of_it() {
        let view = View::of(&["/usr/local/cuda/lib64/stubs", "/usr/local/nvidia/lib64"]);
        assert_eq!(
            driver_places(&Environment::default(), &view),
            [
                Place::Loader,
                Place::Folder("/usr/local/nvidia/lib64".into())
            ]
        );
    }
}
