//! What a model computes, on every device: that it is right (against Hugging
//! Face transformers, `hf_golden`), and that it does not depend on how the
//! work was cut up (`equality`).
//!
//! Everything is written over [`devices::Device`], so that a device's operations are
//! put through the same as the slow clear ones.

mod devices;
mod equality;
mod gpu;
mod hf_golden;
mod random_model;
mod sequences;
mod world;
