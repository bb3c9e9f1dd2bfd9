//! From source to loaded libraries, kept on disk by a hash of all that they are made from.

#![allow(unsafe_code, reason = "what the compiler has written is loaded")]

use std::ffi::{CStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use libloading::Library;

use super::runtime::{RawKernel, Runtime};
use crate::cuda::gpu::{GpuError, Unit};

/// The C++ part, by name.
const FILES: [(&str, &str); 9] = [
    (
        "prelude.hpp",
        include_str!("../../../kernels/software/prelude.hpp"),
    ),
    (
        "runtime.hpp",
        include_str!("../../../kernels/software/runtime.hpp"),
    ),
    (
        "runtime.cpp",
        include_str!("../../../kernels/software/runtime.cpp"),
    ),
    (
        "block.hpp",
        include_str!("../../../kernels/software/block.hpp"),
    ),
    (
        "fibers.hpp",
        include_str!("../../../kernels/software/fibers.hpp"),
    ),
    (
        "memory.hpp",
        include_str!("../../../kernels/software/memory.hpp"),
    ),
    (
        "checker.hpp",
        include_str!("../../../kernels/software/checker.hpp"),
    ),
    (
        "hopper.hpp",
        include_str!("../../../kernels/software/hopper.hpp"),
    ),
    (
        "matrices.hpp",
        include_str!("../../../kernels/software/matrices.hpp"),
    ),
];

/// What all is compiled with: arithmetic as it is written.
const OPTIONS: [&str; 10] = [
    "-std=c++17",
    "-O2",
    "-g1",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wno-unknown-pragmas",
    "-fno-strict-aliasing",
    // A stack that is too small ends at its guard page, and not in what lies beyond.
    "-fstack-clash-protection",
];

/// The compiler, the folder of what it has written, and the runtime.
pub(super) struct Toolchain {
    compiler: Vec<OsString>,
    folder: PathBuf,
    runtime_path: PathBuf,
    runtime: Runtime,
}

/// A kernel of a loaded unit.
#[derive(Clone)]
pub(super) struct LoadedKernel {
    raw: *const RawKernel,
    /// What the kernel is in.
    _library: Arc<Library>,
}

// SAFETY: What it points to is never written, and is there as long as the library.
unsafe impl Send for LoadedKernel {}

impl LoadedKernel {
    pub(super) fn raw(&self) -> *const RawKernel {
        self.raw
    }

    fn kernel(&self) -> &RawKernel {
        // SAFETY: It is a constant of the library, which is there as long as `self`.
        unsafe { &*self.raw }
    }

    pub(super) fn name(&self) -> String {
        // SAFETY: It is a literal of the library.
        unsafe { CStr::from_ptr(self.kernel().name) }
            .to_string_lossy()
            .into_owned()
    }

    pub(super) fn argument_bytes(&self) -> usize {
        usize::try_from(self.kernel().argument_bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn threads_max(&self) -> u32 {
        u32::try_from(self.kernel().threads_max).unwrap_or(u32::MAX)
    }
}

impl Toolchain {
    /// That of this process.
    pub(super) fn get() -> Result<&'static Self, GpuError> {
        static TOOLCHAIN: OnceLock<Result<Toolchain, GpuError>> = OnceLock::new();
        TOOLCHAIN
            .get_or_init(Self::find)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn find() -> Result<Self, GpuError> {
        let named = std::env::var_os("CXX").filter(|name| !name.is_empty());
        let compiler = named.unwrap_or_else(|| "g++".into());
        let compiler: Vec<OsString> = match compiler.to_str() {
            Some(words) => words.split_whitespace().map(Into::into).collect(),
            None => vec![compiler],
        };
        let version = Command::new(&compiler[0])
            .args(&compiler[1..])
            .arg("--version")
            .output();
        let version = version.map_err(|error| {
            GpuError::Library(format!(
                "the software device needs a C++ compiler: {} does not run ({error}); install g++, or name one in $CXX",
                compiler[0].display()
            ))
        })?;
        let key = hash(
            FILES
                .iter()
                .flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()])
                .chain(OPTIONS.iter().map(|option| option.as_bytes()))
                .chain(compiler.iter().map(|word| word.as_encoded_bytes()))
                .chain([version.stdout.as_slice()]),
        );
        let folder = private_folder()?.join(key);
        fs::create_dir_all(&folder).map_err(|error| cannot_write(&folder, &error))?;
        for (name, text) in FILES {
            write_whole(&folder.join(name), text.as_bytes())?;
        }
        let runtime_path = folder.join("runtime.so");
        if !runtime_path.exists() {
            build_runtime(&compiler, &folder, &runtime_path)?;
        }
        Ok(Self {
            runtime: Runtime::load(&runtime_path)?,
            compiler,
            folder,
            runtime_path,
        })
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The kernels of a unit, for an architecture; they tell of each access if they are to be watched.
    pub(super) fn compile(
        &self,
        unit: &Unit,
        architecture: u32,
        watched: bool,
    ) -> Result<Vec<LoadedKernel>, GpuError> {
        let failed = |log: String| GpuError::Compile {
            file: unit.file.to_owned(),
            log,
        };
        let mut defines = vec![format!("-DFORESAIL_ARCHITECTURE={architecture}")];
        defines.extend(
            unit.constants
                .iter()
                .map(|(name, value)| format!("-D{name}={value}")),
        );
        let text = format!(
            "#include \"prelude.hpp\"\n#line 1 \"{}\"\n{}",
            unit.file, unit.source
        );
        let key = hash(
            [text.as_bytes()]
                .into_iter()
                .chain(defines.iter().map(String::as_bytes)),
        );
        let stem = format!("{}-{key}", unit.file.trim_end_matches(".cu"));
        let ending = if watched { "-watched.so" } else { ".so" };
        let library = self.folder.join(format!("{stem}{ending}"));
        if !library.exists() {
            let source = self.folder.join(format!("{stem}.cpp"));
            write_whole(&source, text.as_bytes())?;
            let build = if watched { build_watched } else { build };
            build(self, &source, &defines, &library).map_err(failed)?;
        }
        load(unit, &library).map_err(failed)
    }
}

/// Makes the library that units are linked with.
fn build_runtime(compiler: &[OsString], folder: &Path, library: &Path) -> Result<(), GpuError> {
    let failed = |log: String| GpuError::Compile {
        file: "runtime.cpp".to_owned(),
        log,
    };
    let unfinished = unfinished(library);
    let mut arguments = compile_arguments(folder, &folder.join("runtime.cpp"), &[]);
    arguments.extend(["-o".into(), unfinished.clone().into()]);
    run(compiler, &arguments).map_err(failed)?;
    fs::rename(&unfinished, library).map_err(|error| cannot_write(library, &error))
}

/// Makes a library of a unit. It appears when it is complete: other processes do the same.
fn build(
    toolchain: &Toolchain,
    source: &Path,
    defines: &[String],
    library: &Path,
) -> Result<(), String> {
    let unfinished = unfinished(library);
    let mut arguments = compile_arguments(&toolchain.folder, source, defines);
    arguments.extend([
        toolchain.runtime_path.clone().into(),
        "-o".into(),
        unfinished.clone().into(),
    ]);
    run(&toolchain.compiler, &arguments)?;
    fs::rename(&unfinished, library).map_err(|error| error.to_string())
}

/// The same, of code that calls functions of the runtime at each access. They are those of the
/// compiler's thread sanitizer, whose own library it must not be linked with: so in two steps.
fn build_watched(
    toolchain: &Toolchain,
    source: &Path,
    defines: &[String],
    library: &Path,
) -> Result<(), String> {
    let object = unfinished(&library.with_extension("o"));
    let mut arguments = compile_arguments(&toolchain.folder, source, defines);
    arguments.extend([
        "-fsanitize=thread".into(),
        "-c".into(),
        "-o".into(),
        object.clone().into(),
    ]);
    run(&toolchain.compiler, &arguments)?;
    let unfinished = unfinished(library);
    let arguments = [
        "-shared".into(),
        object.clone().into(),
        toolchain.runtime_path.clone().into(),
        "-o".into(),
        unfinished.clone().into(),
    ];
    run(&toolchain.compiler, &arguments)?;
    let _ = fs::remove_file(object);
    fs::rename(&unfinished, library).map_err(|error| error.to_string())
}

fn compile_arguments(folder: &Path, source: &Path, defines: &[String]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = OPTIONS.map(OsString::from).into();
    arguments.extend(["-I".into(), folder.into(), source.into()]);
    arguments.extend(defines.iter().map(OsString::from));
    arguments
}

/// Runs the compiler, or says what it says.
fn run(compiler: &[OsString], arguments: &[OsString]) -> Result<(), String> {
    let output = Command::new(&compiler[0])
        .args(&compiler[1..])
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Loads a unit's library, and finds its kernels.
fn load(unit: &Unit, path: &Path) -> Result<Vec<LoadedKernel>, String> {
    // SAFETY: It was compiled from the unit's text; what runs when it is loaded is of the C++ library.
    let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
    let library = Arc::new(library);
    let find = |facts: &crate::cuda::gpu::KernelFacts| {
        let name = format!("foresail_kernel_{}\0", facts.name);
        // SAFETY: `KERNEL` defines a constant of this name and type.
        let raw = unsafe { library.get::<*const RawKernel>(name.as_bytes()) }
            .map_err(|_| format!("it has no kernel {}", facts.name))?;
        let kernel = LoadedKernel {
            raw: *raw,
            _library: Arc::clone(&library),
        };
        if kernel.argument_bytes() != facts.argument_bytes {
            return Err(format!(
                "{} takes {} bytes of arguments, and is declared to take {}",
                facts.name,
                kernel.argument_bytes(),
                facts.argument_bytes
            ));
        }
        Ok(kernel)
    };
    unit.kernels.iter().map(find).collect()
}

/// A folder that no one else can write to, since what is in it is run.
fn private_folder() -> Result<PathBuf, GpuError> {
    let folder = std::env::temp_dir().join("foresail-software");
    let error = |error| cannot_write(&folder, &error);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        let _ = fs::DirBuilder::new().mode(0o700).create(&folder);
        let probe = unfinished(&folder.join("probe"));
        fs::write(&probe, []).map_err(error)?;
        let own = fs::metadata(&probe).map_err(error)?.uid();
        fs::remove_file(&probe).map_err(error)?;
        let of_folder = fs::metadata(&folder).map_err(error)?;
        if of_folder.uid() != own || of_folder.mode() & 0o022 != 0 {
            return Err(GpuError::Library(format!(
                "{} belongs to others, and what is in it is run: name another temporary folder in $TMPDIR",
                folder.display()
            )));
        }
    }
    #[cfg(not(unix))]
    fs::create_dir_all(&folder).map_err(error)?;
    Ok(folder)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> GpuError {
    GpuError::Library(format!("{}: {error}", path.display()))
}

/// Writes a file that others may read at any time: it is there as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), GpuError> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = unfinished(path);
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(|error| cannot_write(path, &error))
}

/// A name that no one else uses.
fn unfinished(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{count}", std::process::id()));
    PathBuf::from(name)
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..20].to_owned()
}
