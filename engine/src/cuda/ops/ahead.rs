//! Steps that are begun before they are asked for.
//!
//! The driver promises for how long a batch goes on as it is. The GPU feeds a token that it
//! sampled back to itself, so the next step can wait in its queue while the
//! host still reads what came of this one:
//!
//! ```text
//! asked for       step 1           step 2           step 3
//! queue           1 2 ─────────────── 3 ─────────────── 4
//! GPU             [  1  ][  2  ][  3  ][  4  ]            no gap
//! ```
//!
//! If the batch changes after all, what was begun is forgotten: it wrote only to
//! places of the KV cache that are written again before anybody reads them.

use std::collections::VecDeque;

use foresail_core::batching::BlockId;

use super::pass::Key;
use crate::batch::Batch;
use crate::choose::Wants;
use crate::cuda::gpu::Reading;
use crate::sampling::Sampling;

/// A batch that decodes, step after step.
#[derive(Debug)]
pub(super) struct Running {
    /// Its recording.
    pub(super) key: Key,
    rows: Vec<RunningRow>,
    /// What came of the steps that were begun, oldest first.
    pub(super) queue: VecDeque<Reading>,
}

/// A sequence, as it is in the next step that is asked for.
#[derive(Debug)]
struct RunningRow {
    /// The token that the last step sampled.
    token: u32,
    past: usize,
    generated: usize,
    table: Vec<BlockId>,
    adapter: Option<usize>,
    sampling: Sampling,
}

impl Running {
    /// A batch whose first step was begun. `None` if something but a token of each sequence is wanted.
    pub(super) fn new(key: Key, batch: &Batch, wants: &Wants<'_>) -> Option<Self> {
        let sequences = batch.sequences.iter().enumerate();
        let rows = sequences.map(|(index, sequence)| {
            let context = wants.rows[wants.wants.get(index)?.row].sample.as_ref()?;
            Some(RunningRow {
                token: batch.tokens[index],
                past: sequence.past,
                generated: context.generated.len(),
                table: sequence.table.clone(),
                adapter: sequence.adapter,
                sampling: context.sampling.clone(),
            })
        });
        Some(Self {
            key,
            rows: rows.collect::<Option<_>>()?,
            queue: VecDeque::new(),
        })
    }

    /// Whether this is the next step of the batch, as it was begun.
    pub(super) fn is(&self, batch: &Batch, wants: &Wants<'_>) -> bool {
        let same = |(index, row): (usize, &RunningRow)| {
            let sequence = &batch.sequences[index];
            let want = &wants.wants[index];
            let context = wants.rows[want.row].sample.as_ref();
            sequence.len == 1
                && sequence.past == row.past
                && batch.tokens[index] == row.token
                && sequence.table == row.table
                && sequence.adapter == row.adapter
                && context.is_some_and(|context| {
                    context.generated.len() == row.generated
                        && context.banned.is_empty()
                        && *context.sampling == row.sampling
                })
        };
        !self.queue.is_empty()
            && batch.sequences.len() == self.rows.len()
            && batch.len() == self.rows.len()
            && wants.wants.len() == self.rows.len()
            && self.rows.iter().enumerate().all(same)
    }

    /// The oldest step is done: each sequence has this token more.
    pub(super) fn advance(&mut self, tokens: impl Iterator<Item = u32>) {
        for (row, token) in self.rows.iter_mut().zip(tokens) {
            row.token = token;
            row.past += 1;
            row.generated += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Row;
    use crate::choose::Want;
    use crate::sampling::Context;

    const KEY: Key = Key {
        bucket: 2,
        adapts: false,
        stages: None,
    };

    struct Text {
        known: Vec<u32>,
        prompt: usize,
        table: Vec<BlockId>,
        sampling: Sampling,
    }

    impl Text {
        fn new(known: &[u32]) -> Self {
            Self {
                known: known.to_vec(),
                prompt: 1,
                table: vec![known[0], 9],
                sampling: Sampling::default(),
            }
        }

        fn row(&self) -> Row<'_> {
            let (prompt, generated) = self.known.split_at(self.prompt);
            Row {
                known: &self.known,
                past: self.known.len() - 1,
                len: 1,
                table: &self.table,
                adapter: None,
                prompt_logprobs: None,
                sample: Some(Context {
                    sampling: &self.sampling,
                    prompt,
                    generated,
                    banned: &[],
                }),
            }
        }
    }

    /// What comes of a step of these texts.
    fn with<T>(texts: &[Text], then: impl FnOnce(&Batch, &Wants<'_>) -> T) -> T {
        let rows: Vec<_> = texts.iter().map(Text::row).collect();
        let mut batch = Batch::default();
        let mut wants = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            batch.push(&row.known[row.past..], row.past, row.table, row.adapter);
            wants.push(Want {
                row: index,
                place: row.known.len(),
            });
        }
        let wants = Wants {
            wants: &wants,
            rows: &rows,
            ahead: 1,
        };
        then(&batch, &wants)
    }

    fn begun(texts: &[Text]) -> Running {
        let mut running = with(texts, |batch, wants| Running::new(KEY, batch, wants)).unwrap();
        running.queue.extend([Reading(0), Reading(1)]);
        running
    }

    #[test]
    fn the_next_step_is_recognised_and_no_other() {
        let mut texts = [Text::new(&[1, 2]), Text::new(&[3, 4, 5])];
        let mut running = begun(&texts);
        running.queue.pop_front();
        running.advance([7, 8].into_iter());
        let is = |running: &Running, texts: &[Text]| {
            with(texts, |batch, wants| running.is(batch, wants))
        };
        assert!(!is(&running, &texts), "it is a step further");
        texts[0].known.push(7);
        texts[1].known.push(8);
        assert!(is(&running, &texts));
        let changes: [fn(&mut [Text; 2]); 5] = [
            |texts| *texts[0].known.last_mut().unwrap() = 6,
            |texts| texts[1].table[1] = 4,
            |texts| texts[1].sampling.temperature = 0.5,
            |texts| texts[0].prompt = 2,
            |texts| texts.swap(0, 1),
        ];
        for change in changes {
            let mut other = [Text::new(&[1, 2, 7]), Text::new(&[3, 4, 5, 8])];
            assert!(is(&running, &other));
            change(&mut other);
            assert!(!is(&running, &other));
        }
        assert!(!is(&running, &texts[..1]), "one has left");
        running.queue.clear();
        assert!(!is(&running, &texts), "nothing was begun");
    }
}
