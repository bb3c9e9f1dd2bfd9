//! What ranks load, put together, is the whole; and is the same from files as from a formula.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::checkpoint::test_support::{TinyCheckpoint, parse, tiny_config};
use crate::checkpoint::{DummyWeights, SafetensorsFiles, WeightFormat, load, weight_bytes};
use crate::config::{ModelConfig, Partition};
use crate::weights::{HostMatrix, HostValues, Layer, Weights};

type Loaded = Weights<HostMatrix>;

fn ranks(world_size: usize) -> impl Iterator<Item = Partition> {
    (0..world_size).map(move |rank| Partition { rank, world_size })
}

fn row(matrix: &HostMatrix, row: usize) -> Vec<f32> {
    (0..matrix.columns)
        .map(|column| matrix.at(row, column))
        .collect()
}

fn rows(matrix: &HostMatrix, rows: std::ops::Range<usize>) -> Vec<Vec<f32>> {
    rows.map(|place| row(matrix, place)).collect()
}

/// Matrices on top of each other.
fn stacked<'a>(parts: impl Iterator<Item = &'a HostMatrix>) -> Vec<Vec<f32>> {
    parts.flat_map(|part| rows(part, 0..part.rows)).collect()
}

/// Matrices side by side.
fn side_by_side<'a>(parts: impl Iterator<Item = &'a HostMatrix> + Clone) -> Vec<Vec<f32>> {
    let height = parts.clone().next().unwrap().rows;
    let line = |place| parts.clone().flat_map(|part| row(part, place)).collect();
    (0..height).map(line).collect()
}

/// The rows of each head in a rank's `qkv`: query heads, then keys, then values.
fn heads(config: &ModelConfig, qkv: &[Vec<f32>], first: usize, count: usize) -> Vec<Vec<Vec<f32>>> {
    let head = |place| qkv[(first + place) * config.head_dim..][..config.head_dim].to_vec();
    (0..count).map(head).collect()
}

fn check_heads(
    config: &ModelConfig,
    layer: &Layer<HostMatrix>,
    parts: &[(Partition, &Layer<HostMatrix>)],
) {
    let whole = stacked([&layer.qkv].into_iter());
    let (queries, keys) = (config.num_attention_heads, config.num_key_value_heads);
    for (partition, part) in parts {
        let of_part = stacked([&part.qkv].into_iter());
        let (mine, shared) = (
            partition.query_heads(config),
            partition.key_value_heads(config),
        );
        assert_eq!(
            of_part.len(),
            (mine.len() + 2 * shared.len()) * config.head_dim
        );
        let expected = [
            heads(config, &whole, mine.start, mine.len()),
            heads(config, &whole, queries + shared.start, shared.len()),
            heads(config, &whole, queries + keys + shared.start, shared.len()),
        ];
        let count = mine.len() + 2 * shared.len();
        assert_eq!(heads(config, &of_part, 0, count), expected.concat());
        if let (Some(whole), Some(part)) = (&layer.qkv_bias, &part.qkv_bias) {
            let column =
                |values: &[f32]| values.iter().map(|value| vec![*value]).collect::<Vec<_>>();
            let (whole, part) = (column(whole), column(part));
            let mine = heads(config, &whole, mine.start, mine.len());
            assert_eq!(heads(config, &part, 0, mine.len()), mine);
            let keys = heads(config, &whole, queries + shared.start, shared.len());
            assert_eq!(heads(config, &part, mine.len(), shared.len()), keys);
        }
        // Each query head has the key and value head that it has in the whole.
        for head in mine {
            assert!(shared.contains(&(head * keys / queries)));
        }
    }
}

fn check_layer(
    config: &ModelConfig,
    whole: &Layer<HostMatrix>,
    parts: &[(Partition, &Layer<HostMatrix>)],
) {
    check_heads(config, whole, parts);
    let layers = parts.iter().map(|(_, layer)| *layer);
    let all = |matrix: &HostMatrix| rows(matrix, 0..matrix.rows);
    assert_eq!(
        side_by_side(layers.clone().map(|layer| &layer.output)),
        all(&whole.output)
    );
    assert_eq!(
        side_by_side(layers.clone().map(|layer| &layer.down)),
        all(&whole.down)
    );
    let halves = layers.clone().map(|layer| (layer, layer.gate_up.rows / 2));
    let gate = halves
        .clone()
        .flat_map(|(layer, half)| rows(&layer.gate_up, 0..half));
    let up = halves.flat_map(|(layer, half)| rows(&layer.gate_up, half..2 * half));
    assert_eq!(gate.chain(up).collect::<Vec<_>>(), all(&whole.gate_up));
    for (partition, layer) in parts {
        assert_eq!(layer.attention_norm, whole.attention_norm);
        assert_eq!(layer.mlp_norm, whole.mlp_norm);
        assert_eq!(layer.query_key_norm, whole.query_key_norm);
        assert_eq!(layer.qkv_bias.is_some(), whole.qkv_bias.is_some());
        let first_only = whole.output_bias.clone().filter(|_| partition.rank == 0);
        assert_eq!(layer.output_bias, first_only);
    }
}

fn check(config: &ModelConfig, whole: &Loaded, parts: &[(Partition, Loaded)]) {
    let all = |matrix: &HostMatrix| rows(matrix, 0..matrix.rows);
    let embeddings = parts.iter().map(|(_, part)| &part.embedding);
    assert_eq!(stacked(embeddings), all(&whole.embedding));
    let projections = parts.iter().map(|(_, part)| part.output_projection());
    assert_eq!(stacked(projections), all(whole.output_projection()));
    for (_, part) in parts {
        assert_eq!(part.norm, whole.norm);
        assert_eq!(part.lm_head.is_none(), config.tie_word_embeddings);
    }
    for (index, layer) in whole.layers.iter().enumerate() {
        assert_eq!(layer.index, index);
        let parts: Vec<_> = parts
            .iter()
            .map(|(rank, part)| (*rank, &part.layers[index]))
            .collect();
        check_layer(config, layer, &parts);
    }
}

/// Loads the same model from files and from the formula, whole and split, and compares all of it.
fn check_model(config: &Value, world_size: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = TinyCheckpoint::new(config.clone(), 3);
    checkpoint.shards = 2;
    checkpoint.write(folder.path());
    let files = SafetensorsFiles::open_folder(folder.path()).unwrap();
    let config = parse(config);
    let dummy = DummyWeights {
        seed: 3,
        dtype: config.dtype,
    };
    let from_files = |partition| {
        load(
            &files,
            &config,
            partition,
            WeightFormat::AsStored,
            |matrix, _| matrix,
        )
        .unwrap()
    };
    let whole = from_files(Partition::WHOLE);
    let parts: Vec<_> = ranks(world_size)
        .map(|rank| (rank, from_files(rank)))
        .collect();
    check(&config, &whole, &parts);
    for (partition, part) in &parts {
        let made = load(
            &dummy,
            &config,
            *partition,
            WeightFormat::AsStored,
            |matrix, _| matrix,
        );
        assert!(
            format!("{:?}", made.unwrap()) == format!("{part:?}"),
            "not the same from a formula"
        );
        let stated = weight_bytes(&config, *partition, config.dtype, WeightFormat::AsStored);
        assert_eq!(stated, bytes(part));
    }
}

/// Bytes that loaded weights take.
fn bytes(weights: &Loaded) -> u64 {
    let matrix = |matrix: &HostMatrix| match &matrix.values {
        HostValues::F32(values) => values.len() * 4,
        HostValues::Bf16(values) => values.len() * 2,
    };
    let vector = |vector: &Option<Vec<f32>>| vector.as_ref().map_or(0, |values| values.len() * 4);
    let layer = |layer: &Layer<HostMatrix>| {
        let matrices = [&layer.qkv, &layer.output, &layer.gate_up, &layer.down];
        let norms = (layer.attention_norm.len() + layer.mlp_norm.len()) * 4;
        let heads = layer
            .query_key_norm
            .as_ref()
            .map_or(0, |(q, k)| (q.len() + k.len()) * 4);
        let biases = vector(&layer.qkv_bias) + vector(&layer.output_bias);
        matrices.into_iter().map(matrix).sum::<usize>() + norms + heads + biases
    };
    let outside = matrix(&weights.embedding) + weights.norm.len() * 4;
    let head = weights.lm_head.as_ref().map_or(0, matrix);
    (outside + head + weights.layers.iter().map(layer).sum::<usize>()) as u64
}

fn model() -> impl Strategy<Value = (Value, usize)> {
    let family = prop::sample::select(vec!["llama", "mistral", "qwen2", "qwen3"]);
    let dtype = prop::sample::select(vec!["float32", "bfloat16", "float16"]);
    let world = prop::sample::select(vec![1_usize, 2, 4]);
    // Key and value heads as a share of the ranks: fewer (replicated), as many, or more.
    let groups = (0..3_usize, 1..4_usize, 1..5_usize);
    let widths = (1..40_usize, 1..30_usize, 4..60_usize);
    (family, dtype, world, groups, widths, any::<(bool, bool)>()).prop_map(
        |(family, dtype, world, (replicas, more, group), (hidden, inner, vocab), (tied, bias))| {
            let keys = if replicas > 0 {
                (world >> replicas).max(1)
            } else {
                world * more
            };
            let mut config = tiny_config(family);
            let sizes = json!({
                "num_key_value_heads": keys, "num_attention_heads": keys.max(world) * group,
                "head_dim": 2 * more, "hidden_size": hidden, "intermediate_size": inner,
                "vocab_size": vocab, "tie_word_embeddings": tied, "dtype": dtype,
            });
            for (name, value) in sizes.as_object().unwrap() {
                config[name] = value.clone();
            }
            if ["llama", "qwen3"].contains(&family) {
                config["attention_bias"] = json!(bias);
            }
            (config, world)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_put_together_are_the_whole((config, world_size) in model()) {
        check_model(&config, world_size);
    }
}

/// Rows that are cut out of large reads, across their boundaries, and rows that are read piece by piece.
#[test]
fn long_rows_and_many_rows() {
    let mut config = tiny_config("llama");
    config["num_hidden_layers"] = json!(1);
    config["hidden_size"] = json!(300);
    config["head_dim"] = json!(6);
    config["intermediate_size"] = json!(601);
    check_model(&config, 2);
    config["hidden_size"] = json!(8);
    config["intermediate_size"] = json!(8200);
    check_model(&config, 2);
}

#[test]
fn a_world_that_does_not_divide_the_heads_is_refused() {
    let config = parse(&tiny_config("llama"));
    let dummy = DummyWeights {
        seed: 0,
        dtype: config.dtype,
    };
    let partition = Partition {
        rank: 0,
        world_size: 3,
    };
    let loaded = load(
        &dummy,
        &config,
        partition,
        WeightFormat::AsStored,
        |matrix, _| matrix,
    );
    insta::assert_snapshot!(loaded.unwrap_err(), @"4 query heads cannot be split over 3 ranks; choose a world size that divides them");
}
