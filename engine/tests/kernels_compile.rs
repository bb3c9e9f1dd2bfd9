//! Every kernel, compiled for every architecture that matters, without a GPU: what can be known of it before it runs.
//!
//! It compiles; takes no more registers than its file says, and no stack; spills none of them;
//! takes as many bytes of arguments as its launcher lays out; and its machine code has the instructions it was
//! written for. NVRTC is found as the program finds it: see `FORESAIL_CUDA_PATH`. With `--nocapture`, there is a table.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that is skipped must be seen, and the table is for reading"
)]

use foresail_engine::cuda::compile::{Architecture, Compiled, Compiler};
use foresail_engine::cuda::cubin::{self, Metadata};
use foresail_engine::cuda::cubin_cache::CubinCache;
use foresail_engine::cuda::gpu::{KernelFacts, Unit};
use foresail_engine::cuda::kernels;
use foresail_engine::cuda::libraries::search::{self, Disk, Environment, Files, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Local memory that a thread may take (bytes). Any at all is an array that was indexed at run time, or registers that
/// did not suffice; either costs more than what it was for.
const STACK_BYTES_MAX: u32 = 0;

/// The end of the names of files for Hopper alone.
const HOPPER_ONLY: &str = "_hopper.cu";

/// What each file of launchers says should be compiled.
fn units() -> Vec<(&'static str, Vec<Unit>)> {
    vec![
        ("advance", kernels::advance::units()),
        ("attention_decode", kernels::attention_decode::units()),
        ("attention_prefill", kernels::attention_prefill::units()),
        ("delay", kernels::delay::units()),
        ("dummy", kernels::dummy::units()),
        ("embed", kernels::embed::units()),
        ("gate", kernels::gate::units()),
        ("heads", kernels::heads::units()),
        ("lora", kernels::lora::units()),
        ("norm", kernels::norm::units()),
        ("sample", kernels::sample::units()),
        ("skinny", kernels::skinny::units()),
        ("stream", kernels::stream::units()),
    ]
}

#[test]
fn all_kernels_compile_for_ampere() {
    compile_all(Architecture { major: 8, minor: 0 });
}

#[test]
fn all_kernels_compile_for_hopper() {
    compile_all(Architecture { major: 9, minor: 0 });
}

#[test]
fn all_kernels_compile_for_blackwell() {
    compile_all(Architecture {
        major: 10,
        minor: 0,
    });
}

/// Fails with everything that is wrong with any kernel.
fn compile_all(architecture: Architecture) {
    let compiler = match Compiler::with(architecture, CubinCache::default(), None) {
        Ok(compiler) => compiler,
        Err(error) => {
            eprintln!("SKIPPED: no kernel was compiled for {architecture}: {error}");
            return;
        }
    };
    let disassembler = disassembler();
    if disassembler.is_none() {
        eprintln!(
            "SKIPPED: the instructions of kernels for {architecture} are not looked at, as there is no nvdisasm: \
             install the Python package nvidia-cuda-nvdisasm, or name its folder in {}",
            search::VARIABLE
        );
    }
    let mut wrong = Vec::new();
    for (_, units) in units() {
        for unit in units {
            if unit.file.ends_with(HOPPER_ONLY) && architecture.major != 9 {
                continue;
            }
            let place = format!("{} {:?} for {architecture}", unit.file, unit.constants);
            match compiler.compile(&unit) {
                Ok(compiled) => {
                    let found = look_at(&unit, architecture, &compiled, disassembler.as_deref());
                    wrong.extend(found.into_iter().map(|why| format!("{place}: {why}")));
                }
                Err(error) => wrong.push(format!("{place}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is wrong with the kernels of a unit.
fn look_at(
    unit: &Unit,
    architecture: Architecture,
    compiled: &Compiled,
    disassembler: Option<&Path>,
) -> Vec<String> {
    let there = cubin::kernels(&compiled.cubin).expect("the compiler gave it");
    let code = disassembler.map(|program| disassemble(program, &compiled.cubin));
    let mut wrong = spills(&compiled.log);
    for facts in unit.kernels {
        let kernel = there.iter().find(|kernel| kernel.name == facts.name);
        let kernel = kernel.expect("the compiler has looked");
        println!(
            "{:8} {:20} {:3} registers of {:3}, {:3} bytes of arguments: {} {:?}",
            architecture.to_string(),
            kernel.name,
            kernel.registers,
            facts.registers_max,
            kernel.argument_bytes,
            unit.file,
            unit.constants
        );
        wrong.extend(exceeds(facts, kernel));
        if let Some(code) = &code {
            wrong.extend(lacks(facts, code));
        }
    }
    let declared: BTreeSet<&str> = unit.kernels.iter().map(|facts| facts.name).collect();
    let undeclared = there
        .iter()
        .filter(|kernel| !declared.contains(kernel.name.as_str()));
    wrong.extend(undeclared.map(|kernel| format!("{} is not declared beside it", kernel.name)));
    wrong
}

fn exceeds(facts: &KernelFacts, kernel: &Metadata) -> Vec<String> {
    let (name, mut wrong) = (facts.name, Vec::new());
    if kernel.registers > facts.registers_max {
        wrong.push(format!(
            "{name} takes {} registers, more than {}",
            kernel.registers, facts.registers_max
        ));
    }
    // `setmaxnreg` shares out what the block was launched with, and waits for ever for what that is short of
    // (PTX ISA, setmaxnreg): 128 threads with 40 and 256 with 232 are 384 with 168.
    if name == "attention_prefill_hopper" && kernel.registers != 168 {
        wrong.push(format!(
            "{name} takes {} registers, and shares out 168",
            kernel.registers
        ));
    }
    if kernel.stack_bytes > STACK_BYTES_MAX {
        wrong.push(format!(
            "{name} has {} bytes of stack, more than {STACK_BYTES_MAX}",
            kernel.stack_bytes
        ));
    }
    wrong
}

/// The lines of the compiler's log that say that registers were spilled, such as
/// `16 bytes stack frame, 16 bytes spill stores, 16 bytes spill loads`.
fn spills(log: &str) -> Vec<String> {
    let mut spills = Vec::new();
    let mut function = "?";
    for line in log.lines() {
        // Products of warpgroups that wait for each other give the same results, later.
        if line.contains("serialized") {
            spills.push(line.trim().to_owned());
        }
        if let Some((_, name)) = line.split_once("Function properties for ") {
            function = name.trim();
        }
        let spilled = line.split(',').any(|part| {
            let mut words = part.split_whitespace();
            let bytes = words.by_ref().find_map(|word| word.parse::<u32>().ok());
            let what: Vec<&str> = words.collect();
            matches!(what.as_slice(), ["bytes", "spill", _]) && bytes != Some(0)
        });
        if spilled {
            spills.push(format!("{function} spills: {}", line.trim()));
        }
    }
    spills
}

/// The instructions of each kernel, with all that is joined to their names by dots.
type Instructions = BTreeMap<String, BTreeSet<String>>;

fn lacks(facts: &KernelFacts, code: &Instructions) -> Vec<String> {
    let name = facts.name;
    let Some(there) = code.get(name) else {
        return vec![format!("the disassembler shows no {name}")];
    };
    let missing = facts
        .instructions
        .iter()
        .filter(|wanted| !there.iter().any(|instruction| is(instruction, wanted)));
    missing
        .map(|missing| format!("{name} has no {missing}"))
        .collect()
}

/// Whether an instruction is the one wanted, whatever else is joined to it: `LDG.E.LTC128B.128` is `LDG.E.128`.
fn is(instruction: &str, wanted: &str) -> bool {
    let mut parts = instruction.split('.');
    let mut wanted = wanted.split('.');
    parts.next() == wanted.next() && wanted.all(|part| parts.any(|other| other == part))
}

/// `nvdisasm`, beside the libraries or on the `PATH`.
fn disassembler() -> Option<PathBuf> {
    let environment = Environment::of_process();
    let mut folders: Vec<PathBuf> = Vec::new();
    for place in search::places(&environment, &Disk) {
        match place {
            Place::Folder(folder) => {
                folders.push(folder.join("bin"));
                folders.extend(folder.parent().map(|parent| parent.join("bin")));
            }
            Place::Loader => {
                folders.extend(environment.path.iter().flat_map(env::split_paths));
            }
        }
    }
    let mut programs = folders.into_iter().map(|folder| folder.join("nvdisasm"));
    programs.find(|program| Disk.exists(program))
}

fn disassemble(program: &Path, cubin: &[u8]) -> Instructions {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kernels.cubin");
    fs::write(&file, cubin).expect("written");
    let output = Command::new(program)
        .args(["--print-code", "--no-dataflow"])
        .arg(&file)
        .output()
        .expect("nvdisasm runs");
    assert!(output.status.success(), "{output:?}");
    instructions(&String::from_utf8_lossy(&output.stdout))
}

/// What `nvdisasm` prints: a section of each kernel, and lines such as
/// `/*0050*/  @P0 LDG.E.128 R4, [R2] ;`.
fn instructions(text: &str) -> Instructions {
    let mut all = Instructions::new();
    let mut kernel = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(section) = line
            .strip_prefix(".section\t.text.")
            .or_else(|| line.strip_prefix(".section .text."))
        {
            let name = section.split([',', '\t', ' ']).next().unwrap_or_default();
            kernel = Some(all.entry(name.to_owned()).or_default());
        }
        let (Some(kernel), Some(rest)) = (&mut kernel, line.strip_prefix("/*")) else {
            continue;
        };
        let Some((_, instruction)) = rest.split_once("*/") else {
            continue;
        };
        let mut words = instruction.split_whitespace();
        let name = words
            .by_ref()
            .find(|word| !word.starts_with('@'))
            .unwrap_or_default();
        kernel.insert(name.trim_end_matches(';').to_owned());
    }
    all
}

#[test]
fn every_file_of_kernels_and_every_launcher_is_compiled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !folder.exists() {
        let folder = folder.display();
        eprintln!("SKIPPED: the sources are not where this was built: {folder}");
        return;
    }
    let names = |folder: &Path, extension: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).expect("it is there");
        let paths = entries.map(|entry| entry.expect("readable").path());
        paths
            .filter(|path| path.extension().is_some_and(|other| other == extension))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect()
    };
    let compiled: BTreeSet<String> = units()
        .iter()
        .flat_map(|(_, units)| units)
        .map(|unit| unit.file.to_owned())
        .collect();
    assert_eq!(compiled, names(&folder.join("kernels"), "cu"));

    let launchers = folder.join("src/cuda/kernels");
    let declares = |path: &Path| {
        fs::read_to_string(path).is_ok_and(|text| text.contains("\npub fn units() -> Vec<Unit>"))
    };
    let mut declared = BTreeSet::new();
    for entry in fs::read_dir(&launchers).expect("it is there") {
        let path = entry.expect("readable").path();
        let module = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if module != "mod" && (declares(&path) || declares(&path.join("mod.rs"))) {
            declared.insert(module.to_owned());
        }
    }
    let listed: BTreeSet<String> = units().iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, declared);
}

#[test]
fn spills_are_found_in_what_the_compiler_says() {
    let log = "\
ptxas info    : Compiling entry function 'two' for 'sm_90a'
ptxas info    : Function properties for two
ptxas         .     16 bytes stack frame, 0 bytes spill stores, 24 bytes spill loads
ptxas info    : Function properties for scale
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers";
    let spills = spills(log);
    assert_eq!(spills.len(), 1, "{spills:?}");
    assert!(spills[0].starts_with("two spills: "), "{spills:?}");
}

#[test]
fn instructions_are_found_in_what_the_disassembler_prints() {
    let text = "
\t.section\t.text.scale,\"ax\",@progbits
scale:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;
\t.section\t.text.two,\"ax\",@progbits
        /*0000*/                   EXIT ;
";
    let all = instructions(text);
    let names = |kernel: &str| all[kernel].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(names("scale"), ["LDC", "LDG.E.128"]);
    assert_eq!(names("two"), ["EXIT"]);
    let facts = KernelFacts {
        name: "scale",
        argument_bytes: 0,
        registers_max: 0,
        instructions: &["LDG", "LDG.128", "HMMA", "LDG.64", "LD"],
    };
    assert_eq!(
        lacks(&facts, &all),
        [
            "scale has no HMMA",
            "scale has no LDG.64",
            "scale has no LD"
        ]
    );
}
