//! Files that were changed at random: whatever they are, the answer is a model or an error.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;

use crate::checkpoint::test_support::{TinyCheckpoint, tiny_config};
use crate::checkpoint::{Checkpoint, WeightFormat, config_json};
use crate::config::{Dtype, Partition};

/// The valid file that mutations begin with.
static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    TinyCheckpoint::new(tiny_config("qwen3"), 0).write(folder.path());
    fs::read(folder.path().join("model.safetensors")).unwrap()
});

/// A change of a file.
#[derive(Clone, Debug)]
enum Mutation {
    Set {
        place: prop::sample::Index,
        byte: u8,
    },
    Insert {
        place: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Remove {
        place: prop::sample::Index,
        count: usize,
    },
    Truncate {
        place: prop::sample::Index,
    },
    HeaderLength {
        length: u64,
    },
}

impl Mutation {
    /// Changes the first `room` bytes: where a file is changed, most of it is values.
    fn apply(&self, bytes: &mut Vec<u8>, room: usize) {
        let room = room.min(bytes.len()).max(1);
        match self {
            Self::Set { place, byte } => {
                if let Some(target) = bytes.get_mut(place.index(room)) {
                    *target = *byte;
                }
            }
            Self::Insert { place, bytes: new } => {
                let place = place.index(room).min(bytes.len());
                bytes.splice(place..place, new.iter().copied());
            }
            Self::Remove { place, count } => {
                let first = place.index(room).min(bytes.len());
                bytes.drain(first..(first + count).min(bytes.len()));
            }
            Self::Truncate { place } => bytes.truncate(place.index(bytes.len() + 1)),
            Self::HeaderLength { length } => {
                if let Some(target) = bytes.get_mut(..8) {
                    target.copy_from_slice(&length.to_le_bytes());
                }
            }
        }
    }
}

/// Bytes that mean something in JSON are more likely to get far.
fn byte() -> impl Strategy<Value = u8> {
    let telling = prop::sample::select(b"0123456789-.eE[]{}\":,nulltruefalse \\".to_vec());
    prop_oneof![4 => telling, 1 => any::<u8>()]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    let bytes = prop::collection::vec(byte(), 1..6);
    let length = prop_oneof![0_u64..4096, any::<u64>()];
    prop_oneof![
        6 => (place(), byte()).prop_map(|(place, byte)| Mutation::Set { place, byte }),
        3 => (place(), bytes).prop_map(|(place, bytes)| Mutation::Insert { place, bytes }),
        2 => (place(), 1..6_usize).prop_map(|(place, count)| Mutation::Remove { place, count }),
        1 => place().prop_map(|place| Mutation::Truncate { place }),
        1 => length.prop_map(|length| Mutation::HeaderLength { length }),
    ]
}

fn changed(mut bytes: Vec<u8>, mutations: &[Mutation], room: usize) -> Vec<u8> {
    for mutation in mutations {
        mutation.apply(&mut bytes, room);
    }
    bytes
}

/// Opens and loads; an error is as good as a model.
fn open_and_load(folder: &Path) {
    if let Ok(checkpoint) = Checkpoint::open(folder) {
        let loaded = checkpoint.load(Partition::WHOLE, WeightFormat::AsStored, |matrix, _| matrix);
        let weights = loaded.expect("what was checked can be loaded");
        assert_eq!(weights.layers.len(), checkpoint.config().num_hidden_layers);
    }
}

/// Any JSON, small.
fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..70_u64).prop_map(Value::from),
    ];
    let text = prop::sample::select(vec![
        "",
        "silu",
        "yarn",
        "llama3",
        "linear",
        "full_attention",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let name = prop::sample::select(vec!["factor", "type", "rope_type", "rope_theta"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..3).prop_map(|fields| {
                let fields = fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Value::Object(fields.collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn weights(mutations in prop::collection::vec(mutation(), 1..4)) {
        let folder = tempfile::tempdir().unwrap();
        TinyCheckpoint::new(tiny_config("qwen3"), 0).write(folder.path());
        // The header is the first few thousand bytes.
        let bytes = changed(VALID.clone(), &mutations, 2600);
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        open_and_load(folder.path());
    }

    #[test]
    fn configuration_bytes(mutations in prop::collection::vec(mutation(), 1..4)) {
        let valid = tiny_config("llama").to_string().into_bytes();
        let bytes = changed(valid, &mutations, usize::MAX);
        if let Ok(config) = config_json::parse(Path::new("config.json"), &bytes, Dtype::F32) {
            prop_assert!(config.query_width() <= 1 << 24);
            prop_assert!(config.num_attention_heads.is_multiple_of(config.num_key_value_heads));
        }
    }

    #[test]
    fn configuration_values(
        family in prop::sample::select(vec!["llama", "mistral", "qwen2", "qwen3"]),
        field in any::<prop::sample::Index>(),
        value in value(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoint = TinyCheckpoint::new(tiny_config(family), 0);
        let fields = checkpoint.config.as_object_mut().unwrap();
        let place = field.index(fields.len());
        let field = fields.values_mut().nth(place).unwrap();
        *field = value;
        checkpoint.write(folder.path());
        open_and_load(folder.path());
    }

    #[test]
    fn indices(mutations in prop::collection::vec(mutation(), 1..4)) {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoint = TinyCheckpoint::new(tiny_config("llama"), 0);
        checkpoint.shards = 2;
        checkpoint.write(folder.path());
        let path = folder.path().join("model.safetensors.index.json");
        let bytes = changed(fs::read(&path).unwrap(), &mutations, usize::MAX);
        fs::write(path, bytes).unwrap();
        open_and_load(folder.path());
    }
}
