//! What the driver itself takes of each step, and how late an emulated device is.
//!
//! `cargo run --release -p foresail-engine --example driver_overhead`
//!
//! The device of the first table computes nothing, so all that is left is the
//! driver and the scheduler: planning a step, putting its rows together, and
//! telling each client its token; in the right column, a thousand times a
//! second, to tasks that wait for it. The second table is about deadlines.

#![allow(clippy::print_stdout, reason = "a program whose output is a table")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use foresail_core::step_time::{AdapterOverhead, DecodePiece, StepLoad, StepTime};
use foresail_core::time::{MICROSECOND, MILLISECOND, Nanos, PICOS_PER_NANO, Picos};
use foresail_engine::backend::{Backend, Limits, RowOutput, StepError, StepInput};
use foresail_engine::driver::{Driver, Progress, Replica, Settings};
use foresail_engine::emulated::{Clock, EmulatedBackend, RealClock, Vocabulary};
use foresail_engine::generation::{Event, Generation};
use foresail_engine::sampling::{Sampled, Sampling};
use foresail_engine::weights::Adapter;
use tokio::sync::mpsc::unbounded_channel;

const STEPS: u32 = 4_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("driver, µs a step    alone   with a thread and tasks, 1 ms steps");
    for batch in [1, 8, 64, 256] {
        let (alone, threaded) = (driver_us(batch)?, threaded_us(batch)?);
        println!("batch {batch:>4}          {alone:>8.2}   {threaded:>8.2}");
    }
    println!("lateness, µs         p50      p99      max");
    for step_us in [500, 2_000, 10_000] {
        let [p50, p99, max] = lateness_us(step_us * MICROSECOND)?;
        println!("steps of {step_us:>5} µs  {p50:>7.1}  {p99:>7.1}  {max:>7.1}");
    }
    Ok(())
}

/// A device that has nothing to do.
struct Null;

impl Backend for Null {
    fn step(&mut self, input: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let outputs = input.rows.iter().map(|row| RowOutput {
            sampled: row.sample.map(|_| Sampled {
                token: row.past as u32 % 1_000,
                logprobs: None,
            }),
            ..RowOutput::default()
        });
        Ok(outputs.collect())
    }

    fn load_adapter(&mut self, _slot: usize, _adapter: &Adapter) -> Result<(), StepError> {
        Ok(())
    }

    fn unload_adapter(&mut self, _slot: usize) {}
}

fn settings() -> Settings {
    let limits = Limits {
        block_size: 64,
        num_blocks: 40_000,
        max_num_seqs: 256,
        max_batched_tokens: 8_192,
        max_model_len: 8_192,
        max_loras: 0,
        max_lora_rank: 0,
    };
    Settings::new(limits, 1_000)
}

fn generation(number: u32, max_new: u32) -> Generation {
    Generation {
        id: number.to_string(),
        prompt: (0..32).map(|place| (number + place) % 1_000).collect(),
        max_new,
        min_new: 0,
        stop_tokens: vec![999],
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        prompt_logprobs: None,
        adapter: None,
        cache_salt: None,
    }
}

fn driver_us(batch: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let mut driver = Driver::new(Box::new(Null), &settings())?;
    let mut clients = Vec::new();
    for number in 0..batch {
        let (events, receiver) = unbounded_channel();
        // No token of theirs is the stop token.
        let mut asked = generation(number, STEPS);
        asked.stop_tokens.clear();
        driver.submit(number.into(), asked, None, events)?;
        clients.push(receiver);
    }
    while driver.step() == Progress::Stepped {
        for client in &mut clients {
            while client.try_recv().is_ok() {}
        }
    }
    let stats = driver.stats();
    Ok(stats.driver_s * 1e6 / stats.steps as f64)
}

/// Steps that all take the same time.
#[derive(Clone, Copy)]
struct Fixed(Picos);

impl StepTime for Fixed {
    fn step(&self, _: &StepLoad<'_>) -> Picos {
        self.0
    }

    fn decode(&self, _: u32, _: u64) -> DecodePiece {
        DecodePiece {
            fixed: self.0 as i64,
            per_past_token: 0,
            past_last: u64::MAX,
        }
    }
}

fn emulated(
    step: Nanos,
    clock: Box<dyn Clock>,
) -> Result<EmulatedBackend, Box<dyn std::error::Error>> {
    let model = Box::new(Fixed(step * PICOS_PER_NANO));
    let vocabulary = Vocabulary::new(0..900, Vec::new())?;
    let overhead = AdapterOverhead::default();
    Ok(EmulatedBackend::new(model, overhead, 0, vocabulary, clock))
}

fn threaded_us(batch: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let backend = emulated(MILLISECOND, Box::new(RealClock::new(1.0)?))?;
    let replica = Replica::start(Box::new(backend), settings())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let tasks: Vec<_> = (0..batch)
        .map(|number| {
            let mut ticket = replica.submit(generation(number, STEPS / 4))?;
            Ok(runtime.spawn(async move {
                let mut tokens = 0;
                while let Some(event) = ticket.next().await {
                    tokens += u32::from(matches!(event, Event::Token(_)));
                }
                tokens
            }))
        })
        .collect::<Result<_, foresail_engine::generation::Refusal>>()?;
    for task in tasks {
        assert_eq!(runtime.block_on(task)?, STEPS / 4);
    }
    let stats = replica.stats();
    Ok(stats.driver_s * 1e6 / stats.steps as f64)
}

/// A clock that notes how late each wait ended (ns).
#[derive(Clone)]
struct Watched {
    clock: RealClock,
    late_ns: Arc<Mutex<Vec<Nanos>>>,
}

impl Clock for Watched {
    fn now(&self) -> Nanos {
        self.clock.now()
    }

    fn wait_until(&mut self, at: Nanos) {
        self.clock.wait_until(at);
        let late = self.clock.now().saturating_sub(at);
        self.late_ns
            .lock()
            .expect("nobody panics with it")
            .push(late);
    }
}

fn lateness_us(step: Nanos) -> Result<[f64; 3], Box<dyn std::error::Error>> {
    let late_ns = Arc::default();
    let clock = Watched {
        clock: RealClock::new(1.0)?,
        late_ns: Arc::clone(&late_ns),
    };
    let backend = emulated(step, Box::new(clock))?;
    let replica = Replica::start(Box::new(backend), settings())?;
    let seconds = Duration::from_secs(4);
    let steps = (seconds.as_nanos() as u64 / step).min(8_000) as u32;
    let mut ticket = replica.submit(generation(1, steps))?;
    while ticket.next_blocking().is_some() {}
    let mut late = std::mem::take(&mut *late_ns.lock().expect("nobody panics with it"));
    late.sort_unstable();
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    Ok([at(0.5), at(0.99), at(1.0)])
}
