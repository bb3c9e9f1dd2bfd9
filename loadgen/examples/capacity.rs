//! How much load one core can make before what it measures is no longer true.
//!
//! ```text
//! cargo build --release -p foresail-loadgen --example capacity
//! chrt -f 10 target/release/examples/capacity --rates 500,1000,1500 --seconds 10
//! target/release/examples/capacity --streams 10000
//! ```
//!
//! For each rate a mock endpoint and a client run as processes of their own, each
//! pinned to a core. The mock takes 50 ms to the first token and 5 ms to each next one (500 ms with `--streams`), so
//! whatever else the client reports is its own doing, or the mock's: the mock says how late it was.
//! With `--streams` so many streams are open at once instead, and memory is what is looked at.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks")]

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foresail_loadgen::client::{Settings, Target};
use foresail_loadgen::clock::RunClock;
use foresail_loadgen::plan::{Planned, Prompt};
use foresail_loadgen::record::{Sink, WindowSettings};
use foresail_loadgen::run::{self, RunOutcome};
use foresail_loadgen::schedule::Plan;
use foresail_mock_endpoint::{Behaviour, MockEndpoint};
use foresail_reports::histogram::Histogram;
use foresail_reports::records::{AttemptRecord, Gaps, Outcome, RequestRecord};
use foresail_scenarios::workload::{Content, Request, Skipped};
use rustix::process::{Resource, getrlimit, setrlimit};

const TTFT: Duration = Duration::from_millis(50);
/// Ten thousand streams at 5 ms would be two million tokens a second.
const ITL_OF_MANY_STREAMS: Duration = Duration::from_millis(500);
/// The first second of a run is not looked at: connections are warm by then, caches too.
const WARM_UP_NS: u64 = 1_000_000_000;

/// A connection that is opened ahead takes no longer.
const CONNECT_TIME_MAX: Duration = Duration::from_micros(300);

/// What the command line says.
#[derive(Clone)]
struct Options {
    rates: Vec<u64>,
    seconds: u64,
    tokens: u64,
    itl: Duration,
    streams: Option<u64>,
    mock_core: usize,
    client_core: usize,
    /// For the client: where the mock is.
    url: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("mock") => options(&arguments[1..]).and_then(|options| be_mock(&options)),
        Some("client") => options(&arguments[1..]).and_then(|options| be_client(&options)),
        _ => options(&arguments).and_then(|options| measure(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        rates: vec![250, 500, 750, 1000, 1250, 1500, 2000, 2500, 3000],
        seconds: 10,
        tokens: 64,
        itl: Duration::from_millis(5),
        streams: None,
        mock_core: 0,
        client_core: 1,
        url: String::new(),
    };
    for pair in arguments.chunks(2) {
        let [flag, value] = pair else {
            return Err(format!("{} has no value", pair[0]).into());
        };
        match flag.as_str() {
            "--rates" => {
                options.rates = value.split(',').map(str::parse).collect::<Result<_, _>>()?
            }
            "--seconds" => options.seconds = value.parse()?,
            "--tokens" => options.tokens = value.parse()?,
            "--streams" => {
                options.streams = Some(value.parse()?);
                options.rates = vec![0];
                options.itl = ITL_OF_MANY_STREAMS;
            }
            "--mock-core" => options.mock_core = value.parse()?,
            "--client-core" => options.client_core = value.parse()?,
            "--url" => options.url.clone_from(value),
            _ => return Err(format!("there is no flag {flag}").into()),
        }
    }
    Ok(options)
}

/// Runs mock and client side by side for each point, and prints the table.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    println!(
        "{:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6} {:>7} {:>8} {:>6} degraded | mock: late p99, max, gap max, µs/token, failed",
        "asked/s",
        "done/s",
        "tokens/s",
        "ttft p50",
        "ttft p99",
        "itl p50",
        "itl p99",
        "late p99",
        "µs/tok",
        "cpu %",
        "RSS MB",
        "open max",
        "failed"
    );
    for &rate in &options.rates {
        let mut mock = child("mock", options, rate, "")?;
        let mut out = BufReader::new(mock.stdout.take().ok_or("no output")?);
        let mut url = String::new();
        out.read_line(&mut url)?;
        let client = child("client", options, rate, url.trim())?.wait_with_output()?;
        // The mock ends when its input does.
        drop(mock.stdin.take());
        let mut told = String::new();
        out.read_to_string(&mut told)?;
        mock.wait()?;
        println!(
            "{} | {}",
            String::from_utf8(client.stdout)?.trim_end(),
            told.trim_end()
        );
    }
    println!(
        "ttft is off from {TTFT:?} by so much, counted from when a request was due; late is how late it was sent; all in ms"
    );
    Ok(())
}

fn child(
    role: &str,
    options: &Options,
    rate: u64,
    url: &str,
) -> Result<std::process::Child, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([role, "--url", url, "--rates", &rate.to_string()]);
    command.args(["--seconds", &options.seconds.to_string()]);
    command.args(["--tokens", &options.tokens.to_string()]);
    command.args(["--mock-core", &options.mock_core.to_string()]);
    command.args(["--client-core", &options.client_core.to_string()]);
    if let Some(streams) = options.streams {
        command.args(["--streams", &streams.to_string()]);
    }
    Ok(command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?)
}

/// Threads that this one starts are pinned with it.
#[cfg(target_os = "linux")]
fn pin(core: usize) -> std::io::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &cores)?)
}

#[cfg(not(target_os = "linux"))]
fn pin(_core: usize) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

fn settle_on(core: usize) {
    if let Err(error) = pin(core) {
        eprintln!("not pinned to core {core}: {error}");
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("the limit of open files stays: {error}");
    }
}

fn be_mock(options: &Options) -> Result<(), Box<dyn Error>> {
    settle_on(options.mock_core);
    let mock = MockEndpoint::start(Behaviour {
        ttft: TTFT,
        itl: options.itl,
        ..Behaviour::default()
    })?;
    println!("{}", mock.base_url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let stats = mock.stop();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{:>9.3} {:>9.3} {:>9.3} {:>7.2} {:>7}",
        ms(stats.late_p99),
        ms(stats.late_max),
        ms(stats.read_gap_max),
        stats.cpu.as_secs_f64() * 1e6 / stats.tokens.max(1) as f64,
        stats.requests - stats.answers,
    );
    Ok(())
}

/// What the client says of the requests that count.
#[derive(Default)]
struct Seen {
    completed: u64,
    failed: u64,
    /// From when a request was due, as everywhere in foresail.
    ttft: Histogram,
    itl: Histogram,
}

impl Sink for Seen {
    fn window(&mut self, _from_ns: u64, _until_ns: u64) {}

    fn request(&mut self, record: &RequestRecord) {
        if !record.wire.is_some_and(|wire| wire.is_in_window) {
            return;
        }
        if record.outcome != Outcome::Completed {
            self.failed += 1;
            return;
        }
        self.completed += 1;
        if let Some(first_ns) = record.first_token_ns {
            self.ttft.record(first_ns - record.due_ns);
        }
    }

    fn gaps(&mut self, gaps: Gaps) {
        self.itl.record_gaps(gaps);
    }

    fn attempt(&mut self, _attempt: &AttemptRecord) {}
}

fn be_client(options: &Options) -> Result<(), Box<dyn Error>> {
    settle_on(options.client_core);
    let target = Target::resolve(&Settings::new(options.url.clone()))?;
    let plan = plan(options);
    let stream_ns = stream_ns(options);
    let in_flight = match options.streams {
        Some(streams) => streams,
        // A tenth more than there are if all goes well.
        None => options.rates[0] * stream_ns * 11 / 10_000_000_000 + 10,
    };
    let settings = run::Settings {
        warm_connections: in_flight as usize,
        window: WindowSettings {
            warm_up_ns: Some(options.streams.map_or(WARM_UP_NS, |_| 0)),
            cool_down_ns: 0,
        },
        ..run::Settings::default()
    };
    let head_start = Duration::from_secs(2) + CONNECT_TIME_MAX * in_flight as u32;
    let clock = RunClock::starting_at(Instant::now() + head_start);
    let tokens = options.tokens;
    let make_body = Box::new(move |planned: &Planned| Ok(body(planned.id, tokens)));
    let run = run::start(
        settings,
        Arc::new(plan),
        make_body,
        &target,
        clock,
        Seen::default(),
    )?;
    println!("{}", row(options, &run.wait()?)?);
    Ok(())
}

/// How long a stream lasts.
fn stream_ns(options: &Options) -> u64 {
    (TTFT + options.itl * (options.tokens as u32 - 1)).as_nanos() as u64
}

/// Requests at a constant rate; with `--streams` so fast that all are open at once.
fn plan(options: &Options) -> Plan {
    let (count, gap_ns) = match options.streams {
        // All within half the life of the first.
        Some(streams) => (streams, stream_ns(options) / 2 / streams),
        None => (
            options.rates[0] * options.seconds,
            1_000_000_000 / options.rates[0],
        ),
    };
    let planned = |id| Planned {
        id,
        request: Request {
            due: id * gap_ns,
            prompt_tokens: 100,
            output_tokens: options.tokens as u32,
            session: None,
            adapter: None,
            content: Content::default(),
        },
        prompt: Prompt::Synthetic,
    };
    Plan {
        requests: (0..count).map(planned).collect(),
        requests_total: count,
        adapters: Vec::new(),
        duration_ns: None,
        description: "a constant rate".to_owned(),
        skipped: Skipped::default(),
        repeated_prompts: 0,
    }
}

/// The body of a request, its prompt unlike any other's.
fn body(id: u64, tokens: u64) -> Bytes {
    Bytes::from(format!(
        "{{\"model\":\"mock\",\"prompt\":\"{id} {}\",\"max_tokens\":{tokens},\"stream\":true,\
         \"stream_options\":{{\"include_usage\":true}}}}",
        "word ".repeat(100)
    ))
}

fn row(options: &Options, outcome: &RunOutcome<Seen>) -> Result<String, Box<dyn Error>> {
    let seen = &outcome.sink;
    let ms = |nanos: Option<u64>| nanos.map_or(f64::NAN, |nanos| nanos as f64 / 1e6);
    let off = |percentile| ms(seen.ttft.percentile_ns(percentile)) - TTFT.as_secs_f64() * 1e3;
    let window_s = (outcome.window.until_ns - outcome.window.from_ns) as f64 / 1e9;
    let per_second = seen.completed as f64 / window_s;
    let cpu_us = cpu().as_secs_f64() * 1e6;
    let degraded = outcome
        .verdict
        .degraded
        .iter()
        .map(|reason| reason.code.name());
    let degraded: Vec<_> = degraded.collect();
    Ok(format!(
        "{:>7} {per_second:>8.0} {:>9.0} {:>+9.3} {:>+9.3} {:>9.3} {:>9.3} {:>9.3} {:>7.2} {:>6.1} {:>7.0} {:>8} {:>6} {}",
        options.streams.unwrap_or(options.rates[0]),
        per_second * options.tokens as f64,
        off(50.0),
        off(99.0),
        ms(seen.itl.percentile_ns(50.0)),
        ms(seen.itl.percentile_ns(99.0)),
        ms(outcome.watch.lateness().percentile_ns(99.0)),
        cpu_us / outcome.tally.output_tokens.max(1) as f64,
        cpu_us / (outcome.tally.end_ns as f64 / 1e3) * 100.0,
        resident_mb_max()?,
        outcome.tally.in_flight_max,
        seen.failed,
        if degraded.is_empty() {
            "-".to_owned()
        } else {
            degraded.join(",")
        },
    ))
}

/// CPU time of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// The most memory that this process ever had.
fn resident_mb_max() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no VmHWM")?.trim().parse::<f64>()? / 1024.0)
}
