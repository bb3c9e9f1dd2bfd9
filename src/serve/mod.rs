//! `foresail serve`: a replica that answers OpenAI's API.
//!
//! ```text
//! arguments ──listen──> keys, log, socket ──> Host: answers 503 until the engine is there
//!     └───────start──> model, adapters ───────> ready: one line ──> signal ──> drain
//! ```

mod arguments;
mod listen;
mod ready;
mod scenario;
mod start;

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use foresail_engine::server::{App, Host};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::terminal::Terminal;
pub(crate) use arguments::Arguments;
pub(crate) use ready::Ready as ReadyLine;
use start::Ready;

/// How soon a signal, or the end of the replica, is noticed.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let interrupt = Interrupt::listen()?;
    // Everything that can be wrong without the model is said before it is loaded.
    let plan = start::Plan::of(arguments, terminal.error_style())?;
    let keys = listen::keys(arguments)?;
    let listener = listen::socket(arguments, keys.is_some())?;
    let address = listen::address(&listener)?;
    let app = App::new(
        arguments.server_settings(),
        keys,
        listen::access_log(arguments)?,
    );
    let host = Host::start(listener, Arc::clone(&app))
        .map_err(|error| Failure::Defect(format!("the server cannot be started: {error}")))?;
    let ready = load(plan, &interrupt)?;
    if let Some(note) = &ready.note {
        terminal.note(note);
    }
    let line = ready::Ready::of(&ready, address, began.elapsed()).line(arguments.format)?;
    let replica = ready.engine.replica.clone();
    app.ready(ready.engine);
    terminal.print(&line)?;
    while !interrupt.is_requested() && !replica.is_ended() && !host.is_ended() {
        thread::sleep(WATCH_INTERVAL);
    }
    if interrupt.is_requested() {
        terminal.note("finishing the requests that were taken; a second signal ends at once");
    }
    finish(host, terminal, interrupt.is_requested(), replica.loss())
}

/// Loads the model, unless that is interrupted.
fn load(plan: start::Plan, interrupt: &Interrupt) -> Result<Ready, Failure> {
    let (sender, loaded) = mpsc::channel();
    thread::spawn(move || {
        // Whoever asked may have been interrupted meanwhile.
        let _ = sender.send(plan.load());
    });
    loop {
        match loaded.recv_timeout(WATCH_INTERVAL) {
            Ok(ready) => return ready,
            Err(RecvTimeoutError::Timeout) => interrupt.check()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Defect("loading the model panicked".to_owned()));
            }
        }
    }
}

fn finish(
    host: Host,
    terminal: &Terminal,
    was_asked: bool,
    loss: Option<&str>,
) -> Result<ExitCode, Failure> {
    host.stop();
    let ended = host.join();
    let ended = ended.map_err(|error| Failure::Defect(format!("the server failed: {error}")))?;
    if let Some(loss) = loss {
        return Err(Failure::Device(format!(
            "{loss}; requests that were under way have failed, start again"
        )));
    }
    if !was_asked {
        return Err(Failure::Defect("the replica ended by itself".to_owned()));
    }
    if ended.broken_off > 0 {
        terminal.note(&format!(
            "{} requests were broken off; --drain-timeout allows more time",
            ended.broken_off
        ));
        return Ok(ExitCode::Degraded);
    }
    Ok(ExitCode::Success)
}
