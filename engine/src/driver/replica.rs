//! A replica: the thread that owns a device, and handles to it.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::admission::Rules;
use super::core::{AdapterKey, Driver, Progress, RequestKey};
use super::stats::{Counters, Stats};
use super::{AdapterError, Settings, StartError, Ticket};
use crate::backend::Backend;
use crate::generation::{Event, Generation, Refusal};
use crate::weights::Adapter;

/// A handle to a replica; all clones are of the same.
///
/// Its thread ends once it was drained, or when all handles and tickets are gone.
#[derive(Clone, Debug)]
pub struct Replica {
    shared: Arc<Shared>,
}

/// What all handles share.
#[derive(Debug)]
struct Shared {
    intake: Mutex<Intake>,
    rules: Rules,
    settings: Settings,
    counters: Arc<Counters>,
    /// `true` when the thread has ended.
    ended: watch::Receiver<bool>,
    /// Why the device is gone, if it is.
    loss: Arc<OnceLock<String>>,
}

/// What is in order: commands reach the thread as they were decided here. The
/// thread itself never looks at it.
#[derive(Debug)]
struct Intake {
    commands: Sender<Command>,
    draining: bool,
    adapters: BTreeMap<String, AdapterKey>,
    next_request: RequestKey,
    next_adapter: AdapterKey,
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Submit(Box<Submission>),
    Cancel(RequestKey),
    AddAdapter(AdapterKey, Arc<Adapter>),
    RemoveAdapter(AdapterKey),
    Drain,
}

/// A request that was checked and counted.
#[derive(Debug)]
pub(super) struct Submission {
    key: RequestKey,
    generation: Generation,
    adapter: Option<AdapterKey>,
    events: UnboundedSender<Event>,
}

impl Replica {
    /// Starts the thread that owns the backend.
    ///
    /// # Errors
    /// If the limits leave no room to work, or there is no thread to be had.
    pub fn start(backend: Box<dyn Backend>, settings: Settings) -> Result<Self, StartError> {
        let driver = Driver::new(backend, &settings)?;
        let (commands, inbox) = mpsc::channel();
        let (end, ended) = watch::channel(false);
        let loss = Arc::new(OnceLock::new());
        let lost = Arc::clone(&loss);
        let shared = Shared {
            rules: driver.rules(),
            counters: Arc::clone(driver.counters()),
            intake: Mutex::new(Intake {
                commands,
                draining: false,
                adapters: BTreeMap::new(),
                next_request: 0,
                next_adapter: 0,
            }),
            settings,
            ended,
            loss,
        };
        let builder = thread::Builder::new().name("replica".to_owned());
        builder.spawn(move || {
            // Told when the driver is no more, be it by a panic.
            let _end = End(end);
            if let Some(reason) = run(driver, &inbox) {
                lost.get_or_init(|| reason);
            }
        })?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Takes a request, or says at once why not.
    ///
    /// # Errors
    /// If it could never be served, if as many wait as may, or if the replica takes nothing new.
    pub fn submit(&self, generation: Generation) -> Result<Ticket, Refusal> {
        self.shared.rules.check(&generation)?;
        let mut intake = self.intake();
        if intake.draining {
            return Err(Refusal::Draining);
        }
        let adapter = intake.adapter(generation.adapter.as_deref())?;
        let counters = &self.shared.counters;
        counters.enter_queue(self.shared.settings.waiting_max)?;
        let key = intake.next_request;
        intake.next_request += 1;
        let (events, receiver) = unbounded_channel();
        let submission = Submission {
            key,
            generation,
            adapter,
            events,
        };
        if !intake.tell(Command::Submit(Box::new(submission))) {
            counters.leave_queue();
            return Err(Refusal::Draining);
        }
        Ok(Ticket::new(key, receiver, intake.commands.clone()))
    }

    /// Keeps an adapter for requests that ask for it by its name. It is loaded
    /// into a slot of the device when the first such request comes.
    ///
    /// # Errors
    /// If there is no room for it, or another of its name.
    pub fn add_adapter(&self, adapter: Adapter) -> Result<(), AdapterError> {
        let settings = &self.shared.settings;
        let (limits, adapters_max) = (&settings.limits, settings.host_adapters_max);
        if limits.max_loras == 0 || settings.step_adapters_max == 0 {
            return Err(AdapterError::NoSlots);
        }
        if adapter.rank > limits.max_lora_rank {
            return Err(AdapterError::RankTooLarge {
                name: adapter.name,
                rank: adapter.rank,
                rank_max: limits.max_lora_rank,
            });
        }
        let mut intake = self.intake();
        let adapters = intake.adapters.len();
        if intake.adapters.contains_key(&adapter.name) {
            return Err(AdapterError::AlreadyThere(adapter.name));
        }
        if adapters >= adapters_max {
            return Err(AdapterError::TooMany { adapters });
        }
        let (key, name) = (intake.next_adapter, adapter.name.clone());
        if intake.draining || !intake.tell(Command::AddAdapter(key, Arc::new(adapter))) {
            return Err(AdapterError::ShutDown);
        }
        intake.next_adapter += 1;
        intake.adapters.insert(name, key);
        Ok(())
    }

    /// Takes an adapter out: no new request may ask for it, and its memory is
    /// given back when those that did have ended.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn remove_adapter(&self, name: &str) -> Result<(), AdapterError> {
        let mut intake = self.intake();
        let removed = intake.adapters.remove(name);
        let key = removed.ok_or_else(|| AdapterError::Unknown(name.to_owned()))?;
        intake.tell(Command::RemoveAdapter(key));
        Ok(())
    }

    /// The names of the adapters, in alphabetical order.
    #[must_use]
    pub fn adapters(&self) -> Vec<String> {
        self.intake().adapters.keys().cloned().collect()
    }

    /// What it has done so far. Never waits for the device.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// How it was started.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Takes nothing new from now on, and ends when all that was taken is done:
    /// what runs, and what waits.
    pub fn drain(&self) {
        let mut intake = self.intake();
        intake.draining = true;
        intake.tell(Command::Drain);
    }

    /// Whether it takes nothing new: it drains, or its thread has ended.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.intake().draining || self.is_ended()
    }

    /// Whether its thread has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        *self.shared.ended.borrow()
    }

    /// Why its device is gone for good, if that is why its thread has ended.
    #[must_use]
    pub fn loss(&self) -> Option<&str> {
        self.shared.loss.get().map(String::as_str)
    }

    /// Waits until its thread has ended and the device is free.
    pub async fn drained(&self) {
        let mut ended = self.shared.ended.clone();
        // An error says that the thread is no more, which is what is waited for.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        // Nothing that is done under the lock leaves it half done.
        let intake = self.shared.intake.lock();
        intake.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intake {
    fn adapter(&self, name: Option<&str>) -> Result<Option<AdapterKey>, Refusal> {
        let Some(name) = name else { return Ok(None) };
        match self.adapters.get(name) {
            Some(key) => Ok(Some(*key)),
            None => Err(Refusal::UnknownAdapter(name.to_owned())),
        }
    }

    /// Tells the thread, and says whether there is one.
    fn tell(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}

/// Says that the thread has ended when it is dropped.
struct End(watch::Sender<bool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// The thread: what has come, a step, and again; while there is nothing to do, it sleeps.
/// It ends when nothing is left to do, or with the reason why nothing can be done.
fn run(mut driver: Driver, inbox: &Receiver<Command>) -> Option<String> {
    let mut draining = false;
    loop {
        while let Ok(command) = inbox.try_recv() {
            draining |= obey(&mut driver, command);
        }
        match driver.step() {
            Progress::Stepped => continue,
            // Requests that wait end with the driver.
            Progress::Lost(reason) => return Some(reason),
            Progress::Idle => {}
        }
        if draining {
            return None;
        }
        match inbox.recv() {
            Ok(command) => draining |= obey(&mut driver, command),
            // All handles and tickets are gone, and so nothing is left to do.
            Err(mpsc::RecvError) => return None,
        }
    }
}

/// Does what is said, and says whether that is to drain.
fn obey(driver: &mut Driver, command: Command) -> bool {
    match command {
        Command::Submit(submission) => {
            let Submission {
                key,
                generation,
                adapter,
                events,
            } = *submission;
            driver.take(key, generation, adapter, events);
        }
        Command::Cancel(key) => driver.cancel(key),
        Command::AddAdapter(key, adapter) => driver.add_adapter(key, adapter),
        Command::RemoveAdapter(key) => driver.remove_adapter(key),
        Command::Drain => return true,
    }
    false
}
