//! `adapter_model.safetensors`: two matrices for each target, and nothing else.

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::settings::{Settings, TargetModules};
use super::targets::{REFUSED, Side, Target, is_named};
use super::{AdapterError, Base};
use crate::weights::{AdapterLayer, HostMatrix, HostValues, LowRank};

/// The tensors of an adapter, checked against what they should be.
pub(super) struct Reader<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    settings: &'a Settings,
    base: &'a Base<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        path: &'a Path,
        bytes: &'a [u8],
        settings: &'a Settings,
        base: &'a Base<'a>,
    ) -> Result<Self, AdapterError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| AdapterError::Malformed {
            path: path.to_owned(),
            reason: format!("it is not a whole safetensors file: {error}"),
        })?;
        let reader = Self {
            path,
            tensors,
            settings,
            base,
        };
        reader.check_targets()?;
        let mut names = reader.tensors.names();
        names.sort_unstable();
        names
            .into_iter()
            .try_for_each(|name| reader.check_name(name))?;
        Ok(reader)
    }

    /// What the adapter adds to each layer.
    pub(super) fn layers(&self) -> Result<Vec<AdapterLayer<HostMatrix>>, AdapterError> {
        let count = self.base.config.num_hidden_layers;
        let mut layers = vec![AdapterLayer::default(); count];
        let mut found = false;
        for target in Target::all(0..count) {
            let low_rank = self.target(target)?;
            found |= low_rank.is_some();
            *target.projection.of(&mut layers[target.layer]) = low_rank;
        }
        if !found {
            return Err(AdapterError::Malformed {
                path: self.path.to_owned(),
                reason: "it has no tensors".to_owned(),
            });
        }
        Ok(layers)
    }

    /// Refuses targets for which there is no place, even if the file lacks them.
    fn check_targets(&self) -> Result<(), AdapterError> {
        let TargetModules::Names(names) = &self.settings.targets else {
            return Ok(());
        };
        let refused = |name: &&String| REFUSED.iter().any(|refused| is_named(name, refused));
        match names.iter().find(refused) {
            Some(name) => Err(AdapterError::Field {
                path: self.path.with_file_name(super::CONFIG_FILE),
                field: "target_modules".to_owned(),
                value: format!("{name:?} among others"),
                expected:
                    "adapters to the embedding and to the output projection are not understood"
                        .to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses a tensor that would not be used.
    fn check_name(&self, name: &str) -> Result<(), AdapterError> {
        let Some((target, side)) =
            Target::of_tensor(name).filter(|(target, side)| target.tensor(*side) == name)
        else {
            let refused = REFUSED.iter().find(|module| name.contains(*module));
            let reason = match refused {
                Some(module) => format!("adapters to {module} are not understood"),
                None => "it is not understood; there are lora_A and lora_B of q_proj, k_proj, \
                         v_proj, o_proj, gate_proj, up_proj and down_proj"
                    .to_owned(),
            };
            return Err(self.tensor_error(name, reason));
        };
        let layers = self.base.config.num_hidden_layers;
        if target.layer >= layers {
            return Err(self.misfit(format!(
                "tensor {name} is of layer {}, and there are {layers} layers",
                target.layer
            )));
        }
        let other = match side {
            Side::A => target.tensor(Side::B),
            Side::B => target.tensor(Side::A),
        };
        if self.tensors.tensor(&other).is_err() {
            return Err(self.tensor_error(
                &other,
                "it is missing, and its other half is there".to_owned(),
            ));
        }
        if !self.is_target(target).unwrap_or(true) {
            let reason = "it is there, and the configuration's target_modules and \
                          layers_to_transform leave its module out";
            return Err(self.tensor_error(name, reason.to_owned()));
        }
        Ok(())
    }

    /// Whether the configuration says that the adapter adds to this; `None` if it leaves that to the file.
    fn is_target(&self, target: Target) -> Option<bool> {
        let layers = self.settings.layers.as_ref();
        if layers.is_some_and(|layers| !layers.contains(&target.layer)) {
            return Some(false);
        }
        self.settings.targets.has(&target.module())
    }

    fn target(&self, target: Target) -> Result<Option<LowRank<HostMatrix>>, AdapterError> {
        let name = target.tensor(Side::A);
        if self.tensors.tensor(&name).is_err() {
            if self.is_target(target) == Some(true) && !self.settings.has_exclusions {
                let reason =
                    "it is missing, and the configuration's target_modules have its module";
                return Err(self.tensor_error(&name, reason.to_owned()));
            }
            return Ok(None);
        }
        let (out, input) = target.projection.shape(self.base.config);
        let rank = self.settings.rank;
        Ok(Some(LowRank {
            down: self.matrix(&name, rank, input)?,
            up: self.matrix(&target.tensor(Side::B), out, rank)?,
        }))
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<HostMatrix, AdapterError> {
        let view = self.tensors.tensor(name);
        let view = view.map_err(|error| self.tensor_error(name, error.to_string()))?;
        if view.shape() != [rows, columns] {
            let found = view.shape();
            return Err(self.misfit(format!(
                "tensor {name} has the shape {found:?} instead of [{rows}, {columns}]"
            )));
        }
        let values = self.values(name, &view)?;
        let matrix = HostMatrix {
            rows,
            columns,
            values,
        };
        // One such value would spoil the steps of every sequence that uses the adapter.
        let is_finite = match &matrix.values {
            HostValues::F32(values) => values.iter().all(|value| value.is_finite()),
            HostValues::Bf16(values) => values.iter().all(|value| value.is_finite()),
        };
        if !is_finite {
            return Err(self.tensor_error(name, "it has values that are not finite".to_owned()));
        }
        Ok(matrix)
    }

    fn values(&self, name: &str, view: &TensorView<'_>) -> Result<HostValues, AdapterError> {
        let data = view.data();
        let halves = || data.as_chunks::<2>().0.iter().copied();
        match view.dtype() {
            Dtype::F32 => {
                let values = data.as_chunks::<4>().0.iter().copied();
                Ok(HostValues::F32(values.map(f32::from_le_bytes).collect()))
            }
            Dtype::BF16 => Ok(HostValues::Bf16(
                halves().map(bf16::from_le_bytes).collect(),
            )),
            Dtype::F16 => {
                let values = halves().map(|bytes| f16::from_le_bytes(bytes).to_f32());
                Ok(HostValues::F32(values.collect()))
            }
            other => Err(self.tensor_error(
                name,
                format!("its numbers are {other:?}; F32, BF16 and F16 are understood"),
            )),
        }
    }

    fn tensor_error(&self, tensor: &str, reason: String) -> AdapterError {
        AdapterError::Tensor {
            path: self.path.to_owned(),
            tensor: tensor.to_owned(),
            reason,
        }
    }

    fn misfit(&self, reason: String) -> AdapterError {
        let unnamed = || "a model that its configuration does not name".to_owned();
        AdapterError::Base {
            path: self.path.to_owned(),
            adapter_base: self.settings.base_model.clone().unwrap_or_else(unnamed),
            model: self.base.name.to_owned(),
            reason,
        }
    }
}
