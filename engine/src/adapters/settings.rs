//! `adapter_config.json`: the fields of PEFT's `LoraConfig` (peft/tuners/lora/config.py, 0.21).
//!
//! Each field is of one of four kinds: it is read; it is only about training or
//! initialisation and is passed over; it changes what the adapter computes, and
//! may only have the value that changes nothing; or it is not known, and then it
//! must be empty.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::AdapterError;

/// What `adapter_config.json` says that matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model that it was made for, if it says so.
    pub base_model: Option<String>,
    /// `r`: the width between the two matrices.
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// Whether `alpha` is divided by the root of the rank.
    pub use_rslora: bool,
    /// Which projections it adds to.
    pub targets: TargetModules,
    /// In which layers, if not in all.
    pub layers: Option<Vec<usize>>,
    /// Whether `exclude_modules` takes some of those out again. The file of weights says which.
    pub has_exclusions: bool,
}

/// `target_modules`.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetModules {
    /// Modules of these names, or whose names end with a dot and one of these.
    Names(Vec<String>),
    /// Every projection of every layer.
    AllLinear,
    /// A regular expression. The file of weights says what it matched.
    Pattern(String),
}

/// Fields that do not change what a trained adapter computes.
const OF_TRAINING: [&str; 16] = [
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "velora_config",
];

/// Fields that are read.
const READ: [&str; 11] = [
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "init_lora_weights",
    "layers_to_transform",
    "lora_alpha",
    "peft_type",
    "r",
    "target_modules",
    "use_rslora",
];

/// Initialisations that leave the weights of the base as they are. The others
/// (`pissa`, `olora`, `corda`, `loftq`, ...) subtract from them what the adapter
/// begins with, so that the adapter is not one of the base any more.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

impl Settings {
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, AdapterError> {
        let malformed = |reason: String| AdapterError::Malformed {
            path: path.to_owned(),
            reason,
        };
        let value: Value =
            serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
        let Value::Object(object) = value else {
            return Err(malformed("it is not a JSON object".to_owned()));
        };
        let fields = Fields {
            path: path.to_owned(),
            object,
        };
        fields.check()?;
        Ok(Self {
            base_model: fields.text("base_model_name_or_path")?,
            rank: fields.rank()?,
            alpha: fields.alpha()?,
            use_rslora: fields.flag("use_rslora")?,
            targets: fields.targets()?,
            layers: fields.layers()?,
            has_exclusions: fields
                .get("exclude_modules")
                .is_some_and(|it| !is_empty(it)),
        })
    }

    /// What the adapter's output is multiplied with.
    #[must_use]
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        // Rank-stabilised LoRA (Kalajdzievski 2023, arXiv:2312.03732), else LoRA's own.
        let divisor = if self.use_rslora { rank.sqrt() } else { rank };
        (self.alpha / divisor) as f32
    }
}

struct Fields {
    path: PathBuf,
    object: Map<String, Value>,
}

impl Fields {
    /// Refuses what changes the result and is not understood.
    fn check(&self) -> Result<(), AdapterError> {
        if self.get("peft_type") != Some(&Value::from("LORA")) {
            return self.refuse("peft_type", "only \"LORA\" is understood");
        }
        if !matches!(
            self.get("bias").map(Value::as_str),
            None | Some(Some("none"))
        ) {
            return self.refuse("bias", "only \"none\" is understood");
        }
        if self.flag("fan_in_fan_out")? {
            return self.refuse("fan_in_fan_out", "only false is understood");
        }
        let init = self.get("init_lora_weights");
        let leaves_base = init.is_none_or(|init| match init {
            Value::Bool(_) => true,
            Value::String(name) => INITIALISATIONS.contains(&name.as_str()),
            _ => false,
        });
        if !leaves_base {
            let expected = "that begins with changed weights of the base, which this \
                            file does not have; convert the adapter to a plain LoRA";
            return self.refuse("init_lora_weights", expected);
        }
        self.check_others()
    }

    fn check_others(&self) -> Result<(), AdapterError> {
        let is_known = |field: &str| OF_TRAINING.contains(&field) || READ.contains(&field);
        let other = |(field, value): &(&String, &Value)| !is_known(field) && !is_empty(value);
        match self.object.iter().find(other) {
            Some((field, _)) => self.refuse(
                field,
                "it is not understood what that changes; only null, false or nothing is taken",
            ),
            None => Ok(()),
        }
    }

    fn rank(&self) -> Result<usize, AdapterError> {
        let rank = self.get("r").and_then(Value::as_u64);
        match rank.and_then(|rank| usize::try_from(rank).ok()) {
            Some(rank) if rank > 0 => Ok(rank),
            _ => self.refuse("r", "it must be a whole number of at least 1"),
        }
    }

    fn alpha(&self) -> Result<f64, AdapterError> {
        let alpha = self.get("lora_alpha").and_then(Value::as_f64);
        match alpha.filter(|alpha| (*alpha as f32).is_finite()) {
            Some(alpha) => Ok(alpha),
            None => self.refuse("lora_alpha", "it must be a number"),
        }
    }

    fn targets(&self) -> Result<TargetModules, AdapterError> {
        match self.get("target_modules") {
            // PEFT takes it in any case (`_maybe_include_all_linear_layers` in peft/tuners/tuners_utils.py).
            Some(Value::String(text)) if text.eq_ignore_ascii_case("all-linear") => {
                Ok(TargetModules::AllLinear)
            }
            Some(Value::String(text)) => Ok(TargetModules::Pattern(text.clone())),
            Some(Value::Array(names)) if !names.is_empty() => {
                let names = names.iter().map(|name| name.as_str().map(str::to_owned));
                let names: Option<Vec<_>> = names.collect();
                let expected = "each must be the name of a module";
                names.map_or_else(
                    || self.refuse("target_modules", expected),
                    |names| Ok(TargetModules::Names(names)),
                )
            }
            _ => self.refuse(
                "target_modules",
                "it must be a list of names of modules, a regular expression, or \"all-linear\"",
            ),
        }
    }

    fn layers(&self) -> Result<Option<Vec<usize>>, AdapterError> {
        let layer = |value: &Value| value.as_u64().and_then(|layer| usize::try_from(layer).ok());
        let layers = match self.get("layers_to_transform") {
            None => return Ok(None),
            Some(Value::Array(layers)) if layers.is_empty() => return Ok(None),
            Some(Value::Array(layers)) => layers.iter().map(layer).collect(),
            Some(single) => layer(single).map(|layer| vec![layer]),
        };
        if layers.is_none() {
            return self.refuse("layers_to_transform", "it must be numbers of layers");
        }
        Ok(layers)
    }

    fn flag(&self, field: &str) -> Result<bool, AdapterError> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => self.refuse(field, "it must be true or false"),
        }
    }

    fn text(&self, field: &str) -> Result<Option<String>, AdapterError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => self.refuse(field, "it must be a text"),
        }
    }

    /// The value of a field that is there and is not null.
    fn get(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn refuse<T>(&self, field: &str, expected: &str) -> Result<T, AdapterError> {
        let value = self.object.get(field);
        Err(AdapterError::Field {
            path: self.path.clone(),
            field: field.to_owned(),
            value: value.map_or_else(|| "missing".to_owned(), shortened),
            expected: expected.to_owned(),
        })
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A value as JSON, as much of it as a message can hold.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
