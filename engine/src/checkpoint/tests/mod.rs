//! What checkpoints mean, what is refused and with which words, and that nothing in a file makes the reader panic.

mod configuration;
mod dummy_weights;
mod fuzz;
mod safetensors;
mod sharding;
