//! Rotary embedding in its two spellings: `rope_theta` and `rope_scaling` of
//! older files, `rope_parameters` of newer ones.

use crate::config::{Rotary, RotaryScaling};

use super::error::ConfigError;
use super::family::ROPE_THETA;
use super::fields::Fields;

/// What is understood, for messages.
const TYPES: &str = "\"default\", \"linear\" or \"llama3\"";

/// Reads either spelling. A file that has both has to mean the same with both.
pub(super) fn read(config: &Fields<'_>) -> Result<Rotary, ConfigError> {
    let older = config.object("rope_scaling")?;
    let newer = config.object("rope_parameters")?;
    let scaling = |object: &Option<Fields<'_>>| match object {
        Some(object) => read_scaling(object),
        None => Ok(RotaryScaling::None),
    };
    let (older_scaling, newer_scaling) = (scaling(&older)?, scaling(&newer)?);
    if older.is_some() && newer.is_some() && older_scaling != newer_scaling {
        return Err(config.wrong("rope_scaling", "the same as in rope_parameters"));
    }
    Ok(Rotary {
        theta: read_theta(config, newer.as_ref().or(older.as_ref()))?,
        scaling: newer.map_or(older_scaling, |_| newer_scaling),
    })
}

/// The base: within the object, or beside it.
fn read_theta(config: &Fields<'_>, object: Option<&Fields<'_>>) -> Result<f64, ConfigError> {
    let beside = config.positive("rope_theta")?;
    let within = object.map(|object| object.positive("rope_theta"));
    match (within.transpose()?.flatten(), beside) {
        (Some(within), Some(beside)) if within != beside => {
            Err(config.wrong("rope_theta", format!("{within}, as in rope_parameters")))
        }
        (within, beside) => Ok(within.or(beside).unwrap_or(ROPE_THETA)),
    }
}

fn read_scaling(object: &Fields<'_>) -> Result<RotaryScaling, ConfigError> {
    let (field, rope_type) = read_type(object)?;
    let (scaling, known): (_, &[&str]) = match rope_type {
        "default" => (RotaryScaling::None, &[]),
        "linear" => (
            RotaryScaling::Linear {
                factor: object.required_positive("factor")?,
            },
            &["factor"],
        ),
        "llama3" => (read_llama3(object)?, &LLAMA3_FIELDS),
        _ => return Err(object.wrong(field, TYPES)),
    };
    refuse_others(object, rope_type, known)?;
    Ok(scaling)
}

/// The type, and which of its two names it has.
fn read_type<'a>(object: &Fields<'a>) -> Result<(&'static str, &'a str), ConfigError> {
    let (newer, older) = (object.text("rope_type")?, object.text("type")?);
    match (newer, older) {
        (Some(newer), Some(older)) if newer != older => {
            Err(object.wrong("type", format!("{newer:?}, as in rope_type")))
        }
        (Some(newer), _) => Ok(("rope_type", newer)),
        (None, Some(older)) => Ok(("type", older)),
        // A file with nothing but the base has no scaling.
        (None, None) if object.names().all(|name| name == "rope_theta") => {
            Ok(("rope_type", "default"))
        }
        (None, None) => Err(object.missing("rope_type", TYPES)),
    }
}

const LLAMA3_FIELDS: [&str; 4] = [
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
];

fn read_llama3(object: &Fields<'_>) -> Result<RotaryScaling, ConfigError> {
    let [factor, low, high, original] = LLAMA3_FIELDS.map(|name| object.required_positive(name));
    let (low_freq_factor, high_freq_factor) = (low?, high?);
    if low_freq_factor >= high_freq_factor {
        let expected = format!("more than low_freq_factor, which is {low_freq_factor}");
        return Err(object.wrong("high_freq_factor", expected));
    }
    Ok(RotaryScaling::Llama3 {
        factor: factor?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: original?,
    })
}

/// Whatever else is in the object would change the frequencies.
fn refuse_others(object: &Fields<'_>, rope_type: &str, known: &[&str]) -> Result<(), ConfigError> {
    for name in object.names() {
        let is_known = known.contains(&name) || ["rope_type", "type", "rope_theta"].contains(&name);
        let is_whole = name == "partial_rotary_factor" && object.positive(name)? == Some(1.0);
        if !is_known && !is_whole {
            let expected = format!("nothing, as {rope_type:?} embeddings have no such field");
            return Err(object.wrong(name, expected));
        }
    }
    Ok(())
}
