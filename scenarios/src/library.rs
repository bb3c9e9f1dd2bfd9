//! The scenarios that come with foresail, and the template for a new one.
//!
//! They need no other file, so `foresail simulate chat` works anywhere. The
//! texts are in `scenarios/library/*.toml`; each says what it shows.

/// A ready scenario.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// The text of its file.
    pub text: &'static str,
}

macro_rules! entry {
    ($name:literal) => {
        Entry { name: $name, text: include_str!(concat!("../library/", $name, ".toml")) }
    };
}

/// Every ready scenario, a good first one first.
pub const SCENARIOS: &[Entry] = &[entry!("chat")];

/// The ready scenario of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    SCENARIOS.iter().find(|entry| entry.name == name)
}
