//! A folder to run the command in, and what came of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A deployment that scales once, under two minutes of traffic that draws
/// nothing but its arrivals.
pub(crate) const SMALL: &str = r#"description = "Two minutes on one or two replicas."

[deployment]
model = "llama-3-8b"
gpu = "h100"
world_size = 1
min_replica_count = 1
max_replica_count = 2
scale_up_window = "10s"

[workload]
duration = "2m"
arrivals = { process = "poisson", rate_per_s = 30.0 }
prompt_tokens = 512
output_tokens = 128

[price]
usd_per_gpu_hour = 8.00

[batching]
max_num_seqs = 32

[objectives]
ttft_p95 = "60s"
success_rate = 0.99
"#;

pub(crate) const NATIVE_HEADER: &str = "due_ns,prompt_tokens,output_tokens,session,\
    group,shared_tokens,content_session,block_tokens,block_ids\n";

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }

    /// The result, of a command that ended so.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// An empty folder with a small scenario in it.
pub(crate) struct Sandbox(TempDir);

impl Sandbox {
    pub(crate) fn new() -> Self {
        let sandbox = Self(tempfile::tempdir().expect("there is room for a folder"));
        sandbox.write("small.toml", SMALL);
        sandbox
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("the folder can be written");
    }

    /// The small scenario with one thing changed, as another file.
    #[track_caller]
    pub(crate) fn write_changed(&self, name: &str, from: &str, to: &str) {
        assert!(SMALL.contains(from), "{from}");
        self.write(name, SMALL.replacen(from, to, 1));
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The command, in this folder, away from the settings of whoever runs the tests.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foresail"));
        command.current_dir(self.0.path());
        ["NO_COLOR", "COLUMNS", "CLICOLOR_FORCE"]
            .iter()
            .for_each(|name| {
                command.env_remove(name);
            });
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command().args(arguments).output().expect("it starts"))
    }

    /// Every file and folder below, hidden ones too, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect(self.0.path(), Path::new(""), &mut names);
        names.sort();
        names
    }

    /// Every file below a folder and its content.
    pub(crate) fn contents(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let mut names = Vec::new();
        collect(&self.path(folder), Path::new(""), &mut names);
        names.sort();
        let files = names
            .into_iter()
            .filter(|name| self.path(folder).join(name).is_file());
        files
            .map(|name| {
                let content = fs::read(self.path(folder).join(&name)).expect("it can be read");
                (name, content)
            })
            .collect()
    }
}

fn collect(root: &Path, below: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).expect("the folder can be listed") {
        let name = below.join(entry.expect("the entry can be read").file_name());
        names.push(name.to_str().expect("names are text").to_owned());
        if root.join(&name).is_dir() {
            collect(root, &name, names);
        }
    }
}
