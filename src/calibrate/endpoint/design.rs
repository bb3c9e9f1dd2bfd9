//! Which runs tell the terms apart.
//!
//! | run | requests | what it tells |
//! |---|---|---|
//! | idle | single, prompts of several lengths, one token | the time of a prompt by its length, the overhead of a request |
//! | decode | 1, 2, 4, … clients, short prompts | the time of a step by its batch |
//! | context | few clients, long prompts | reading the KV cache |
//! | mixed | many clients, lengths of all kinds | chunks beside decodes, queueing |
//! | burst | many at once | the batch limit |
//! | prefix | the same long prompt twice | whether there is a prefix cache |
//!
//! Prompts share nothing, but for the last.

use foresail_reports::summary::Load;
use foresail_scenarios::random::{Stream, stream};
use foresail_scenarios::workload::{Content, Request};
use rand::Rng as _;

/// How often each length of the idle run comes.
const IDLE_REPEATS: usize = 4;
/// Lengths of the idle run.
const IDLE_LENGTHS: u32 = 6;
/// Pairs of equal prompts.
const PREFIX_PAIRS: u64 = 3;

/// A run to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    /// What a person calls it.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) load: Load,
    pub(super) requests: Vec<Request>,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Idle,
    Loaded,
    Burst,
    Prefix,
}

/// How large the runs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Tokens of the shortest prompt.
    pub(super) prompt_tokens_min: u32,
    /// Tokens of the longest.
    pub(super) prompt_tokens_max: u32,
    /// Clients at most.
    pub(super) concurrency_max: u32,
    /// Requests of the burst.
    pub(super) burst: u32,
    /// Tokens of an answer.
    pub(super) output_tokens: u32,
}

/// What the endpoint takes alone, from a few requests, to tell how long runs will take (s).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Alone {
    /// A token of a prompt.
    pub(super) prompt_token_s: f64,
    /// A token of an answer.
    pub(super) output_token_s: f64,
}

/// All runs of a half, in the order of the table above.
pub(super) fn half(sizes: &Sizes, seed: u64) -> Vec<Job> {
    let mut random = stream(seed, "calibrate.endpoint.lengths");
    let mut jobs = vec![idle(sizes, &mut random)];
    for clients in doubling(sizes.concurrency_max) {
        jobs.push(decode(sizes, clients, &mut random));
    }
    jobs.extend(contexts(sizes, &mut random));
    let mut crowds = vec![sizes.concurrency_max.div_ceil(4), sizes.concurrency_max];
    // Two runs of one name would be taken for the same one.
    crowds.dedup();
    for clients in crowds {
        jobs.push(mixed(sizes, clients, &mut random));
    }
    jobs.push(burst(sizes));
    jobs
}

/// The run that looks for a prefix cache.
pub(super) fn prefix(sizes: &Sizes) -> Job {
    let of = |pair: u64| {
        let content = Content::Blocks {
            block_tokens: sizes.prompt_tokens_max,
            ids: Box::new([pair]),
        };
        let request = Request {
            content,
            ..request(sizes.prompt_tokens_max, 1)
        };
        [request.clone(), request]
    };
    Job {
        name: "the same prompt twice".to_owned(),
        kind: Kind::Prefix,
        load: Load::Closed { concurrency: 1 },
        requests: (0..PREFIX_PAIRS).flat_map(of).collect(),
    }
}

/// The first few requests: what the endpoint does at all.
pub(super) fn probe(prompt_tokens: u32, output_tokens: u32) -> Job {
    Job {
        name: format!("a prompt of {prompt_tokens} tokens"),
        kind: Kind::Idle,
        load: Load::Closed { concurrency: 1 },
        requests: vec![request(prompt_tokens, output_tokens); 2],
    }
}

fn request(prompt_tokens: u32, output_tokens: u32) -> Request {
    Request {
        due: 0,
        prompt_tokens,
        output_tokens,
        session: None,
        adapter: None,
        content: Content::Unique,
    }
}

/// The lengths of the idle run, each about as many times as long as the one before.
pub(super) fn idle_lengths(sizes: &Sizes) -> Vec<u32> {
    let (low, high) = (
        f64::from(sizes.prompt_tokens_min),
        f64::from(sizes.prompt_tokens_max),
    );
    let last = f64::from(IDLE_LENGTHS - 1);
    let length = |index: u32| (low * (high / low).powf(f64::from(index) / last)).round() as u32;
    let mut lengths: Vec<u32> = (0..IDLE_LENGTHS).map(length).collect();
    lengths.dedup();
    lengths
}

fn idle(sizes: &Sizes, random: &mut Stream) -> Job {
    let lengths = idle_lengths(sizes);
    let mut requests: Vec<Request> = (0..IDLE_REPEATS)
        .flat_map(|_| lengths.iter().map(|tokens| request(*tokens, 1)))
        .collect();
    shuffle(&mut requests, random);
    Job {
        name: "single prompts".to_owned(),
        kind: Kind::Idle,
        load: Load::Closed { concurrency: 1 },
        requests,
    }
}

/// Answers differ in length, so that clients do not go in step: whether a request that comes with
/// others joins their step is a matter of microseconds, and no figure should hang on it.
fn decode(sizes: &Sizes, clients: u32, random: &mut Stream) -> Job {
    let waves = if clients <= 8 { 4 } else { 3 };
    let requests = (0..waves * clients).map(|_| {
        let share = 0.5 + uniform(random);
        let output = f64::from(sizes.output_tokens) * share;
        request(2 * sizes.prompt_tokens_min, (output as u32).max(2))
    });
    let name = format!("{}, short prompts", clients_text(clients));
    let requests = requests.collect();
    closed(name, clients, requests)
}

fn contexts(sizes: &Sizes, random: &mut Stream) -> Vec<Job> {
    let prompt = sizes.prompt_tokens_max / 2;
    let mut clients = vec![
        1,
        sizes.concurrency_max.div_ceil(8),
        sizes.concurrency_max.div_ceil(4),
    ];
    clients.dedup();
    let jobs = clients.into_iter().map(|clients| {
        let requests = (0..3 * clients).map(|_| {
            let output = f64::from(sizes.output_tokens) * (0.5 + uniform(random));
            request(prompt, (output as u32).max(2))
        });
        let name = format!("{}, prompts of {prompt} tokens", clients_text(clients));
        let requests = requests.collect();
        closed(name, clients, requests)
    });
    jobs.collect()
}

fn mixed(sizes: &Sizes, clients: u32, random: &mut Stream) -> Job {
    let (low, high) = (
        f64::from(sizes.prompt_tokens_min),
        f64::from(sizes.prompt_tokens_max) / 2.0,
    );
    let requests = (0..3 * clients.max(4)).map(|_| {
        let prompt = low * (high / low).max(1.0).powf(uniform(random));
        let output = f64::from(sizes.output_tokens) * (0.25 + uniform(random));
        request(prompt as u32, (output as u32).max(2))
    });
    let name = format!("{}, lengths of all kinds", clients_text(clients));
    let requests = requests.collect();
    closed(name, clients, requests)
}

fn burst(sizes: &Sizes) -> Job {
    Job {
        name: format!("{} at once", sizes.burst),
        kind: Kind::Burst,
        load: Load::Open,
        requests: vec![request(sizes.prompt_tokens_min, sizes.output_tokens); sizes.burst as usize],
    }
}

fn closed(name: String, clients: u32, requests: Vec<Request>) -> Job {
    Job {
        name,
        kind: Kind::Loaded,
        load: Load::Closed {
            concurrency: clients.into(),
        },
        requests,
    }
}

fn clients_text(clients: u32) -> String {
    match clients {
        1 => "1 client".to_owned(),
        _ => format!("{clients} clients"),
    }
}

/// 1, 2, 4, … and the last.
fn doubling(last: u32) -> impl Iterator<Item = u32> {
    let powers = (0..u32::BITS).map(|power| 1 << power);
    powers.take_while(move |power| *power < last).chain([last])
}

/// About how long a run takes (s). A batch takes longer than a sequence alone; that a batch of
/// thirty takes twice as long is on the safe side of GPUs, and near to processors.
pub(super) fn estimate_s(job: &Job, alone: &Alone) -> f64 {
    let prompts: f64 = job
        .requests
        .iter()
        .map(|each| f64::from(each.prompt_tokens))
        .sum();
    let outputs: f64 = job
        .requests
        .iter()
        .map(|each| f64::from(each.output_tokens))
        .sum();
    let clients = match job.load {
        Load::Closed { concurrency } => concurrency as f64,
        Load::Open | Load::Capped { .. } => job.requests.len() as f64,
    };
    let batch_s = alone.output_token_s * (1.0 + clients / 30.0);
    prompts * alone.prompt_token_s + outputs / clients * batch_s + super::measure::PAUSE_S
}

/// In another order.
pub(super) fn shuffle<T>(items: &mut [T], random: &mut Stream) {
    // Fisher and Yates, by Durstenfeld.
    for last in (1..items.len()).rev() {
        let chosen = (uniform(random) * (last + 1) as f64) as usize;
        items.swap(last, chosen.min(last));
    }
}

/// A number from 0 to below 1, with the 53 bits that it has.
fn uniform(random: &mut Stream) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        prompt_tokens_min: 32,
        prompt_tokens_max: 2048,
        concurrency_max: 24,
        burst: 96,
        output_tokens: 48,
    };

    #[test]
    fn a_half_has_these_runs() {
        let names: Vec<String> = half(&SIZES, 1).into_iter().map(|job| job.name).collect();
        insta::assert_snapshot!(names.join("\n"), @r"
        single prompts
        1 client, short prompts
        2 clients, short prompts
        4 clients, short prompts
        8 clients, short prompts
        16 clients, short prompts
        24 clients, short prompts
        1 client, prompts of 1024 tokens
        3 clients, prompts of 1024 tokens
        6 clients, prompts of 1024 tokens
        6 clients, lengths of all kinds
        24 clients, lengths of all kinds
        96 at once
        ");
        assert_eq!(idle_lengths(&SIZES), [32, 74, 169, 388, 891, 2048]);
    }

    #[test]
    fn no_two_runs_have_the_same_name() {
        for concurrency_max in 1..40 {
            let sizes = Sizes {
                concurrency_max,
                ..SIZES
            };
            let mut names: Vec<String> = half(&sizes, 1).into_iter().map(|job| job.name).collect();
            let runs = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), runs, "{concurrency_max}");
        }
    }

    #[test]
    fn only_the_prefix_run_sends_a_prompt_twice_and_none_is_too_long() {
        for job in half(&SIZES, 1) {
            for request in &job.requests {
                assert_eq!(request.content, Content::Unique);
                assert!(request.prompt_tokens <= 2048 && request.output_tokens >= 1);
            }
        }
        let twice = prefix(&SIZES).requests;
        assert_eq!(twice[0], twice[1]);
        assert_ne!(twice[1].content, twice[2].content);
    }

    #[test]
    fn the_order_depends_on_the_seed_alone() {
        assert_eq!(half(&SIZES, 3), half(&SIZES, 3));
        assert_ne!(half(&SIZES, 3), half(&SIZES, 4));
    }
}
