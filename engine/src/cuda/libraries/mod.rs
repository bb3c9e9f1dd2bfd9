//! The libraries of CUDA: found when the program runs, so that one program runs with them and without.
//!
//! Each is loaded when it is first asked for, from the first of its [`search::places`] that
//! has it, and stays loaded until the process ends. What is missing is an error
//! of one line that says what, where it was looked for, and what to do.

#![allow(
    unsafe_code,
    reason = "opening a shared library runs the code that it starts with"
)]

pub mod search;
pub(crate) mod tables;

use super::gpu::GpuError;
use libloading::Library;
use search::{Disk, Environment, Files, Place};
use std::ffi::c_int;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tables::{CublasLt, Driver, Nccl, Nvrtc};

/// The CUDA version whose libraries are used: their names end in it.
const CUDA: u32 = 13;

/// Which library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The driver.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Products of large matrices.
    CublasLt,
    /// Exchanges between several GPUs.
    Nccl,
}

impl Kind {
    /// All, in the order in which they are needed.
    pub const ALL: [Self; 4] = [Self::Driver, Self::Nvrtc, Self::CublasLt, Self::Nccl];

    /// What users call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "CUDA driver",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cuBLASLt",
            Self::Nccl => "NCCL",
        }
    }

    /// Its file. The number at its end is that of its binary interface.
    #[must_use]
    pub fn file(self) -> String {
        match self {
            Self::Driver => "libcuda.so.1".to_owned(),
            Self::Nvrtc => format!("libnvrtc.so.{CUDA}"),
            Self::CublasLt => format!("libcublasLt.so.{CUDA}"),
            Self::Nccl => "libnccl.so.2".to_owned(),
        }
    }

    /// What to do about it when it is missing.
    fn remedy(self) -> String {
        let package = match self {
            Self::Driver => {
                return "the CUDA backend needs an NVIDIA GPU and its driver, 580 or later"
                    .to_owned();
            }
            Self::Nvrtc => "nvidia-cuda-nvrtc",
            Self::CublasLt => "nvidia-cublas",
            Self::Nccl => "nvidia-nccl-cu13",
        };
        let toolkit = match self {
            Self::Nccl => "NCCL 2",
            _ => "the CUDA 13 toolkit",
        };
        format!(
            "install {toolkit} or the Python package {package}, or name its folder in {}",
            search::VARIABLE
        )
    }
}

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub kind: Kind,
    /// Its file; its bare name where the loader found it and does not say where.
    pub path: PathBuf,
    /// Its version, in its own words.
    pub version: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            path,
            version,
        } = self;
        write!(f, "{} {version}: {}", kind.name(), path.display())
    }
}

/// A library that was not found, or is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub kind: Kind,
    /// Where it was looked for, besides where the loader looks.
    pub folders: Vec<PathBuf>,
    /// What was found there and why it could not be used.
    pub unusable: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, file) = (self.kind.name(), self.kind.file());
        if self.unusable.is_empty() {
            write!(f, "no {name}: {file} was not found")?;
            if !self.folders.is_empty() {
                let folders = self
                    .folders
                    .iter()
                    .map(|folder| folder.display().to_string());
                let folders: Vec<_> = folders.collect();
                write!(f, " by the loader, nor in {}", folders.join(", "))?;
            }
        } else {
            write!(f, "no usable {name}: {}", self.unusable.join("; "))?;
        }
        write!(f, "; {}", self.kind.remedy())
    }
}

impl From<Missing> for GpuError {
    fn from(missing: Missing) -> Self {
        Self::Library(missing.to_string())
    }
}

/// What there is of the libraries: one line for each.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Those found.
    pub found: Vec<Found>,
    /// Those not.
    pub missing: Vec<Missing>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.found {
            writeln!(f, "{found}")?;
        }
        for missing in &self.missing {
            writeln!(f, "{missing}")?;
        }
        Ok(())
    }
}

/// One library: its functions, and where they are from.
type Loaded<T> = Result<(T, Found), Missing>;

/// The libraries of this process, each loaded when it is first asked for.
#[derive(Debug, Default)]
pub struct Libraries {
    driver: OnceLock<Loaded<Driver>>,
    nvrtc: OnceLock<Loaded<Nvrtc>>,
    cublas_lt: OnceLock<Loaded<CublasLt>>,
    nccl: OnceLock<Loaded<Nccl>>,
}

/// Those of this process.
#[must_use]
pub fn libraries() -> &'static Libraries {
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    LIBRARIES.get_or_init(Libraries::default)
}

impl Libraries {
    /// The driver.
    pub(crate) fn driver(&self) -> Result<&Driver, GpuError> {
        functions(self.driver.get_or_init(|| {
            load(Kind::Driver, find_driver, |driver| {
                format!("for CUDA {}", cuda_version(driver.cuDriverGetVersion))
            })
        }))
    }

    /// The compiler.
    pub(crate) fn nvrtc(&self) -> Result<&Nvrtc, GpuError> {
        functions(self.nvrtc.get_or_init(|| {
            load(
                Kind::Nvrtc,
                |library| Nvrtc::find(library).map_err(lacking),
                |nvrtc| {
                    let (major, minor) = nvrtc_version(nvrtc);
                    format!("{major}.{minor}")
                },
            )
        }))
    }

    /// The products.
    pub(crate) fn cublas_lt(&self) -> Result<&CublasLt, GpuError> {
        functions(self.cublas_lt.get_or_init(|| {
            load(
                Kind::CublasLt,
                |library| CublasLt::find(library).map_err(lacking),
                |cublas_lt| {
                    // SAFETY: it only returns a constant.
                    let version = unsafe { (cublas_lt.cublasLtGetVersion)() };
                    format!(
                        "{}.{}.{}",
                        version / 10_000,
                        version / 100 % 100,
                        version % 100
                    )
                },
            )
        }))
    }

    /// The exchanges.
    pub(crate) fn nccl(&self) -> Result<&Nccl, GpuError> {
        functions(self.nccl.get_or_init(|| {
            load(
                Kind::Nccl,
                |library| Nccl::find(library).map_err(lacking),
                |nccl| {
                    let version = number(|at| {
                        // SAFETY: it writes one number.
                        unsafe { (nccl.ncclGetVersion)(at) }
                    });
                    format!(
                        "{}.{}.{}",
                        version / 10_000,
                        version / 100 % 100,
                        version % 100
                    )
                },
            )
        }))
    }

    /// Whether the compiler is there; without a GPU it can compile too.
    ///
    /// # Errors
    /// What is missing.
    pub fn compiler(&self) -> Result<&Found, GpuError> {
        self.nvrtc()?;
        let outcome = provenance(&self.nvrtc).expect("it was just asked for");
        outcome.map_err(|missing| missing.clone().into())
    }

    /// Looks for all, and says what there is.
    #[must_use]
    pub fn report(&self) -> Report {
        // What is missing is in the report.
        let _ = (self.driver(), self.nvrtc(), self.cublas_lt(), self.nccl());
        let all = [
            provenance(&self.driver),
            provenance(&self.nvrtc),
            provenance(&self.cublas_lt),
            provenance(&self.nccl),
        ];
        let mut report = Report::default();
        for outcome in all.into_iter().flatten() {
            match outcome {
                Ok(found) => report.found.push(found.clone()),
                Err(missing) => report.missing.push(missing.clone()),
            }
        }
        report
    }
}

/// The functions of a driver that is new enough. One that is not may lack some, and that it is old is the better reason.
fn find_driver(library: &Library) -> Result<Driver, String> {
    // SAFETY: the function has this type in every version of the driver.
    let version = unsafe { library.get::<Version>(b"cuDriverGetVersion\0") };
    let version = cuda_version(*version.map_err(|_| lacking("cuDriverGetVersion"))?);
    if version.major < CUDA {
        return Err(format!("is for CUDA {version}, and CUDA {CUDA} is used"));
    }
    Driver::find(library).map_err(lacking)
}

fn lacking(function: &'static str) -> String {
    format!("is too old or another library, as it has no {function}")
}

/// `cuDriverGetVersion`.
type Version = unsafe extern "C" fn(*mut c_int) -> u32;

/// A version of CUDA.
struct CudaVersion {
    major: u32,
    minor: u32,
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The version that a driver is for.
fn cuda_version(of_driver: Version) -> CudaVersion {
    // SAFETY: it writes one number, and may be called before anything else.
    let version = number(|at| unsafe { of_driver(at) }).unsigned_abs();
    CudaVersion {
        major: version / 1000,
        minor: version % 1000 / 10,
    }
}

fn functions<T>(loaded: &Loaded<T>) -> Result<&T, GpuError> {
    match loaded {
        Ok((functions, _)) => Ok(functions),
        Err(missing) => Err(missing.clone().into()),
    }
}

fn provenance<T>(loaded: &OnceLock<Loaded<T>>) -> Option<Result<&Found, &Missing>> {
    Some(loaded.get()?.as_ref().map(|(_, found)| found))
}

/// The version of the compiler.
pub(crate) fn nvrtc_version(nvrtc: &Nvrtc) -> (c_int, c_int) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers; where it fails, they stay 0.
    let _ = unsafe { (nvrtc.nvrtcVersion)(&raw mut major, &raw mut minor) };
    (major, minor)
}

/// A number that a function writes; 0 where it fails.
fn number(call: impl FnOnce(*mut c_int) -> u32) -> c_int {
    let mut number = 0;
    let _ = call(&raw mut number);
    number
}

/// Loads a library from the first place that has it.
fn load<T>(
    kind: Kind,
    find: fn(&Library) -> Result<T, String>,
    version: impl FnOnce(&T) -> String,
) -> Loaded<T> {
    let environment = Environment::of_process();
    let places = match kind {
        Kind::Driver => search::driver_places(&environment, &Disk),
        _ => search::places(&environment, &Disk),
    };
    let mut missing = Missing {
        kind,
        folders: Vec::new(),
        unusable: Vec::new(),
    };
    for place in places {
        let (library, path) = match open(kind, &place) {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                missing.folders.extend(folder(place));
                continue;
            }
            Err(why) => {
                missing.unusable.push(why);
                continue;
            }
        };
        // Never unloaded: functions of it are called until the process ends.
        let library: &'static Library = Box::leak(Box::new(library));
        match find(library) {
            Ok(functions) => {
                let version = version(&functions);
                return Ok((
                    functions,
                    Found {
                        kind,
                        path,
                        version,
                    },
                ));
            }
            Err(why) => missing.unusable.push(format!("{} {why}", path.display())),
        }
    }
    Err(missing)
}

fn folder(place: Place) -> Option<PathBuf> {
    match place {
        Place::Loader => None,
        Place::Folder(folder) => Some(folder),
    }
}

/// Opens a library at a place, if it is there.
fn open(kind: Kind, place: &Place) -> Result<Option<(Library, PathBuf)>, String> {
    let path = match place {
        // Whether it is there, the loader only says by opening it.
        Place::Loader => {
            let file = PathBuf::from(kind.file());
            return Ok(dlopen(&file).ok().map(|library| (library, file)));
        }
        Place::Folder(folder) => folder.join(kind.file()),
    };
    if !Disk.exists(&path) {
        return Ok(None);
    }
    if kind == Kind::Nvrtc {
        open_builtins(&path);
    }
    let why = |error: libloading::Error| format!("{}: {error}", path.display());
    dlopen(&path)
        .map_err(why)
        .map(|library| Some((library, path.clone())))
}

/// NVRTC opens a second library by its bare name when it compiles; that one is found if it is open already.
fn open_builtins(nvrtc: &Path) {
    let Some(folder) = nvrtc.parent() else { return };
    let names = Disk.names(folder).into_iter();
    let builtins = names.filter(|name| name.starts_with("libnvrtc-builtins.so."));
    for library in builtins.filter_map(|name| dlopen(&folder.join(name)).ok()) {
        Box::leak(Box::new(library));
    }
}

/// Opens a library so that those opened later find it by its name.
#[cfg(unix)]
fn dlopen(path: &Path) -> Result<Library, libloading::Error> {
    use libloading::os::unix;
    // SAFETY: these are NVIDIA's libraries; their initialisers only set themselves up.
    unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_GLOBAL) }
        .map(Library::from)
}

#[cfg(not(unix))]
fn dlopen(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: these are NVIDIA's libraries; their initialisers only set themselves up.
    unsafe { Library::new(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_one_line_that_says_what_where_and_what_to_do() {
        let missing = |kind, folders: &[&str], unusable: &[&str]| Missing {
            kind,
            folders: folders.iter().map(PathBuf::from).collect(),
            unusable: unusable.iter().map(ToString::to_string).collect(),
        };
        let driver = missing(Kind::Driver, &[], &[]).to_string();
        assert_eq!(
            driver,
            "no CUDA driver: libcuda.so.1 was not found; the CUDA backend needs an NVIDIA GPU and its driver, 580 or later"
        );
        let nvrtc = missing(Kind::Nvrtc, &["/a", "/b"], &[]).to_string();
        assert_eq!(
            nvrtc,
            "no NVRTC: libnvrtc.so.13 was not found by the loader, nor in /a, /b; install the CUDA 13 toolkit \
             or the Python package nvidia-cuda-nvrtc, or name its folder in FORESAIL_CUDA_PATH"
        );
        let nccl = missing(Kind::Nccl, &["/a"], &["/b/libnccl.so.2: not an ELF file"]).to_string();
        assert!(
            nccl.starts_with("no usable NCCL: /b/libnccl.so.2: not an ELF file; install NCCL 2")
        );
        assert!(
            [driver, nvrtc, nccl]
                .iter()
                .all(|line| !line.contains('\n'))
        );
    }

    #[test]
    fn a_library_is_found_or_missing_and_said_so_once() {
        let report = libraries().report();
        assert_eq!(report.found.len() + report.missing.len(), Kind::ALL.len());
        assert_eq!(report.to_string().lines().count(), Kind::ALL.len());
    }

    #[test]
    fn what_is_no_library_is_not_usable_and_not_a_panic() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(Kind::Nccl.file()), "text").expect("written");
        let place = Place::Folder(folder.path().to_owned());
        let why = open(Kind::Nccl, &place).expect_err("it is text");
        assert!(why.contains("libnccl.so.2"), "{why}");
        assert!(
            open(Kind::Nvrtc, &place)
                .expect("nothing is there")
                .is_none()
        );
    }
}
