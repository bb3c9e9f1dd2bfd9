//! Kernels against slow twins that are written plainly: on a GPU where one is, else on the software device.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod advance;
mod attention_decode;
mod attention_prefill;
mod delay;
mod device;
mod dummy;
mod embed;
mod gate;
mod heads;
mod lora;
mod norm;
mod paged;
mod sample;
mod skinny;
mod software;
mod words;
