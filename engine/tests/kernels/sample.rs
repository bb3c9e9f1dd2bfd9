//! Sampling on the device against that of the host: the same tokens, the same errors, and
//! log-probabilities of the same bits, whatever is asked for.

use foresail_engine::cuda::gpu::Address;
use foresail_engine::cuda::kernels::sample::{
    OUTCOME_BYTES, Rows, SampleCall, Sampler, SamplerShape, Stages, Unsupported, VOCABULARY_MAX,
    outcome, supports,
};
use foresail_engine::sampling::{
    Context, SampleError, Sampled, Sampling, Scratch, logprobs, sample,
};

use crate::device::{Device, Random, each_device, each_device_alike};

/// What one row is sampled by.
#[derive(Clone, Debug)]
struct Asked {
    sampling: Sampling,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    banned: Vec<u32>,
}

impl Asked {
    fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            prompt: Vec::new(),
            generated: Vec::new(),
            banned: Vec::new(),
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            sampling: &self.sampling,
            prompt: &self.prompt,
            generated: &self.generated,
            banned: &self.banned,
        }
    }
}

/// A step's rows on a device.
struct Step {
    sampler: Sampler,
    call: SampleCall,
}

fn shape(vocab_size: usize, rows: usize) -> SamplerShape {
    SamplerShape {
        vocab_size,
        logits_stride: vocab_size.next_multiple_of(64),
        rows,
        adjusted_rows: rows,
    }
}

impl Step {
    fn new(device: &mut Device, logits: &[Vec<f32>], rows: &Rows) -> Self {
        let shape = shape(logits[0].len(), logits.len());
        let mut strided = Vec::new();
        for row in logits {
            strided.extend_from_slice(row);
            // What is beyond the vocabulary is not looked at.
            strided.resize(strided.len().next_multiple_of(64), f32::INFINITY);
        }
        let mut lists = rows.lists();
        lists.resize(lists.len().max(4), 0);
        Self {
            sampler: Sampler::new(&mut *device.gpu, shape).expect("compiled"),
            call: SampleCall {
                rows: logits.len(),
                logits: device.upload(&strided),
                parameters: device.upload(rows.parameters()),
                lists: device.upload(&lists),
                outcomes: device.poisoned::<u8>(logits.len() * OUTCOME_BYTES),
                stages: rows.stages(),
            },
        }
    }

    /// Runs it, over what an earlier run left.
    fn outcomes(&self, device: &mut Device) -> Vec<u8> {
        let bytes = self.call.rows * OUTCOME_BYTES;
        device
            .gpu
            .fill(self.call.outcomes, bytes, 0xff)
            .expect("filled");
        self.sampler
            .enqueue(&mut *device.gpu, &self.call)
            .expect("launched");
        device.download(self.call.outcomes, bytes)
    }
}

fn rows_of(asked: &[Asked], vocab_size: usize) -> Rows {
    let mut rows = Rows::new(vocab_size, asked.len());
    for asked in asked {
        rows.push_sampled(&asked.context(), 0, usize::MAX)
            .expect("supported");
    }
    rows
}

fn by_device(device: &mut Device, logits: &[Vec<f32>], asked: &[Asked]) -> Vec<u8> {
    let rows = rows_of(asked, logits[0].len());
    let step = Step::new(device, logits, &rows);
    let outcomes = step.outcomes(device);
    // The memory between kernels is as it was, so that a second run is the same.
    assert!(step.outcomes(device) == outcomes, "a rerun differs");
    step.sampler.release(&mut *device.gpu).expect("freed");
    outcomes
}

fn parsed(outcomes: &[u8], asked: &[Asked]) -> Vec<Result<Sampled, SampleError>> {
    let outcomes = outcomes.chunks_exact(OUTCOME_BYTES).zip(asked);
    outcomes
        .map(|(bytes, asked)| outcome(bytes, asked.sampling.logprobs.is_some()))
        .collect()
}

/// Samples rows on all devices and on the host, and compares.
#[track_caller]
fn check(logits: &[Vec<f32>], asked: &[Asked]) {
    let expected: Vec<_> = logits
        .iter()
        .zip(asked)
        .map(|(logits, asked)| sample(logits, &asked.context(), &mut Scratch::default()))
        .collect();
    each_device_alike(|device| {
        let found = parsed(&by_device(device, logits, asked), asked);
        for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "row {row}, {:?}", asked[row].sampling);
        }
        found
    });
}

/// Logits of many kinds.
fn any_logits(random: &mut Random, vocab_size: usize) -> Vec<f32> {
    let deviation = [0.3, 1.0, 3.0, 10.0, 1e4][random.below(5)];
    let mut logits = random.floats(vocab_size, deviation);
    match random.below(7) {
        0 => logits.fill(2.5),
        // Many ties, both zeros among them.
        1 => logits
            .iter_mut()
            .for_each(|logit| *logit = (*logit / deviation as f32).round()),
        2 => logits[random.below(vocab_size)] = 40.0,
        3 => {
            for logit in &mut logits {
                if random.below(3) > 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
            logits[random.below(vocab_size)] = -1.0;
        }
        _ => {}
    }
    logits
}

fn any_sampling(random: &mut Random, vocab_size: usize) -> Sampling {
    let mut pick = |choices: &[f32]| choices[random.below(choices.len())];
    let temperature = pick(&[0.0, 1.0, 0.7, 1.7, 2.0, 0.01, f32::MIN_POSITIVE, 1e-41]);
    let top_p = pick(&[1.0, 1.0, 0.9, 0.5, 0.99, 1e-9, 0.999_999_9]);
    let min_p = pick(&[0.0, 0.0, 0.0, 0.05, 1.0, 1e-12, 0.5]);
    Sampling {
        temperature,
        top_p,
        min_p,
        top_k: [0, 0, 0, 1, 2, 50, 300, vocab_size as u32, u32::MAX][random.below(9)],
        seed: random.next_u64(),
        logprobs: [None, None, Some(0), Some(5), Some(20)][random.below(5)],
        ..Sampling::default()
    }
}

fn any_asked(random: &mut Random, vocab_size: usize) -> Asked {
    let sampling = any_sampling(random, vocab_size);
    // Some tokens are not in the vocabulary.
    let mut tokens = |count: usize| -> Vec<u32> {
        let known = vocab_size.min(40) + 2;
        (0..count).map(|_| random.below(known) as u32).collect()
    };
    let (prompt, generated, banned) = (tokens(30), tokens(25), tokens(3));
    let mut asked = Asked {
        sampling,
        prompt: prompt[..random.below(31)].to_vec(),
        generated: generated[..random.below(26)].to_vec(),
        banned: Vec::new(),
    };
    if random.below(2) == 0 {
        return asked;
    }
    asked.banned = banned[..random.below(4)].to_vec();
    let change = |random: &mut Random, neutral: f32, values: [f32; 3]| {
        [neutral, values[0], values[1], values[2]][random.below(4)]
    };
    asked.sampling.repetition_penalty = change(random, 1.0, [1.3, 0.5, f32::MIN_POSITIVE]);
    asked.sampling.frequency_penalty = change(random, 0.0, [0.4, -2.0, 2.0]);
    asked.sampling.presence_penalty = change(random, 0.0, [0.7, -1.1, 2.0]);
    for _ in 0..random.below(6) {
        let token = random.below(vocab_size.min(40) + 2) as u32;
        let bias = change(random, 0.0, [100.0, -100.0, 1.25]);
        asked.sampling.logit_bias.push((token, bias));
    }
    asked
}

#[test]
fn rows_are_sampled_as_on_the_host() {
    let mut random = Random::new(1);
    let more = if on_hardware() { 20 } else { 1 };
    for (vocab_size, rows) in [
        (1, 8),
        (2, 8),
        (37, 40 * more),
        (4096, 20 * more),
        (4097, 20 * more),
        (9001, 30 * more),
    ] {
        let logits: Vec<_> = (0..rows)
            .map(|_| any_logits(&mut random, vocab_size))
            .collect();
        let asked: Vec<_> = (0..rows)
            .map(|_| any_asked(&mut random, vocab_size))
            .collect();
        check(&logits, &asked);
    }
}

/// More of it, and vocabularies as large as they are.
#[test]
fn large_rows_are_sampled_as_on_the_host() {
    let mut random = Random::new(2);
    let cases: &[(usize, usize)] = if on_hardware() {
        &[(128_256, 256), (151_936, 256), (VOCABULARY_MAX, 100)]
    } else {
        &[(128_256, 2)]
    };
    for &(vocab_size, rows) in cases {
        let logits: Vec<_> = (0..rows)
            .map(|_| any_logits(&mut random, vocab_size))
            .collect();
        let asked: Vec<_> = (0..rows)
            .map(|_| any_asked(&mut random, vocab_size))
            .collect();
        check(&logits, &asked);
    }
}

fn on_hardware() -> bool {
    crate::device::devices().iter().any(Device::is_hardware)
}

/// Only what greedy decoding needs is launched, and ties go to the first token.
#[test]
fn greedy_rows_take_the_first_of_the_likeliest() {
    let mut random = Random::new(3);
    for vocab_size in [1, 63, 4096, 12_289] {
        let mut logits: Vec<_> = (0..6)
            .map(|_| any_logits(&mut random, vocab_size))
            .collect();
        logits[0].fill(-0.0);
        logits[0][vocab_size / 2..].fill(0.0);
        logits[1].fill(f32::NEG_INFINITY);
        logits[1][vocab_size - 1] = -1e38;
        let greedy = Sampling {
            temperature: 0.0,
            ..Sampling::default()
        };
        let asked = vec![Asked::new(greedy); 6];
        assert_eq!(rows_of(&asked, vocab_size).stages(), Stages::default());
        check(&logits, &asked);
    }
}

/// Where the bar of a filter is among more tokens than a list holds: all of a row are equal, or nearly.
#[test]
fn filters_find_their_bar_among_very_many_tokens() {
    let mut random = Random::new(4);
    let vocab_size = 9000;
    let flat = vec![1.0; vocab_size];
    let near: Vec<f32> = (0..vocab_size)
        .map(|_| 3.0 + (random.uniform() * 1e-3) as f32)
        .collect();
    let coarse: Vec<f32> = near
        .iter()
        .map(|logit| logit * 1000.0)
        .map(f32::round)
        .collect();
    let mut logits = Vec::new();
    let mut asked = Vec::new();
    for (top_k, top_p, min_p) in [
        (0, 0.5, 0.0),
        (0, 0.9999, 0.9995),
        (5000, 1.0, 0.0),
        (4500, 0.7, 0.0),
        (8999, 0.3, 0.9996),
    ] {
        for row in [&flat, &near, &coarse] {
            logits.push(row.clone());
            asked.push(Asked::new(Sampling {
                top_k,
                top_p,
                min_p,
                seed: random.next_u64(),
                ..Sampling::default()
            }));
        }
    }
    check(&logits, &asked);
}

#[test]
fn no_distribution_is_the_error_of_the_host() {
    let vocab_size = 5000;
    let sound = vec![0.5; vocab_size];
    let with = |places: &[(usize, f32)]| {
        let mut logits = sound.clone();
        for &(place, value) in places {
            logits[place] = value;
        }
        logits
    };
    let only = |token: usize| {
        let mut logits = vec![f32::NEG_INFINITY; vocab_size];
        logits[token] = 3.0;
        logits
    };
    let logits = [
        with(&[(4999, f32::NAN), (4500, -f32::NAN)]),
        with(&[(17, f32::INFINITY)]),
        with(&[(0, f32::NAN)]),
        vec![f32::NEG_INFINITY; vocab_size],
        // Impossible but for one token, which is banned.
        only(4097),
        // The same, and it is not.
        only(4096),
        // A token that is banned is a number all the same.
        with(&[(4097, f32::NAN)]),
    ];
    for temperature in [0.0, 0.8] {
        let mut asked = Asked::new(Sampling {
            temperature,
            top_p: 0.9,
            logprobs: Some(2),
            ..Sampling::default()
        });
        asked.banned = vec![4097, 9_999];
        check(&logits, &vec![asked; logits.len()]);
    }
}

/// One seed, many places: the whole of a distribution is reached.
#[test]
fn a_text_is_that_of_the_host() {
    let mut random = Random::new(6);
    let logits = any_logits(&mut random, 500);
    let rows = 60;
    for sampling in [
        Sampling::default(),
        Sampling {
            top_p: 0.8,
            ..Sampling::default()
        },
        Sampling {
            top_k: 20,
            min_p: 0.01,
            ..Sampling::default()
        },
    ] {
        let asked: Vec<_> = (0..rows)
            .map(|place| {
                let mut asked = Asked::new(sampling.clone());
                asked.generated = vec![1; place];
                asked
            })
            .collect();
        check(&vec![logits.clone(); rows], &asked);
    }
}

/// Rows that are only scored, rows of padding, and rows whose bans end, beside sampled ones.
#[test]
fn rows_of_other_kinds() {
    let mut random = Random::new(7);
    let vocab_size = 4500;
    let logits: Vec<_> = (0..4).map(|_| random.floats(vocab_size, 2.0)).collect();
    let greedy = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    let likeliest = |row: usize| {
        let asked = Asked::new(greedy.clone());
        sample(&logits[row], &asked.context(), &mut Scratch::default())
            .expect("a token")
            .token
    };
    let mut rows = Rows::new(vocab_size, 1);
    rows.push_scored(4321, 3).expect("supported");
    rows.push_none();
    // Its ban ended before this place.
    let banned = [likeliest(2)];
    let context = Context {
        sampling: &greedy,
        prompt: &[],
        generated: &[1, 2],
        banned: &banned,
    };
    rows.push_sampled(&context, 0, 2).expect("supported");
    let refused = rows.push_sampled(&context, 0, 3);
    assert_eq!(refused, Err(Unsupported::AdjustedRows(1)));
    rows.push_none();
    assert_eq!(rows.len(), 4);
    each_device(|device| {
        let step = Step::new(device, &logits, &rows);
        let outcomes = step.outcomes(device);
        let outcomes: Vec<_> = outcomes.chunks_exact(OUTCOME_BYTES).collect();
        let scored = outcome(outcomes[0], true).expect("scored").logprobs;
        assert_eq!(scored, Some(logprobs(&logits[0], 4321, 3).expect("scored")));
        assert_eq!(outcomes[1], [0xff; OUTCOME_BYTES], "padding is not written");
        let sampled = outcome(outcomes[2], false).expect("sampled");
        assert_eq!(sampled.token, banned[0]);
        assert_eq!(outcomes[3], [0xff; OUTCOME_BYTES]);
    });
}

#[test]
fn what_the_device_does_not_do_is_said() {
    let sampling = Sampling::default();
    let context = |sampling| Context {
        sampling,
        prompt: &[],
        generated: &[],
        banned: &[],
    };
    assert!(supports(&context(&sampling), VOCABULARY_MAX));
    assert!(!supports(&context(&sampling), VOCABULARY_MAX + 1));
    let biased = Sampling {
        logit_bias: vec![(1, 1.0); 1025],
        ..Sampling::default()
    };
    assert!(!supports(&context(&biased), 100));
    let told = Sampling {
        logprobs: Some(21),
        ..Sampling::default()
    };
    assert!(!supports(&context(&told), 100));
    let mut rows = Rows::new(100, 1);
    assert!(rows.push_scored(100, 0).is_err());
    assert!(rows.push_scored(99, 21).is_err());
    assert!(rows.is_empty());
    each_device(|device| {
        let gpu = &mut *device.gpu;
        let refusal = Sampler::new(gpu, shape(VOCABULARY_MAX + 1, 1)).unwrap_err();
        assert!(refusal.to_string().contains("262145 tokens"), "{refusal}");
        let sampler = Sampler::new(gpu, shape(10, 1)).expect("compiled");
        let call = SampleCall {
            rows: 2,
            logits: Address::NONE,
            parameters: Address::NONE,
            lists: Address::NONE,
            outcomes: Address::NONE,
            stages: Stages::default(),
        };
        assert!(sampler.enqueue(gpu, &call).is_err());
    });
}
