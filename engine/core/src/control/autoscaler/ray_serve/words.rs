//! Why Ray Serve wants a number of replicas, in words.

use super::super::reason::{Decimal, Span};
use super::config::{Delays, RayServeConfig};
use super::decision::{Outcome, State};
use crate::time::SECOND;

/// What a look came to, which left this state.
pub(super) fn of(
    config: &RayServeConfig,
    state: State,
    outcome: Outcome,
    ongoing: f64,
    running: u32,
) -> String {
    let requests = Decimal(ongoing);
    match outcome {
        Outcome::ColdStart => format!("{requests} ongoing requests and no running replica"),
        Outcome::Asleep => "no ongoing request and no running replica".to_owned(),
        Outcome::Enough => {
            let wanted = f64::from(state.target);
            let load = wish(config, wanted, ongoing, running);
            format!("{load} is what there is")
        }
        Outcome::Waiting(waited) => {
            let load = wish(config, waited.wanted, ongoing, running);
            match config.delays {
                Delays::Clock => {
                    let (elapsed, delay) = (span(waited.elapsed_s), span(waited.delay_s));
                    format!("{load} for {elapsed} of {delay}")
                }
                Delays::Looks => {
                    let needed = waited.looks_needed() + 1.0;
                    format!("{load} for {} of {needed} looks", waited.looks)
                }
            }
        }
        Outcome::Over(waited) => {
            let load = wish(config, waited.wanted, ongoing, running);
            let limits = if f64::from(state.target) == waited.wanted {
                String::new()
            } else {
                format!(", within limits {}", state.target)
            };
            match config.delays {
                Delays::Clock => format!("{load} for {}{limits}", span(waited.elapsed_s)),
                Delays::Looks => format!("{load} for {} looks{limits}", waited.looks),
            }
        }
    }
}

/// `31 ongoing requests / 2 per replica = 16`, rounded up.
fn load(config: &RayServeConfig, ongoing: f64, running: u32) -> String {
    let desired = config.desired(ongoing, running).ceil();
    format!(
        "{} ongoing requests / {} per replica = {desired}",
        Decimal(ongoing),
        Decimal(config.target_ongoing_requests)
    )
}

/// The same, with what factors and limits make of it if that is another number.
fn wish(config: &RayServeConfig, wanted: f64, ongoing: f64, running: u32) -> String {
    let load = load(config, ongoing, running);
    if config.desired(ongoing, running).ceil() == wanted {
        load
    } else {
        format!("{load}, applied as {wanted}")
    }
}

fn span(seconds: f64) -> Span {
    // To the millisecond, which hides what floats cannot say exactly.
    let millis = (seconds * 1e3).round() as u64;
    Span(millis.saturating_mul(SECOND / 1000))
}
