//! How often `foresail gate` raises a false alarm, and how often it misses.
//!
//! Emulated servers, real load: in every lane one process is the baseline, one is
//! the same once more, and one takes so much longer a step. A decision is some
//! rounds, each a short run of all three in turn under one seed, and then two
//! gates: same against same (a failure is a false alarm), and slower against
//! baseline (anything but a failure is a miss).
//!
//! ```sh
//! cargo build --release && cargo run --release --example gate_power -- --decisions 100
//! ```

#![allow(clippy::print_stdout, reason = "the counts are what it is for")]

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Parser;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Debug, Parser)]
struct Options {
    /// Decisions of each kind.
    #[arg(long, default_value_t = 100)]
    decisions: usize,
    /// Pairs of runs a decision.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Decisions at the same time, each with servers of its own.
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Speed of the slower server; 0.952 is steps that take 5 % longer.
    #[arg(long, default_value_t = 0.952)]
    speed: f64,
    /// Requests a second of a run.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Requests of a run.
    #[arg(long, default_value_t = 60)]
    requests: usize,
    /// Output tokens of a request.
    #[arg(long, default_value_t = 32)]
    output: usize,
    /// Judge runs too in which the client was disturbed.
    #[arg(long)]
    allow_degraded: bool,
    /// The program [default: that beside this one].
    #[arg(long)]
    foresail: Option<PathBuf>,
    /// Keep the runs in this folder.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A server that ends with this value.
struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(program: &Path, speed: f64) -> Result<Self> {
        let mut process = Command::new(program)
            .args([
                "serve",
                "--backend",
                "emulated",
                "--dummy",
                "llama-3-8b",
                "--gpu",
                "h100",
            ])
            .args([
                "--port",
                "0",
                "--access-log",
                "none",
                "--speed",
                &speed.to_string(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = process
            .stdout
            .take()
            .ok_or("the server has no standard output")?;
        let mut server = Self {
            process,
            url: String::new(),
        };
        let lines = BufReader::new(stdout)
            .lines()
            .map_while(std::io::Result::ok);
        let ready = |line: String| {
            Some(
                line.strip_prefix("ready: ")?
                    .split("/v1 ")
                    .next()?
                    .to_owned(),
            )
        };
        server.url = lines
            .into_iter()
            .find_map(ready)
            .ok_or("a server did not start")?;
        Ok(server)
    }
}

/// How gates ended, by exit code: pass, fail, inconclusive or degraded, other.
#[derive(Clone, Copy, Debug, Default)]
struct Endings {
    pass: usize,
    fail: usize,
    unclear: usize,
    other: usize,
}

impl Endings {
    fn count(&mut self, code: Option<i32>) {
        match code {
            Some(0) => self.pass += 1,
            Some(3) => self.fail += 1,
            Some(4) => self.unclear += 1,
            _ => self.other += 1,
        }
    }

    fn print(&self, name: &str) {
        println!(
            "{name}: {} pass, {} fail, {} inconclusive or degraded, {} other",
            self.pass, self.fail, self.unclear, self.other
        );
    }
}

/// The three of a lane, by the names of their folders.
const SIDES: [&str; 3] = ["base", "same", "slower"];

struct Lane<'a> {
    options: &'a Options,
    program: &'a Path,
    servers: [Server; 3],
}

impl Lane<'_> {
    /// Runs all pairs of a decision and lets the gate judge both questions.
    fn decide(&self, folder: &Path, decision: usize) -> Result<[Option<i32>; 2]> {
        for pair in 0..self.options.pairs {
            for turn in 0..SIDES.len() {
                // Who is first changes from round to round.
                let side = (turn + pair + decision) % SIDES.len();
                let seed = decision * self.options.pairs + pair;
                self.load(
                    side,
                    seed,
                    &folder.join(SIDES[side]).join(format!("run-{pair}")),
                )?;
            }
        }
        Ok([self.gate(folder, "same")?, self.gate(folder, "slower")?])
    }

    fn load(&self, side: usize, seed: usize, out: &Path) -> Result<()> {
        let options = self.options;
        let ended = Command::new(self.program)
            .args([
                "load",
                "--url",
                &self.servers[side].url,
                "--tokenizer",
                "bytes",
            ])
            .args(["--request-rate", &options.rate.to_string()])
            .args(["--num-prompts", &options.requests.to_string()])
            .args(["--random-input-len", "128", "--random-output-len"])
            .args([&options.output.to_string(), "--seed", &seed.to_string()])
            .args([
                "--warmup",
                "0s",
                "--cooldown",
                "0s",
                "--start-at",
                "+200ms",
                "--quiet",
            ])
            .arg("--out")
            .arg(out)
            .stdout(Stdio::null())
            .output()?;
        match ended.status.code() {
            Some(0 | 3 | 4) => Ok(()),
            _ => Err(String::from_utf8_lossy(&ended.stderr).into_owned().into()),
        }
    }

    fn gate(&self, folder: &Path, candidate: &str) -> Result<Option<i32>> {
        let ended = Command::new(self.program)
            .arg("gate")
            .arg("--baseline")
            .arg(folder.join(SIDES[0]))
            .arg("--candidate")
            .arg(folder.join(candidate))
            .args(self.options.allow_degraded.then_some("--allow-degraded"))
            .args(["--no-scenario-objectives", "--json"])
            .arg(folder.join(format!("{candidate}.json")))
            .output()?;
        Ok(ended.status.code())
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let beside = std::env::current_exe()?;
    let beside = beside
        .parent()
        .and_then(Path::parent)
        .ok_or("this program is in no folder")?;
    let program = options
        .foresail
        .clone()
        .unwrap_or_else(|| beside.join("foresail"));
    let kept = options.out.clone();
    let temporary = std::env::temp_dir().join(format!("gate-power-{}", std::process::id()));
    let folder = kept.clone().unwrap_or_else(|| temporary.clone());
    let endings = Mutex::new([Endings::default(); 2]);
    let next = AtomicUsize::new(0);
    let work = || lane(&options, &program, &folder, &next, &endings);
    let ended: Vec<Result<()>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..options.lanes).map(|_| scope.spawn(work)).collect();
        let joined = lanes.into_iter().map(|lane| lane.join());
        joined
            .map(|lane| lane.unwrap_or_else(|_| Err("a lane panicked".into())))
            .collect()
    });
    if kept.is_none() {
        fs::remove_dir_all(&temporary)?;
    }
    ended.into_iter().collect::<Result<()>>()?;
    let [alike, slower] = endings.into_inner()?;
    alike.print("same against same");
    slower.print(&format!(
        "{:.1} % slower",
        (1.0 / options.speed - 1.0) * 100.0
    ));
    Ok(())
}

/// Decides until nothing is left to decide.
fn lane(
    options: &Options,
    program: &Path,
    folder: &Path,
    next: &AtomicUsize,
    endings: &Mutex<[Endings; 2]>,
) -> Result<()> {
    let start = |speed| Server::start(program, speed);
    let lane = Lane {
        options,
        program,
        servers: [start(1.0)?, start(1.0)?, start(options.speed)?],
    };
    loop {
        let decision = next.fetch_add(1, Ordering::Relaxed);
        if decision >= options.decisions {
            return Ok(());
        }
        let codes = lane.decide(&folder.join(decision.to_string()), decision)?;
        let mut endings = endings.lock().map_err(|_| "another lane panicked")?;
        for (ending, code) in endings.iter_mut().zip(codes) {
            ending.count(code);
        }
    }
}
