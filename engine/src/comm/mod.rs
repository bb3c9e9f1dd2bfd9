//! What ranks say to each other: sums, and parts put together.
//!
//! | world | ranks are | an exchange |
//! |---|---|---|
//! | [`Solo`] | one | is nothing |
//! | [`Threads`] | threads of this process | is a copy into memory that all see, and a barrier |
//! | [`Modelled`] | one shard out of several, alone | is only waited for: for timing, as its results are wrong |

mod modelled;
mod rendezvous;
mod threads;

pub use modelled::{Modelled, ModelledError};
pub use threads::{Exchange, ExchangeBroken, Threads};

/// One rank's end of the exchange between the ranks of a world. All ranks make
/// the same calls in the same order; a call returns when all have made it.
pub trait Comm: Send {
    /// Which rank this is, of how many.
    fn partition(&self) -> crate::config::Partition;

    /// How long exchanges take, if that is all that this end knows of them.
    fn modelled(&self) -> Option<&Modelled> {
        None
    }

    /// Adds the ranks' values up, element by element, in the order of the
    /// ranks, so that the sum is the same from run to run. All have the sum.
    ///
    /// # Panics
    /// If another rank failed, with [`ExchangeBroken`]: there is no sum then.
    fn all_reduce(&mut self, values: &mut [f32]);

    /// Puts the ranks' parts of each row side by side, in the order of the
    /// ranks: `part` is `[rows][this rank's width]`. Rank 0 has `[rows][sum of
    /// widths]` in `whole`; the others leave theirs empty.
    ///
    /// # Panics
    /// If another rank failed, with [`ExchangeBroken`]: there is no whole then.
    fn gather(&mut self, rows: usize, part: &[f32], whole: &mut Vec<f32>);
}

/// A world of one rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Comm for Solo {
    fn partition(&self) -> crate::config::Partition {
        crate::config::Partition::WHOLE
    }

    fn all_reduce(&mut self, _values: &mut [f32]) {}

    fn gather(&mut self, _rows: usize, part: &[f32], whole: &mut Vec<f32>) {
        whole.clear();
        whole.extend_from_slice(part);
    }
}
