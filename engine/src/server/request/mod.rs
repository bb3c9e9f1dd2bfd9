//! Request bodies, read and checked before anything is begun.

pub(crate) mod body;
pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod fields;
pub(crate) mod options;
pub(crate) mod prompt;
pub(crate) mod text;
