//! What must not change a bit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fixture::{Shape, Text};
use crate::batch::Batch;
use crate::cpu::{CpuOps, Isa};
use crate::model::Model;
use crate::ops::{KvFormat, Ops};

const SEED: u64 = 11;

/// A model on the fast operations, with two adapters.
fn model(shape: &Shape, isa: Isa, threads: usize) -> (CpuOps, Model<CpuOps>) {
    let mut ops = shape.fast(KvFormat::Bf16, isa, threads);
    let model = shape.model(&mut ops, SEED);
    ops.load_adapter(0, &shape.adapter(7, 2)).unwrap();
    ops.load_adapter(1, &shape.adapter(4, 3)).unwrap();
    (ops, model)
}

/// The logits of a text's tokens, computed alone, in pieces of so many.
fn alone(shape: &Shape, isa: Isa, threads: usize, text: &Text, piece: usize) -> Vec<f32> {
    let (mut ops, mut model) = model(shape, isa, threads);
    let mut logits = Vec::new();
    for first in (0..text.tokens.len()).step_by(piece) {
        let mut batch = Batch::default();
        text.push(&mut batch, first..text.tokens.len().min(first + piece));
        logits.extend_from_slice(model.forward(&mut ops, &batch));
    }
    logits
}

#[test]
fn chunks_and_threads_do_not_change_a_bit() {
    for shape in [Shape::odd(), Shape::even()] {
        for isa in Isa::available() {
            let text = Text::random(&shape, 0, 75, Some(0));
            let whole = alone(&shape, isa, 1, &text, 75);
            for (piece, threads) in [(1, 2), (2, 3), (7, 2), (13, 1), (16, 2), (40, 3)] {
                let pieces = alone(&shape, isa, threads, &text, piece);
                assert!(whole == pieces, "{isa:?}: pieces of {piece} differ");
            }
        }
    }
}

#[test]
fn who_else_is_in_the_batch_does_not_change_a_bit() {
    for shape in [Shape::odd(), Shape::even()] {
        for isa in Isa::available() {
            for others in [1, 2, 3] {
                let adapters = [None, Some(0), None, Some(1)];
                let texts: Vec<Text> = (0..=others)
                    .map(|number| Text::random(&shape, number, 30, adapters[number]))
                    .collect();
                let (mut ops, mut model) = model(&shape, isa, 2);
                let mut together = vec![Vec::new(); texts.len()];
                // Prompts of different lengths first, then a token at a time.
                for step in 0..11 {
                    let mut batch = Batch::default();
                    for (number, text) in texts.iter().enumerate() {
                        let prompt = 10 + 3 * number;
                        let places = match step {
                            0 => 0..prompt,
                            step => prompt + step - 1..prompt + step,
                        };
                        text.push(&mut batch, places);
                    }
                    let logits = model.forward(&mut ops, &batch);
                    for (logits_of, sequence) in together.iter_mut().zip(&batch.sequences) {
                        let width = shape.vocabulary;
                        let rows = &logits[sequence.first * width..][..sequence.len * width];
                        logits_of.extend_from_slice(rows);
                    }
                }
                for (text, together) in texts.iter().zip(&together) {
                    let alone = alone(&shape, isa, 1, text, 30);
                    assert!(
                        alone[..together.len()] == together[..],
                        "{isa:?}, {others} others"
                    );
                }
            }
        }
    }
}

#[test]
fn instruction_sets_that_fuse_do_not_differ_in_a_bit() {
    for shape in [Shape::odd(), Shape::even()] {
        let text = Text::random(&shape, 0, 60, Some(1));
        let mut first = None;
        for isa in Isa::available().into_iter().filter(|isa| isa.fuses()) {
            let logits = alone(&shape, isa, 2, &text, 33);
            let first = first.get_or_insert_with(|| logits.clone());
            assert!(*first == logits, "{isa:?} differs");
        }
    }
}

#[test]
fn what_a_block_held_before_does_not_matter() {
    let shape = Shape::odd();
    for isa in Isa::available() {
        let (mut ops, mut model) = model(&shape, isa, 2);
        // A broken adapter leaves infinities and worse in the cache.
        let mut broken = shape.adapter(2, 5);
        broken.scale = f32::INFINITY;
        ops.load_adapter(0, &broken).unwrap();
        let mut batch = Batch::default();
        Text::random(&shape, 0, 70, Some(0)).push(&mut batch, 0..70);
        assert!(
            model
                .forward(&mut ops, &batch)
                .iter()
                .any(|logit| logit.is_nan())
        );

        let text = Text::random(&shape, 0, 70, None);
        let mut logits = Vec::new();
        for place in 0..70 {
            let mut batch = Batch::default();
            text.push(&mut batch, place..place + 1);
            logits.extend_from_slice(model.forward(&mut ops, &batch));
        }
        assert!(logits == alone(&shape, isa, 1, &text, 70), "{isa:?}");
    }
}

#[test]
fn a_step_that_panics_leaves_the_next_one_whole() {
    let shape = Shape::odd();
    let (isa, text) = (Isa::detect(), Text::random(&shape, 0, 20, None));
    let (mut ops, mut model) = model(&shape, isa, 2);
    for wrong in 0..3 {
        let mut batch = Batch::default();
        text.push(&mut batch, 0..20);
        match wrong {
            0 => batch.sequences[0].adapter = Some(1),
            1 => batch.sequences[0].table.fill(0),
            _ => batch.sequences[0].len = 19,
        }
        ops.unload_adapter(1);
        let step = AssertUnwindSafe(|| model.forward(&mut ops, &batch).to_vec());
        assert!(catch_unwind(step).is_err(), "case {wrong}");
    }
    let mut batch = Batch::default();
    text.push(&mut batch, 0..20);
    assert!(model.forward(&mut ops, &batch) == alone(&shape, isa, 1, &text, 20));
}

#[test]
fn an_adapter_that_was_unloaded_leaves_nothing() {
    let shape = Shape::even();
    let isa = Isa::detect();
    let (base, with) = (
        Text::random(&shape, 0, 20, None),
        Text::random(&shape, 0, 20, Some(1)),
    );
    let plain = alone(&shape, isa, 1, &base, 20);
    assert!(
        plain != alone(&shape, isa, 1, &with, 20),
        "the adapter does something"
    );
    let (mut ops, mut model) = model(&shape, isa, 1);
    ops.unload_adapter(1);
    ops.load_adapter(1, &shape.adapter(1, 9)).unwrap();
    let mut batch = Batch::default();
    base.push(&mut batch, 0..20);
    assert!(model.forward(&mut ops, &batch) == plain);
}
