//! Log-probabilities, in the two forms that OpenAI's API has for them.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::sampling::Logprobs;
use crate::server::answer::Head;
use crate::server::generate::Place;

/// What stands for the logarithm of 0, which JSON has no number for (OpenAI, vLLM).
const LOGPROB_MIN: f32 = -9999.0;

/// The form of `/v1/completions`: lists side by side, a place for each token.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct CompletionLogprobs {
    /// Where the token begins in the text (characters), as the sum of the tokens before it.
    text_offset: Vec<usize>,
    token_logprobs: Vec<Option<f32>>,
    tokens: Vec<String>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
}

/// The form of `/v1/chat/completions`: a list of tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: TokenLogprob,
    top_logprobs: Vec<TokenLogprob>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct TokenLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl Head {
    /// `offset` is where the first token begins; it is moved to where the next will.
    pub(super) fn completion_logprobs(
        &self,
        places: &[Place],
        offset: &mut usize,
    ) -> Option<CompletionLogprobs> {
        if !self.wants_logprobs {
            return None;
        }
        let mut lists = CompletionLogprobs::default();
        for place in places {
            let token = self.token_text(place.token);
            lists.text_offset.push(*offset);
            *offset += token.chars().count();
            lists.tokens.push(token);
            let logprobs = place.logprobs.as_ref();
            let logprob = logprobs.map(|logprobs| finite(logprobs.logprob));
            lists.token_logprobs.push(logprob);
            lists
                .top_logprobs
                .push(logprobs.map(|logprobs| self.top(logprobs)));
        }
        Some(lists)
    }

    /// The token itself first, then the likeliest. Where several have the same text, the likeliest counts.
    fn top(&self, logprobs: &Logprobs) -> Map<String, Value> {
        let mut map = Map::new();
        let own = (logprobs.token, logprobs.logprob);
        for (token, logprob) in [own].into_iter().chain(logprobs.top.iter().copied()) {
            let text = self.token_text(token);
            map.entry(text).or_insert_with(|| finite(logprob).into());
        }
        map
    }

    pub(super) fn chat_logprobs(&self, places: &[Place]) -> Option<ChatLogprobs> {
        let content = places.iter().filter_map(|place| {
            let logprobs = place.logprobs.as_ref()?;
            let top = logprobs.top.iter();
            Some(ChatToken {
                token: self.token_logprob(logprobs.token, logprobs.logprob),
                top_logprobs: top
                    .map(|&(token, l)| self.token_logprob(token, l))
                    .collect(),
            })
        });
        self.wants_logprobs.then(|| ChatLogprobs {
            content: content.collect(),
            refusal: None,
        })
    }

    fn token_logprob(&self, token: u32, logprob: f32) -> TokenLogprob {
        TokenLogprob {
            token: self.token_text(token),
            logprob: finite(logprob),
            bytes: self.tokenizer.token_bytes(token, false),
        }
    }

    fn token_text(&self, token: u32) -> String {
        if self.tokens_as_ids {
            format!("token_id:{token}")
        } else {
            self.tokenizer.token_text(token)
        }
    }
}

fn finite(logprob: f32) -> f32 {
    // What is not a number is below nothing, and becomes the least as well.
    if logprob > LOGPROB_MIN {
        logprob
    } else {
        LOGPROB_MIN
    }
}
