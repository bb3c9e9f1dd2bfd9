//! From one step to the next on the device, against the same written plainly.

use foresail_engine::cuda::gpu::Address;
use foresail_engine::cuda::kernels::advance::{Advance, AdvanceCall};
use foresail_engine::cuda::kernels::sample::{
    OUTCOME_BYTES, ROW_BYTES, Rows, SampleCall, Sampler, SamplerShape,
};
use foresail_engine::sampling::{Context, Sampling, Scratch, sample};

use crate::device::{Device, Random, each_device, each_device_alike};

const TABLE_STRIDE: usize = 5;

/// All that a step leaves for the next.
#[derive(Clone, Debug, PartialEq)]
struct State {
    tokens: Vec<u32>,
    positions: Vec<i32>,
    slots: Vec<u32>,
    places: Vec<u32>,
    lists: Vec<u32>,
    ring: Vec<u64>,
    step: u32,
}

/// Sequences of random lengths, some rows of padding among them.
struct Case {
    block_size: usize,
    ring_steps: usize,
    tables: Vec<u32>,
    rows: Rows,
    start: State,
    /// Where a row's list of generated tokens begins, and its room.
    generated: Vec<(usize, usize)>,
    /// `[step][row]`: token and status.
    sampled: Vec<Vec<(u32, u32)>>,
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.as_chunks().0.iter();
    words.map(|word| u32::from_ne_bytes(*word)).collect()
}

fn case(random: &mut Random, rows: usize, block_size: usize, steps: usize) -> Case {
    let ring_steps = steps.max(2) - 1;
    let mut described = Rows::new(1000, rows);
    let (mut positions, mut places) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        if random.below(4) == 0 {
            described.push_none();
            positions.push(-1);
            places.push(0);
            continue;
        }
        let penalised = Sampling {
            presence_penalty: random.below(2) as f32,
            ..Sampling::default()
        };
        let generated: Vec<u32> = (0..random.below(6)).map(|token| token as u32).collect();
        let context = Context {
            sampling: &penalised,
            prompt: &[1, 2, 3],
            generated: &generated,
            banned: &[],
        };
        described
            .push_sampled(&context, steps - 1, 0)
            .expect("supported");
        places.push(generated.len() as u32);
        let last = TABLE_STRIDE * block_size - 1;
        positions.push(random.below(last) as i32);
    }
    let parameters = words(described.parameters());
    let generated = (0..rows)
        .map(|row| {
            let row = &parameters[row * ROW_BYTES / 4..];
            (row[16] as usize, row[17] as usize)
        })
        .collect();
    let draw = |random: &mut Random| (random.below(1000) as u32, u32::from(random.below(9) == 0));
    Case {
        block_size,
        ring_steps,
        tables: (0..rows * TABLE_STRIDE)
            .map(|_| random.below(5000) as u32)
            .collect(),
        start: State {
            tokens: vec![7; rows],
            positions,
            slots: vec![8; rows],
            places,
            lists: words(&described.lists()),
            ring: vec![u64::MAX; rows * ring_steps],
            step: 0,
        },
        rows: described,
        generated,
        sampled: (0..steps)
            .map(|_| (0..rows).map(|_| draw(random)).collect())
            .collect(),
    }
}

/// The slow twin.
fn advanced(case: &Case) -> State {
    let mut state = case.start.clone();
    let rows = state.tokens.len();
    for sampled in &case.sampled {
        for (row, &(token, status)) in sampled.iter().enumerate() {
            if state.positions[row] < 0 {
                continue;
            }
            let place = state.step as usize % case.ring_steps * rows + row;
            state.ring[place] = u64::from(status) << 32 | u64::from(token);
            let token = if status == 0 { token } else { 0 };
            state.tokens[row] = token;
            let (first, room) = case.generated[row];
            if (state.places[row] as usize) < room {
                state.lists[first + state.places[row] as usize] = token;
            }
            state.places[row] += 1;
            state.positions[row] += 1;
            let position = state.positions[row] as usize;
            let table = &case.tables[row * TABLE_STRIDE..][..TABLE_STRIDE];
            state.slots[row] = table.get(position / case.block_size).map_or(0, |block| {
                block * case.block_size as u32 + (position % case.block_size) as u32
            });
        }
        state.step += 1;
    }
    state
}

fn advance(device: &mut Device, case: &Case) -> State {
    let rows = case.start.tokens.len();
    let outcomes = device.poisoned::<u8>(rows * OUTCOME_BYTES);
    let parameters = device.upload(case.rows.parameters());
    let lists = device.upload(&case.start.lists);
    let call = AdvanceCall {
        rows,
        outcomes,
        parameters,
        lists,
        tokens: device.upload(&case.start.tokens),
        positions: device.upload(&case.start.positions),
        slots: device.upload(&case.start.slots),
        tables: device.upload(&case.tables),
        table_stride: TABLE_STRIDE,
        block_size: case.block_size,
        ring: device.poisoned::<u64>(rows * case.ring_steps),
        outcome_ring: Address::NONE,
        ring_steps: case.ring_steps,
        step: device.zeros::<u32>(1),
    };
    let advance = Advance::new(&mut *device.gpu).expect("compiled");
    for sampled in &case.sampled {
        let mut bytes = vec![0xff; rows * OUTCOME_BYTES];
        for (row, (token, status)) in sampled.iter().enumerate() {
            bytes[row * OUTCOME_BYTES..][..4].copy_from_slice(&token.to_ne_bytes());
            bytes[row * OUTCOME_BYTES + 4..][..4].copy_from_slice(&status.to_ne_bytes());
        }
        device.gpu.write(outcomes, &bytes).expect("written");
        advance.enqueue(&mut *device.gpu, &call).expect("launched");
    }
    let parameters = words(&device.download(parameters, rows * ROW_BYTES));
    State {
        tokens: device.download(call.tokens, rows),
        positions: device.download(call.positions, rows),
        slots: device.download(call.slots, rows),
        places: (0..rows)
            .map(|row| parameters[row * ROW_BYTES / 4 + 2])
            .collect(),
        lists: device.download(lists, case.start.lists.len()),
        ring: device.download(call.ring, rows * case.ring_steps),
        step: device.download(call.step, 1)[0],
    }
}

#[test]
fn steps_follow_each_other_as_the_host_would_have_them() {
    let mut random = Random::new(3);
    for (rows, block_size, steps) in [(1, 1, 1), (7, 4, 6), (40, 64, 3), (300, 16, 2)] {
        let case = case(&mut random, rows, block_size, steps);
        let expected = advanced(&case);
        each_device_alike(|device| {
            let found = advance(device, &case);
            assert_eq!(found, expected, "on {}", device.name());
            found.ring
        });
    }
}

#[test]
fn all_of_an_outcome_is_told_if_wanted() {
    let case = case(&mut Random::new(9), 6, 4, 1);
    each_device(|device| {
        let rows = case.start.tokens.len();
        let told: Vec<u8> = (0..rows * OUTCOME_BYTES)
            .map(|byte| (byte % 251) as u8)
            .collect();
        let ring = device.poisoned::<u8>(rows * OUTCOME_BYTES);
        let call = AdvanceCall {
            rows,
            outcomes: device.upload(&told),
            parameters: device.upload(case.rows.parameters()),
            lists: device.upload(&case.start.lists),
            tokens: device.upload(&case.start.tokens),
            positions: device.upload(&case.start.positions),
            slots: device.upload(&case.start.slots),
            tables: device.upload(&case.tables),
            table_stride: TABLE_STRIDE,
            block_size: case.block_size,
            ring: device.poisoned::<u64>(rows),
            outcome_ring: ring,
            ring_steps: 1,
            step: device.zeros::<u32>(1),
        };
        let advance = Advance::new(&mut *device.gpu).expect("compiled");
        advance.enqueue(&mut *device.gpu, &call).expect("launched");
        let found: Vec<u8> = device.download(ring, rows * OUTCOME_BYTES);
        for (row, position) in case.start.positions.iter().enumerate() {
            let bytes = row * OUTCOME_BYTES..(row + 1) * OUTCOME_BYTES;
            let padding = vec![0xff; OUTCOME_BYTES];
            let expected = if *position < 0 {
                &padding
            } else {
                &told[bytes.clone()]
            };
            assert_eq!(&found[bytes], expected, "row {row}");
        }
    });
}

/// What a sequence is sampled by, before any of it was generated on the device.
struct Text {
    sampling: Sampling,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    banned: Vec<u32>,
    banned_until: usize,
    logits: Vec<f32>,
}

fn texts(random: &mut Random, count: usize, vocab_size: usize) -> Vec<Text> {
    let mut tokens = |most: usize| -> Vec<u32> {
        (0..random.below(most))
            .map(|_| random.below(vocab_size) as u32)
            .collect()
    };
    let lists: Vec<_> = (0..count)
        .map(|_| (tokens(9), tokens(5), tokens(30)))
        .collect();
    lists
        .into_iter()
        .map(|(prompt, generated, banned)| Text {
            sampling: Sampling {
                temperature: [0.0, 0.9][random.below(2)],
                top_p: [1.0, 0.8][random.below(2)],
                repetition_penalty: [1.0, 1.4][random.below(2)],
                presence_penalty: [0.0, 1.5][random.below(2)],
                frequency_penalty: [0.0, 0.4][random.below(2)],
                seed: random.next_u64(),
                ..Sampling::default()
            },
            banned_until: generated.len() + random.below(5),
            prompt,
            generated,
            banned,
            logits: random.floats(vocab_size, 1.0),
        })
        .collect()
}

/// So many tokens more, one by one.
fn generated_by_host(text: &Text, more: usize) -> Vec<u32> {
    let mut generated = text.generated.clone();
    for _ in 0..more {
        let banned = generated.len() < text.banned_until;
        let context = Context {
            sampling: &text.sampling,
            prompt: &text.prompt,
            generated: &generated,
            banned: if banned { &text.banned } else { &[] },
        };
        let sampled = sample(&text.logits, &context, &mut Scratch::default());
        generated.push(sampled.expect("a token").token);
    }
    generated.split_off(text.generated.len())
}

/// Sampling and the step to the next token, recorded once and replayed: the texts are those of the host, though
/// penalties depend on what was generated meanwhile, and bans end.
#[test]
fn texts_are_generated_without_the_host() {
    const STEPS: usize = 6;
    let (rows, vocab_size) = (16, 130);
    let texts = texts(&mut Random::new(12), rows, vocab_size);
    let mut described = Rows::new(vocab_size, rows);
    for text in &texts {
        let context = Context {
            sampling: &text.sampling,
            prompt: &text.prompt,
            generated: &text.generated,
            banned: &text.banned,
        };
        described
            .push_sampled(&context, STEPS, text.banned_until)
            .expect("supported");
    }
    let expected: Vec<_> = texts
        .iter()
        .map(|text| generated_by_host(text, STEPS))
        .collect();
    let stride = vocab_size.next_multiple_of(64);
    let mut logits = Vec::new();
    for text in &texts {
        logits.extend_from_slice(&text.logits);
        logits.resize(logits.len().next_multiple_of(stride), f32::NAN);
    }
    each_device(|device| {
        let shape = SamplerShape {
            vocab_size,
            logits_stride: stride,
            rows,
            adjusted_rows: rows,
        };
        let sampler = Sampler::new(&mut *device.gpu, shape).expect("compiled");
        let advance = Advance::new(&mut *device.gpu).expect("compiled");
        let sample_call = SampleCall {
            rows,
            logits: device.upload(&logits),
            parameters: device.upload(described.parameters()),
            lists: device.upload(&described.lists()),
            outcomes: device.poisoned::<u8>(rows * OUTCOME_BYTES),
            stages: described.stages(),
        };
        let advance_call = AdvanceCall {
            rows,
            outcomes: sample_call.outcomes,
            parameters: sample_call.parameters,
            lists: sample_call.lists,
            tokens: device.zeros::<u32>(rows),
            positions: device.zeros::<i32>(rows),
            slots: device.zeros::<u32>(rows),
            tables: device.zeros::<u32>(rows),
            table_stride: 1,
            block_size: 64,
            ring: device.poisoned::<u64>(rows * STEPS),
            outcome_ring: Address::NONE,
            ring_steps: STEPS,
            step: device.zeros::<u32>(1),
        };
        let gpu = &mut *device.gpu;
        gpu.begin_recording().expect("recording");
        sampler.enqueue(gpu, &sample_call).expect("recorded");
        advance.enqueue(gpu, &advance_call).expect("recorded");
        let step = gpu.end_recording().expect("recorded");
        for _ in 0..STEPS {
            gpu.replay(step).expect("replayed");
        }
        let ring = device.download::<u64>(advance_call.ring, rows * STEPS);
        for (row, expected) in expected.iter().enumerate() {
            let found: Vec<_> = ring.iter().skip(row).step_by(rows).collect();
            let expected: Vec<_> = expected.iter().map(|&token| u64::from(token)).collect();
            assert!(
                found.iter().zip(&expected).all(|(a, b)| *a == b),
                "row {row}: {found:?} {expected:?}"
            );
        }
    });
}

#[test]
fn what_is_not_possible_is_refused() {
    each_device(|device| {
        let none = Address::NONE;
        let call = AdvanceCall {
            rows: 1,
            outcomes: none,
            parameters: none,
            lists: none,
            tokens: none,
            positions: none,
            slots: none,
            tables: none,
            table_stride: 1,
            block_size: 48,
            ring: none,
            outcome_ring: none,
            ring_steps: 1,
            step: none,
        };
        let advance = Advance::new(&mut *device.gpu).expect("compiled");
        let refusal = advance.enqueue(&mut *device.gpu, &call).unwrap_err();
        assert!(refusal.to_string().contains("48 tokens"), "{refusal}");
    });
}
