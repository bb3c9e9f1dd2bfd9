//! The files of a Hugging Face folder that are about text.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::chat::ChatTemplate;
use super::error::TokenizerError;
use super::hugging_face::HuggingFace;
use super::tokenizer::{Frame, Parts, Special};

/// What is understood of `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<Templates>,
}

/// A token by its text, alone or with settings.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a special token must be a string, or an object with content"
)]
enum TokenName {
    Text(String),
    Added { content: String },
}

/// One template, or several with names.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "chat_template must be a string, or a list of objects with name and template"
)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// Reads what a folder has.
pub(super) fn read(folder: &Path) -> Result<Parts, TokenizerError> {
    let path = folder.join("tokenizer.json");
    let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    let hugging_face = HuggingFace::new(&bytes, &path)?;
    let config_path = folder.join("tokenizer_config.json");
    let config = read_config(&config_path)?;
    let bos = config.bos_token.map(|name| special(name, &hugging_face));
    let eos = config.eos_token.map(|name| special(name, &hugging_face));
    let mut frame = frame(&hugging_face, &path)?;
    put(&mut frame.before, config.add_bos_token, bos.as_ref());
    put(&mut frame.after, config.add_eos_token, eos.as_ref());
    let template = template(folder, config.chat_template, &config_path)?;
    Ok(Parts {
        hugging_face,
        frame,
        bos,
        eos,
        template,
        path,
    })
}

/// Reads a chat template from a file of its own.
pub(super) fn read_template(path: &Path) -> Result<ChatTemplate, TokenizerError> {
    let source = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    new_template(path, &source)
}

fn new_template(path: &Path, source: &str) -> Result<ChatTemplate, TokenizerError> {
    ChatTemplate::new(&path.display().to_string(), source).map_err(|error| {
        let reason = error.to_string();
        TokenizerError::Invalid {
            path: path.to_owned(),
            reason,
        }
    })
}

fn unreadable(path: &Path, error: &io::Error) -> TokenizerError {
    TokenizerError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// The configuration; of a folder without one, an empty one.
fn read_config(path: &Path) -> Result<TokenizerConfig, TokenizerError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(TokenizerConfig::default());
        }
        Err(error) => return Err(unreadable(path, &error)),
    };
    serde_json::from_slice(&bytes).map_err(|error| TokenizerError::Invalid {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn special(name: TokenName, tokenizer: &HuggingFace) -> Special {
    let text = match name {
        TokenName::Text(text) | TokenName::Added { content: text } => text,
    };
    Special {
        token: tokenizer.token(&text),
        text,
    }
}

/// What `tokenizer.json` puts around a text, seen on one.
fn frame(tokenizer: &HuggingFace, path: &Path) -> Result<Frame, TokenizerError> {
    let invalid = |reason: String| TokenizerError::Invalid {
        path: path.to_owned(),
        reason,
    };
    let bare = tokenizer
        .encode("a")
        .map_err(|error| invalid(error.to_string()))?;
    let framed = tokenizer
        .encode_framed("a")
        .map_err(|error| invalid(error.to_string()))?;
    let starts = 0..=framed.len().saturating_sub(bare.len());
    let start = starts
        .clone()
        .find(|&start| framed[start..].starts_with(&bare));
    let start =
        start.ok_or_else(|| invalid("its post-processor changes the text itself".to_owned()))?;
    // A tokenizer without a token for the text shows no place for it: it goes after what begins a text.
    let start = if bare.is_empty() {
        framed.len().min(1)
    } else {
        start
    };
    Ok(Frame {
        before: framed[..start].to_vec(),
        after: framed[start + bare.len()..].to_vec(),
    })
}

/// Adds or takes away a special token where the configuration says which, as
/// `LlamaTokenizerFast.update_post_processor` of Hugging Face transformers 4 does.
fn put(side: &mut Vec<u32>, wanted: Option<bool>, special: Option<&Special>) {
    let Some((token, wanted)) = special.and_then(|special| special.token).zip(wanted) else {
        return;
    };
    let there = side.contains(&token);
    if wanted && !there {
        side.push(token);
    } else if !wanted {
        side.retain(|&other| other != token);
    }
}

/// The folder's chat template: a file of its own comes before the
/// configuration, and of several the one named `default` is it (as in
/// `PreTrainedTokenizerBase._from_pretrained` and `get_chat_template` of transformers).
fn template(
    folder: &Path,
    templates: Option<Templates>,
    config_path: &Path,
) -> Result<Option<ChatTemplate>, TokenizerError> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        return read_template(&path).map(Some);
    }
    let source = match templates {
        None => return Ok(None),
        Some(Templates::One(source)) => source,
        Some(Templates::Named(named)) => {
            match named
                .into_iter()
                .find(|template| template.name == "default")
            {
                Some(default) => default.template,
                None => return Ok(None),
            }
        }
    };
    new_template(config_path, &source).map(Some)
}
