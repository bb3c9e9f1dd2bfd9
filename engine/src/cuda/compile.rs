//! From a unit to machine code for exactly the GPU that there is: NVRTC, and the cache of what it gave.

#![allow(unsafe_code, reason = "NVRTC is a library of C")]

use super::cubin;
use super::cubin_cache::{self, CubinCache, Key};
use super::gpu::{GpuError, Unit};
use super::libraries::tables::Nvrtc;
use super::libraries::{libraries, nvrtc_version};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::env;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The words that kernels are written in.
const PRELUDE: (&str, &str) = ("prelude.cuh", include_str!("../../kernels/prelude.cuh"));

/// The variable that names a folder of kernels to use in place of those built in, for work on kernels. A file there
/// is the whole text of its units: what some put before the file (`sampling.cuh`) has to be in it.
pub const KERNELS_VARIABLE: &str = "FORESAIL_KERNELS";

/// What kernels are compiled for: a compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// 9 of 9.0.
    pub major: u32,
    /// 0 of 9.0.
    pub minor: u32,
}

impl Architecture {
    /// The least that kernels are written for: bf16 on tensor cores, and copies to shared memory.
    pub const LEAST: Self = Self { major: 8, minor: 0 };

    /// The number that kernels see as `FORESAIL_ARCHITECTURE`.
    #[must_use]
    pub fn number(self) -> u32 {
        10 * self.major + self.minor
    }
}

/// As compilers name it. From 9.0 on, with the instructions that only this architecture has.
impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let special = if self.major >= 9 { "a" } else { "" };
        write!(f, "sm_{}{special}", self.number())
    }
}

/// What NVRTC is given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Program {
    name: String,
    text: String,
    options: Vec<String>,
}

/// What NVRTC gave.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Machine code, in a format of the driver.
    pub cubin: Vec<u8>,
    /// What the compiler says of each kernel: registers, stack, spills.
    pub log: String,
}

/// Compiles units for one architecture.
#[derive(Debug)]
pub struct Compiler {
    nvrtc: &'static Nvrtc,
    version: (i32, i32),
    architecture: Architecture,
    cache: CubinCache,
    kernels: Option<PathBuf>,
    notes: Mutex<BTreeSet<String>>,
}

impl Compiler {
    /// With the cache and the kernels that the environment names.
    ///
    /// # Errors
    /// [`GpuError::Library`] if there is no NVRTC.
    pub fn new(architecture: Architecture) -> Result<Self, GpuError> {
        let kernels = env::var_os(KERNELS_VARIABLE).filter(|folder| !folder.is_empty());
        Self::with(
            architecture,
            CubinCache::under(cubin_cache::folder().as_deref()),
            kernels.map(PathBuf::from),
        )
    }

    /// With a cache, and a folder of kernels to use in place of those built in.
    ///
    /// # Errors
    /// [`GpuError::Library`] if there is no NVRTC.
    pub fn with(
        architecture: Architecture,
        cache: CubinCache,
        kernels: Option<PathBuf>,
    ) -> Result<Self, GpuError> {
        let nvrtc = libraries().nvrtc()?;
        Ok(Self {
            nvrtc,
            version: nvrtc_version(nvrtc),
            architecture,
            cache,
            kernels,
            notes: Mutex::default(),
        })
    }

    /// What a user may want to know of how units were compiled, each once.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock().expect("no one panics with it");
        notes.iter().cloned().collect()
    }

    fn note(&self, note: String) {
        self.notes
            .lock()
            .expect("no one panics with it")
            .insert(note);
    }

    /// A unit's machine code, from the cache if it is there.
    ///
    /// # Errors
    /// [`GpuError::Compile`] with the compiler's words, or with what is not as the unit says.
    pub fn cubin(&self, unit: &Unit) -> Result<Vec<u8>, GpuError> {
        let program = self.program(unit)?;
        let key = self.key(&program);
        if let Some(cubin) = self.cache.load(key) {
            check(unit, &cubin)?;
            return Ok(cubin);
        }
        let compiled = compile(self.nvrtc, &program)?;
        check(unit, &compiled.cubin)?;
        if let Err(error) = self.cache.store(key, &compiled.cubin) {
            self.note(format!(
                "compiled kernels are not kept, so that every start compiles them again: {error}"
            ));
        }
        Ok(compiled.cubin)
    }

    /// The machine code of each unit. Several are compiled at the same time.
    #[must_use]
    pub fn cubins(&self, units: &[Unit]) -> Vec<Result<Vec<u8>, GpuError>> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        each(units, threads, |unit| self.cubin(unit))
    }

    /// Compiles a unit whatever is in the cache, for what the compiler says about it.
    ///
    /// # Errors
    /// As [`Compiler::cubin`].
    pub fn compile(&self, unit: &Unit) -> Result<Compiled, GpuError> {
        let compiled = compile(self.nvrtc, &self.program(unit)?)?;
        check(unit, &compiled.cubin)?;
        Ok(compiled)
    }

    fn program(&self, unit: &Unit) -> Result<Program, GpuError> {
        let (prelude, words) = PRELUDE;
        let words = self.text(prelude, words)?;
        let source = self.text(unit.file, unit.source)?;
        Ok(program(unit, self.architecture, &words, &source))
    }

    /// The text of a file: the folder's, if there is a folder and it is in it.
    fn text<'a>(&self, file: &str, built_in: &'a str) -> Result<Cow<'a, str>, GpuError> {
        let Some(folder) = &self.kernels else {
            return Ok(Cow::Borrowed(built_in));
        };
        let path = folder.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => {
                self.note(format!(
                    "{file} is {}, not the one built in",
                    path.display()
                ));
                Ok(Cow::Owned(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.note(format!(
                    "{file} is the one built in, as {} has none",
                    folder.display()
                ));
                Ok(Cow::Borrowed(built_in))
            }
            Err(error) => Err(GpuError::Compile {
                file: file.to_owned(),
                log: format!("{}: {error}", path.display()),
            }),
        }
    }

    fn key(&self, program: &Program) -> Key {
        let (major, minor) = self.version;
        let version = format!("NVRTC {major}.{minor}");
        let options = program.options.join("\n");
        Key::of(&[&version, &options, &program.name, &program.text])
    }
}

/// The text that is compiled and how, from the words of kernels and the text of one file.
fn program(unit: &Unit, architecture: Architecture, words: &str, source: &str) -> Program {
    let mut text = String::with_capacity(words.len() + source.len() + 64);
    // Errors name lines as they are in the files.
    let _ = write!(text, "#line 1 \"{}\"\n{words}\n", PRELUDE.0);
    let _ = write!(text, "#line 1 \"{}\"\n{source}\n", unit.file);
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        // For profilers and sanitizers; the machine code is the same.
        "--generate-line-info".to_owned(),
        // Registers, stack and spills of each kernel, in the log.
        "--ptxas-options=-v".to_owned(),
        format!("-DFORESAIL_ARCHITECTURE={}", architecture.number()),
    ];
    let constants = unit.constants.iter();
    options.extend(constants.map(|(name, value)| format!("-D{name}={value}")));
    Program {
        name: unit.file.to_owned(),
        text,
        options,
    }
}

/// Whether machine code has the kernels of a unit, with arguments as long as a launch has them.
fn check(unit: &Unit, machine_code: &[u8]) -> Result<(), GpuError> {
    let wrong = |log: String| GpuError::Compile {
        file: unit.file.to_owned(),
        log,
    };
    let there = cubin::kernels(machine_code).map_err(|error| wrong(error.to_string()))?;
    for facts in unit.kernels {
        let name = facts.name;
        let Some(kernel) = there.iter().find(|kernel| kernel.name == name) else {
            return Err(wrong(format!("it has no kernel {name}")));
        };
        if kernel.argument_bytes != facts.argument_bytes {
            return Err(wrong(format!(
                "{name} takes {} bytes of arguments, and launches have {}",
                kernel.argument_bytes, facts.argument_bytes
            )));
        }
    }
    Ok(())
}

/// Does something with each, in several threads; the results are in the order of what there was.
fn each<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(index)
                {
                    let result = work(item);
                    results.lock().expect("no one panics with it")[index] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no one panics with it");
    results
        .into_iter()
        .map(|result| result.expect("every item was taken"))
        .collect()
}

/// Runs NVRTC.
fn compile(nvrtc: &Nvrtc, program: &Program) -> Result<Compiled, GpuError> {
    let failed = |log: String| GpuError::Compile {
        file: program.name.clone(),
        log,
    };
    let text = |text: &str| {
        CString::new(text).map_err(|_| failed("there is a zero byte in its text".to_owned()))
    };
    let (source, name) = (text(&program.text)?, text(&program.name)?);
    let options: Vec<CString> = program
        .options
        .iter()
        .map(|o| text(o))
        .collect::<Result<_, _>>()?;
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();

    let compilation = Compilation::new(nvrtc, &source, &name).map_err(&failed)?;
    let count = options.len().try_into().expect("there are few options");
    // SAFETY: the program exists, and the options are strings that outlive the call.
    let code = unsafe { (nvrtc.nvrtcCompileProgram)(compilation.program, count, options.as_ptr()) };
    let log = compilation.log();
    if code != 0 {
        let log = if log.trim().is_empty() {
            words(nvrtc, code)
        } else {
            log
        };
        return Err(failed(log));
    }
    let cubin = compilation.cubin().map_err(&failed)?;
    Ok(Compiled { cubin, log })
}

/// A program of NVRTC, until it is dropped.
struct Compilation<'a> {
    nvrtc: &'a Nvrtc,
    program: cudarc::nvrtc::sys::nvrtcProgram,
}

impl<'a> Compilation<'a> {
    fn new(nvrtc: &'a Nvrtc, source: &CStr, name: &CStr) -> Result<Self, String> {
        let mut program = ptr::null_mut();
        // SAFETY: both are strings that NVRTC copies; there are no headers.
        let code = unsafe {
            (nvrtc.nvrtcCreateProgram)(
                &raw mut program,
                source.as_ptr(),
                name.as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        if code != 0 {
            return Err(words(nvrtc, code));
        }
        Ok(Self { nvrtc, program })
    }

    fn log(&self) -> String {
        let mut bytes = 0;
        // SAFETY: the program exists; it writes one number.
        let code = unsafe { (self.nvrtc.nvrtcGetProgramLogSize)(self.program, &raw mut bytes) };
        let mut log = vec![0_u8; bytes];
        if code != 0 || log.is_empty() {
            return String::new();
        }
        // SAFETY: the log has as many bytes as there is room for, with the zero at its end.
        let code =
            unsafe { (self.nvrtc.nvrtcGetProgramLog)(self.program, log.as_mut_ptr().cast()) };
        if code != 0 {
            return String::new();
        }
        let log = log.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(log).into_owned()
    }

    fn cubin(&self) -> Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: the program exists and is compiled; it writes one number.
        let code = unsafe { (self.nvrtc.nvrtcGetCUBINSize)(self.program, &raw mut bytes) };
        if code != 0 {
            return Err(words(self.nvrtc, code));
        }
        let mut cubin = vec![0_u8; bytes];
        // SAFETY: there is room for as many bytes as it has.
        let code = unsafe { (self.nvrtc.nvrtcGetCUBIN)(self.program, cubin.as_mut_ptr().cast()) };
        if code != 0 {
            return Err(words(self.nvrtc, code));
        }
        Ok(cubin)
    }
}

impl Drop for Compilation<'_> {
    fn drop(&mut self) {
        // SAFETY: the program exists, and nothing uses it any more. There is nothing to do if this fails.
        unsafe { (self.nvrtc.nvrtcDestroyProgram)(&raw mut self.program) };
    }
}

/// What a code of NVRTC means.
fn words(nvrtc: &Nvrtc, code: u32) -> String {
    // SAFETY: it takes any number, and gives a string that stays.
    let words = unsafe { (nvrtc.nvrtcGetErrorString)(code) };
    if words.is_null() {
        return format!("NVRTC failed with code {code}");
    }
    // SAFETY: it is not null, and ends in a zero.
    let words = unsafe { CStr::from_ptr(words) };
    format!("NVRTC failed: {}", words.to_string_lossy())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stderr, reason = "a test that is skipped must be seen")]

    use super::*;
    use crate::cuda::gpu::KernelFacts;

    const HOPPER: Architecture = Architecture { major: 9, minor: 0 };

    const SCALE: &str = "\
struct ScaleArguments { float* values; u32 count; float factor; };
KERNEL(scale, 256, 1, ScaleArguments) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i < args.count) args.values[i] *= FACTOR * args.factor;
}
";

    fn unit(source: &'static str, argument_bytes: usize) -> Unit {
        let facts = KernelFacts {
            name: "scale",
            argument_bytes,
            registers_max: 32,
            instructions: &[],
        };
        Unit {
            file: "scale.cu",
            source,
            constants: vec![("FACTOR", 2)],
            kernels: vec![facts].leak(),
        }
    }

    /// A compiler with a cache of its own, or `None`, loudly, where there is no NVRTC.
    fn compiler(folder: &std::path::Path) -> Option<Compiler> {
        let cache = CubinCache::under(Some(&folder.join("cache")));
        match Compiler::with(HOPPER, cache, Some(folder.join("kernels"))) {
            Ok(compiler) => Some(compiler),
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                None
            }
        }
    }

    #[test]
    fn architectures_have_their_own_instructions_from_hopper_on() {
        let names = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
            .map(|(major, minor)| Architecture { major, minor }.to_string());
        assert_eq!(
            names,
            ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"]
        );
        assert_eq!(HOPPER.number(), 90);
    }

    #[test]
    fn a_program_is_the_words_then_the_file_each_with_its_own_lines() {
        let program = program(&unit(SCALE, 16), HOPPER, "words", "kernels");
        assert_eq!(
            program.text,
            "#line 1 \"prelude.cuh\"\nwords\n#line 1 \"scale.cu\"\nkernels\n"
        );
        for option in [
            "--gpu-architecture=sm_90a",
            "-DFORESAIL_ARCHITECTURE=90",
            "-DFACTOR=2",
        ] {
            assert!(
                program.options.iter().any(|other| other == option),
                "{option}"
            );
        }
    }

    #[test]
    fn results_are_in_the_order_of_what_there_was() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [1, 3, 200] {
            let squares = each(&items, threads, |item| item * item);
            assert!(
                squares
                    .iter()
                    .zip(&items)
                    .all(|(square, item)| *square == item * item)
            );
        }
        assert!(each(&[] as &[usize], 4, |item| *item).is_empty());
    }

    #[test]
    fn a_unit_compiles_once_and_then_is_in_the_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(compiler) = compiler(folder.path()) else {
            return;
        };
        let unit = unit(SCALE, 16);
        let compiled = compiler.compile(&unit).expect("it compiles");
        assert!(compiled.log.contains("registers"), "{}", compiled.log);
        let kernels = cubin::kernels(&compiled.cubin).expect("a cubin");
        let [scale] = kernels.as_slice() else {
            panic!("{kernels:?}")
        };
        assert_eq!(
            (scale.name.as_str(), scale.argument_bytes, scale.stack_bytes),
            ("scale", 16, 0)
        );
        assert!((1..=32).contains(&scale.registers), "{scale:?}");

        let key = compiler.key(&compiler.program(&unit).expect("its text"));
        assert_eq!(compiler.cache.load(key), None);
        let first = compiler.cubin(&unit).expect("it compiles");
        assert_eq!(compiler.cache.load(key).as_ref(), Some(&first));
        let many = compiler.cubins(&[unit.clone(), unit]);
        assert!(many.into_iter().all(|cubin| cubin.as_ref() == Ok(&first)));
    }

    #[test]
    fn what_is_wrong_is_said_in_the_compilers_words_by_file_and_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(compiler) = compiler(folder.path()) else {
            return;
        };
        let broken = unit("\n\nthis is no C++;\n", 16);
        let error = compiler
            .cubin(&broken)
            .expect_err("it is broken")
            .to_string();
        assert!(error.starts_with("scale.cu does not compile"), "{error}");
        assert!(error.contains("scale.cu(3)"), "{error}");

        let error = compiler
            .cubin(&unit(SCALE, 24))
            .expect_err("it takes 16")
            .to_string();
        assert!(
            error.contains("scale takes 16 bytes of arguments, and launches have 24"),
            "{error}"
        );
        let other = unit("struct A { u64 a; }; KERNEL(other, 32, 1, A) {}", 8);
        let error = compiler
            .cubin(&other)
            .expect_err("it has another")
            .to_string();
        assert!(error.contains("it has no kernel scale"), "{error}");
    }

    #[test]
    fn a_file_in_the_folder_of_kernels_is_used_and_noted() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(compiler) = compiler(folder.path()) else {
            return;
        };
        let kernels = folder.path().join("kernels");
        fs::create_dir(&kernels).expect("made");
        fs::write(kernels.join("scale.cu"), "this is no C++").expect("written");
        assert!(compiler.cubin(&unit(SCALE, 16)).is_err());
        let notes = compiler.notes();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("prelude.cuh is the one built in"));
        assert!(notes[1].starts_with("scale.cu is ") && notes[1].ends_with("not the one built in"));
    }
}
