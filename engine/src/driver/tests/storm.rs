//! Anything in any order: requests come and are given up, steps fail, memory is
//! short, adapters fail to load and are removed. Each request ends once, with
//! the tokens that it would get alone, and nothing is left behind.

use proptest::prelude::*;

use super::alone::{alone, joined};
use super::device::{Fault, VOCAB_SIZE};
use super::*;
use crate::generation::GenerationError;

const ADAPTERS: [&str; 3] = ["x", "y", "z"];

/// Something that happens between two steps.
#[derive(Clone, Debug)]
enum Act {
    Submit(Box<Generation>),
    Cancel(prop::sample::Index),
    /// A client goes without a word: its events are read by nobody.
    Deafen(prop::sample::Index),
    Steps(usize),
    Fault(Fault),
    BreakAdapter(usize),
    MendAdapters,
    RemoveAdapter(usize),
}

fn request() -> impl Strategy<Value = Generation> {
    let sizes = (1..26_usize, 0..4_u32, 1..15_u32, 0..6_u32);
    let words = (
        0..12_usize,
        prop::option::of(0..3_u32),
        prop::option::of(0..3_u32),
    );
    let names = (prop::option::of(0..3_usize), prop::option::of(0..2_u8));
    (sizes, words, names).prop_map(|(sizes, words, names)| {
        let (len, beginning, max_new, min_new) = sizes;
        let (stops, logprobs, prompt_logprobs) = words;
        // Few beginnings, so that prefixes are shared.
        let prompt: Vec<u32> = (0..len as u32)
            .map(|place| (beginning + place / 9) % VOCAB_SIZE)
            .collect();
        let mut asked = generation(&prompt, max_new);
        asked.min_new = min_new;
        asked.stop_tokens = (0..stops as u32).map(|stop| stop * 4).collect();
        asked.sampling.logprobs = logprobs;
        asked.prompt_logprobs = prompt_logprobs;
        asked.adapter = names.0.map(|name| ADAPTERS[name].to_owned());
        asked.cache_salt = names.1.map(|salt| salt.to_string());
        asked
    })
}

fn act() -> impl Strategy<Value = Act> {
    let fault = prop_oneof![
        Just(Fault::Error),
        Just(Fault::Panic),
        Just(Fault::OneOutputTooFew),
        Just(Fault::TokenOutOfVocabulary),
        Just(Fault::NothingSampled),
    ];
    prop_oneof![
        12 => request().prop_map(|asked| Act::Submit(Box::new(asked))),
        3 => any::<prop::sample::Index>().prop_map(Act::Cancel),
        1 => any::<prop::sample::Index>().prop_map(Act::Deafen),
        10 => (1..8_usize).prop_map(Act::Steps),
        1 => fault.prop_map(Act::Fault),
        1 => (0..3_usize).prop_map(Act::BreakAdapter),
        1 => Just(Act::MendAdapters),
        1 => (0..3_usize).prop_map(Act::RemoveAdapter),
    ]
}

/// A client, and what it knows.
struct Client {
    key: RequestKey,
    asked: Generation,
    events: Option<UnboundedReceiver<Event>>,
    is_cancelled: bool,
}

struct Storm {
    bench: Bench,
    clients: Vec<Client>,
    is_removed: [bool; 3],
}

impl Storm {
    fn new(settings: &Settings) -> Self {
        let mut bench = Bench::new(settings);
        bench.add_adapters(&ADAPTERS);
        Self {
            bench,
            clients: Vec::new(),
            is_removed: [false; 3],
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit(asked) => self.submit(*asked),
            Act::Cancel(index) if !self.clients.is_empty() => {
                let place = index.index(self.clients.len());
                let client = &mut self.clients[place];
                client.is_cancelled = true;
                self.bench.driver.cancel(client.key);
            }
            Act::Deafen(index) if !self.clients.is_empty() => {
                let place = index.index(self.clients.len());
                self.clients[place].events = None;
            }
            Act::Cancel(_) | Act::Deafen(_) => {}
            Act::Steps(steps) => {
                for _ in 0..steps {
                    self.bench.driver.step();
                }
            }
            Act::Fault(fault) => self
                .bench
                .orders
                .told(|told| told.faults.push_back(Some(fault))),
            Act::BreakAdapter(name) => {
                self.bench
                    .orders
                    .told(|told| told.broken.push(ADAPTERS[name].to_owned()));
            }
            Act::MendAdapters => self.bench.orders.told(|told| told.broken.clear()),
            Act::RemoveAdapter(key) => {
                self.is_removed[key] = true;
                self.bench.driver.remove_adapter(key as AdapterKey);
            }
        }
        self.bench.driver.check();
    }

    fn submit(&mut self, asked: Generation) {
        let name = asked.adapter.as_deref();
        let key = ADAPTERS.iter().position(|adapter| Some(*adapter) == name);
        if key.is_some_and(|key| self.is_removed[key]) {
            return;
        }
        let (key, events) = self
            .bench
            .submit_with(asked.clone(), key.map(|key| key as AdapterKey));
        self.clients.push(Client {
            key,
            asked,
            events: Some(events),
            is_cancelled: false,
        });
    }

    /// Lets everything end, and holds what came of it to what should have.
    fn settle(mut self) {
        self.bench.run();
        self.bench.driver.check();
        assert!(self.bench.driver.is_idle());
        let stats = self.bench.driver.stats();
        assert_eq!(
            (stats.running, stats.waiting, stats.kv_blocks_used),
            (0, 0, 0)
        );
        let ended = stats.finished + stats.cancelled + stats.failed;
        assert_eq!(ended, self.clients.len() as u64, "each request ends once");
        let is_deaf = self.clients.iter().any(|client| client.events.is_none());
        let failed: usize = self.clients.into_iter().map(Client::judge).sum();
        let rows = self.bench.orders.told(|told| told.rows_failed);
        assert!(
            failed == rows || (is_deaf && failed < rows),
            "{failed} of {rows} rows failed"
        );
    }
}

impl Client {
    /// Checks what the client saw, and says whether it failed with a step.
    fn judge(self) -> usize {
        let Some(events) = self.events else { return 0 };
        let seen = joined(all(events));
        let expected = alone(&self.asked);
        let is_end = |event: &Event| matches!(event, Event::Finished(_) | Event::Failed(_));
        let ends = seen.iter().filter(|event| is_end(event)).count();
        let Some(last) = seen.last().filter(|_| ends > 0) else {
            assert!(self.is_cancelled, "only who gives up sees no end");
            return is_beginning(&seen, &expected);
        };
        assert!(ends == 1 && is_end(last), "the end is the last: {seen:?}");
        match last {
            Event::Failed(error) => {
                is_beginning(&seen[..seen.len() - 1], &expected);
                usize::from(matches!(error, GenerationError::Step(_)))
            }
            _ => {
                assert!(matches!(seen[0], Event::Admitted { .. }));
                assert_eq!(seen[1..], expected, "{:?}", self.asked);
                0
            }
        }
    }
}

/// What was seen is what was expected, as far as it goes.
fn is_beginning(seen: &[Event], expected: &[Event]) -> usize {
    let Some((first, rest)) = seen.split_first() else {
        return 0;
    };
    assert!(matches!(first, Event::Admitted { .. }), "{first:?}");
    for (seen, expected) in rest.iter().zip(expected) {
        match (seen, expected) {
            (Event::PromptLogprobs(some), Event::PromptLogprobs(all)) => {
                assert_eq!(some[..], all[..some.len()]);
            }
            _ => assert_eq!(seen, expected),
        }
    }
    assert!(rest.len() < expected.len() + 1);
    0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_request_ends_once_with_the_tokens_it_would_get_alone(
        acts in prop::collection::vec(act(), 1..80),
        num_blocks in 10..24_usize, chunk in 1..17_usize, prefix_caching in any::<bool>(),
        slots in 1..3_usize, in_step in 1..3_usize, watermark_blocks in 0..3_usize,
    ) {
        let mut settings = small();
        settings.limits.num_blocks = num_blocks;
        settings.limits.max_loras = slots;
        settings.step_adapters_max = in_step.min(slots);
        settings.prefill_chunk = chunk;
        settings.prefix_caching = prefix_caching;
        settings.watermark_blocks = watermark_blocks;
        let mut storm = Storm::new(&settings);
        for act in acts {
            storm.act(act);
        }
        storm.settle();
    }
}
