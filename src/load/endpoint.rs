//! The endpoint of a run: how it is reached, what it is asked for, and whether it is there.

use std::env;

use foresail_loadgen::client::{HttpVersion, Settings, Target};

use super::arguments::EndpointArguments;
use crate::failure::Failure;

const COMPLETIONS: &str = "/v1/completions";

/// Which of OpenAI's APIs is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// Prompts.
    Completions,
    /// Messages.
    Chat,
}

/// The path that is asked, and which API it is of.
pub(crate) fn api(arguments: &EndpointArguments) -> Result<(String, Api), Failure> {
    let path = arguments.endpoint.as_deref().unwrap_or(COMPLETIONS);
    let api = match path {
        path if path.ends_with("/chat/completions") => Api::Chat,
        path if path.ends_with("/completions") => Api::Completions,
        _ => {
            return Err(Failure::Input(format!(
                "--endpoint {path}: only completions can be asked for; name /v1/completions or \
                 /v1/chat/completions"
            )));
        }
    };
    Ok((path.to_owned(), api))
}

/// The endpoint, checked and looked up.
pub(crate) fn target(arguments: &EndpointArguments, path: &str) -> Result<Target, Failure> {
    let settings = settings(arguments, path, key(&arguments.api_key_env)?);
    Target::resolve(&settings).map_err(|error| Failure::Input(error.to_string()))
}

fn settings(arguments: &EndpointArguments, path: &str, key: Option<String>) -> Settings {
    let settings = Settings {
        path: path.to_owned(),
        http: match arguments.http2 {
            true => HttpVersion::Http2,
            false => HttpVersion::Http1,
        },
        headers: arguments.header.clone(),
        ca_file: arguments.ca_file.clone(),
        connections_max: arguments.connections.map(|count| count.get()),
        ..Settings::new(&arguments.url)
    };
    let is_said = |(name, _): &(String, String)| name.eq_ignore_ascii_case("authorization");
    match key {
        // Whoever writes the header means it.
        Some(key) if !settings.headers.iter().any(is_said) => settings.with_api_key(&key),
        _ => settings,
    }
}

/// The API key, if the environment has one. One that was named has to be there.
fn key(variable: &str) -> Result<Option<String>, Failure> {
    let key = env::var(variable).ok().filter(|key| !key.is_empty());
    if key.is_none() && variable != super::arguments::API_KEY_ENV {
        return Err(Failure::Input(format!(
            "--api-key-env {variable}: the environment has no such variable, or it is empty; set it"
        )));
    }
    Ok(key)
}

/// Where requests go, without what may be a secret in it.
pub(crate) fn shown(arguments: &EndpointArguments) -> String {
    let (scheme, rest) = arguments
        .url
        .split_once("://")
        .unwrap_or(("http", &arguments.url));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let shown = format!("{scheme}://{host}/{path}");
    shown.trim_end_matches('/').to_owned()
}
