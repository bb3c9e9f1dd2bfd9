//! What the endpoint serves: asked before the run, which also shows that it is there.

use std::time::{Duration, Instant};

use foresail_loadgen::client::{FetchError, Fetched, Target, fetch};
use foresail_loadgen::clock::RunClock;
use serde::Deserialize;

use super::arguments::EndpointArguments;
use super::endpoint;
use crate::failure::Failure;

/// For as long an endpoint may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lists are a few kilobytes; of hosted models, up to a megabyte.
const LIST_BYTES_MAX: usize = 16 << 20;

/// So many models are named in an error.
const NAMED_MAX: usize = 8;

/// The list of `GET /v1/models`, as far as it is of use here.
#[derive(Debug, Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Debug, Deserialize)]
struct Model {
    id: String,
    /// What an adapter belongs to, where servers say it (vLLM, foresail).
    parent: Option<String>,
}

/// What requests call the model: as the arguments say, or the only one that there is. Either
/// way the endpoint has been reached.
pub(crate) fn name(arguments: &EndpointArguments, path: &str) -> Result<String, Failure> {
    let path = path_of_list(path);
    let target = endpoint::target(arguments, &path)?;
    let answered = ask(&target)?;
    if let Some(name) = &arguments.model {
        // Not every endpoint has a list. If it has none, requests will tell.
        return Ok(name.clone());
    }
    let fetched = answered.map_err(|error| unlisted(&path, &error.to_string()))?;
    chosen(&fetched, &path)
}

/// Beside the completions, so that a prefix before `/v1` is kept.
fn path_of_list(path: &str) -> String {
    let root = path
        .strip_suffix("/chat/completions")
        .or(path.strip_suffix("/completions"));
    format!("{}/models", root.unwrap_or(path))
}

/// Asks for the list. An endpoint that cannot be reached is a failure; one that answers
/// otherwise than was expected has been reached.
fn ask(target: &Target) -> Result<Result<Fetched, FetchError>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Input(format!("the system has no sockets left: {error}")))?;
    let clock = RunClock::starting_at(Instant::now());
    let fetched = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, fetch(target, clock, LIST_BYTES_MAX)).await
    });
    match fetched {
        Ok(Err(FetchError::NotConnected(message))) => Err(Failure::Input(format!(
            "the endpoint cannot be reached: {message}; start it, or name another with --url"
        ))),
        Ok(answered) => Ok(answered),
        Err(_) => Err(Failure::Input(format!(
            "the endpoint took the connection and did not answer within {} s; is it still starting?",
            PATIENCE.as_secs()
        ))),
    }
}

/// The only model of a list that is no adapter.
fn chosen(fetched: &Fetched, path: &str) -> Result<String, Failure> {
    if matches!(fetched.status, 401 | 403) {
        return Err(Failure::Input(format!(
            "the endpoint refuses to say what it serves (status {}); set the API key in the \
             variable of --api-key-env",
            fetched.status
        )));
    }
    let list: List = match fetched.status {
        200 => serde_json::from_slice(&fetched.body)
            .map_err(|error| unlisted(path, &error.to_string()))?,
        status => return Err(unlisted(path, &format!("status {status}"))),
    };
    let models: Vec<_> = list
        .data
        .iter()
        .filter(|model| model.parent.is_none())
        .collect();
    match &models[..] {
        [only] => Ok(only.id.clone()),
        [] => Err(unlisted(path, "the list is empty")),
        several => Err(Failure::Input(format!(
            "the endpoint serves {} models; choose one with --model: {}",
            several.len(),
            named(several)
        ))),
    }
}

fn named(models: &[&Model]) -> String {
    let names: Vec<&str> = models
        .iter()
        .take(NAMED_MAX)
        .map(|model| &*model.id)
        .collect();
    match models.len() > NAMED_MAX {
        true => format!("{}, …", names.join(", ")),
        false => names.join(", "),
    }
}

fn unlisted(path: &str, why: &str) -> Failure {
    Failure::Input(format!(
        "the endpoint does not say at {path} what it serves ({why}); name the model with --model"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> String {
        let fetched = Fetched {
            status,
            body: body.to_owned().into(),
        };
        chosen(&fetched, "/v1/models").unwrap_or_else(|failure| format!("error: {failure}"))
    }

    #[test]
    fn the_only_model_is_chosen_and_adapters_are_none() {
        let list = r#"{"data": [{"id": "a", "object": "model"}, {"id": "b", "parent": "a"}]}"#;
        assert_eq!(of(200, list), "a");
    }

    #[test]
    fn otherwise_it_says_what_to_name() {
        let texts = [
            of(200, r#"{"data": [{"id": "a"}, {"id": "b"}]}"#),
            of(200, r#"{"data": []}"#),
            of(200, "<html>"),
            of(404, ""),
            of(401, ""),
        ];
        insta::assert_snapshot!(texts.join("\n"), @r"
        error: the endpoint serves 2 models; choose one with --model: a, b
        error: the endpoint does not say at /v1/models what it serves (the list is empty); name the model with --model
        error: the endpoint does not say at /v1/models what it serves (expected value at line 1 column 1); name the model with --model
        error: the endpoint does not say at /v1/models what it serves (status 404); name the model with --model
        error: the endpoint refuses to say what it serves (status 401); set the API key in the variable of --api-key-env
        ");
    }

    #[test]
    fn the_list_is_beside_the_completions() {
        assert_eq!(path_of_list("/v1/chat/completions"), "/v1/models");
        assert_eq!(path_of_list("/team/v1/completions"), "/team/v1/models");
    }
}
