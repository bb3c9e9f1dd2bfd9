//! How often something is tried again, and how long to wait in between.

use foresail_core::control::retry::{RetryConfig, RetryError};

use super::decode;
use super::problem::Problem;
use super::reader::Reader;

/// The settings of a table, which may have others.
pub(super) fn decode(reader: &Reader<'_>, default: RetryConfig) -> RetryConfig {
    let attempts_max = reader.setting(
        "attempts_max",
        default.attempts_max,
        decode::positive_integer,
    );
    let first = reader.setting("first", default.first, decode::duration);
    let factor = reader.setting("factor", default.factor, decode::positive_number);
    let max = reader.setting("max", default.max.max(first.value), decode::duration);
    let config = RetryConfig {
        attempts_max: attempts_max.value,
        first: first.value,
        factor: factor.value,
        max: max.value,
    };
    let are_sound = attempts_max.is_sound && first.is_sound && factor.is_sound && max.is_sound;
    if are_sound && let Err(error) = config.validate() {
        let path = reader.path_of("");
        let table = path.trim_end_matches('.');
        let problem = Problem::new("scenario::retry", format!("`{table}`: {error}"));
        let problem = match error {
            RetryError::NoAttempts => problem
                .at_if_written(attempts_max.place, "never tried")
                .help("write 1 or more; 1 is to try once and never again"),
            RetryError::Factor { .. } => problem
                .at_if_written(
                    factor.place,
                    "each wait would be shorter than the one before",
                )
                .help("write 1 or more; 2 doubles the wait each time"),
            RetryError::MaxBelowFirst => problem
                .at_if_written(max.place, "the longest wait")
                .at_if_written(first.place, "the first is longer")
                .help("raise `max`, or lower `first`"),
        };
        reader.context.report(problem);
    }
    config
}
