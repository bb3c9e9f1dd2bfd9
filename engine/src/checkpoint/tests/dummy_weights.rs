//! Dummy weights: their values, which other devices repeat bit for bit, and their shapes.

use crate::checkpoint::layout::{self, Tensor, TensorKind};
use crate::checkpoint::{Checkpoint, DummyWeights, TensorSource, WeightFormat, shapes};
use crate::config::{AttentionBias, Dtype, Family, Partition, RotaryScaling};
use crate::weights::HostValues;

fn generated(
    seed: u64,
    dtype: Dtype,
    kind: TensorKind,
    places: std::ops::Range<usize>,
) -> Vec<f32> {
    let piece = layout::Piece {
        tensor: Tensor {
            name: "model.layers.3.mlp.down_proj.weight".to_owned(),
            kind,
            rows: 1,
            columns: 1 << 20,
        },
        rows: 0..1,
        columns: places,
    };
    let mut values = HostValues::F32(Vec::new());
    DummyWeights { seed, dtype }
        .read(&piece, &mut values)
        .unwrap();
    match values {
        HostValues::F32(values) => values,
        HostValues::Bf16(_) => unreachable!("f32 was asked for"),
    }
}

/// Integers, so that the values are seen whole: `value * 2^22`.
fn integers(seed: u64, places: std::ops::Range<usize>) -> Vec<i32> {
    let values = generated(seed, Dtype::F32, TensorKind::Matrix, places);
    values
        .iter()
        .map(|value| (value * 4_194_304.0) as i32)
        .collect()
}

/// A kernel that makes dummy weights on a device has to give these. They were computed by a
/// program in another language, from the formula in the module's documentation.
#[test]
fn golden_values() {
    assert_eq!(
        integers(0, 0..6),
        [59_403, -141_909, 21_529, -60_301, -23_191, 21_167]
    );
    assert_eq!(integers(42, 1_000_000..1_000_003), [41_773, 88_731, 83_789]);
    let scales = generated(0, Dtype::F32, TensorKind::NormScales, 0..2);
    let expected = integers(0, 0..2)
        .into_iter()
        .map(|c| 1.0 + c as f32 / 4_194_304.0);
    assert_eq!(scales, expected.collect::<Vec<_>>());
}

#[test]
fn values_are_spread_as_the_documentation_says() {
    let values = generated(7, Dtype::F32, TensorKind::Matrix, 0..1 << 18);
    assert!(
        values
            .iter()
            .all(|value| *value != 0.0 && value.abs() < 0.0626)
    );
    let count = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let square = values
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        / count;
    // Four standard errors, of a deterministic sample.
    assert!(mean.abs() < 4.0 * 0.018 / count.sqrt(), "{mean}");
    assert!(
        (square.sqrt() - 0.01804).abs() < 0.0002,
        "{}",
        square.sqrt()
    );
}

#[test]
fn a_value_depends_on_seed_name_and_place_alone() {
    let whole = integers(1, 0..100);
    assert_eq!(integers(1, 40..60), whole[40..60]);
    assert_ne!(integers(2, 0..100), whole);
    let rounded = generated(1, Dtype::Bf16, TensorKind::Matrix, 0..100);
    let exact = generated(1, Dtype::F32, TensorKind::Matrix, 0..100);
    let expected = exact
        .iter()
        .map(|value| half::bf16::from_f32(*value).to_f32());
    assert_eq!(rounded, expected.collect::<Vec<_>>());
}

#[test]
fn every_dense_shape_of_the_catalogue_has_its_published_parameters() {
    for name in shapes::known() {
        let config = shapes::find(name).unwrap();
        let tensors = layout::tensors(&config);
        let counted: u64 = tensors
            .map(|tensor| (tensor.rows * tensor.columns) as u64)
            .sum();
        let model = foresail_scenarios::catalogue::models::find(name).unwrap();
        assert_eq!(counted, model.published_parameters, "{name}");
    }
}

#[test]
fn shapes_are_of_their_families() {
    let qwen2 = shapes::find("qwen2.5-0.5b").unwrap();
    assert_eq!(qwen2.family, Family::Qwen2);
    assert_eq!(qwen2.attention_bias, AttentionBias::QueryKeyValue);
    assert!(shapes::find("qwen3-8b").unwrap().query_key_norm);
    let llama = shapes::find("Llama-3.1-8B").unwrap();
    assert!(matches!(
        llama.rotary.scaling,
        RotaryScaling::Llama3 { factor: 8.0, .. }
    ));
    let small = shapes::find("smollm2-135m").unwrap();
    assert_eq!(
        (small.num_attention_heads, small.num_key_value_heads),
        (9, 3)
    );
}

#[test]
fn tiny_splits_over_every_usual_world() {
    let tiny = shapes::find("tiny").unwrap();
    for world_size in [1, 2, 4, 8] {
        assert_eq!(Partition::check(&tiny, world_size), Ok(()));
    }
    let parameters: usize = layout::tensors(&tiny)
        .map(|tensor| tensor.rows * tensor.columns)
        .sum();
    assert!((1_000_000..2_000_000).contains(&parameters), "{parameters}");
    let weights = Checkpoint::dummy("tiny", 0).unwrap();
    let weights = weights
        .load(Partition::WHOLE, WeightFormat::AsStored, |matrix, _| matrix)
        .unwrap();
    assert!(matches!(weights.embedding.values, HostValues::Bf16(_)));
    assert_eq!(weights.layers.len(), 6);
}

#[test]
fn shapes_that_there_are_not() {
    let refusal = |name| Checkpoint::dummy(name, 0).unwrap_err().to_string();
    insta::assert_snapshot!(refusal("mixtral-8x7b"), @"mixtral-8x7b: a mixture of experts, which is not computed");
    insta::assert_snapshot!(refusal("llama-9-8b"), @"there is no model shape llama-9-8b; there are tiny, and: llama-2-7b, llama-2-13b, llama-2-70b, llama-3-8b, llama-3-70b, llama-3.1-8b, llama-3.1-70b, llama-3.1-405b, llama-3.2-1b, llama-3.2-3b, smollm2-135m, qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-3b, qwen2.5-7b, qwen2.5-14b, qwen2.5-32b, qwen2.5-72b, qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen3-14b, qwen3-32b, mistral-7b, mistral-nemo-12b");
}
