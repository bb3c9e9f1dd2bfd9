//! The `foresail` command.
fn main() {}
