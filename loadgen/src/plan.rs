//! What will be sent, and when: computed before anything is sent.

use std::sync::Arc;

use foresail_scenarios::workload;

/// One request of a run. Its place in the plan is its id in the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its position in the whole plan, from 0, whichever shard sends it.
    pub id: u64,
    /// When it is due, how long prompt and answer are, and what it shares with
    /// others: the very value that a simulation gets. In a closed loop `due` only says the order.
    pub request: workload::Request,
    /// What its prompt says.
    pub prompt: Prompt,
}

/// Where the text of a prompt comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Made up, so that it has as many tokens as the request says and shares with
    /// other prompts what its content says.
    Synthetic,
    /// Given by a dataset.
    Given(Arc<str>),
    /// A whole conversation given by a dataset: a JSON array of messages, as OpenAI's
    /// chat endpoint takes it.
    Messages(Arc<str>),
}
