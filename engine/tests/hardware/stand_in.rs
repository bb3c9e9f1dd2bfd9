//! The same promises, kept on top of a stand-in for the driver, cuBLASLt and NCCL, where there is no GPU: what is
//! tested then is everything between `Gpu` and those libraries. See `../stand_in/driver.cpp`.

use crate::child::{is_child, run, run_alone};
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::libraries::libraries;
use foresail_engine::cuda::libraries::search;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set where the driver is the stand-in.
const STAND_IN: &str = "FORESAIL_TEST_STAND_IN";

/// The libraries: a source, its text, and the file that it becomes.
const SOURCES: [(&str, &str, &str); 3] = [
    (
        "driver.cpp",
        include_str!("../stand_in/driver.cpp"),
        "libcuda.so.1",
    ),
    (
        "cublaslt.cpp",
        include_str!("../stand_in/cublaslt.cpp"),
        "libcublasLt.so.13",
    ),
    (
        "nccl.cpp",
        include_str!("../stand_in/nccl.cpp"),
        "libnccl.so.2",
    ),
];

/// Whether the driver is the stand-in. It is slow.
pub(crate) fn is_stand_in() -> bool {
    env::var_os(STAND_IN).is_some()
}

/// A folder with the libraries in it, or `None`, loudly.
fn build() -> Option<tempfile::TempDir> {
    if let Err(error) = libraries().compiler() {
        eprintln!("SKIPPED: {error}");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let compiler = env::var_os("CXX").filter(|name| !name.is_empty());
    let compiler = compiler.unwrap_or_else(|| "g++".into());
    for (source, text, library) in SOURCES {
        let path = folder.path().join(source);
        fs::write(&path, text).expect("written");
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"])
            .args(["-fPIC", "-shared", "-pthread", "-o"])
            .arg(folder.path().join(library))
            .arg(path)
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                let compiler = compiler.display();
                eprintln!("SKIPPED: there is no C++ compiler: {compiler}: {error}");
                return None;
            }
        };
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{source}: {words}");
    }
    Some(folder)
}

/// Where libraries are looked for: first here, then where they are found now.
fn path(stand_in: &Path) -> OsString {
    let named = env::var_os(search::VARIABLE).unwrap_or_default();
    let rest = env::split_paths(&named);
    let all: Vec<PathBuf> = [stand_in.to_owned()].into_iter().chain(rest).collect();
    env::join_paths(all).expect("folders have no colon")
}

#[test]
fn all_of_this_holds_of_a_stand_in_for_the_driver() {
    if is_stand_in() {
        return;
    }
    let Some(folder) = build() else { return };
    let path = path(folder.path());
    let cache = tempfile::tempdir().expect("a folder");
    // The second time with what the first has kept: kernels, and the fastest ways to multiply.
    for kept in [false, true] {
        let plans = cache.path().join("products/stand-in-gpu-130001.json");
        assert_eq!(plans.exists(), kept);
        let output = run(
            &["--nocapture"],
            &[
                (STAND_IN, OsStr::new("1")),
                (search::VARIABLE, &path),
                ("FORESAIL_CACHE", cache.path().as_os_str()),
            ],
        );
        assert!(!output.contains("SKIPPED"), "{output}");
        let plans = fs::read_to_string(plans).expect("they are kept");
        let ways = |way: u32| plans.matches(&format!("\"{way:016x}")).count();
        // The second way is the fastest, and does not do for some; the third is the slowest.
        assert!(ways(1) > 0 && ways(0) > 0, "{plans}");
        assert_eq!(ways(2), 0, "{plans}");
    }
}

#[test]
fn a_driver_that_is_too_old_or_has_no_gpu_is_refused_in_one_line() {
    if is_child() {
        let error = Hardware::open(0).err().expect("it is refused");
        eprintln!("refused: {error}");
        return;
    }
    if is_stand_in() {
        return;
    }
    let Some(folder) = build() else { return };
    let path = path(folder.path());
    for (variable, value, wanted) in [
        (
            "FORESAIL_STAND_IN_VERSION",
            "12080",
            "libcuda.so.1 is for CUDA 12.8, and CUDA 13 is used; the CUDA backend needs an NVIDIA GPU and its driver, 580 or later",
        ),
        (
            "FORESAIL_STAND_IN_GPUS",
            "0",
            "no GPU: there is a CUDA driver, and no device",
        ),
    ] {
        let output = run_alone(
            "stand_in::a_driver_that_is_too_old_or_has_no_gpu_is_refused_in_one_line",
            &[(variable, OsStr::new(value)), (search::VARIABLE, &path)],
        );
        let line = output.lines().find(|line| line.contains("refused: "));
        assert!(line.is_some_and(|line| line.contains(wanted)), "{output}");
    }
}
