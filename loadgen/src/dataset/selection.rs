//! Which rows of a dataset are sent, and in which order.

use foresail_scenarios::random::stream;
use foresail_scenarios::workload::Content;
use rand::Rng;
use serde_json::Value;

use super::{Answer, Dataset, DatasetError, Format, Row};
use crate::bodies::{Counting, Form};
use crate::plan::Prompt;
use crate::schedule::Plan;

/// Which rows of a dataset may be sent, by their lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Fewest tokens of a prompt and, unless it is given for all, of an answer.
    pub tokens_min: u32,
    /// Most tokens of a prompt.
    pub prompt_tokens_max: u32,
    /// Most tokens of prompt and answer together.
    pub total_tokens_max: u32,
    /// Tokens of every answer, whatever the rows say.
    pub output_tokens: Option<u32>,
}

impl Selection {
    /// What is usual for a format: of ShareGPT what vLLM takes (`is_valid_sequence` in
    /// vllm/benchmarks/datasets.py, and others by its figures), of JSON Lines everything.
    #[must_use]
    pub fn usual(format: Format) -> Self {
        match format {
            Format::ShareGpt => Self {
                tokens_min: 4,
                prompt_tokens_max: 1024,
                total_tokens_max: 2048,
                output_tokens: None,
            },
            Format::JsonLines => Self {
                tokens_min: 1,
                prompt_tokens_max: u32::MAX,
                total_tokens_max: u32::MAX,
                output_tokens: None,
            },
        }
    }
}

/// A row that is sent.
struct Chosen {
    prompt: Prompt,
    prompt_tokens: u32,
    output_tokens: u32,
}

#[derive(Default)]
struct Refused {
    too_short: u64,
    too_long: u64,
}

impl Plan {
    /// The same requests at the same times, with prompts of a dataset: in a
    /// random order of the seed, each once before any comes again. Lengths are those
    /// of the texts, with what the endpoint adds around them in this form as far as it is known.
    ///
    /// # Errors
    /// If no row fits, a row does not say how long its answer is to be, or the
    /// plan's prompts share beginnings, which those of a dataset do not.
    pub fn with_dataset(
        mut self,
        dataset: &Dataset,
        selection: &Selection,
        (counting, form): (&Counting, Form),
        seed: u64,
    ) -> Result<Self, DatasetError> {
        let is_single = |content: &Content| *content == Content::Unique;
        if !self
            .requests
            .iter()
            .all(|planned| is_single(&planned.request.content))
        {
            return Err(DatasetError::PromptsPlanned);
        }
        // Every shard chooses for the whole plan, so that all know which row is whose.
        let chosen = dataset.choose(selection, counting, form, seed, self.requests_total)?;
        for planned in &mut self.requests {
            let row = &chosen[(planned.id % chosen.len() as u64) as usize];
            planned.prompt = row.prompt.clone();
            planned.request.prompt_tokens = row.prompt_tokens;
            planned.request.output_tokens = row.output_tokens;
            self.repeated_prompts += u64::from(planned.id >= chosen.len() as u64);
        }
        let (path, format) = (dataset.path.display(), dataset.format.name());
        self.description += &format!(", prompts of {format} {path}");
        Ok(self)
    }
}

impl Format {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ShareGpt => "ShareGPT",
            Self::JsonLines => "JSON Lines",
        }
    }
}

impl Dataset {
    /// Rows that fit, as many as are wanted if there are so many; at least one.
    fn choose(
        &self,
        selection: &Selection,
        counting: &Counting,
        form: Form,
        seed: u64,
        wanted: u64,
    ) -> Result<Vec<Chosen>, DatasetError> {
        let mut chosen = Vec::new();
        let mut refused = Refused::default();
        for place in shuffled(self.rows.len(), seed) {
            if chosen.len() as u64 >= wanted.max(1) {
                break;
            }
            let row = &self.rows[place];
            let counted = self.counted(row, selection, counting, form)?;
            chosen.extend(selection.admit(counted, &mut refused));
        }
        if chosen.is_empty() {
            return Err(DatasetError::NoneFits {
                path: self.path.clone(),
                rows: self.rows.len() as u64,
                too_short: refused.too_short,
                too_long: refused.too_long,
            });
        }
        Ok(chosen)
    }

    /// A row with its lengths.
    fn counted(
        &self,
        row: &Row,
        selection: &Selection,
        counting: &Counting,
        form: Form,
    ) -> Result<Chosen, DatasetError> {
        let (path, place) = (&self.path, row.place);
        let not_encodable = || DatasetError::NotEncodable {
            path: path.clone(),
            row: place,
        };
        let text_tokens = match &row.prompt {
            Prompt::Messages(messages) => count_messages(messages, counting),
            Prompt::Given(text) => counting.count(text),
            Prompt::Synthetic => None,
        };
        let frame = counting.frame(form);
        let text_tokens = text_tokens.ok_or_else(not_encodable)?;
        let output_tokens = match (selection.output_tokens, &row.answer) {
            (Some(tokens), _) | (None, &Answer::Tokens(tokens)) => tokens,
            (None, Answer::Like(text)) => counting.count(text).ok_or_else(not_encodable)?,
            (None, Answer::Unknown) => {
                return Err(DatasetError::NoOutputTokens {
                    path: path.clone(),
                    row: place,
                });
            }
        };
        Ok(Chosen {
            prompt: row.prompt.clone(),
            prompt_tokens: (text_tokens.saturating_add(frame.before)).saturating_add(frame.after),
            output_tokens,
        })
    }
}

impl Selection {
    fn admit(&self, row: Chosen, refused: &mut Refused) -> Option<Chosen> {
        let (prompt, output) = (row.prompt_tokens, row.output_tokens);
        let is_answer_short = self.output_tokens.is_none() && output < self.tokens_min;
        if prompt < self.tokens_min || is_answer_short {
            refused.too_short += 1;
            return None;
        }
        let total = prompt.saturating_add(output);
        if prompt > self.prompt_tokens_max || total > self.total_tokens_max {
            refused.too_long += 1;
            return None;
        }
        Some(row)
    }
}

/// Tokens of the texts in an array of messages.
fn count_messages(messages: &str, counting: &Counting) -> Option<u32> {
    let messages: Vec<Value> = serde_json::from_str(messages).ok()?;
    let mut count = 0_u32;
    for message in &messages {
        let texts = match &message["content"] {
            Value::String(text) => vec![text.as_str()],
            Value::Array(parts) => parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect(),
            _ => Vec::new(),
        };
        for text in texts {
            count = count.saturating_add(counting.count(text)?);
        }
    }
    Some(count.max(1))
}

/// The numbers below `count` in a random order (Fisher and Yates, from the end).
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut draws = stream(seed, "dataset.order");
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // Multiplication maps 64 random bits evenly onto 0..=last.
        let drawn = (u128::from(draws.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, drawn as usize);
    }
    order
}
