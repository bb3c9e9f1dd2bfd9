//! The messages of a chat, as requests have them.

use serde::Serialize;
use serde_json::{Map, Value};

/// One message, as templates see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: String,
    /// What is said.
    pub content: String,
    /// Its other fields, such as `name`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What is wrong with messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {reason}")]
pub struct MessageError {
    /// Where, such as `messages[2].content`.
    pub parameter: String,
    /// What.
    pub reason: String,
}

/// Reads the messages of a request.
///
/// A message's content is a string, or a list of parts of the type `text`,
/// which are joined by line breaks as vLLM does for templates that expect a
/// string (`_parse_chat_message_content`, vllm/entrypoints/chat_utils.py). Only
/// the assistant may have none.
///
/// # Errors
/// With the place of the first thing that is not understood.
pub fn parse_messages(messages: &Value) -> Result<Vec<Message>, MessageError> {
    let list = messages.as_array().filter(|messages| !messages.is_empty());
    let list = list.ok_or_else(|| wrong("messages", "must be a list with at least one message"))?;
    let parse = |(index, message): (usize, &Value)| parse(message, &format!("messages[{index}]"));
    list.iter().enumerate().map(parse).collect()
}

fn wrong(parameter: &str, reason: &str) -> MessageError {
    MessageError {
        parameter: parameter.to_owned(),
        reason: reason.to_owned(),
    }
}

fn parse(message: &Value, place: &str) -> Result<Message, MessageError> {
    let fields = message
        .as_object()
        .ok_or_else(|| wrong(place, "must be an object"))?;
    let role = fields
        .get("role")
        .and_then(Value::as_str)
        .filter(|role| !role.is_empty());
    let role = role.ok_or_else(|| wrong(&format!("{place}.role"), "must be a string"))?;
    let content_place = format!("{place}.content");
    let content = match fields.get("content") {
        None | Some(Value::Null) if role == "assistant" => String::new(),
        None | Some(Value::Null) => return Err(wrong(&content_place, "must not be missing")),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parse_parts(parts, &content_place)?,
        Some(_) => return Err(wrong(&content_place, "must be a string or a list of parts")),
    };
    let known = |name: &str| name == "role" || name == "content";
    // Clients send what they received, with `null` for everything that they do not use.
    let other = fields
        .iter()
        .filter(|(name, value)| !known(name) && !value.is_null());
    Ok(Message {
        role: role.to_owned(),
        content,
        other: other
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    })
}

fn parse_parts(parts: &[Value], place: &str) -> Result<String, MessageError> {
    let mut texts = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let place = format!("{place}[{index}]");
        match part["type"].as_str() {
            Some("text") => {
                let text = part["text"].as_str();
                texts
                    .push(text.ok_or_else(|| wrong(&format!("{place}.text"), "must be a string"))?);
            }
            Some(kind) => {
                let reason = format!("parts of type {kind} are not supported; only text is");
                return Err(wrong(&place, &reason));
            }
            None => return Err(wrong(&format!("{place}.type"), "must be text")),
        }
    }
    Ok(texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_and_parts_are_read() {
        let messages = json!([
            {"role": "system", "content": "a"},
            {"role": "user", "name": "b", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
            {"role": "assistant", "content": null, "refusal": null},
        ]);
        let messages = parse_messages(&messages).unwrap();
        let contents: Vec<_> = messages
            .iter()
            .map(|message| message.content.as_str())
            .collect();
        assert_eq!(contents, ["a", "c\nd", ""]);
        assert_eq!(messages[1].other["name"], "b");
        assert!(messages[2].other.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let wrong = [
            json!("hello"),
            json!([]),
            json!(["hello"]),
            json!([{"content": "a"}]),
            json!([{"role": "user"}]),
            json!([{"role": "user", "content": 1}]),
            json!([{"role": "user", "content": ["a"]}]),
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ];
        let messages = wrong.map(|messages| parse_messages(&messages).unwrap_err().to_string());
        insta::assert_snapshot!(messages.join("\n"), @r"
        messages: must be a list with at least one message
        messages: must be a list with at least one message
        messages[0]: must be an object
        messages[0].role: must be a string
        messages[0].content: must not be missing
        messages[0].content: must be a string or a list of parts
        messages[0].content[0].type: must be text
        messages[0].content[0].text: must be a string
        messages[0].content[0]: parts of type image_url are not supported; only text is
        ");
    }
}
