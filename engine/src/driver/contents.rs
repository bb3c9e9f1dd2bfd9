//! What is in the KV blocks of a request, as chained hashes.
//!
//! A block's hash covers its tokens and, through the hash of the block before
//! it, all tokens up to there: equal hashes mean equal contents, as in vLLM
//! (`hash_block_tokens` in `vllm/v1/core/kv_cache_utils.py`). The chain begins
//! with what else contents depend on: the adapter, and the request's salt.

use foresail_core::batching::BlockHash;

/// The hashes of a request's blocks, as far as somebody has asked for them.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// What the chain begins with.
    root: BlockHash,
    hashes: Vec<BlockHash>,
}

impl Contents {
    /// Of a request with this adapter and salt.
    pub(super) fn new(adapter: Option<u32>, salt: Option<&str>) -> Self {
        let mut hasher = blake3::Hasher::new();
        // A byte says whether there is one, so that no salt looks like an adapter.
        hasher.update(&[u8::from(adapter.is_some())]);
        hasher.update(&adapter.unwrap_or(0).to_le_bytes());
        hasher.update(&[u8::from(salt.is_some())]);
        hasher.update(salt.unwrap_or("").as_bytes());
        Self {
            root: truncated(&hasher),
            hashes: Vec::new(),
        }
    }

    /// The hash of a block, if the tokens `known` so far fill it.
    pub(super) fn hash(
        &mut self,
        block: u32,
        block_size: usize,
        known: &[u32],
    ) -> Option<BlockHash> {
        let block = block as usize;
        while self.hashes.len() <= block {
            let start = self.hashes.len() * block_size;
            let tokens = known.get(start..start + block_size)?;
            let parent = self.hashes.last().copied().unwrap_or(self.root);
            self.hashes.push(chained(parent, tokens));
        }
        Some(self.hashes[block])
    }
}

fn chained(parent: BlockHash, tokens: &[u32]) -> BlockHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&parent.to_le_bytes());
    // One update of a few tokens at a time costs more than copying them together.
    let mut bytes = [0; 4 * 64];
    for some in tokens.chunks(64) {
        for (place, token) in bytes.chunks_exact_mut(4).zip(some) {
            place.copy_from_slice(&token.to_le_bytes());
        }
        hasher.update(&bytes[..4 * some.len()]);
    }
    truncated(&hasher)
}

/// 128 bits, so that no two contents that anybody can find have the same.
fn truncated(hasher: &blake3::Hasher) -> BlockHash {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    BlockHash::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(adapter: Option<u32>, salt: Option<&str>, known: &[u32]) -> Vec<BlockHash> {
        let mut contents = Contents::new(adapter, salt);
        (0..known.len() as u32 / 4)
            .filter_map(|block| contents.hash(block, 4, known))
            .collect()
    }

    #[test]
    fn blocks_are_equal_up_to_the_first_token_that_differs() {
        let one = hashes(None, None, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let other = hashes(None, None, &[1, 2, 3, 4, 5, 6, 7, 9, 9, 10, 11, 12]);
        assert_eq!(one[0], other[0]);
        assert_ne!(one[1], other[1]);
        assert_ne!(
            one[2], other[2],
            "what follows other contents is other contents"
        );
    }

    #[test]
    fn adapters_and_salts_share_nothing() {
        let known = [1, 2, 3, 4];
        let all = [
            hashes(None, None, &known),
            hashes(Some(0), None, &known),
            hashes(Some(1), None, &known),
            hashes(None, Some(""), &known),
            hashes(None, Some("a"), &known),
            hashes(Some(0), Some("a"), &known),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| other != one));
        }
    }

    #[test]
    fn a_block_has_a_hash_once_it_is_full_and_keeps_it() {
        let mut contents = Contents::new(None, None);
        assert_eq!(contents.hash(0, 4, &[1, 2, 3]), None);
        let first = contents.hash(0, 4, &[1, 2, 3, 4]);
        assert!(first.is_some());
        let long: Vec<u32> = (1..=300).collect();
        assert_eq!(contents.hash(0, 4, &long), first);
        let mut at_once = Contents::new(None, None);
        assert_eq!(at_once.hash(74, 4, &long), contents.hash(74, 4, &long));
        assert_eq!(at_once.hash(75, 4, &long), None);
    }
}
