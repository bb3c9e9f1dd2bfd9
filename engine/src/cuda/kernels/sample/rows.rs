//! What the device is told of each row, and what it tells.

use crate::sampling::{Context, LOGPROBS_MAX, Logprobs, SampleError, Sampled, Sampling};

use super::VOCABULARY_MAX;

/// Bytes of a row's parameters.
pub const ROW_BYTES: usize = 96;
/// Bytes of what came of a row.
pub const OUTCOME_BYTES: usize = 192;
/// Biases of a row at most.
const BIASES_MAX: usize = 1024;
/// A row without changed logits.
const NO_SLOT: u32 = u32::MAX;

/// Which kernels rows need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stages {
    /// Some row's logits are changed.
    pub adjust: bool,
    /// Some row has a temperature.
    pub draw: bool,
    /// Some row has top-k or top-p.
    pub filter: bool,
    /// Some row asks for log-probabilities.
    pub logprobs: bool,
}

impl Stages {
    /// The kernels that either needs.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            adjust: self.adjust | other.adjust,
            draw: self.draw | other.draw,
            filter: self.filter | other.filter,
            logprobs: self.logprobs | other.logprobs,
        }
    }
}

/// Why a row has to be sampled on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// More tokens than a row is cut into.
    #[error("a vocabulary of {0} tokens")]
    Vocabulary(usize),
    /// More log-probabilities than a row has room for.
    #[error("{0} log-probabilities")]
    Logprobs(u32),
    /// More biases than are looked through.
    #[error("{0} biases")]
    Biases(usize),
    /// All copies of changed logits are taken by other rows.
    #[error("more than {0} rows with bans, biases or penalties")]
    AdjustedRows(usize),
    /// A place that does not fit 32 bits.
    #[error("a list of {0} tokens")]
    List(usize),
}

/// Whether a row can be sampled on the device, as far as it alone says.
#[must_use]
pub fn supports(context: &Context<'_>, vocab_size: usize) -> bool {
    check(context, vocab_size).is_ok()
}

fn check(context: &Context<'_>, vocab_size: usize) -> Result<(), Unsupported> {
    let sampling = context.sampling;
    if vocab_size > VOCABULARY_MAX {
        return Err(Unsupported::Vocabulary(vocab_size));
    }
    if let Some(count) = sampling.logprobs.filter(|&count| count > LOGPROBS_MAX) {
        return Err(Unsupported::Logprobs(count));
    }
    if sampling.logit_bias.len() > BIASES_MAX {
        return Err(Unsupported::Biases(sampling.logit_bias.len()));
    }
    Ok(())
}

/// The rows of a step, in the form that the device reads.
#[derive(Clone, Debug)]
pub struct Rows {
    vocab_size: usize,
    adjusted_rows_max: usize,
    adjusted_rows: usize,
    stages: Stages,
    parameters: Vec<u8>,
    lists: Vec<u32>,
}

/// Where a list is among all lists.
#[derive(Clone, Copy, Default)]
struct Place {
    first: u32,
    count: u32,
}

impl Rows {
    /// None yet, of a sampler with these numbers of [`super::SamplerShape`].
    #[must_use]
    pub fn new(vocab_size: usize, adjusted_rows_max: usize) -> Self {
        Self {
            vocab_size,
            adjusted_rows_max,
            adjusted_rows: 0,
            stages: Stages::default(),
            parameters: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// Forgets all rows, and keeps the memory.
    pub fn clear(&mut self) {
        self.adjusted_rows = 0;
        self.stages = Stages::default();
        self.parameters.clear();
        self.lists.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parameters.len() / ROW_BYTES
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The kernels that they need.
    #[must_use]
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// Their parameters: [`ROW_BYTES`] each.
    #[must_use]
    pub fn parameters(&self) -> &[u8] {
        &self.parameters
    }

    /// Their lists of tokens: 4 bytes a word.
    #[must_use]
    pub fn lists(&self) -> Vec<u8> {
        self.lists
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }

    /// A row of padding, or one that the host samples.
    pub fn push_none(&mut self) {
        self.push(&Row::default());
    }

    /// A row whose token is known, and whose log-probability is wanted, with so many of the most likely.
    ///
    /// # Errors
    /// If that is more than there is room for, or there is no such token.
    pub fn push_scored(&mut self, token: u32, top: u32) -> Result<(), Unsupported> {
        if self.vocab_size > VOCABULARY_MAX || token as usize >= self.vocab_size {
            return Err(Unsupported::Vocabulary(self.vocab_size));
        }
        if top > LOGPROBS_MAX {
            return Err(Unsupported::Logprobs(top));
        }
        self.stages.logprobs = true;
        self.push(&Row {
            kind: 2,
            token,
            logprobs: top + 1,
            ..Row::default()
        });
        Ok(())
    }

    /// A row to sample. After it, `more` tokens may be generated without the host.
    /// Tokens are banned until so many were generated: `banned_until`.
    ///
    /// # Errors
    /// If the host has to sample it; nothing is added then.
    pub fn push_sampled(
        &mut self,
        context: &Context<'_>,
        more: usize,
        banned_until: usize,
    ) -> Result<(), Unsupported> {
        check(context, self.vocab_size)?;
        let sampling = context.sampling;
        let length = context.prompt.len() + context.generated.len() + more;
        if u32::try_from(self.lists.len() + length).is_err() {
            return Err(Unsupported::List(length));
        }
        let draws = sampling.temperature > 0.0;
        let mut row = Row {
            kind: 1,
            seed: sampling.seed,
            place: context.generated.len() as u32,
            sampling: Some(sampling),
            logprobs: sampling.logprobs.map_or(0, |top| top + 1),
            banned_until: u32::try_from(banned_until).unwrap_or(u32::MAX),
            ..Row::default()
        };
        if is_changed(context) {
            self.adjust(context, more, &mut row)?;
        }
        let top_k = sampling.top_k > 0 && (sampling.top_k as usize) < self.vocab_size;
        self.stages = self.stages.with(Stages {
            adjust: row.adjusted_slot != NO_SLOT,
            draw: draws,
            filter: draws && (top_k || sampling.top_p < 1.0),
            logprobs: sampling.logprobs.is_some(),
        });
        self.push(&row);
        Ok(())
    }

    /// Gives a row a copy of its logits to change, and the lists by which they are.
    fn adjust(
        &mut self,
        context: &Context<'_>,
        more: usize,
        row: &mut Row<'_>,
    ) -> Result<(), Unsupported> {
        if self.adjusted_rows == self.adjusted_rows_max {
            return Err(Unsupported::AdjustedRows(self.adjusted_rows_max));
        }
        row.adjusted_slot = self.adjusted_rows as u32;
        self.adjusted_rows += 1;
        row.banned = self.list(context.banned.iter().copied());
        let biases = context.sampling.logit_bias.iter();
        row.biases = self.list(biases.flat_map(|&(token, bias)| [token, bias.to_bits()]));
        row.biases.count /= 2;
        if !has_penalties(context.sampling) {
            return Ok(());
        }
        if context.sampling.repetition_penalty != 1.0 {
            row.prompt = self.list(context.prompt.iter().copied());
        }
        let unknown = std::iter::repeat_n(0, more);
        row.generated = self.list(context.generated.iter().copied().chain(unknown));
        Ok(())
    }

    fn list(&mut self, words: impl Iterator<Item = u32>) -> Place {
        let first = self.lists.len();
        self.lists.extend(words);
        Place {
            first: first as u32,
            count: (self.lists.len() - first) as u32,
        }
    }

    fn push(&mut self, row: &Row<'_>) {
        let neutral = Sampling::default();
        let sampling = row.sampling.unwrap_or(&neutral);
        let words = [
            row.seed as u32,
            (row.seed >> 32) as u32,
            row.place,
            row.kind,
            sampling.temperature.to_bits(),
            sampling.top_p.to_bits(),
            sampling.min_p.to_bits(),
            sampling.top_k,
            sampling.repetition_penalty.to_bits(),
            sampling.frequency_penalty.to_bits(),
            sampling.presence_penalty.to_bits(),
            row.logprobs,
            row.token,
            row.adjusted_slot,
            row.prompt.first,
            row.prompt.count,
            row.generated.first,
            row.generated.count,
            row.biases.first,
            row.biases.count,
            row.banned.first,
            row.banned.count,
            row.banned_until,
            0,
        ];
        for word in words {
            self.parameters.extend_from_slice(&word.to_ne_bytes());
        }
    }
}

/// `RowParameters` of `sampling.cuh`.
#[derive(Clone, Copy)]
struct Row<'a> {
    kind: u32,
    seed: u64,
    place: u32,
    sampling: Option<&'a Sampling>,
    logprobs: u32,
    token: u32,
    adjusted_slot: u32,
    prompt: Place,
    generated: Place,
    biases: Place,
    banned: Place,
    banned_until: u32,
}

impl Default for Row<'_> {
    fn default() -> Self {
        Self {
            kind: 0,
            seed: 0,
            place: 0,
            sampling: None,
            logprobs: 0,
            token: 0,
            adjusted_slot: NO_SLOT,
            prompt: Place::default(),
            generated: Place::default(),
            biases: Place::default(),
            banned: Place::default(),
            banned_until: u32::MAX,
        }
    }
}

fn is_changed(context: &Context<'_>) -> bool {
    let sampling = context.sampling;
    !context.banned.is_empty() || !sampling.logit_bias.is_empty() || has_penalties(sampling)
}

fn has_penalties(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0
        || sampling.presence_penalty != 0.0
        || sampling.frequency_penalty != 0.0
}

/// What came of a row: its [`OUTCOME_BYTES`], and whether it asked for log-probabilities.
///
/// # Errors
/// If its logits are not a distribution, or nothing is left that may be chosen.
///
/// # Panics
/// If there are not so many bytes.
pub fn outcome(bytes: &[u8], has_logprobs: bool) -> Result<Sampled, SampleError> {
    let word = |place: usize| {
        let word = bytes[4 * place..].first_chunk().expect("a whole outcome");
        u32::from_ne_bytes(*word)
    };
    let token = word(0);
    match word(1) {
        0 => {}
        1 => return Err(SampleError::NotFinite { token }),
        _ => return Err(SampleError::NothingLeft),
    }
    if !has_logprobs {
        return Ok(Sampled {
            token,
            logprobs: None,
        });
    }
    let largest = f64::from(f32::from_bits(word(5)));
    let ticks = u64::from(word(6)) | u64::from(word(7)) << 32;
    let log_total = libm::log(ticks as f64 / (1_u64 << 34) as f64);
    // The same operations as in `sampling::logprobs`.
    let logprob = |bits: u32| (f64::from(f32::from_bits(bits)) - largest - log_total) as f32;
    let top =
        (0..word(3) as usize).map(|place| (word(8 + 2 * place), logprob(word(9 + 2 * place))));
    Ok(Sampled {
        token,
        logprobs: Some(Logprobs {
            token,
            logprob: logprob(word(4)),
            rank: word(2),
            top: top.collect(),
        }),
    })
}
