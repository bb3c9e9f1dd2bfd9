//! `[deployment.shape]`: a model that is not in the catalogue, described with
//! the names of its Hugging Face `config.json`.

use foresail_core::step_time::{Experts, ModelShape};

use super::decode;
use super::problem::{Place, Problem};
use super::reader::{Field, Reader};

/// The shape, and the longest context that the model was made for.
pub(super) fn decode(field: Field<'_>) -> Result<(ModelShape, u32), Problem> {
    let reader = field.reader()?;
    let size = |key, example, most: u32| {
        let decode = move |field: Field<'_>| decode::integer_between(field, 1, most);
        reader.required(key, example, decode).value
    };
    let or = |key, default: u32| {
        reader
            .setting(key, default, |f| decode::integer_between(f, 1, 1 << 12))
            .value
    };
    // The bounds are far above any model; they keep every product below 2^64.
    let layers = size("num_hidden_layers", "32", 1 << 12);
    let hidden = size("hidden_size", "4096", 1 << 17);
    let heads = size("num_attention_heads", "32", 1 << 12);
    let intermediate = size("intermediate_size", "14336", 1 << 20);
    let vocab = size("vocab_size", "128256", 1 << 24);
    let max_position_embeddings = size("max_position_embeddings", "8192", 1 << 30);
    let kv_heads = reader.setting("num_key_value_heads", heads.unwrap_or(1), |field| {
        decode::integer_between(field, 1, 1 << 12)
    });
    let head_dim = or("head_dim", hidden.unwrap_or(1) / heads.unwrap_or(1));
    let tied = reader
        .setting("tie_word_embeddings", false, decode::boolean)
        .value;
    let experts = experts(&reader);
    let place = reader.place_or_start();
    reader.finish();
    let (Some(num_attention_heads), kv) = (heads, kv_heads.value) else {
        return Err(incomplete(place));
    };
    if num_attention_heads % kv != 0 {
        let message = "`num_key_value_heads` must divide `num_attention_heads`";
        return Err(Problem::new("scenario::shape", message)
            .at_if_written(
                kv_heads.place,
                format!("{kv} does not divide {num_attention_heads}"),
            )
            .help("each key and value head serves the same number of query heads"));
    }
    let parts = (layers, hidden, intermediate, vocab, max_position_embeddings);
    let (Some(layers), Some(hidden), Some(intermediate), Some(vocab), Some(longest)) = parts else {
        return Err(incomplete(place));
    };
    let shape = ModelShape {
        num_hidden_layers: layers,
        hidden_size: hidden,
        num_attention_heads,
        num_key_value_heads: kv,
        head_dim: head_dim.max(1),
        intermediate_size: intermediate,
        vocab_size: vocab,
        tie_word_embeddings: tied,
        experts,
    };
    Ok((shape, longest))
}

fn incomplete(place: Place) -> Problem {
    Problem::new("scenario::shape", "the model's shape is incomplete")
        .at(place, "a dimension is missing or wrong")
        .help("copy the dimensions from the model's `config.json`")
}

fn experts(reader: &Reader<'_>) -> Option<Experts> {
    let integer = |field: Field<'_>| decode::integer_between(field, 1, 1 << 12);
    let count = reader.optional("num_experts", integer);
    let active = reader.optional("num_experts_per_tok", integer);
    match (count.value, active.value) {
        (Some(count), Some(active)) if active <= count => Some(Experts { count, active }),
        (None, None) => None,
        _ => {
            let message =
                "`num_experts_per_tok` must be given with `num_experts`, and not above it";
            let problem = Problem::new("scenario::shape", message)
                .at_if_written(count.place, "experts in a layer")
                .at_if_written(active.place, "experts that a token uses")
                .help("give both, or neither for a dense model");
            reader.context.report(problem);
            None
        }
    }
}
