//! What both endpoints take: how to choose tokens, when to stop, how to answer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::sampling::Sampling;
use crate::server::error::ApiError;
use crate::server::request::fields::{Fields, kind};
use crate::server::request_id;

/// Most answers to a prompt, as OpenAI has it.
const N_MAX: u32 = 128;

/// Most stop strings. OpenAI has 4 and vLLM no limit; each costs time with each token.
const STOPS_MAX: usize = 64;

/// The longest stop string (bytes): so much text may be held back.
const STOP_BYTES_MAX: usize = 1024;

/// The longest salt of the prefix cache (characters), as vLLM has it.
const CACHE_SALT_MAX: usize = 1024;

/// What both endpoints take.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) model: String,
    /// The seed in it is that of the first answer; the others count on from it.
    pub(crate) sampling: Sampling,
    pub(crate) n: u32,
    pub(crate) min_tokens: u32,
    pub(crate) stop: Vec<String>,
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) ignore_eos: bool,
    pub(crate) include_stop: bool,
    pub(crate) skip_special_tokens: bool,
    pub(crate) stream: Option<StreamOptions>,
    pub(crate) cache_salt: Option<String>,
    pub(crate) return_token_ids: bool,
    pub(crate) tokens_as_ids: bool,
    /// The name that the body gives the request, before the one in its header.
    pub(crate) request_id: Option<String>,
}

/// How to stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// A last chunk says how many tokens there were.
    pub(crate) include_usage: bool,
    /// So does each chunk before it (vLLM).
    pub(crate) continuous_usage_stats: bool,
    /// OpenAI pads chunks against traffic analysis; here nothing does.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: bool,
}

impl Options {
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            model: fields.require("model")?,
            n: take_n(fields)?,
            min_tokens: fields.take_or("min_tokens", 0)?,
            stop: take_stop(fields)?,
            stop_token_ids: fields.take_or("stop_token_ids", Vec::new())?,
            ignore_eos: fields.take_or("ignore_eos", false)?,
            include_stop: fields.take_or("include_stop_str_in_output", false)?,
            skip_special_tokens: fields.take_or("skip_special_tokens", true)?,
            stream: take_stream(fields)?,
            cache_salt: take_cache_salt(fields)?,
            return_token_ids: fields.take_or("return_token_ids", false)?,
            tokens_as_ids: fields.take_or("return_tokens_as_token_ids", false)?,
            request_id: take_request_id(fields)?,
            sampling: take_sampling(fields)?,
        })
    }
}

fn take_n(fields: &mut Fields) -> Result<u32, ApiError> {
    let n = fields.take_or("n", 1)?;
    if !(1..=N_MAX).contains(&n) {
        let message = format!("`n` is {n} and has to be from 1 to {N_MAX}");
        return Err(ApiError::invalid_param("n", message));
    }
    match fields.take::<u32>("best_of")? {
        Some(best_of) if best_of != n => Err(ApiError::invalid_param(
            "best_of",
            "`best_of` other than `n` is not supported by this server; leave it out",
        )
        .with_code("unsupported_parameter")),
        _ => Ok(n),
    }
}

fn take_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let wrong = |message: String| Err(ApiError::invalid_param("stop", message));
    let items = match fields.take_value("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(item) => vec![item],
    };
    if items.len() > STOPS_MAX {
        return wrong(format!(
            "`stop` has {} strings; {STOPS_MAX} may be",
            items.len()
        ));
    }
    let mut stops = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::String(text) if (1..=STOP_BYTES_MAX).contains(&text.len()) => stops.push(text),
            Value::String(text) => {
                return wrong(format!(
                    "`stop`: a string has {} bytes and has to have from 1 to {STOP_BYTES_MAX}",
                    text.len()
                ));
            }
            other => return wrong(format!("`stop`: expected a string, found {}", kind(&other))),
        }
    }
    Ok(stops)
}

fn take_stream(fields: &mut Fields) -> Result<Option<StreamOptions>, ApiError> {
    let stream = fields.take_or("stream", false)?;
    let options: Option<StreamOptions> = fields.take("stream_options")?;
    match (stream, options) {
        (false, Some(_)) => Err(ApiError::invalid_param(
            "stream_options",
            "`stream_options` is only for requests with `stream` true",
        )),
        (false, None) => Ok(None),
        (true, options) => Ok(Some(options.unwrap_or_default())),
    }
}

fn take_cache_salt(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let salt: Option<String> = fields.take("cache_salt")?;
    match &salt {
        Some(text) if !(1..=CACHE_SALT_MAX).contains(&text.chars().count()) => {
            let message = format!("`cache_salt` has 1 to {CACHE_SALT_MAX} characters");
            Err(ApiError::invalid_param("cache_salt", message))
        }
        _ => Ok(salt),
    }
}

fn take_request_id(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let id: Option<String> = fields.take("request_id")?;
    id.as_deref()
        .map_or(Ok(()), |id| request_id::check("request_id", id))?;
    Ok(id)
}

/// Ranges are checked where the vocabulary is known.
fn take_sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let seed: Option<i64> = fields.take("seed")?;
    Ok(Sampling {
        temperature: fields.take_or("temperature", default.temperature)?,
        top_k: take_top_k(fields)?,
        top_p: fields.take_or("top_p", default.top_p)?,
        min_p: fields.take_or("min_p", default.min_p)?,
        presence_penalty: fields.take_or("presence_penalty", default.presence_penalty)?,
        frequency_penalty: fields.take_or("frequency_penalty", default.frequency_penalty)?,
        repetition_penalty: fields.take_or("repetition_penalty", default.repetition_penalty)?,
        logit_bias: take_logit_bias(fields)?,
        seed: seed.map_or_else(request_id::random_u64, |seed| Ok(seed.cast_unsigned()))?,
        logprobs: None,
    })
}

/// 0 and -1 are for all tokens, as in vLLM.
fn take_top_k(fields: &mut Fields) -> Result<u32, ApiError> {
    match fields.take_or("top_k", 0_i64)? {
        -1 => Ok(0),
        top_k => u32::try_from(top_k).map_err(|_| {
            let message = format!("`top_k` is {top_k} and has to be at least 1, or -1 for all");
            ApiError::invalid_param("top_k", message)
        }),
    }
}

fn take_logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases: BTreeMap<String, f32> = fields.take_or("logit_bias", BTreeMap::new())?;
    let token = |(token, bias): (String, f32)| match token.parse() {
        Ok(token) => Ok((token, bias)),
        Err(_) => Err(ApiError::invalid_param(
            "logit_bias",
            "`logit_bias`: its keys have to be tokens, in digits",
        )),
    };
    biases.into_iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Options, ApiError> {
        let mut fields = Fields::parse(text.as_bytes())?;
        let options = Options::take(&mut fields)?;
        fields.finish()?;
        Ok(options)
    }

    fn refused(text: &str) -> String {
        options(text).expect_err("it is refused").message
    }

    #[test]
    fn defaults_are_those_of_openai() {
        let options = options(r#"{"model": "m"}"#).expect("it is right");
        let sampling = Sampling {
            seed: options.sampling.seed,
            ..Sampling::default()
        };
        assert_eq!(options.sampling, sampling);
        assert_eq!((options.n, options.stream), (1, None));
    }

    #[test]
    fn seeds_are_random_unless_given() {
        let seed = |text| options(text).expect("it is right").sampling.seed;
        assert_ne!(seed(r#"{"model": "m"}"#), seed(r#"{"model": "m"}"#));
        assert_eq!(seed(r#"{"model": "m", "seed": 7}"#), 7);
        assert_eq!(seed(r#"{"model": "m", "seed": -1}"#), u64::MAX);
    }

    #[test]
    fn stop_is_a_string_or_several() {
        let stop = |text| options(text).expect("it is right").stop;
        assert_eq!(stop(r#"{"model": "m", "stop": "a"}"#), ["a"]);
        assert_eq!(stop(r#"{"model": "m", "stop": ["a", "b"]}"#), ["a", "b"]);
        assert!(refused(r#"{"model": "m", "stop": ""}"#).contains("0 bytes"));
        assert!(refused(r#"{"model": "m", "stop": [1]}"#).contains("found a number"));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        insta::assert_snapshot!(
            [
                r#"{}"#,
                r#"{"model": "m", "n": 0}"#,
                r#"{"model": "m", "n": 2, "best_of": 3}"#,
                r#"{"model": "m", "top_k": -2}"#,
                r#"{"model": "m", "logit_bias": {"a": 1}}"#,
                r#"{"model": "m", "stream_options": {"include_usage": true}}"#,
                r#"{"model": "m", "stream": true, "stream_options": {"include_usages": true}}"#,
                r#"{"model": "m", "cache_salt": ""}"#,
                r#"{"model": "m", "request_id": "a b"}"#,
                r#"{"model": "m", "min_tokens": -1}"#,
                r#"{"model": "m", "temperature": "hot"}"#,
            ]
            .map(refused)
            .join("\n"),
            @r#"
        `model` is missing
        `n` is 0 and has to be from 1 to 128
        `best_of` other than `n` is not supported by this server; leave it out
        `top_k` is -2 and has to be at least 1, or -1 for all
        `logit_bias`: its keys have to be tokens, in digits
        `stream_options` is only for requests with `stream` true
        `stream_options`: unknown field `include_usages`, expected one of `include_usage`, `continuous_usage_stats`, `include_obfuscation`
        `cache_salt` has 1 to 1024 characters
        `request_id` has 1 to 128 characters, letters, digits and -_.:/+=@ only
        `min_tokens`: invalid value: integer `-1`, expected u32
        `temperature`: invalid type: string "hot", expected f32
        "#
        );
    }
}
