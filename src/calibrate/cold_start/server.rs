//! One start: a process from when it is made until it has answered twice.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::page_cache::BytesRead;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::serve::ReadyLine;

/// How soon a signal is noticed.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);

/// How long a request for one token may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// So much of what a failed start said is told (bytes).
const TOLD_MAX: usize = 2_000;

/// What a start came to.
#[derive(Clone, Debug)]
pub(super) struct Started {
    /// Its line.
    pub(super) ready: ReadyLine,
    /// From before the process was made until its line was read (s).
    pub(super) seconds: f64,
    /// What the first request took, and the second: prompts of a few tokens, answers of one (s).
    pub(super) requests_s: [f64; 2],
    /// What it had read when it was ready, if the system says.
    pub(super) bytes_read: Option<BytesRead>,
}

/// A process that ends, at the latest, with this.
#[derive(Debug)]
pub(super) struct Server {
    /// Which start it is, in words.
    what: String,
    spawned: Instant,
    child: Child,
    lines: Receiver<(Instant, io::Result<String>)>,
    said: JoinHandle<Vec<u8>>,
}

impl Server {
    pub(super) fn spawn(arguments: &[OsString], what: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::Input(format!("{what}: the program cannot be started: {error}"))
        };
        let program = env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self {
            what: what.to_owned(),
            spawned,
            child,
            lines: first_line(stdout),
            said: thread::spawn(move || all_of(stderr)),
        })
    }

    /// Waits until it is ready, asks it twice, and ends it.
    pub(super) fn measure(
        self,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<Started, Failure> {
        let (at, line) = match self.ready_line(timeout, interrupt)? {
            Some(line) => line,
            None => return Err(self.failure(interrupt)),
        };
        let bytes_read = BytesRead::of_process(self.child.id());
        let ready: ReadyLine = serde_json::from_str(&line).map_err(|_| {
            Failure::Input(format!(
                "{}: it did not say that it is ready, but: {}; leave away what makes it say so after `--`",
                self.what,
                line.trim_end()
            ))
        })?;
        let mut requests_s = [0.0; 2];
        for seconds in &mut requests_s {
            *seconds = self.request(&ready, interrupt)?;
        }
        Ok(Started {
            ready,
            seconds: at.duration_since(self.spawned).as_secs_f64(),
            requests_s,
            bytes_read,
        })
    }

    /// When its line came, and what it says; none if it ended without one.
    fn ready_line(
        &self,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<Option<(Instant, String)>, Failure> {
        while self.spawned.elapsed() < timeout {
            match self.lines.recv_timeout(WATCH_INTERVAL) {
                Ok((at, Ok(line))) => return Ok(Some((at, line))),
                Ok((_, Err(_))) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => interrupt.check()?,
            }
        }
        Err(Failure::Input(format!(
            "{}: it was not ready within {} s; --timeout allows more",
            self.what,
            timeout.as_secs_f64()
        )))
    }

    /// Why it ended, in its own words.
    fn failure(mut self, interrupt: &Interrupt) -> Failure {
        let status = self.child.wait();
        // Ctrl-C reaches every process of a terminal, and so may have reached the server first.
        if let Err(failure) = interrupt.check() {
            return failure;
        }
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = std::mem::replace(&mut self.said, thread::spawn(Vec::new));
        let said = said.join().unwrap_or_default();
        let last = &said[said.len().saturating_sub(TOLD_MAX)..];
        let told = String::from_utf8_lossy(last);
        Failure::Input(format!(
            "{} failed ({status}); it said: {}",
            self.what,
            told.trim_end()
        ))
    }

    /// What a request takes, from before its connection until its answer is whole (s).
    fn request(&self, ready: &ReadyLine, interrupt: &Interrupt) -> Result<f64, Failure> {
        let (sender, answered) = mpsc::channel();
        let ready = ready.clone();
        thread::spawn(move || {
            // Whoever asked may have been interrupted meanwhile.
            let _ = sender.send(ask(&ready));
        });
        loop {
            match answered.recv_timeout(WATCH_INTERVAL) {
                Ok(Ok(took)) => return Ok(took.as_secs_f64()),
                Ok(Err(error)) => {
                    return Err(Failure::Input(format!(
                        "{}: it was ready, and did not answer a request: {error}",
                        self.what
                    )));
                }
                Err(RecvTimeoutError::Timeout) => interrupt.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Defect("asking the server panicked".to_owned()));
                }
            }
        }
    }
}

/// However the measurement ends, nothing is left running.
impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line, with the time at which it was read.
fn first_line(stdout: Option<ChildStdout>) -> Receiver<(Instant, io::Result<String>)> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let Some(stdout) = stdout else { return };
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let at = Instant::now();
        match read {
            Ok(0) => {}
            // Whoever waits may have been interrupted meanwhile.
            read => drop(sender.send((at, read.map(|_| line)))),
        }
    });
    lines
}

fn all_of(stderr: Option<ChildStderr>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(mut stderr) = stderr {
        // What was read until then is there.
        let _ = stderr.read_to_end(&mut said);
    }
    said
}

/// Asks for one token, over a connection of its own.
fn ask(ready: &ReadyLine) -> io::Result<Duration> {
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let host = ready.url.strip_prefix("http://");
    let host = host.and_then(|rest| rest.strip_suffix("/v1"));
    let host = host.ok_or_else(|| wrong("its address is not one of HTTP"))?;
    let body = serde_json::json!({
        "model": ready.model, "prompt": "Hello", "max_tokens": 1, "ignore_eos": true,
    });
    let body = body.to_string();
    let began = Instant::now();
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let took = began.elapsed();
    match answer.lines().next() {
        Some(status) if status.starts_with("HTTP/1.1 200") => Ok(took),
        Some(status) => Err(wrong(status)),
        None => Err(wrong("it closed the connection")),
    }
}
