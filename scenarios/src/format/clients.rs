//! `[clients]`: how long clients wait, and what they send again.

use foresail_core::control::retry::RetryConfig;

use super::decode;
use super::distribution::{distribution, seconds};
use super::node::Value;
use super::problem::Problem;
use super::reader::{Field, Reader, Setting};
use super::retry;
use crate::clients::{ClientRetry, Clients, RetryOn};
use crate::distribution::Distribution;

/// What each wait is multiplied by unless something else is said: openai-python,
/// `_calculate_retry_timeout`, has `1 - 0.25 * random()`.
const JITTER: Distribution = Distribution::Uniform {
    min: 0.75,
    max: 1.0,
};

pub(super) fn decode(reader: Reader<'_>) -> Clients {
    let first_token_timeout = reader.optional("first_token_timeout", seconds);
    let timeout = reader.optional("timeout", seconds);
    let has_timeouts = first_token_timeout.is_written() || timeout.is_written();
    let retry = reader.optional("retry", |field| client_retry(field, has_timeouts));
    reader.finish();
    Clients {
        first_token_timeout: first_token_timeout.value,
        timeout: timeout.value,
        retry: retry.value,
    }
}

/// `[clients.retry]`.
fn client_retry(field: Field<'_>, has_timeouts: bool) -> Result<ClientRetry, Problem> {
    let reader = field.reader()?;
    let config = retry::decode(&reader, RetryConfig::CLIENT);
    let jitter = reader.setting("jitter", JITTER, distribution).value;
    let retry_on = reader.setting("retry_on", RetryOn::ALL, retry_on);
    if retry_on.is_written() && retry_on.is_sound && retry_on.value.timeout && !has_timeouts {
        report_endless_patience(&reader, &retry_on);
    }
    reader.finish();
    Ok(ClientRetry {
        config,
        jitter,
        retry_on: retry_on.value,
    })
}

fn report_endless_patience(reader: &Reader<'_>, retry_on: &Setting<RetryOn>) {
    let message = "clients without a timeout never send again because of one";
    let problem = Problem::new("scenario::unused", message)
        .at_if_written(retry_on.place, "this has \"timeout\"")
        .help("add `clients.timeout` or `clients.first_token_timeout`, or remove \"timeout\" here");
    reader.context.report(problem);
}

/// `["503", "timeout", "failure"]`.
fn retry_on(field: Field<'_>) -> Result<RetryOn, Problem> {
    const EXAMPLE: &str = "for example `retry_on = [\"503\", \"timeout\", \"failure\"]`";
    const CHOICES: [(&str, usize); 3] = [("503", 0), ("timeout", 1), ("failure", 2)];
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of causes").help(EXAMPLE));
    };
    let mut named = [false; CHOICES.len()];
    for node in items {
        named[decode::choice(&CHOICES)(Field { node, ..field })?] = true;
    }
    if items.is_empty() {
        return Err(field
            .problem("scenario::range", "names no cause", "nothing is sent again")
            .help("remove `[clients.retry]` if clients send nothing again"));
    }
    let [unavailable, timeout, failure] = named;
    Ok(RetryOn {
        unavailable,
        timeout,
        failure,
    })
}
