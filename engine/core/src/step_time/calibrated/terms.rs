//! The numbers of the formula, and the factors that bend it.

use serde::{Deserialize, Serialize};

/// What a term is called, what it means, and where it is.
type Named = (
    &'static str,
    &'static str,
    fn(&Terms) -> f64,
    fn(&mut Terms) -> &mut f64,
);

/// Declares the terms once: their field, and what it means to a person.
macro_rules! terms {
    ($($(#[$doc:meta])* $name:ident: $meaning:literal,)+) => {
        /// The terms of the formula, all in seconds, none negative.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct Terms {
            $($(#[$doc])* pub $name: f64,)+
        }

        const NAMED: &[Named] = &[
            $((stringify!($name), $meaning, |terms| terms.$name, |terms| &mut terms.$name),)+
        ];
    };
}

terms! {
    /// Every step, whatever it computes.
    launch_s: "a step: launches and the host's work",
    /// Reading the weights, once a step.
    weights_s: "reading the weights",
    /// Multiplying them with a token.
    token_s: "multiplying a token with the weights",
    /// A sequence that samples a token.
    sequence_s: "a sequence that samples a token",
    /// Reading a token of KV cache for a sequence that decodes.
    kv_token_s: "reading a token of KV cache",
    /// One query with one key, in a chunk.
    pair_s: "one query of a prompt with one key",
    /// Reading a token of KV cache for a chunk.
    chunk_kv_token_s: "reading a token of KV cache for a chunk",
    /// A chunk, whatever its length.
    chunk_s: "a chunk of a prompt, whatever its length",
    /// A step with any chunk, beyond one that only decodes.
    mixed_s: "a step with a chunk, beyond one that only decodes",
    /// A step in which any sequence uses an adapter.
    adapter_step_s: "a step with any adapter",
    /// Each adapter in a step.
    adapter_s: "each adapter in a step",
    /// A request, outside its steps.
    request_s: "a request, outside its steps",
    /// A token of a request's prompt, outside its steps.
    prompt_token_s: "a token of a prompt, outside its steps",
}

impl Terms {
    /// How many there are.
    #[must_use]
    pub fn count() -> usize {
        NAMED.len()
    }

    /// Their names, in order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, ..)| *name)
    }

    /// What the term of this name is the time of.
    #[must_use]
    pub fn meaning(name: &str) -> Option<&'static str> {
        let found = NAMED.iter().find(|(known, ..)| *known == name);
        found.map(|(_, meaning, ..)| *meaning)
    }

    /// The values, in the order of the names.
    #[must_use]
    pub fn to_vec(&self) -> Vec<f64> {
        NAMED.iter().map(|(_, _, get, _)| get(self)).collect()
    }

    /// From values in the order of the names; those that are missing are zero.
    #[must_use]
    pub fn of_values(values: &[f64]) -> Self {
        let mut terms = Self::default();
        for ((_, _, _, place), value) in NAMED.iter().zip(values) {
            *place(&mut terms) = *value;
        }
        terms
    }

    /// The value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let found = NAMED.iter().find(|(known, ..)| *known == name);
        found.map(|(_, _, get, _)| get(self))
    }

    /// Sets the value of this name, and says whether there is one.
    pub fn set(&mut self, name: &str, value: f64) -> bool {
        let found = NAMED.iter().find(|(known, ..)| *known == name);
        if let Some((_, _, _, place)) = found {
            *place(self) = value;
        }
        found.is_some()
    }

    /// All of them times a number.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        let values: Vec<f64> = self.to_vec().iter().map(|value| value * factor).collect();
        Self::of_values(&values)
    }
}

/// A factor on a time: straight between its knots, constant beyond them, 1 without any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Factor {
    /// In order of `at`.
    pub knots: Vec<Knot>,
}

/// The factor at one place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knot {
    /// Tokens, or sequences.
    pub at: u64,
    /// The factor there.
    pub factor: f64,
}

impl Factor {
    /// The factor at a place.
    #[must_use]
    #[inline]
    pub fn at(&self, at: u64) -> f64 {
        let above = self.knots.partition_point(|knot| knot.at < at);
        match (above.checked_sub(1), self.knots.get(above)) {
            (None, None) => 1.0,
            (None, Some(first)) => first.factor,
            (Some(last), None) => self.knots[last].factor,
            (Some(below), Some(upper)) => {
                let lower = self.knots[below];
                let share = (at - lower.at) as f64 / (upper.at - lower.at) as f64;
                lower.factor + (upper.factor - lower.factor) * share
            }
        }
    }

    /// Whether its knots are in order.
    pub(super) fn is_in_order(&self) -> bool {
        self.knots.windows(2).all(|pair| pair[0].at < pair[1].at)
    }
}
