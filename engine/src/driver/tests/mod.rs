//! The driver against a device that is known to the last token.

mod alone;
mod device;
mod requests;
mod storm;
mod thread;

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::generation::{Event, Generation};
use crate::sampling::Sampling;
use crate::weights::Adapter;
use device::{Device, Orders};

/// A small replica: 12 blocks of 4 tokens, 4 sequences.
fn small() -> Settings {
    let limits = Limits {
        block_size: 4,
        num_blocks: 12,
        max_num_seqs: 4,
        max_batched_tokens: 16,
        max_model_len: 40,
        max_loras: 2,
        max_lora_rank: 8,
    };
    Settings {
        watermark_blocks: 0,
        ..Settings::new(limits, device::VOCAB_SIZE as usize)
    }
}

fn generation(prompt: &[u32], max_new: u32) -> Generation {
    Generation {
        id: "a".to_owned(),
        prompt: prompt.into(),
        max_new,
        min_new: 0,
        stop_tokens: Vec::new(),
        sampling: Sampling::default(),
        prompt_logprobs: None,
        adapter: None,
        cache_salt: None,
    }
}

fn adapter(name: &str) -> Adapter {
    Adapter {
        name: name.to_owned(),
        rank: 8,
        scale: 1.0,
        layers: Vec::new(),
    }
}

fn tokens_of(events: &[Event]) -> Vec<u32> {
    let tokens = events.iter().filter_map(|event| match event {
        Event::Token(sampled) => Some(sampled.token),
        _ => None,
    });
    tokens.collect()
}

/// A driver whose device does as it is told.
struct Bench {
    driver: Driver,
    orders: Orders,
    next: RequestKey,
}

impl Bench {
    fn new(settings: &Settings) -> Self {
        let orders = Orders::default();
        let device = Device::new(&settings.limits, &orders);
        let driver = Driver::new(Box::new(device), settings).unwrap();
        Self {
            driver,
            orders,
            next: 0,
        }
    }

    fn add_adapters(&mut self, names: &[&str]) {
        for (key, name) in (0..).zip(names) {
            self.driver.add_adapter(key, Arc::new(adapter(name)));
        }
    }

    fn submit_with(
        &mut self,
        generation: Generation,
        adapter: Option<AdapterKey>,
    ) -> (RequestKey, UnboundedReceiver<Event>) {
        let (events, receiver) = unbounded_channel();
        let key = self.next;
        self.next += 1;
        self.driver
            .submit(key, generation, adapter, events)
            .unwrap();
        (key, receiver)
    }

    fn submit(&mut self, generation: Generation) -> UnboundedReceiver<Event> {
        self.submit_with(generation, None).1
    }

    fn run(&mut self) {
        while self.driver.step() == Progress::Stepped {}
    }
}

fn all(mut events: UnboundedReceiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}
