//! From a request to pieces of its answers: prompts become generations, their
//! tokens become text, and text ends where a stop string says so.

mod choice;
mod plan;
mod run;

pub(crate) use choice::{Finish, Piece, Place, StopReason};
pub(crate) use plan::{Plan, Prompt, Wanted};
pub(crate) use run::{Run, Usage};
