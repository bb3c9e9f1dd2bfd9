//! The engine's side: the driver, the emulated backend, and a clock that jumps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use foresail_engine::backend::{Backend, RowOutput, StepError, StepInput};
use foresail_engine::driver::{Driver, Progress, Settings};
use foresail_engine::emulated::{Clock, EmulatedBackend, Emulation, VirtualClock, Vocabulary};
use foresail_engine::generation::{Event, Generation};
use foresail_engine::sampling::Sampling;
use foresail_engine::weights::Adapter;
use foresail_scenarios::scenario::{Adapters, Scenario};
use foresail_scenarios::workload::{Content, Request};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::Load;

/// A run of the engine.
pub(crate) struct Emulated {
    pub(crate) steps: Vec<Step>,
    /// In the order of the workload.
    pub(crate) requests: Vec<Seen>,
    pub(crate) preemptions: u64,
}

/// A step that the backend was given.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) load: Load,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What a client saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) refused: bool,
    pub(crate) admitted_ns: Option<u64>,
    pub(crate) cached_tokens: u32,
    pub(crate) first_token_ns: Option<u64>,
    pub(crate) tokens: u32,
    pub(crate) end_ns: Option<u64>,
}

/// Tokens are named by what they are: their conversation, and their place in it.
/// Contexts are shorter than this.
const PLACES: u32 = 1 << 17;

/// Requests come when they are due, and the clock jumps.
pub(crate) fn run(scenario: &Scenario, requests: &[Request]) -> Emulated {
    let clock = VirtualClock::default();
    let mut run = Run::new(scenario, requests, clock.clone());
    let mut coming = requests.iter().enumerate().peekable();
    // An idle replica begins with the first request that comes.
    while let Some((id, request)) = coming.next() {
        clock.advance_to(request.due);
        run.submit(id, request);
        while run.step() == Progress::Stepped {
            let now = clock.now();
            while let Some((id, request)) = coming.next_if(|(_, request)| request.due <= now) {
                run.submit(id, request);
            }
        }
    }
    run.end()
}

/// All requests come with the first, by any clock.
pub(crate) fn run_at_once<C>(scenario: &Scenario, requests: &[Request], clock: C) -> Emulated
where
    C: Clock + Clone + 'static,
{
    let mut run = Run::new(scenario, requests, clock);
    let mut coming = requests.iter().enumerate();
    // The simulator's idle replica begins with the first, before it sees the next.
    for (id, request) in coming.by_ref().take(1) {
        run.submit(id, request);
    }
    run.step();
    for (id, request) in coming {
        run.submit(id, request);
    }
    while run.step() == Progress::Stepped {}
    run.end()
}

struct Run {
    driver: Driver,
    steps: Arc<Mutex<Vec<Step>>>,
    seen: Vec<Seen>,
    events: BTreeMap<usize, UnboundedReceiver<Event>>,
    /// The first token of each.
    conversations: BTreeMap<(u8, u64), u32>,
}

impl Run {
    fn new<C>(scenario: &Scenario, requests: &[Request], clock: C) -> Self
    where
        C: Clock + Clone + 'static,
    {
        let emulation = Emulation::of(&scenario.deployment);
        let vocabulary = Vocabulary::new(0..u32::MAX, Vec::new()).unwrap();
        let (device, settings) = emulation.backend(vocabulary, Box::new(clock.clone()));
        // Of requests without sessions the simulator knows no contents. A driver
        // knows all, and would find those of a request that was preempted again.
        let is_known = requests
            .iter()
            .any(|request| request.content != Content::Unique);
        let settings = Settings {
            vocab_size: u32::MAX as usize,
            prefix_caching: settings.prefix_caching && is_known,
            ..settings
        };
        let steps = Arc::default();
        let backend = Recorder {
            device,
            clock,
            steps: Arc::clone(&steps),
        };
        let mut driver = Driver::new(Box::new(backend), &settings).unwrap();
        if let Some(adapters) = &scenario.deployment.adapters {
            add_adapters(&mut driver, adapters);
        }
        Self {
            driver,
            steps,
            seen: vec![Seen::default(); requests.len()],
            events: BTreeMap::new(),
            conversations: BTreeMap::new(),
        }
    }

    fn end(self) -> Emulated {
        self.driver.check();
        Emulated {
            preemptions: self.driver.stats().preemptions,
            steps: std::mem::take(&mut self.steps.lock().unwrap()),
            requests: self.seen,
        }
    }

    fn submit(&mut self, id: usize, request: &Request) {
        let (events, receiver) = unbounded_channel();
        let generation = Generation {
            id: id.to_string(),
            prompt: self.prompt(id, request).into(),
            max_new: request.output_tokens,
            min_new: 0,
            stop_tokens: Vec::new(),
            sampling: Sampling::default(),
            prompt_logprobs: None,
            adapter: None,
            cache_salt: None,
        };
        let taken = self
            .driver
            .submit(id as u64, generation, request.adapter, events);
        if taken.is_ok() {
            self.events.insert(id, receiver);
        }
        self.seen[id].refused = taken.is_err();
    }

    /// Tokens that two requests have in common if their contents are the same.
    fn prompt(&mut self, id: usize, request: &Request) -> Vec<u32> {
        let (shared, group, own) = match &request.content {
            Content::Unique => (0, 0, self.conversation(0, id as u64)),
            Content::Session {
                group,
                shared_tokens,
                session,
            } => {
                let group = self.conversation(1, *group);
                (*shared_tokens, group, self.conversation(2, *session))
            }
            Content::Blocks { .. } => panic!("no trace is run here"),
        };
        let token = |place| {
            if place < shared {
                group + place
            } else {
                own + place
            }
        };
        (0..request.prompt_tokens).map(token).collect()
    }

    /// The first token of a conversation, which the emulated device goes on counting from.
    fn conversation(&mut self, kind: u8, number: u64) -> u32 {
        // Names run out; without sessions nobody minds that they are used again.
        let next = self.conversations.len() as u32 % (u32::MAX / PLACES);
        let conversation = self.conversations.entry((kind, number));
        *conversation.or_insert(next * PLACES)
    }

    fn step(&mut self) -> Progress {
        let progress = self.driver.step();
        let steps = self.steps.lock().unwrap();
        let (start, end) = steps.last().map_or((0, 0), |step| (step.start, step.end));
        self.events.retain(|id, events| {
            let seen = &mut self.seen[*id];
            while let Ok(event) = events.try_recv() {
                seen.note(event, start, end);
            }
            seen.end_ns.is_none()
        });
        progress
    }
}

impl Seen {
    fn note(&mut self, event: Event, start: u64, end: u64) {
        match event {
            Event::Admitted { cached_tokens } => {
                self.admitted_ns = Some(start);
                self.cached_tokens = cached_tokens;
            }
            Event::Token(_) => {
                self.tokens += 1;
                self.first_token_ns.get_or_insert(end);
            }
            Event::Finished(_) => self.end_ns = Some(end),
            Event::PromptLogprobs(_) | Event::Failed(_) => panic!("{event:?}"),
        }
    }
}

fn add_adapters(driver: &mut Driver, adapters: &Adapters) {
    for (key, adapter) in (0..).zip(&adapters.deployed) {
        let adapter = Adapter {
            name: adapter.name.clone(),
            rank: adapter.rank as usize,
            scale: 1.0,
            layers: Vec::new(),
        };
        driver.add_adapter(key, Arc::new(adapter));
    }
}

/// The emulated device, with a list of what it did.
struct Recorder<C> {
    device: EmulatedBackend,
    clock: C,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl<C: Clock> Backend for Recorder<C> {
    fn step(&mut self, input: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let start = self.clock.now();
        let outputs = self.device.step(input)?;
        let step = Step {
            load: Load::of(&input.load),
            start,
            end: self.clock.now(),
        };
        self.steps.lock().unwrap().push(step);
        Ok(outputs)
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        self.device.load_adapter(slot, adapter)
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.device.unload_adapter(slot);
    }
}
