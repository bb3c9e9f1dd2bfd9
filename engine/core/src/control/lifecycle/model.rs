//! What is deployed: models that an account imports, and adapters that it made for them.

use super::names::{ModelId, ModelName};

/// What a model reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Text to text.
    Text,
    /// Text and images to text.
    Vision,
    /// Text to vectors.
    Embedding,
    /// Text to images.
    Image,
    /// Audio to text, or text to audio.
    Audio,
}

impl ModelKind {
    /// Whether it can be deployed on demand (S04).
    #[must_use]
    pub fn is_text(self) -> bool {
        self == ModelKind::Text
    }
}

/// A base model: an entry of the provider's catalogue, or one of a user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseModel {
    /// Its id in the catalogue.
    pub id: ModelId,
    /// What it reads and writes.
    pub kind: ModelKind,
    /// Whether it is a user's own.
    pub is_custom: bool,
    /// GPUs a replica where a deployment does not say: 1 for most models, more for large ones (S32).
    pub world_size: u32,
}

/// What a model of an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// A clone of a base model (S05).
    Base(BaseModel),
    /// A PEFT addon.
    Adapter {
        /// The base model that it was trained on (S35).
        base: ModelId,
    },
}

/// What a model is doing on a deployment (B04).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeployedModelState {
    /// Will be served.
    Deploying,
    /// Is served.
    Deployed,
    /// Takes no more requests, and finishes those it has.
    Undeploying,
}

impl DeployedModelState {
    /// As the provider writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DeployedModelState::Deploying => "DEPLOYING",
            DeployedModelState::Deployed => "DEPLOYED",
            DeployedModelState::Undeploying => "UNDEPLOYING",
        }
    }
}

/// A model on a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployedModel {
    /// The deployment, by its full name.
    pub deployment: super::DeploymentName,
    /// What the model is doing there.
    pub state: DeployedModelState,
}

/// A model, and where it is served: the other of the two places where one can
/// see that a deployment is up (S11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelView {
    /// Its name, which requests use.
    pub name: ModelName,
    /// What it is.
    pub model: Model,
    /// Where it is, the default of its requests first.
    pub deployed: Vec<DeployedModel>,
}

impl ModelView {
    /// As the provider writes it: `READY` is imported, and not deployed.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let best = |state| self.deployed.iter().any(|deployed| deployed.state == state);
        use DeployedModelState::{Deployed, Deploying, Undeploying};
        [Deployed, Deploying, Undeploying]
            .into_iter()
            .find(|&state| best(state))
            .map_or("READY", DeployedModelState::name)
    }
}
