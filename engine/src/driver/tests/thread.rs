//! The thread, and the handles to it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::alone::alone;
use super::device::{Fault, UNSPEAKABLE};
use super::*;
use crate::backend::{Backend, RowOutput, StepError, StepInput};
use crate::generation::{FinishReason, GenerationError, Refusal};

/// The known device, which waits for leave before each step, and says when it is dropped.
struct Gated {
    device: Device,
    /// A step waits until it gets a word, or nobody can give one.
    leave: mpsc::Receiver<()>,
    dropped: Arc<AtomicBool>,
}

impl Backend for Gated {
    fn step(&mut self, input: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let _ = self.leave.recv();
        self.device.step(input)
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        self.device.load_adapter(slot, adapter)
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.device.unload_adapter(slot);
    }

    fn is_lost(&self) -> bool {
        self.device.is_lost()
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
    }
}

/// A replica whose steps wait as long as the sender lives, and what says that its device is gone.
fn gated(settings: &Settings) -> (Replica, mpsc::Sender<()>, Arc<AtomicBool>) {
    let (leave, gate) = mpsc::channel();
    let dropped = Arc::new(AtomicBool::new(false));
    let device = Gated {
        device: Device::new(&settings.limits, &Orders::default()),
        leave: gate,
        dropped: Arc::clone(&dropped),
    };
    let replica = Replica::start(Box::new(device), settings.clone()).unwrap();
    (replica, leave, dropped)
}

fn started(settings: &Settings) -> Replica {
    gated(settings).0
}

fn read(mut ticket: Ticket) -> Vec<Event> {
    std::iter::from_fn(|| ticket.next_blocking()).collect()
}

/// Waits for what is bound to come, and fails after a time in which it would have.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came that {what}");
}

fn wait_until_drained(replica: &Replica) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(replica.drained());
}

#[test]
fn tokens_come_through_threads() {
    let replica = started(&small());
    let asked: Vec<_> = (0..20).map(|first| generation(&[first, 1], 6)).collect();
    let tickets: Vec<_> = asked
        .iter()
        .map(|asked| replica.submit(asked.clone()).unwrap())
        .collect();
    for (asked, ticket) in asked.iter().zip(tickets) {
        assert_eq!(read(ticket)[1..], alone(asked));
    }
    assert_eq!(replica.stats().finished, 20);
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
    let settings = Settings {
        waiting_max: 3,
        ..small()
    };
    let (replica, leave, _) = gated(&settings);
    let first = replica.submit(generation(&[1], 2)).unwrap();
    eventually("the first is admitted", || replica.stats().waiting == 0);
    // The device has not begun, so these wait.
    let mut waiting: Vec<_> = (0..3)
        .map(|_| replica.submit(generation(&[2], 2)).unwrap())
        .collect();
    let refusal = replica.submit(generation(&[3], 2)).unwrap_err();
    assert_eq!(refusal, Refusal::QueueFull { waiting: 3 });
    // One that gives up makes room, once the device is between two steps.
    waiting.pop();
    leave.send(()).unwrap();
    eventually("there is room", || replica.stats().waiting < 3);
    waiting.push(replica.submit(generation(&[4], 2)).unwrap());
    drop(leave);
    for ticket in waiting.into_iter().chain([first]) {
        assert_eq!(tokens_of(&read(ticket)).len(), 2);
    }
}

#[test]
fn draining_finishes_what_was_taken_and_refuses_the_rest() {
    let (replica, leave, dropped) = gated(&small());
    let asked = generation(&[5, 6], 8);
    let tickets: Vec<_> = (0..30)
        .map(|_| replica.submit(asked.clone()).unwrap())
        .collect();
    replica.drain();
    assert!(replica.is_draining() && !replica.is_ended());
    assert_eq!(
        replica.submit(asked.clone()).unwrap_err(),
        Refusal::Draining
    );
    assert_eq!(
        replica.add_adapter(adapter("late")),
        Err(AdapterError::ShutDown)
    );
    drop(leave);
    wait_until_drained(&replica);
    assert!(dropped.load(SeqCst), "the device is free");
    assert!(replica.is_ended());
    assert_eq!(
        replica.submit(asked.clone()).unwrap_err(),
        Refusal::Draining
    );
    for ticket in tickets {
        assert_eq!(read(ticket)[1..], alone(&asked));
    }
    assert_eq!(replica.stats().finished, 30);
}

#[test]
fn the_thread_ends_when_nobody_can_reach_it() {
    let (replica, leave, dropped) = gated(&small());
    drop(leave);
    let ticket = replica.submit(generation(&[1], 3)).unwrap();
    drop(replica);
    assert_eq!(
        read(ticket).last(),
        Some(&Event::Finished(FinishReason::Length))
    );
    eventually("the device is dropped", || dropped.load(SeqCst));
}

#[test]
fn who_reads_slowly_holds_nobody_up() {
    let replica = started(&small());
    let mut slow = replica.submit(generation(&[1], 30)).unwrap();
    for _ in 0..20 {
        let other = replica.submit(generation(&[2], 10)).unwrap();
        assert_eq!(tokens_of(&read(other)).len(), 10);
    }
    eventually("the slow one is done", || replica.stats().running == 0);
    assert_eq!(slow.try_next(), Some(Event::Admitted { cached_tokens: 0 }));
    assert_eq!(tokens_of(&read(slow)).len(), 30, "its tokens wait for it");
}

#[test]
fn what_a_replica_that_is_gone_leaves_is_a_failure() {
    let (commands, inbox) = mpsc::channel();
    let (events, receiver) = unbounded_channel();
    let mut ticket = Ticket::new(0, receiver, commands);
    events.send(Event::Admitted { cached_tokens: 0 }).unwrap();
    drop((events, inbox));
    assert!(matches!(
        ticket.next_blocking(),
        Some(Event::Admitted { .. })
    ));
    let last = ticket.next_blocking();
    assert_eq!(last, Some(Event::Failed(GenerationError::ShutDown)));
    assert_eq!(ticket.next_blocking(), None);
}

#[test]
fn adapters_are_known_by_name() {
    let settings = Settings {
        host_adapters_max: 2,
        ..small()
    };
    let replica = started(&settings);
    let mut asked = generation(&[1], 3);
    asked.adapter = Some("x".to_owned());
    let unknown = Refusal::UnknownAdapter("x".to_owned());
    assert_eq!(replica.submit(asked.clone()).unwrap_err(), unknown);
    replica.add_adapter(adapter("x")).unwrap();
    let again = AdapterError::AlreadyThere("x".to_owned());
    assert_eq!(replica.add_adapter(adapter("x")), Err(again));
    let mut wide = adapter("w");
    wide.rank = 9;
    assert!(matches!(
        replica.add_adapter(wide),
        Err(AdapterError::RankTooLarge { rank_max: 8, .. })
    ));
    replica.add_adapter(adapter("b")).unwrap();
    assert_eq!(replica.adapters(), ["b", "x"]);
    assert_eq!(
        replica.add_adapter(adapter("c")),
        Err(AdapterError::TooMany { adapters: 2 })
    );
    let ticket = replica.submit(asked.clone()).unwrap();
    replica.remove_adapter("x").unwrap();
    assert_eq!(
        replica.remove_adapter("x"),
        Err(AdapterError::Unknown("x".to_owned()))
    );
    assert_eq!(read(ticket)[1..], alone(&asked), "it was taken before");
    assert_eq!(replica.submit(asked).unwrap_err(), unknown);
}

#[test]
fn a_replica_without_slots_takes_no_adapters() {
    let mut settings = small();
    settings.limits.max_loras = 0;
    settings.step_adapters_max = 0;
    assert_eq!(
        started(&settings).add_adapter(adapter("x")),
        Err(AdapterError::NoSlots)
    );
}

#[test]
fn limits_without_room_are_refused_at_the_start() {
    let start = |change: fn(&mut Settings)| {
        let mut settings = small();
        change(&mut settings);
        let device = Device::new(&settings.limits, &Orders::default());
        let error = Replica::start(Box::new(device), settings).unwrap_err();
        error.to_string()
    };
    let none = start(|settings| settings.limits.num_blocks = 0);
    insta::assert_snapshot!(none, @"the limits of the batch cannot be used: num_blocks is 0; it must be at least 1");
    let many = start(|settings| settings.step_adapters_max = 3);
    insta::assert_snapshot!(many, @"step_adapters_max (3) is more than max_loras (2)");
}

/// A third of the clients of each thread go in the middle of their texts.
fn crowd(replica: &Replica, first: u32, count: u32) -> u64 {
    let mut dropped = 0;
    let mut open = Vec::new();
    for number in 0..count {
        let mut asked = generation(&[first, number % UNSPEAKABLE, 3], 5 + number % 9);
        asked.cache_salt = number.is_multiple_of(4).then(|| "salt".to_owned());
        let expected = alone(&asked);
        let mut ticket = loop {
            match replica.submit(asked.clone()) {
                Ok(ticket) => break ticket,
                Err(Refusal::QueueFull { .. }) => thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        };
        if number.is_multiple_of(3) {
            for _ in 0..number % 5 {
                ticket.next_blocking();
            }
            drop(ticket);
            dropped += 1;
        } else {
            open.push((ticket, expected));
        }
        if open.len() > 30 || number + 1 == count {
            for (ticket, expected) in open.drain(..) {
                assert_eq!(read(ticket)[1..], expected);
            }
        }
    }
    dropped
}

#[test]
fn ten_thousand_requests_of_which_a_third_are_dropped_leave_nothing() {
    let mut settings = small();
    settings.limits.num_blocks = 60;
    settings.limits.max_num_seqs = 16;
    settings.limits.max_batched_tokens = 64;
    settings.waiting_max = 50;
    let replica = started(&settings);
    let dropped: u64 = thread::scope(|scope| {
        let replica = &replica;
        let crowds = (0..4).map(|first| scope.spawn(move || crowd(replica, first, 2_500)));
        let crowds: Vec<_> = crowds.collect();
        crowds.into_iter().map(|crowd| crowd.join().unwrap()).sum()
    });
    eventually("all have ended", || {
        let stats = replica.stats();
        stats.finished + stats.cancelled == 10_000
    });
    replica.drain();
    wait_until_drained(&replica);
    let stats = replica.stats();
    assert_eq!(
        (stats.running, stats.waiting, stats.kv_blocks_used),
        (0, 0, 0)
    );
    // Some that were dropped were done before that was heard.
    assert!(
        stats.cancelled > 0 && stats.cancelled <= dropped,
        "{stats:?}"
    );
    assert_eq!(stats.failed, 0);
}

#[test]
fn a_device_that_is_lost_ends_the_replica_with_all_its_requests() {
    let orders = Orders::default();
    orders.told(|told| {
        told.is_mortal = true;
        told.faults = [None, Some(Fault::Error)].into();
    });
    let settings = small();
    let device = Device::new(&settings.limits, &orders);
    let replica = Replica::start(Box::new(device), settings).unwrap();
    // Five of which four fit into a batch.
    let tickets: Vec<_> = (0..5)
        .filter_map(|token| replica.submit(generation(&[token], 9)).ok())
        .collect();
    for ticket in tickets {
        let events = read(ticket);
        assert!(
            matches!(events.last(), Some(Event::Failed(_))),
            "{events:?}"
        );
    }
    eventually("the thread ends", || replica.is_ended());
    assert_eq!(replica.loss(), Some("out of luck"));
    assert_eq!(
        replica.submit(generation(&[1], 1)).unwrap_err(),
        Refusal::Draining
    );
}
