//! The mock endpoint as a program, for measurements from outside.
//!
//! ```text
//! mock_endpoint --ttft-ms 50 --itl-ms 5 --for 60
//! ```
//!
//! Prints its address on the first line. At its end (after `--for` seconds, or when
//! its standard input closes, or at SIGTERM or Ctrl-C) it prints what it did, how late it was, and its CPU time.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::time::Duration;

use foresail_mock_endpoint::{
    Behaviour, Fault, KeepAlive, LineEnd, MockEndpoint, Outage, OutageKind, Rule, Stats,
    UsageReport, When, Writes,
};

const USAGE: &str = "\
usage: mock_endpoint [FLAG VALUE]...
  --listen ADDRESS          127.0.0.1:0
  --for SECONDS             until standard input closes
  --ttft-ms MS              50
  --itl-ms MS               5
  --tokens-per-chunk N      1
  --tokens N                64, for requests without max_tokens
  --prompt-tokens N         counted
  --usage asked|always|never
  --model NAME              mock
  --role-first true|false   false
  --head-early true|false   false
  --keep-alive always|never|N  always
  --together N              events of output in one write
  --bytewise true|false     false
  --line-end lf|crlf|cr     lf
  --every K:FAULT   --share P:FAULT   --first N:FAULT   --after N:FAULT
      FAULT: never | reset | reset-after=N | close-after=N | stall-after=N:MS | status=N[:RETRY_AFTER_S] | error-after=N
  --frozen FROM_S:UNTIL_S   --refusing FROM_S:UNTIL_S   --dead FROM_S:UNTIL_S
  --seed N                  0";

/// What the command line says.
struct Options {
    listen: SocketAddr,
    lasts: Option<Duration>,
    behaviour: Behaviour,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    raise_descriptor_limit();
    let mock = match MockEndpoint::start_on(options.listen, options.behaviour) {
        Ok(mock) => mock,
        Err(error) => {
            eprintln!("cannot listen on {}: {error}", options.listen);
            return ExitCode::from(2);
        }
    };
    println!("{}", mock.base_url());
    if let Err(error) = wait(options.lasts) {
        eprintln!("cannot listen to signals: {error}");
        return ExitCode::FAILURE;
    }
    print!("{}", told(&mock.stop()));
    ExitCode::SUCCESS
}

/// Ten thousand streams are ten thousand descriptors; the limit that shells begin with is 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it there is less room, and the refusals are counted.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Waits for so long, or until standard input closes; in any case until asked to end.
fn wait(lasts: Option<Duration>) -> Result<(), ctrlc::Error> {
    let (end, ended) = channel();
    let asked = end.clone();
    // Nobody listens to a second signal, and nobody needs to.
    ctrlc::set_handler(move || {
        let _ = asked.send(());
    })?;
    match lasts {
        // Both ways of ending are ends.
        Some(lasts) => {
            let _ = ended.recv_timeout(lasts);
        }
        None => {
            std::thread::spawn(move || {
                // An input that cannot be read has ended as well.
                let _ = std::io::stdin().read_to_end(&mut Vec::new());
                let _ = end.send(());
            });
            let _ = ended.recv();
        }
    }
    Ok(())
}

/// The statistics, one a line, as `name value`.
fn told(stats: &Stats) -> String {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    format!(
        "requests {}\nrequests_reused {}\nconnections_accepted {}\naccept_errors {}\nanswers {}\nabandoned {}\n\
         writes {}\ntokens {}\nlate_p50_us {:.0}\nlate_p99_us {:.0}\nlate_max_us {:.0}\nread_gap_max_us {:.0}\n\
         cpu_s {:.3}\nelapsed_s {:.3}\ncpu_us_per_token {:.2}\n",
        stats.requests,
        stats.requests_reused,
        stats.connections_accepted,
        stats.accept_errors,
        stats.answers,
        stats.abandoned,
        stats.writes,
        stats.tokens,
        us(stats.late_p50),
        us(stats.late_p99),
        us(stats.late_max),
        us(stats.read_gap_max),
        stats.cpu.as_secs_f64(),
        stats.elapsed.as_secs_f64(),
        us(stats.cpu) / stats.tokens.max(1) as f64,
    )
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        lasts: None,
        behaviour: Behaviour::default(),
    };
    for pair in arguments.chunks(2) {
        let [flag, value] = pair else {
            return Err(format!("{} has no value", pair[0]));
        };
        apply(&mut options, flag, value).map_err(|message| format!("{flag} {value}: {message}"))?;
    }
    Ok(options)
}

fn apply(options: &mut Options, flag: &str, value: &str) -> Result<(), String> {
    let behaviour = &mut options.behaviour;
    match flag {
        "--listen" => options.listen = number(value)?,
        "--for" => options.lasts = Some(seconds(value)?),
        "--ttft-ms" => behaviour.ttft = milliseconds(value)?,
        "--itl-ms" => behaviour.itl = milliseconds(value)?,
        "--tokens-per-chunk" => behaviour.tokens_per_chunk = number(value)?,
        "--tokens" => behaviour.tokens_default = number(value)?,
        "--prompt-tokens" => behaviour.prompt_tokens = Some(number(value)?),
        "--usage" => behaviour.usage = usage(value)?,
        "--model" => value.clone_into(&mut behaviour.model),
        "--role-first" => behaviour.is_role_first = number(value)?,
        "--head-early" => behaviour.is_head_early = number(value)?,
        "--keep-alive" => behaviour.keep_alive = keep_alive(value)?,
        "--together" => behaviour.events.writes = Writes::Together(number(value)?),
        "--bytewise" if number(value)? => behaviour.events.writes = Writes::Bytes,
        "--bytewise" => {}
        "--line-end" => behaviour.events.line_end = line_end(value)?,
        "--seed" => behaviour.seed = number(value)?,
        "--frozen" => behaviour.outages.push(outage(OutageKind::Frozen, value)?),
        "--refusing" => behaviour.outages.push(outage(OutageKind::Refusing, value)?),
        "--dead" => behaviour.outages.push(outage(OutageKind::Dead, value)?),
        "--every" | "--share" | "--first" | "--after" => behaviour.rules.push(rule(flag, value)?),
        _ => return Err("there is no such flag".to_owned()),
    }
    Ok(())
}

fn rule(flag: &str, value: &str) -> Result<Rule, String> {
    let (which, fault) = value.split_once(':').ok_or("write NUMBER:FAULT")?;
    let when = match flag {
        "--every" => When::Every(number(which)?),
        "--share" => When::Probability(number(which)?),
        "--first" => When::First(number(which)?),
        _ => When::After(number(which)?),
    };
    let fault = self::fault(fault)?;
    Ok(Rule { fault, when })
}

fn fault(text: &str) -> Result<Fault, String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let (first, second) = value.split_once(':').unwrap_or((value, ""));
    Ok(match name {
        "never" => Fault::NeverAnswer,
        "reset" => Fault::ResetBeforeHead,
        "reset-after" => Fault::ResetAfter(number(first)?),
        "close-after" => Fault::CloseAfter(number(first)?),
        "error-after" => Fault::ErrorEvent(number(first)?),
        "stall-after" => Fault::Stall {
            after_chunks: number(first)?,
            lasts: milliseconds(second)?,
        },
        "status" => Fault::Status {
            status: number(first)?,
            retry_after_s: match second {
                "" => None,
                seconds => Some(number(seconds)?),
            },
        },
        _ => return Err(format!("there is no fault {name}")),
    })
}

fn outage(kind: OutageKind, value: &str) -> Result<Outage, String> {
    let (from, until) = value.split_once(':').ok_or("write FROM:UNTIL")?;
    Ok(Outage {
        kind,
        from: seconds(from)?,
        until: seconds(until)?,
    })
}

fn usage(value: &str) -> Result<UsageReport, String> {
    match value {
        "asked" => Ok(UsageReport::WhenAsked),
        "always" => Ok(UsageReport::Always),
        "never" => Ok(UsageReport::Never),
        _ => Err("write asked, always or never".to_owned()),
    }
}

fn keep_alive(value: &str) -> Result<KeepAlive, String> {
    match value {
        "always" => Ok(KeepAlive::Always),
        "never" => Ok(KeepAlive::Never),
        requests => number(requests).map(KeepAlive::Requests),
    }
}

fn line_end(value: &str) -> Result<LineEnd, String> {
    match value {
        "lf" => Ok(LineEnd::Lf),
        "crlf" => Ok(LineEnd::CrLf),
        "cr" => Ok(LineEnd::Cr),
        _ => Err("write lf, crlf or cr".to_owned()),
    }
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "this cannot be read".to_owned())
}

fn seconds(value: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number(value)?).map_err(|error| error.to_string())
}

fn milliseconds(value: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number::<f64>(value)? / 1e3).map_err(|error| error.to_string())
}
