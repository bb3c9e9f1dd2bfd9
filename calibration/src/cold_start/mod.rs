//! How long each stage of a start takes.
