//! A parameter that the autoscaler which a policy stands for would refuse, too.

use foresail_core::control::autoscaler::{AutoscalerConfig, ConfigError};

use super::Tables;
use crate::format::problem::Problem;

/// Reports what is wrong with the parameters of a policy: at the value if it is
/// written there, or else at what may stand for it, the counts of `[deployment]`.
pub(super) fn report(tables: &Tables<'_>, config: &AutoscalerConfig) {
    let Err(error) = config.validate() else {
        return;
    };
    let Tables {
        autoscaler, counts, ..
    } = tables;
    let fallback = counts.min.place.or(counts.max.place);
    let fallback = fallback.or_else(|| autoscaler.value_place("policy"));
    let problem = match &error {
        ConfigError::Parameter {
            name,
            expected,
            value,
        } => {
            let message = format!("`{}` must be {expected}", autoscaler.path_of(name));
            let place = autoscaler.value_place(name).or(fallback);
            Problem::new("scenario::range", message)
                .at_if_written(place, format!("this is {value}"))
                .help(format!("`{}` would refuse it, too", config.name()))
        }
        _ => {
            Problem::new("scenario::autoscaler", error.to_string()).at_if_written(fallback, "here")
        }
    };
    autoscaler.context.report(problem);
}
