//! Which adapters are in the batch.

/// A LoRA adapter.
pub type AdapterId = u32;

/// The distinct adapters of the running sequences, at most `max_loras`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Adapters {
    /// (adapter, running sequences that use it). A batch has few: a scan is fastest.
    in_batch: Vec<(AdapterId, u32)>,
}

impl Adapters {
    /// Whether a sequence with this adapter may join a batch of at most `max_loras`.
    pub(super) fn fits(&self, adapter: Option<AdapterId>, max_loras: u32) -> bool {
        adapter.is_none_or(|id| {
            self.in_batch.len() < max_loras as usize
                || self.in_batch.iter().any(|(in_batch, _)| *in_batch == id)
        })
    }

    pub(super) fn join(&mut self, adapter: Option<AdapterId>) {
        let Some(id) = adapter else { return };
        match self
            .in_batch
            .iter_mut()
            .find(|(in_batch, _)| *in_batch == id)
        {
            Some((_, users)) => *users += 1,
            None => self.in_batch.push((id, 1)),
        }
    }

    pub(super) fn leave(&mut self, adapter: Option<AdapterId>) {
        let Some(id) = adapter else { return };
        let index = self
            .in_batch
            .iter()
            .position(|(in_batch, _)| *in_batch == id)
            .expect("the adapter is in the batch");
        self.in_batch[index].1 -= 1;
        if self.in_batch[index].1 == 0 {
            self.in_batch.remove(index);
        }
    }

    pub(super) fn distinct(&self) -> usize {
        self.in_batch.len()
    }
}
