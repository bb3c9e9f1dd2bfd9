//! One request of a workload: when it is sent and what it asks for.

use foresail_core::batching::BlockHash;
use foresail_core::time::Nanos;

/// A request as the workload defines it, before anything has served it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The intended send time, since the start of the run.
    pub due: Nanos,
    /// Tokens in the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Tokens that will be generated, at least 1.
    pub output_tokens: u32,
    /// The conversation that the request belongs to.
    pub session: Option<u64>,
    /// The LoRA adapter that it asks for, as a number of its workload; `None`
    /// for the model itself.
    pub adapter: Option<u32>,
    /// What is known of the tokens, for the prefix cache.
    pub content: Content,
}

impl Request {
    /// A hash of the contents of this block, or `None` if nothing can share it;
    /// see [`Content::block_hash`]. Keys and values depend on the adapter that
    /// computed them, so no two adapters share any (vLLM salts its hashes alike).
    #[must_use]
    pub fn block_hash(&self, block: u32, block_size: u32) -> Option<BlockHash> {
        let hash = self
            .content
            .block_hash(self.prompt_tokens, block, block_size);
        hash.map(|hash| self.salted(hash))
    }

    /// Whether any of its blocks could be shared.
    #[must_use]
    pub fn is_cacheable(&self, block_size: u32) -> bool {
        self.content.block_hash(u32::MAX, 0, block_size).is_some()
    }

    /// What requests that should go to one replica, for the sake of its prefix
    /// cache, have in common; see [`Content::affinity`].
    #[must_use]
    pub fn affinity(&self) -> Option<BlockHash> {
        self.content.affinity().map(|hash| self.salted(hash))
    }

    fn salted(&self, hash: BlockHash) -> BlockHash {
        self.adapter
            .map_or(hash, |adapter| hash ^ mix(4, adapter.into(), 0))
    }
}

/// What is known of a request's tokens. It decides which KV blocks two requests can share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Nothing: the prompt shares no prefix with any other request.
    #[default]
    Unique,
    /// Tokens `0..shared_tokens` are the same for all requests of a `group` (a
    /// system prompt); after them come the tokens of this conversation, which
    /// only ever grow: prompt, answer, next prompt, next answer.
    Session {
        /// Which shared prefix.
        group: u64,
        /// Length of the shared prefix.
        shared_tokens: u32,
        /// Which conversation.
        session: u64,
    },
    /// Ids of consecutive blocks of the prompt, each standing for its block
    /// and all before it (Mooncake's `hash_ids`).
    Blocks {
        /// Tokens that an id stands for.
        block_tokens: u32,
        /// The ids, in order; the last block may be partial.
        ids: Box<[u64]>,
    },
}

impl Content {
    /// A hash of tokens `0..end` where `end = (block + 1) * block_size`, or
    /// `None` if they are not known to be shared by anything. `prompt_tokens`
    /// is the length of the request's prompt: of recorded ids, nothing is known beyond it.
    ///
    /// Two requests with the same hash for a block have the same tokens up to its end.
    #[must_use]
    pub fn block_hash(&self, prompt_tokens: u32, block: u32, block_size: u32) -> Option<BlockHash> {
        let end = (u64::from(block) + 1) * u64::from(block_size);
        match self {
            Self::Unique => None,
            Self::Session {
                group,
                shared_tokens,
                session,
            } => {
                if end <= u64::from(*shared_tokens) {
                    Some(mix(1, *group, u64::from(block)))
                } else {
                    Some(mix(2, *session, u64::from(block)))
                }
            }
            Self::Blocks { block_tokens, ids } => {
                if end > u64::from(prompt_tokens) {
                    return None;
                }
                let index = usize::try_from((end - 1) / u64::from(*block_tokens)).ok()?;
                ids.get(index).map(|id| mix(3, *id, u64::from(block)))
            }
        }
    }

    /// What requests that should go to one replica, for the sake of its prefix
    /// cache, have in common: the conversation, or else the second block of the
    /// prompt, because the first is often a system prompt that all share.
    #[must_use]
    pub fn affinity(&self) -> Option<BlockHash> {
        match self {
            Self::Unique => None,
            Self::Session { session, .. } => Some(mix(2, *session, 0)),
            Self::Blocks { ids, .. } => ids.get(1).or(ids.first()).map(|id| mix(3, *id, 0)),
        }
    }
}

/// 128 well-mixed bits from three words: two rounds of the 64-bit finaliser of
/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) with different constants.
fn mix(kind: u64, a: u64, b: u64) -> BlockHash {
    let fold = |seed: u64| {
        let mut z = seed ^ kind.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for word in [a, b] {
            z = (z ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
        }
        z
    };
    (u128::from(fold(0x243f_6a88_85a3_08d3)) << 64) | u128::from(fold(0x1319_8a2e_0370_7344))
}
