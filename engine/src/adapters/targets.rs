//! The projections that an adapter can add to, and their names in its file.

use std::ops::Range;

use super::settings::TargetModules;
use crate::config::ModelConfig;
use crate::weights::{AdapterLayer, HostMatrix, LowRank};

/// A projection of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Projection {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Projection {
    pub(super) const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// Its name within a layer, in checkpoints of Hugging Face.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Its output and input features.
    pub(super) fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Query => (config.query_width(), hidden),
            Self::Key | Self::Value => (config.key_value_width(), hidden),
            Self::Output => (hidden, config.query_width()),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
        }
    }

    /// Its place in a layer of an adapter.
    pub(super) fn of(
        self,
        layer: &mut AdapterLayer<HostMatrix>,
    ) -> &mut Option<LowRank<HostMatrix>> {
        match self {
            Self::Query => &mut layer.query,
            Self::Key => &mut layer.key,
            Self::Value => &mut layer.value,
            Self::Output => &mut layer.output,
            Self::Gate => &mut layer.gate,
            Self::Up => &mut layer.up,
            Self::Down => &mut layer.down,
        }
    }
}

/// A projection of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) layer: usize,
    pub(super) projection: Projection,
}

/// One of the two matrices of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

impl Target {
    /// Its name as a module of the base.
    pub(super) fn module(self) -> String {
        format!("model.layers.{}.{}", self.layer, self.projection.name())
    }

    /// The name of one of its matrices in the file: the module's, within PEFT's wrapper.
    pub(super) fn tensor(self, side: Side) -> String {
        let side = match side {
            Side::A => "lora_A",
            Side::B => "lora_B",
        };
        format!("base_model.model.{}.{side}.weight", self.module())
    }

    /// What a name in the file means, if it is one of these.
    pub(super) fn of_tensor(name: &str) -> Option<(Self, Side)> {
        let rest = name.strip_prefix("base_model.model.model.layers.")?;
        let (layer, rest) = rest.split_once('.')?;
        let (module, side) = if let Some(module) = rest.strip_suffix(".lora_A.weight") {
            (module, Side::A)
        } else {
            (rest.strip_suffix(".lora_B.weight")?, Side::B)
        };
        let projection = Projection::ALL.into_iter().find(|it| it.name() == module)?;
        let layer = layer.parse().ok()?;
        Some((Self { layer, projection }, side))
    }

    /// All of some layers.
    pub(super) fn all(layers: Range<usize>) -> impl Iterator<Item = Self> {
        layers.flat_map(|layer| {
            let target = move |projection| Self { layer, projection };
            Projection::ALL.into_iter().map(target)
        })
    }
}

/// Modules that have no place in [`AdapterLayer`], by the last part of their name.
pub(super) const REFUSED: [&str; 2] = ["embed_tokens", "lm_head"];

impl TargetModules {
    /// Whether an adapter adds to a module; `None` if only its file says so.
    ///
    /// As `check_target_module_exists` in peft/tuners/tuners_utils.py has it.
    pub(super) fn has(&self, module: &str) -> Option<bool> {
        match self {
            Self::Names(names) => Some(names.iter().any(|name| is_named(module, name))),
            Self::AllLinear => Some(true),
            Self::Pattern(_) => None,
        }
    }
}

/// Whether a module has this name, or this as the last parts of its name.
pub(super) fn is_named(module: &str, name: &str) -> bool {
    let rest = module.strip_suffix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
