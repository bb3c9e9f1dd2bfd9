//! A parameter that the autoscaler which a policy stands for would refuse, too.

use foresail_core::control::autoscaler::{AutoscalerConfig, ConfigError};

use crate::format::problem::Problem;
use crate::format::reader::Reader;

/// Reports what is wrong with the parameters of a policy, at the value if it is written.
pub(super) fn report(autoscaler: &Reader<'_>, config: &AutoscalerConfig) {
    let Err(error) = config.validate() else {
        return;
    };
    let ConfigError::Parameter {
        name,
        expected,
        value,
    } = &error
    else {
        let problem = Problem::new("scenario::autoscaler", error.to_string())
            .at_if_written(autoscaler.value_place("policy"), "chosen here");
        autoscaler.context.report(problem);
        return;
    };
    let message = format!("`{}` must be {expected}", autoscaler.path_of(name));
    let place = autoscaler.value_place(name);
    let problem = Problem::new("scenario::range", message)
        .at_if_written(
            place.or_else(|| autoscaler.value_place("policy")),
            format!("this is {value}"),
        )
        .help(format!("`{}` would refuse it, too", config.name()));
    autoscaler.context.report(problem);
}
