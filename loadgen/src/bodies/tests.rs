//! Prompts as the endpoint's tokenizer sees them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use foresail_core::batching::BlockHash;
use foresail_scenarios::workload::{Content, Request};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A token a byte.
struct ByteTokens;

impl TokenCounter for ByteTokens {
    fn encode(&self, text: &str) -> Option<Vec<u32>> {
        Some(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().map(|&token| token as u8).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The longest token that fits comes first, as merges would have it; the bytes are tokens too.
struct Merged {
    tokens: Vec<String>,
    /// Tokens by their first byte, the longest first.
    beginning: BTreeMap<u8, Vec<u32>>,
    frame: Frame,
}

impl Merged {
    fn new(longer: &[&str]) -> Self {
        let bytes = (0..128_u8).map(|byte| char::from(byte).to_string());
        let longer = longer.iter().map(|token| (*token).to_owned());
        let tokens: Vec<String> = bytes.chain(longer).collect();
        let mut beginning: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        for (id, token) in (0..).zip(&tokens) {
            beginning.entry(token.as_bytes()[0]).or_default().push(id);
        }
        for ids in beginning.values_mut() {
            ids.sort_by_key(|id| Reverse(tokens[*id as usize].len()));
        }
        Self {
            tokens,
            beginning,
            frame: Frame::default(),
        }
    }

    /// All words, with and without their space, and a few tokens that span words.
    fn words() -> Self {
        let spaced = WORDS_OF_TEST.map(|word| format!(" {word}"));
        let mut tokens: Vec<&str> = spaced.iter().map(String::as_str).collect();
        tokens.extend(WORDS_OF_TEST);
        tokens.extend([" that with", " time time", "work li", " d", "th", " th"]);
        Self::new(&tokens)
    }
}

const WORDS_OF_TEST: [&str; 128] = super::words::WORDS;

impl TokenCounter for Merged {
    fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let mut rest = text;
        let mut found = Vec::new();
        while !rest.is_empty() {
            let mut fits = self.beginning.get(&rest.as_bytes()[0])?.iter();
            let &id = fits.find(|id| rest.starts_with(&self.tokens[**id as usize]))?;
            found.push(id);
            rest = &rest[self.tokens[id as usize].len()..];
        }
        Some(found)
    }

    fn decode(&self, tokens: &[u32]) -> String {
        let texts = tokens.iter().map(|&token| &*self.tokens[token as usize]);
        texts.collect()
    }

    fn vocabulary_size(&self) -> u32 {
        self.tokens.len() as u32
    }

    fn frame(&self, _: Form) -> Frame {
        self.frame
    }
}

fn planned(id: u64, prompt_tokens: u32, content: Content) -> Planned {
    Planned {
        id,
        request: Request {
            due: 0,
            prompt_tokens,
            output_tokens: 7,
            session: None,
            adapter: None,
            content,
        },
        prompt: Prompt::Synthetic,
    }
}

fn exact(counter: impl TokenCounter + 'static) -> Counting {
    Counting::Exact(Arc::new(counter))
}

fn bodies(counting: &Counting) -> Bodies {
    Bodies::new(&Settings::default(), &[], counting).unwrap()
}

/// Tokenizers with what was found in them, which takes a while here.
static MADE: LazyLock<[(Counting, Bodies); 2]> = LazyLock::new(|| {
    [exact(Merged::words()), exact(ByteTokens)].map(|counting| {
        let bodies = bodies(&counting);
        (counting, bodies)
    })
});

fn parsed(bodies: &Bodies, planned: &Planned) -> Value {
    serde_json::from_slice(&bodies.body(planned).unwrap()).unwrap()
}

fn prompt(bodies: &Bodies, planned: &Planned) -> String {
    parsed(bodies, planned)["prompt"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// How many characters two texts have in common at their beginnings.
fn common(first: &str, second: &str) -> usize {
    let pairs = first.bytes().zip(second.bytes());
    pairs.take_while(|(first, second)| first == second).count()
}

#[test]
fn a_body_is_what_the_endpoint_asks_for() {
    let settings = Settings {
        model: "mo\"del".to_owned(),
        temperature: Some(0.0),
        sampling_seed: Some(5),
        is_min_tokens_set: true,
        extra: serde_json::from_str(r#"{"top_k": 1, "ignore_eos": false}"#).unwrap(),
        ..Settings::default()
    };
    let bodies = Bodies::new(&settings, &["sql".to_owned()], &Counting::default()).unwrap();
    let mut request = planned(0, 2, Content::Unique);
    let mut expected = json!({
        "model": "mo\"del", "prompt": prompt(&bodies, &request), "max_tokens": 7, "min_tokens": 7, "stream": true,
        "stream_options": {"include_usage": true}, "temperature": 0.0, "seed": 5, "top_k": 1, "ignore_eos": false,
    });
    assert_eq!(parsed(&bodies, &request), expected);
    request.request.adapter = Some(0);
    expected["model"] = json!("sql");
    expected["prompt"] = json!(prompt(&bodies, &request));
    assert_eq!(parsed(&bodies, &request), expected);
    request.request.adapter = Some(1);
    let error = bodies.body(&request).unwrap_err();
    assert_eq!(error, BodyError::UnknownAdapter { id: 0, adapter: 1 });
}

#[test]
fn a_body_can_be_bare() {
    let settings = Settings {
        is_streamed: false,
        is_eos_ignored: false,
        form: Form::Chat,
        limit: LimitField::MaxCompletionTokens,
        ..Settings::default()
    };
    let bodies = Bodies::new(&settings, &[], &Counting::default()).unwrap();
    let mut request = planned(0, 1, Content::Unique);
    request.prompt = Prompt::Given("two\nlines, \"quoted\"".into());
    let message = json!({"role": "user", "content": "two\nlines, \"quoted\""});
    let expected = json!({"model": "default", "messages": [message], "max_completion_tokens": 7});
    assert_eq!(parsed(&bodies, &request), expected);
    let messages = r#"[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]"#;
    request.prompt = Prompt::Messages(messages.into());
    let found = &parsed(&bodies, &request)["messages"];
    assert_eq!(*found, serde_json::from_str::<Value>(messages).unwrap());
}

#[test]
fn fields_of_single_requests_cannot_be_given_for_all() {
    for field in ["model", "prompt", "max_tokens", "stream"] {
        let mut settings = Settings::default();
        settings.extra.insert(field.to_owned(), json!(1));
        let error = Bodies::new(&settings, &[], &Counting::default()).unwrap_err();
        let field = field.to_owned();
        assert_eq!(error, BodiesError::Reserved { field });
    }
}

#[test]
fn messages_are_for_chat() {
    let mut request = planned(3, 1, Content::Unique);
    request.prompt = Prompt::Messages("[]".into());
    let error = bodies(&Counting::default()).body(&request).unwrap_err();
    assert_eq!(error, BodyError::MessagesAsText { id: 3 });
}

#[test]
fn what_the_endpoint_adds_is_part_of_the_prompt() {
    let mut counter = Merged::words();
    counter.frame = Frame {
        before: 3,
        after: 2,
    };
    let counting = exact(counter);
    let bodies = bodies(&counting);
    let text = prompt(&bodies, &planned(0, 25, Content::Unique));
    assert_eq!(counting.count(&text), Some(20));
    let error = bodies.body(&planned(8, 5, Content::Unique)).unwrap_err();
    let expected = BodyError::NoRoom {
        id: 8,
        prompt_tokens: 5,
        frame_tokens: 5,
    };
    assert_eq!(error, expected);
}

#[test]
fn a_tokenizer_without_pieces_is_refused() {
    struct Pairs;
    impl TokenCounter for Pairs {
        fn encode(&self, text: &str) -> Option<Vec<u32>> {
            Some(
                text.as_bytes()
                    .chunks(2)
                    .map(|pair| u32::from(pair[0]))
                    .collect(),
            )
        }
        fn decode(&self, _: &[u32]) -> String {
            String::new()
        }
    }
    let error = Bodies::new(&Settings::default(), &[], &exact(Pairs)).unwrap_err();
    assert_eq!(error, BodiesError::TooFewPieces { found: 0 });
}

#[test]
fn without_a_tokenizer_a_token_is_so_many_bytes() {
    for bytes_per_token in [2.0, 3.7, 5.0, 64.0] {
        let bodies = bodies(&Counting::Bytes { bytes_per_token });
        assert!(!bodies.is_exact());
        for tokens in [1, 2, 100, 1001] {
            let text = prompt(&bodies, &planned(1, tokens, Content::Unique));
            let expected = (f64::from(tokens) * bytes_per_token) as usize - 1;
            assert_eq!(text.len(), expected, "{bytes_per_token} {tokens}");
        }
    }
    let text = prompt(
        &bodies(&Counting::default()),
        &planned(1, 50, Content::Unique),
    );
    assert_eq!(text.split(' ').count(), 50);
    for found in [1.9, 65.0, -1.0] {
        let bytes = Counting::Bytes {
            bytes_per_token: found,
        };
        let error = Bodies::new(&Settings::default(), &[], &bytes).unwrap_err();
        assert_eq!(error, BodiesError::BytesPerToken { found });
    }
}

#[test]
fn another_seed_or_salt_is_another_text() {
    let text = |seed, salt| {
        let settings = Settings {
            seed,
            salt,
            ..Settings::default()
        };
        let bodies = Bodies::new(&settings, &[], &exact(ByteTokens)).unwrap();
        prompt(&bodies, &planned(0, 500, Content::Unique))
    };
    assert_eq!(text(1, 2), text(1, 2));
    for other in [text(2, 2), text(1, 3), text(2, 1)] {
        assert!(common(&text(1, 2), &other) < 8, "{other}");
    }
}

#[test]
fn ten_thousand_prompts_share_no_block() {
    let bodies = bodies(&exact(ByteTokens));
    let start = |id| prompt(&bodies, &planned(id, 16, Content::Unique));
    let mut starts: Vec<String> = (0..10_000).map(start).collect();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len(), 10_000);
}

/// Blocks whose ids tell all that is before them, as Mooncake's do.
fn blocks(path: &[u8], block_tokens: u32) -> Content {
    let mut id = 1_u64;
    let ids = path.iter().map(|step| {
        id = id * 5 + u64::from(*step);
        id
    });
    Content::Blocks {
        block_tokens,
        ids: ids.collect(),
    }
}

fn contents() -> impl Strategy<Value = Content> {
    // A group has one length of what it shares; conversations of different groups differ.
    let session = (0..2_u64, 0..3_u64).prop_map(|(group, session)| Content::Session {
        group,
        shared_tokens: [40, 96][group as usize],
        session: 10 * group + session,
    });
    let blocks = prop::collection::vec(0..2_u8, 1..5).prop_map(|path| blocks(&path, 48));
    prop_oneof![Just(Content::Unique), session, blocks]
}

static ADAPTED: LazyLock<Bodies> = LazyLock::new(|| {
    let adapters = ["a".to_owned(), "b".to_owned()];
    Bodies::new(&Settings::default(), &adapters, &exact(ByteTokens)).unwrap()
});

fn hash(request: &Request, end: u32, block_tokens: u32) -> Option<BlockHash> {
    request.block_hash(end / block_tokens - 1, block_tokens)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prompts_have_exactly_their_tokens(tokens in 1..600_u32, id in any::<u64>(), content in contents()) {
        for (counting, bodies) in &*MADE {
            prop_assert!(bodies.is_exact());
            let text = prompt(bodies, &planned(id, tokens, content.clone()));
            prop_assert_eq!(counting.count(&text), Some(tokens));
        }
    }

    /// Random tokens that merge whatever they like: either the length is exact, or there are no prompts.
    #[test]
    fn merges_of_any_kind_leave_exact_lengths_or_an_error(
        merges in prop::collection::vec("[a-z ]{2,6}", 0..60),
        tokens in 1..300_u32,
    ) {
        let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
        let counting = exact(Merged::new(&merges));
        if let Ok(bodies) = Bodies::new(&Settings::default(), &[], &counting) {
            let text = prompt(&bodies, &planned(1, tokens, Content::Unique));
            prop_assert_eq!(counting.count(&text), Some(tokens));
        }
    }

    #[test]
    fn two_prompts_share_a_block_if_and_only_if_the_simulator_says_so(
        first in (1..400_u32, contents(), prop::option::of(0..2_u32)),
        second in (1..400_u32, contents(), prop::option::of(0..2_u32)),
    ) {
        let bodies = &*ADAPTED;
        let with = |id, (tokens, content, adapter): (u32, Content, Option<u32>)| {
            let mut planned = planned(id, tokens, content);
            planned.request.adapter = adapter;
            planned
        };
        let (first, second) = (with(1, first), with(2, second));
        let shared = common(&prompt(bodies, &first), &prompt(bodies, &second)) as u32;
        // Blocks of 16: what is shared ends at multiples of 8, so what two prompts have in common by
        // chance would have to be 8 characters.
        let end_max = first.request.prompt_tokens.min(second.request.prompt_tokens);
        for end in (16..=end_max).step_by(16) {
            let (a, b) = (hash(&first.request, end, 16), hash(&second.request, end, 16));
            prop_assert_eq!(a.is_some() && a == b, shared >= end, "up to {}, {} are shared", end, shared);
        }
    }

    #[test]
    fn a_turn_begins_with_the_whole_prompt_of_the_last(
        tokens in 1..200_u32, more in 0..200_u32, bytes_per_token in 2.0..9.0_f64,
    ) {
        let content = Content::Session { group: 1, shared_tokens: 50, session: 4 };
        for bodies in [MADE[0].1.clone(), bodies(&Counting::Bytes { bytes_per_token })] {
            let last = prompt(&bodies, &planned(1, tokens, content.clone()));
            let next = prompt(&bodies, &planned(2, tokens + more, content.clone()));
            prop_assert!(next.starts_with(&last));
        }
    }
}
