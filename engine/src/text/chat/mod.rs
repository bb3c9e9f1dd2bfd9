//! Chat templates: Jinja programs that come with models and turn messages into
//! the text that the model was trained to go on with.
//!
//! They are written for Jinja 2 as Hugging Face transformers sets it up
//! (`_compile_jinja_template` in src/transformers/utils/chat_template_utils.py),
//! so `environment.rs` makes minijinja behave like that. The work of a
//! template is limited: one that does not end is an error.

mod environment;
mod error;
mod message;
mod python_json;
mod strftime;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde_json::Map;

pub use error::ChatError;
pub use message::{Message, MessageError, parse_messages};

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    name: String,
}

/// What a template is given.
#[derive(Clone, Copy, Debug)]
pub struct ChatInput<'a> {
    /// The conversation, the oldest first.
    pub messages: &'a [Message],
    /// Whether to begin the assistant's answer.
    pub add_generation_prompt: bool,
    /// Other variables, such as `enable_thinking` (`chat_template_kwargs` of a request).
    pub variables: &'a Map<String, serde_json::Value>,
    /// What `strftime_now` formats, in UTC.
    pub now: SystemTime,
}

impl ChatTemplate {
    /// Compiles a template; errors call it `name`.
    ///
    /// # Errors
    /// If it is not one.
    pub fn new(name: &str, source: &str) -> Result<Self, ChatError> {
        let mut environment = environment::new();
        environment
            .add_template_owned(
                name.to_owned(),
                environment::without_generation_tags(source),
            )
            .map_err(|error| ChatError::of(&error))?;
        Ok(Self {
            environment,
            name: name.to_owned(),
        })
    }

    /// Messages as text.
    ///
    /// # Errors
    /// If the template refuses them, fails, or does not end.
    pub(super) fn render(
        &self,
        input: &ChatInput<'_>,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<String, ChatError> {
        self.render_once(input, bos_token, eos_token)
            .map_err(|error| match error {
                // Whose fault it is shows on messages that every template has to understand.
                ChatError::Failed(reason) if !self.is_broken(bos_token, eos_token) => {
                    ChatError::Unsuitable(reason)
                }
                other => other,
            })
    }

    fn render_once(
        &self,
        input: &ChatInput<'_>,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<String, ChatError> {
        let own = context! {
            messages => Value::from(Serde(input.messages)),
            add_generation_prompt => input.add_generation_prompt,
            // Templates ask for these; this server has neither.
            tools => (),
            documents => (),
            // A model without one has no such variable, so that `is defined` says so.
            bos_token => bos_token.map_or(Value::UNDEFINED, Value::from),
            eos_token => eos_token.map_or(Value::UNDEFINED, Value::from),
            strftime_now => environment::strftime_now(input.now),
        };
        // What a request adds must not replace what a template relies on.
        let variables = context! { ..own, ..Value::from(Serde(input.variables)) };
        let template = self.environment.get_template(&self.name);
        let text = template.and_then(|template| template.render(variables));
        text.map_err(|error| ChatError::of(&error))
    }

    /// Whether even a plain question fails.
    fn is_broken(&self, bos_token: Option<&str>, eos_token: Option<&str>) -> bool {
        let question = Message {
            role: "user".to_owned(),
            content: "Hello".to_owned(),
            other: Map::new(),
        };
        let input = ChatInput {
            messages: &[question],
            add_generation_prompt: true,
            variables: &Map::new(),
            now: SystemTime::UNIX_EPOCH,
        };
        let rendered = self.render_once(&input, bos_token, eos_token);
        matches!(rendered, Err(ChatError::Failed(_)))
    }
}
