//! Open-weight models and their dimensions.
//!
//! The dimensions are those of each model's `config.json` on Hugging Face, with
//! its names; [`Model::source`] is the file's address. `published_parameters`
//! is the count in the safetensors index beside it. The two come from different
//! files, so that a slip in either fails a test.

use foresail_core::step_time::{Experts, ModelShape};

use super::normalise;

/// A model whose dimensions are known.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The name that a scenario uses.
    pub name: &'static str,
    /// The repository on Hugging Face, which a scenario may use as well.
    pub hugging_face: &'static str,
    /// The dimensions.
    pub shape: ModelShape,
    /// The longest context that the model was made for (tokens).
    pub max_position_embeddings: u32,
    /// Parameters in the published checkpoint.
    pub published_parameters: u64,
}

impl Model {
    /// Where the dimensions come from.
    #[must_use]
    pub fn source(&self) -> String {
        format!(
            "https://huggingface.co/{}/blob/main/config.json",
            self.hugging_face
        )
    }
}

/// The model of this name, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Model> {
    let wanted = normalise(name);
    MODELS
        .iter()
        .find(|model| model.name == wanted || normalise(model.hugging_face) == wanted)
}

/// The dimensions in the order of the table below, which reads like the configuration files.
struct Dense {
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    intermediate: u32,
    vocab: u32,
    tied: bool,
}

const fn dense(dense: Dense) -> ModelShape {
    ModelShape {
        num_hidden_layers: dense.layers,
        hidden_size: dense.hidden,
        num_attention_heads: dense.heads,
        num_key_value_heads: dense.kv_heads,
        head_dim: dense.head_dim,
        intermediate_size: dense.intermediate,
        vocab_size: dense.vocab,
        tie_word_embeddings: dense.tied,
        experts: None,
    }
}

/// The same with experts; `intermediate` is then the width of one expert.
const fn with_experts(shape: ModelShape, count: u32, active: u32) -> ModelShape {
    ModelShape {
        experts: Some(Experts { count, active }),
        ..shape
    }
}

/// Every model, grouped by family and by size within it.
pub const MODELS: &[Model] = &[
    Model {
        name: "llama-2-7b",
        hugging_face: "meta-llama/Llama-2-7b-hf",
        shape: dense(Dense {
            layers: 32,
            hidden: 4_096,
            heads: 32,
            kv_heads: 32,
            head_dim: 128,
            intermediate: 11_008,
            vocab: 32_000,
            tied: false,
        }),
        max_position_embeddings: 4_096,
        published_parameters: 6_738_415_616,
    },
    Model {
        name: "llama-2-13b",
        hugging_face: "meta-llama/Llama-2-13b-hf",
        shape: dense(Dense {
            layers: 40,
            hidden: 5_120,
            heads: 40,
            kv_heads: 40,
            head_dim: 128,
            intermediate: 13_824,
            vocab: 32_000,
            tied: false,
        }),
        max_position_embeddings: 4_096,
        published_parameters: 13_015_864_320,
    },
    Model {
        name: "llama-2-70b",
        hugging_face: "meta-llama/Llama-2-70b-hf",
        shape: dense(Dense {
            layers: 80,
            hidden: 8_192,
            heads: 64,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 28_672,
            vocab: 32_000,
            tied: false,
        }),
        max_position_embeddings: 4_096,
        published_parameters: 68_976_648_192,
    },
    Model {
        name: "llama-3-8b",
        hugging_face: "meta-llama/Meta-Llama-3-8B",
        shape: dense(Dense {
            layers: 32,
            hidden: 4_096,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 14_336,
            vocab: 128_256,
            tied: false,
        }),
        max_position_embeddings: 8_192,
        published_parameters: 8_030_261_248,
    },
    Model {
        name: "llama-3-70b",
        hugging_face: "meta-llama/Meta-Llama-3-70B",
        shape: dense(Dense {
            layers: 80,
            hidden: 8_192,
            heads: 64,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 28_672,
            vocab: 128_256,
            tied: false,
        }),
        max_position_embeddings: 8_192,
        published_parameters: 70_553_706_496,
    },
    Model {
        name: "llama-3.1-8b",
        hugging_face: "meta-llama/Llama-3.1-8B",
        shape: dense(Dense {
            layers: 32,
            hidden: 4_096,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 14_336,
            vocab: 128_256,
            tied: false,
        }),
        max_position_embeddings: 131_072,
        published_parameters: 8_030_261_248,
    },
    Model {
        name: "llama-3.1-70b",
        hugging_face: "meta-llama/Llama-3.1-70B",
        shape: dense(Dense {
            layers: 80,
            hidden: 8_192,
            heads: 64,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 28_672,
            vocab: 128_256,
            tied: false,
        }),
        max_position_embeddings: 131_072,
        published_parameters: 70_553_706_496,
    },
    Model {
        name: "llama-3.1-405b",
        hugging_face: "meta-llama/Llama-3.1-405B",
        shape: dense(Dense {
            layers: 126,
            hidden: 16_384,
            heads: 128,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 53_248,
            vocab: 128_256,
            tied: false,
        }),
        max_position_embeddings: 131_072,
        published_parameters: 405_853_388_800,
    },
    Model {
        name: "llama-3.2-1b",
        hugging_face: "meta-llama/Llama-3.2-1B",
        shape: dense(Dense {
            layers: 16,
            hidden: 2_048,
            heads: 32,
            kv_heads: 8,
            head_dim: 64,
            intermediate: 8_192,
            vocab: 128_256,
            tied: true,
        }),
        max_position_embeddings: 131_072,
        published_parameters: 1_235_814_400,
    },
    Model {
        name: "llama-3.2-3b",
        hugging_face: "meta-llama/Llama-3.2-3B",
        shape: dense(Dense {
            layers: 28,
            hidden: 3_072,
            heads: 24,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 8_192,
            vocab: 128_256,
            tied: true,
        }),
        max_position_embeddings: 131_072,
        published_parameters: 3_212_749_824,
    },
    Model {
        name: "smollm2-135m",
        hugging_face: "HuggingFaceTB/SmolLM2-135M",
        shape: dense(Dense {
            layers: 30,
            hidden: 576,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            intermediate: 1_536,
            vocab: 49_152,
            tied: true,
        }),
        max_position_embeddings: 8_192,
        published_parameters: 134_515_008,
    },
    Model {
        name: "qwen2.5-0.5b",
        hugging_face: "Qwen/Qwen2.5-0.5B-Instruct",
        shape: dense(Dense {
            layers: 24,
            hidden: 896,
            heads: 14,
            kv_heads: 2,
            head_dim: 64,
            intermediate: 4_864,
            vocab: 151_936,
            tied: true,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 494_032_768,
    },
    Model {
        name: "qwen2.5-1.5b",
        hugging_face: "Qwen/Qwen2.5-1.5B-Instruct",
        shape: dense(Dense {
            layers: 28,
            hidden: 1_536,
            heads: 12,
            kv_heads: 2,
            head_dim: 128,
            intermediate: 8_960,
            vocab: 151_936,
            tied: true,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 1_543_714_304,
    },
    Model {
        name: "qwen2.5-3b",
        hugging_face: "Qwen/Qwen2.5-3B-Instruct",
        shape: dense(Dense {
            layers: 36,
            hidden: 2_048,
            heads: 16,
            kv_heads: 2,
            head_dim: 128,
            intermediate: 11_008,
            vocab: 151_936,
            tied: true,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 3_085_938_688,
    },
    Model {
        name: "qwen2.5-7b",
        hugging_face: "Qwen/Qwen2.5-7B-Instruct",
        shape: dense(Dense {
            layers: 28,
            hidden: 3_584,
            heads: 28,
            kv_heads: 4,
            head_dim: 128,
            intermediate: 18_944,
            vocab: 152_064,
            tied: false,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 7_615_616_512,
    },
    Model {
        name: "qwen2.5-14b",
        hugging_face: "Qwen/Qwen2.5-14B-Instruct",
        shape: dense(Dense {
            layers: 48,
            hidden: 5_120,
            heads: 40,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 13_824,
            vocab: 152_064,
            tied: false,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 14_770_033_664,
    },
    Model {
        name: "qwen2.5-32b",
        hugging_face: "Qwen/Qwen2.5-32B-Instruct",
        shape: dense(Dense {
            layers: 64,
            hidden: 5_120,
            heads: 40,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 27_648,
            vocab: 152_064,
            tied: false,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 32_763_876_352,
    },
    Model {
        name: "qwen2.5-72b",
        hugging_face: "Qwen/Qwen2.5-72B-Instruct",
        shape: dense(Dense {
            layers: 80,
            hidden: 8_192,
            heads: 64,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 29_568,
            vocab: 152_064,
            tied: false,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 72_706_203_648,
    },
    Model {
        name: "qwen3-0.6b",
        hugging_face: "Qwen/Qwen3-0.6B",
        shape: dense(Dense {
            layers: 28,
            hidden: 1_024,
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 3_072,
            vocab: 151_936,
            tied: true,
        }),
        max_position_embeddings: 40_960,
        published_parameters: 596_049_920,
    },
    Model {
        name: "qwen3-1.7b",
        hugging_face: "Qwen/Qwen3-1.7B",
        shape: dense(Dense {
            layers: 28,
            hidden: 2_048,
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 6_144,
            vocab: 151_936,
            tied: true,
        }),
        max_position_embeddings: 40_960,
        published_parameters: 1_720_574_976,
    },
    Model {
        name: "qwen3-4b",
        hugging_face: "Qwen/Qwen3-4B",
        shape: dense(Dense {
            layers: 36,
            hidden: 2_560,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 9_728,
            vocab: 151_936,
            tied: true,
        }),
        max_position_embeddings: 40_960,
        published_parameters: 4_022_468_096,
    },
    Model {
        name: "qwen3-8b",
        hugging_face: "Qwen/Qwen3-8B",
        shape: dense(Dense {
            layers: 36,
            hidden: 4_096,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 12_288,
            vocab: 151_936,
            tied: false,
        }),
        max_position_embeddings: 40_960,
        published_parameters: 8_190_735_360,
    },
    Model {
        name: "qwen3-14b",
        hugging_face: "Qwen/Qwen3-14B",
        shape: dense(Dense {
            layers: 40,
            hidden: 5_120,
            heads: 40,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 17_408,
            vocab: 151_936,
            tied: false,
        }),
        max_position_embeddings: 40_960,
        published_parameters: 14_768_307_200,
    },
    Model {
        name: "qwen3-32b",
        hugging_face: "Qwen/Qwen3-32B",
        shape: dense(Dense {
            layers: 64,
            hidden: 5_120,
            heads: 64,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 25_600,
            vocab: 151_936,
            tied: false,
        }),
        max_position_embeddings: 40_960,
        published_parameters: 32_762_123_264,
    },
    Model {
        name: "qwen3-30b-a3b",
        hugging_face: "Qwen/Qwen3-30B-A3B",
        shape: with_experts(
            dense(Dense {
                layers: 48,
                hidden: 2_048,
                heads: 32,
                kv_heads: 4,
                head_dim: 128,
                intermediate: 768,
                vocab: 151_936,
                tied: false,
            }),
            128,
            8,
        ),
        max_position_embeddings: 40_960,
        published_parameters: 30_532_122_624,
    },
    Model {
        name: "qwen3-235b-a22b",
        hugging_face: "Qwen/Qwen3-235B-A22B",
        shape: with_experts(
            dense(Dense {
                layers: 94,
                hidden: 4_096,
                heads: 64,
                kv_heads: 4,
                head_dim: 128,
                intermediate: 1_536,
                vocab: 151_936,
                tied: false,
            }),
            128,
            8,
        ),
        max_position_embeddings: 40_960,
        published_parameters: 235_093_634_560,
    },
    Model {
        name: "mistral-7b",
        hugging_face: "mistralai/Mistral-7B-v0.3",
        shape: dense(Dense {
            layers: 32,
            hidden: 4_096,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 14_336,
            vocab: 32_768,
            tied: false,
        }),
        max_position_embeddings: 32_768,
        published_parameters: 7_248_023_552,
    },
    Model {
        name: "mistral-nemo-12b",
        hugging_face: "mistralai/Mistral-Nemo-Instruct-2407",
        shape: dense(Dense {
            layers: 40,
            hidden: 5_120,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 14_336,
            vocab: 131_072,
            tied: false,
        }),
        max_position_embeddings: 131_072,
        published_parameters: 12_247_782_400,
    },
    Model {
        name: "mixtral-8x7b",
        hugging_face: "mistralai/Mixtral-8x7B-v0.1",
        shape: with_experts(
            dense(Dense {
                layers: 32,
                hidden: 4_096,
                heads: 32,
                kv_heads: 8,
                head_dim: 128,
                intermediate: 14_336,
                vocab: 32_000,
                tied: false,
            }),
            8,
            2,
        ),
        max_position_embeddings: 32_768,
        published_parameters: 46_702_792_704,
    },
    Model {
        name: "mixtral-8x22b",
        hugging_face: "mistralai/Mixtral-8x22B-v0.1",
        shape: with_experts(
            dense(Dense {
                layers: 56,
                hidden: 6_144,
                heads: 48,
                kv_heads: 8,
                head_dim: 128,
                intermediate: 16_384,
                vocab: 32_000,
                tied: false,
            }),
            8,
            2,
        ),
        max_position_embeddings: 65_536,
        published_parameters: 140_620_634_112,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The core counts matrices, embeddings and the norms of the residual
    /// stream; query, key and value biases (Qwen 2.5) and head norms (Qwen 3)
    /// are less than 0.1 % of a model.
    #[test]
    fn dimensions_give_the_published_parameter_counts() {
        for model in MODELS {
            let counted = model.shape.parameters() as f64;
            let error = counted / model.published_parameters as f64 - 1.0;
            assert!(
                error.abs() < 1e-3,
                "{}: {counted} ({error:+.2e})",
                model.name
            );
        }
    }

    #[test]
    fn names_are_unique_and_normal() {
        for (index, model) in MODELS.iter().enumerate() {
            assert_eq!(model.name, normalise(model.name));
            assert!(MODELS[..index].iter().all(|other| other.name != model.name));
            assert_eq!(find(model.name).unwrap().hugging_face, model.hugging_face);
        }
    }

    #[test]
    fn finds_by_either_name() {
        assert_eq!(find("Llama_3 8B").unwrap().name, "llama-3-8b");
        assert_eq!(
            find("meta-llama/Meta-Llama-3-8B").unwrap().name,
            "llama-3-8b"
        );
        assert!(find("llama-9-8b").is_none());
    }

    #[test]
    fn says_where_the_figures_come_from() {
        assert_eq!(
            find("qwen3-8b").unwrap().source(),
            "https://huggingface.co/Qwen/Qwen3-8B/blob/main/config.json"
        );
    }
}
