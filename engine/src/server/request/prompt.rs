//! The prompt of `/v1/completions`: a text or tokens, one or several.

use serde_json::Value;

use crate::server::error::ApiError;
use crate::server::request::fields::kind;

/// Prompts of one request, all texts or all tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompts {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

impl Prompts {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(lists) => lists.len(),
        }
    }

    /// About how much there is to read (bytes).
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.iter().map(String::len).sum(),
            Self::Tokens(lists) => lists.iter().map(|tokens| 4 * tokens.len()).sum(),
        }
    }

    /// A string, a list of strings, a list of tokens, or a list of those.
    pub(crate) fn parse(value: Value) -> Result<Self, ApiError> {
        let items = match value {
            Value::String(text) => return Ok(Self::Texts(vec![text])),
            Value::Array(items) => items,
            other => return Err(wrong(kind(&other))),
        };
        match items.first() {
            None => Err(wrong("an empty list")),
            Some(Value::String(_)) => each(items, text).map(Self::Texts),
            Some(Value::Number(_)) => Ok(Self::Tokens(vec![each(items, token)?])),
            Some(Value::Array(_)) => each(items, tokens).map(Self::Tokens),
            Some(other) => Err(wrong(&format!("a list of {}", kind(other)))),
        }
    }
}

fn each<T>(
    items: Vec<Value>,
    read: impl Fn(usize, Value) -> Result<T, ApiError>,
) -> Result<Vec<T>, ApiError> {
    let numbered = items.into_iter().enumerate();
    numbered.map(|(index, item)| read(index, item)).collect()
}

fn text(index: usize, item: Value) -> Result<String, ApiError> {
    match item {
        Value::String(text) => Ok(text),
        other => Err(mixed(index, "a string", &other)),
    }
}

fn token(index: usize, item: Value) -> Result<u32, ApiError> {
    let token = item.as_u64().and_then(|token| u32::try_from(token).ok());
    token.ok_or_else(|| mixed(index, "a token", &item))
}

fn tokens(index: usize, item: Value) -> Result<Vec<u32>, ApiError> {
    match item {
        Value::Array(items) => each(items, token),
        other => Err(mixed(index, "a list of tokens", &other)),
    }
}

fn wrong(found: &str) -> ApiError {
    let message = format!(
        "`prompt` is {found} and has to be a string, a list of strings, a list of tokens, \
         or a list of lists of tokens"
    );
    ApiError::invalid_param("prompt", message)
}

fn mixed(index: usize, expected: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    };
    let message = format!("`prompt`: at place {index}, expected {expected}, found {found}");
    ApiError::invalid_param("prompt", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(value: Value) -> String {
        Prompts::parse(value).expect_err("it is refused").message
    }

    #[test]
    fn all_four_forms() {
        let texts = |texts: &[&str]| Prompts::Texts(texts.iter().map(|&t| t.into()).collect());
        assert_eq!(Prompts::parse(json!("a")), Ok(texts(&["a"])));
        assert_eq!(Prompts::parse(json!(["a", "b"])), Ok(texts(&["a", "b"])));
        let one = Prompts::Tokens(vec![vec![1, 2]]);
        assert_eq!(Prompts::parse(json!([1, 2])), Ok(one));
        let two = Prompts::Tokens(vec![vec![1], vec![2, 3]]);
        assert_eq!(Prompts::parse(json!([[1], [2, 3]])), Ok(two));
    }

    #[test]
    fn other_forms_are_refused_with_their_place() {
        assert!(refused(json!([])).contains("an empty list"));
        assert!(refused(json!({"a": 1})).contains("an object"));
        assert!(refused(json!([true])).contains("a list of a boolean"));
        assert_eq!(
            refused(json!(["a", 1])),
            "`prompt`: at place 1, expected a string, found 1"
        );
        assert_eq!(
            refused(json!([1, -1])),
            "`prompt`: at place 1, expected a token, found -1"
        );
        assert!(refused(json!([[1], "a"])).contains("expected a list of tokens, found a string"));
        assert!(refused(json!([1.5])).contains("found 1.5"));
        assert!(refused(json!([4_294_967_296_u64])).contains("found 4294967296"));
    }
}
