//! Small tokenizers of the kinds that models have.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Tokenizer;

/// Writes a tokenizer's files into a folder, and reads them.
pub(super) fn read(files: &[(&str, &Value)]) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    Tokenizer::from_folder(folder.path()).unwrap()
}

pub(super) fn write(folder: &Path, files: &[(&str, &Value)]) {
    for (name, content) in files {
        fs::write(folder.join(name), content.to_string()).unwrap();
    }
}

/// Every kind, with its name.
pub(super) fn all() -> Vec<(&'static str, Arc<Tokenizer>)> {
    let kinds = [
        ("byte level", byte_level()),
        ("byte fallback", byte_fallback()),
        ("metaspace", metaspace()),
        ("words", words()),
    ];
    let read = |json| Arc::new(read(&[("tokenizer.json", json)]));
    let mut all: Vec<_> = kinds
        .iter()
        .map(|(name, json)| (*name, read(json)))
        .collect();
    all.push(("bytes", Arc::new(Tokenizer::bytes())));
    all
}

fn numbered(tokens: impl IntoIterator<Item = String>) -> Map<String, Value> {
    let numbered = tokens.into_iter().enumerate();
    numbered
        .map(|(number, token)| (token, json!(number)))
        .collect()
}

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "special": special,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}

fn file(model: &Value, added_tokens: &[Value], rest: &Value) -> Value {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model,
    });
    let parts = file.as_object_mut().unwrap();
    parts.extend(rest.as_object().unwrap().clone());
    file
}

/// As `bytes_to_unicode` of GPT-2 builds it: what is not printable comes after Latin-1, in order.
fn characters_of_bytes() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    let mut character = |byte: u32| {
        let code = if printable(byte) { byte } else { next };
        next += u32::from(!printable(byte));
        char::from_u32(code).unwrap()
    };
    (0..256).map(&mut character).collect()
}

/// Llama 3's and Qwen's kind, with their split into words.
pub(super) fn byte_level() -> Value {
    let characters = characters_of_bytes();
    let spelled = |text: &[u8]| {
        text.iter()
            .map(|&byte| characters[usize::from(byte)])
            .collect::<String>()
    };
    let pairs: [(&[u8], &[u8]); 8] = [
        (b" ", b"t"),
        (b"h", b"e"),
        (b" t", b"he"),
        // Tokens that end within a character: two bytes of three, and the end of one with the beginning of another.
        (
            "€".as_bytes().split_at(1).0,
            "€".as_bytes().split_at(1).1.split_at(1).0,
        ),
        (&[0xac], &[0xe2]),
        (b"\n", b"\n"),
        (b" ", b" "),
        (b"1", b"2"),
    ];
    let merges: Vec<_> = pairs
        .iter()
        .map(|(a, b)| json!([spelled(a), spelled(b)]))
        .collect();
    let merged = pairs.iter().map(|(a, b)| spelled(&[*a, *b].concat()));
    let vocab = numbered(characters.iter().map(char::to_string).chain(merged));
    let size = vocab.len();
    let model = json!({
        "type": "BPE", "vocab": vocab, "merges": merges, "dropout": null, "unk_token": null,
        "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
    });
    let specials = [
        added(size, "<|begin|>", true),
        added(size + 1, "<|end|>", true),
        added(size + 2, "<tool call>", false),
        added(size + 3, "<｜é｜>", false),
    ];
    let words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    file(
        &model,
        &specials,
        &json!({
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false},
                byte_level,
            ]},
            "post_processor": {"type": "Sequence", "processors": [
                byte_level,
                template("<|begin|>", size),
            ]},
            "decoder": byte_level,
        }),
    )
}

fn template(bos: &str, token: usize) -> Value {
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [token], "tokens": [bos]}},
    })
}

/// A vocabulary of pieces with `▁` for a space, and bytes for what it lacks.
fn pieces() -> (Value, [Value; 3]) {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let pairs = [("▁", "a"), ("▁a", "b"), ("▁", "▁"), ("é", "▁")];
    let letters = ["▁", "a", "b", "c", "é", "\n", "."].map(str::to_owned);
    let merged = pairs.map(|(a, b)| format!("{a}{b}"));
    let specials = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let vocab = numbered(
        specials
            .into_iter()
            .chain(bytes)
            .chain(letters)
            .chain(merged),
    );
    let model = json!({
        "type": "BPE", "vocab": vocab, "merges": pairs.map(|(a, b)| json!([a, b])), "dropout": null,
        "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
    });
    (
        model,
        [
            added(0, "<unk>", true),
            added(1, "<s>", true),
            added(2, "</s>", true),
        ],
    )
}

/// Llama 2's and Mistral's kind.
pub(super) fn byte_fallback() -> Value {
    let (model, specials) = pieces();
    file(
        &model,
        &specials,
        &json!({
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ]},
            "post_processor": template("<s>", 1),
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]},
        }),
    )
}

/// The same as newer files have it.
pub(super) fn metaspace() -> Value {
    let (model, specials) = pieces();
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    file(
        &model,
        &specials,
        &json!({
            "pre_tokenizer": metaspace,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]},
        }),
    )
}

/// Whole words without a decoder, as tests of other projects often have.
pub(super) fn words() -> Value {
    let vocab = numbered(["[UNK]", "a", "b", "é", ".", "</s>"].map(str::to_owned));
    let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"});
    file(
        &model,
        &[added(5, "</s>", true)],
        &json!({"pre_tokenizer": {"type": "Whitespace"}}),
    )
}
