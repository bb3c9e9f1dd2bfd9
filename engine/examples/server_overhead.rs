//! What the server adds to a request and to a token: `cargo run --release -p foresail-engine --example server_overhead`.
//!
//! The device takes no time, so that all of what is measured is HTTP, JSON,
//! text and the driver, and the client's own part, which runs in the same process.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use foresail_engine::backend::{Backend, Limits, RowOutput, StepError, StepInput};
use foresail_engine::driver::{Replica, Settings};
use foresail_engine::sampling::Sampled;
use foresail_engine::server::{AccessLog, App, Engine, Host, ServerSettings};
use foresail_engine::text::Tokenizer;
use foresail_engine::weights::Adapter;

/// A device that says `a` at once.
struct Null;

impl Backend for Null {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let sampled = Sampled {
            token: u32::from(b'a'),
            logprobs: None,
        };
        let output = |sample: bool| RowOutput {
            sampled: sample.then(|| sampled.clone()),
            ..RowOutput::default()
        };
        Ok(step
            .rows
            .iter()
            .map(|row| output(row.sample.is_some()))
            .collect())
    }

    fn load_adapter(&mut self, _: usize, _: &Adapter) -> Result<(), StepError> {
        Ok(())
    }

    fn unload_adapter(&mut self, _: usize) {}
}

const LIMITS: Limits = Limits {
    block_size: 16,
    num_blocks: 65_536,
    max_num_seqs: 256,
    max_batched_tokens: 8192,
    max_model_len: 8192,
    max_loras: 0,
    max_lora_rank: 0,
};

fn main() -> Result<(), Box<dyn Error>> {
    let replica = Replica::start(Box::new(Null), Settings::new(LIMITS, 300))?;
    let app = App::new(ServerSettings::default(), None, AccessLog::none());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let host = Host::start(listener, Arc::clone(&app))?;
    app.ready(Engine {
        replica: replica.clone(),
        tokenizer: Arc::new(Tokenizer::bytes()),
        names: vec!["null".to_owned()],
        eos_token_ids: Vec::new(),
        adapter_loader: None,
        entrance: None,
    });
    println!("                          requests   tokens      wall    a request    a token");
    for clients in [1, 8] {
        measure(address, "whole, 1 token", clients, 2_000, 1, false);
        measure(address, "streamed, 1 token", clients, 2_000, 1, true);
        measure(address, "whole, 2000 tokens", clients, 50, 2_000, false);
        measure(address, "streamed, 2000 tokens", clients, 50, 2_000, true);
    }
    let driver_s = replica.stats().driver_s;
    println!("of which the driver took {driver_s:.3} s");
    host.stop();
    host.join()?;
    Ok(())
}

/// So many clients ask one after the other, over one connection each.
fn measure(
    address: SocketAddr,
    name: &str,
    clients: usize,
    requests: usize,
    tokens: usize,
    stream: bool,
) {
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| ask(address, requests / clients, tokens, stream));
        }
    });
    let (wall, requests) = (began.elapsed(), requests / clients * clients);
    let each = |count: usize| wall.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{clients} clients, {name:<22} {requests:>5} {:>8} {:>7.3} s {:>9.1} us {:>7.2} us",
        requests * tokens,
        wall.as_secs_f64(),
        each(requests),
        each(requests * tokens),
    );
}

fn ask(address: SocketAddr, requests: usize, tokens: usize, stream: bool) {
    let mut socket = TcpStream::connect(address).expect("it connects");
    socket.set_nodelay(true).expect("it can be set");
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("it can be set");
    let body = format!(
        r#"{{"model":"null","prompt":"Hello, how are you?","max_tokens":{tokens},"stream":{stream}}}"#
    );
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // A whole answer ends with its usage, a stream with the last chunk.
    let end: &[u8] = if stream { b"0\r\n\r\n" } else { b"}}}" };
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..requests {
        socket.write_all(request.as_bytes()).expect("it is sent");
        let mut last = Vec::new();
        while !last.ends_with(end) {
            let read = socket.read(&mut buffer).expect("it can be read");
            assert!(read > 0, "the server closed the connection");
            last.extend_from_slice(&buffer[..read]);
            // The end may come in two parts.
            last.drain(..last.len().saturating_sub(end.len()));
        }
    }
}
