//! `[cold_start]`: how long a replica takes to start.

use foresail_core::time::seconds;

use super::decode;
use super::distribution::distribution;
use super::node::Value;
use super::problem::Problem;
use super::reader::{Field, Reader};
use crate::catalogue::cold_starts;
use crate::distribution::Distribution;
use crate::scenario::{ColdStart, ColdStartOutcome, ColdStartPhase, ColdStartStage};

const PHASES: [(&str, ColdStartPhase); 3] = [
    ("pending", ColdStartPhase::Pending),
    ("downloading", ColdStartPhase::Downloading),
    ("initialising", ColdStartPhase::Initialising),
];

/// The table; the preset depends on the model's weights (bytes) and the world size.
pub(super) fn decode(reader: Reader<'_>, weight_bytes: u64, world_size: u32) -> ColdStart {
    let preset = reader.optional("preset", decode::choice(&[("default", ())]));
    let total = reader.optional("total", decode::duration);
    let stages = reader.optional("stages", stages);
    let written: Vec<_> = [preset.place, total.place, stages.place]
        .into_iter()
        .flatten()
        .collect();
    if let [first, second, ..] = written[..] {
        let problem = Problem::new(
            "scenario::cold_start",
            "a cold start is described in one way",
        )
        .at(first, "one")
        .at(second, "and another")
        .help("keep one of `preset`, `total` and `stages`");
        reader.context.report(problem);
    }
    reader.finish();
    let stages = match (total.value, stages.value) {
        (Some(total), _) => vec![single_stage(seconds(total))],
        (None, Some(stages)) => stages,
        (None, None) => cold_starts::default_stages(weight_bytes, world_size),
    };
    ColdStart { stages }
}

fn single_stage(seconds: f64) -> ColdStartStage {
    ColdStartStage {
        name: "start".to_owned(),
        phase: ColdStartPhase::Initialising,
        outcomes: vec![ColdStartOutcome {
            probability: 1.0,
            seconds: Distribution::Fixed { value: seconds },
        }],
    }
}

/// `[[cold_start.stages]]`.
fn stages(field: Field<'_>) -> Result<Vec<ColdStartStage>, Problem> {
    const EXAMPLE: &str =
        "for example `stages = [{ name = \"weights\", phase = \"downloading\", seconds = 20 }]`";
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of stages").help(EXAMPLE));
    };
    items
        .iter()
        .map(|node| stage(Field { node, ..field }))
        .collect()
}

fn stage(field: Field<'_>) -> Result<ColdStartStage, Problem> {
    let reader = field.reader()?;
    let name = reader
        .required("name", "\"weights\"", decode::text)
        .value
        .unwrap_or_default();
    let phase = reader
        .setting(
            "phase",
            ColdStartPhase::Initialising,
            decode::choice(&PHASES),
        )
        .value;
    let seconds = reader.optional("seconds", distribution);
    let outcomes = reader.optional("outcomes", outcomes);
    let place = reader.place_or_start();
    reader.finish();
    let outcomes = match (seconds.value, outcomes.value) {
        (Some(seconds), None) => vec![ColdStartOutcome {
            probability: 1.0,
            seconds,
        }],
        (None, Some(outcomes)) => outcomes,
        // What was written and is wrong has been reported.
        (None, None) if !(seconds.is_sound && outcomes.is_sound) => Vec::new(),
        _ => {
            let message = "a stage has either `seconds` or `outcomes`";
            return Err(Problem::new("scenario::cold_start", message)
                .at(place, "it has both, or neither")
                .help("for example `seconds = { log_normal = { median = 12, cv = 0.3 } }`"));
        }
    };
    Ok(ColdStartStage {
        name,
        phase,
        outcomes,
    })
}

/// `[{ probability = 0.8, seconds = 8 }, …]`; the probabilities add up to 1.
fn outcomes(field: Field<'_>) -> Result<Vec<ColdStartOutcome>, Problem> {
    const EXAMPLE: &str = "for example `outcomes = [{ probability = 0.8, seconds = 8 }, \
                           { probability = 0.2, seconds = 40 }]`";
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of outcomes").help(EXAMPLE));
    };
    let mut outcomes = Vec::with_capacity(items.len());
    for node in items {
        let reader = Field { node, ..field }.reader()?;
        let probability = reader.required("probability", "0.8", decode::share);
        let seconds = reader.required("seconds", "8", distribution);
        reader.finish();
        if let (Some(probability), Some(seconds)) = (probability.value, seconds.value) {
            outcomes.push(ColdStartOutcome {
                probability,
                seconds,
            });
        }
    }
    let sum: f64 = outcomes.iter().map(|outcome| outcome.probability).sum();
    // Decimal shares such as 0.1 and 0.2 do not add up exactly in binary.
    if outcomes.len() == items.len() && (sum - 1.0).abs() > 1e-9 {
        return Err(field
            .problem(
                "scenario::cold_start",
                "must have probabilities that add up to 1",
                &format!("they add up to {sum}"),
            )
            .help(EXAMPLE));
    }
    Ok(outcomes)
}
