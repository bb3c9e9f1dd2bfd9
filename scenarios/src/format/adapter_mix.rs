//! `[workload.adapters]`: which adapters the requests of a source ask for that
//! does not say.

use super::decode;
use super::node::Value;
use super::problem::Problem;
use super::reader::{Field, Reader, suggestion};
use crate::scenario::Adapter;
use crate::workload::AdapterMix;

/// The table; `None` if it is not there. `deployed` are the adapters that can
/// be asked for, if that is known.
pub(super) fn decode(workload: &Reader<'_>, deployed: Option<&[Adapter]>) -> Option<AdapterMix> {
    let place = workload.key_place("adapters");
    let reader = workload.table("adapters");
    let base_share = reader
        .setting("base_share", 0.0, |field| {
            decode::number_between(field, 0.0, 1.0)
        })
        .value;
    let shares = reader.optional("shares", |field| match deployed {
        Some(deployed) => adapter_shares(field, deployed).map(Some),
        None => Ok(None),
    });
    // Popularity seldom falls faster than with the square of the rank.
    let zipf = reader.setting("zipf", 0.0, |field| {
        decode::number_between(field, 0.0, 10.0)
    });
    if let (Some(shares), Some(zipf)) = (shares.place, zipf.place) {
        let problem = Problem::new("scenario::adapters", "adapters are chosen in one way")
            .at(shares, "by shares")
            .at(zipf, "by Zipf's law")
            .help("keep `shares` or `zipf`");
        reader.context.report(problem);
    }
    reader.finish();
    let (place, deployed) = (place?, deployed?);
    if deployed.is_empty() {
        let problem = Problem::new("scenario::adapters", "no adapter is deployed")
            .at(place, "requests would ask for some")
            .help("for example `[adapters]` with `count = 40`, or remove `[workload.adapters]`");
        workload.context.report(problem);
        return None;
    }
    Some(match shares.value.flatten() {
        Some(weights) => AdapterMix {
            base_share,
            weights,
            zipf: None,
        },
        None => AdapterMix::zipf(deployed.len() as u32, zipf.value, base_share),
    })
}

/// `[["sql", 3], ["legal", 1]]`: adapters and their weights.
fn adapter_shares(field: Field<'_>, deployed: &[Adapter]) -> Result<Vec<(u32, f64)>, Problem> {
    const EXAMPLE: &str = "for example `shares = [[\"sql\", 3], [\"legal\", 1]]`: name and weight";
    let wrong = |field: Field<'_>| field.wrong_type("a list of [name, weight]").help(EXAMPLE);
    let Value::Array(rows) = &field.node.value else {
        return Err(wrong(field));
    };
    let mut weights = Vec::with_capacity(rows.len());
    for row in rows {
        let Value::Array(pair) = &row.value else {
            return Err(wrong(Field { node: row, ..field }));
        };
        let [name, weight] = pair.as_slice() else {
            return Err(wrong(Field { node: row, ..field }));
        };
        let place = adapter_named(
            Field {
                node: name,
                ..field
            },
            deployed,
        )?;
        let weight = decode::non_negative_number(Field {
            node: weight,
            ..field
        })?;
        weights.push((place, weight));
    }
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    if total > 0.0 && total.is_finite() {
        return Ok(weights);
    }
    Err(field
        .problem(
            "scenario::adapters",
            "needs a weight above 0",
            "the weights add up to 0",
        )
        .help(EXAMPLE))
}

/// The place of a deployed adapter.
fn adapter_named(field: Field<'_>, deployed: &[Adapter]) -> Result<u32, Problem> {
    let written = decode::text(field)?;
    let place = deployed.iter().position(|adapter| adapter.name == written);
    place.map(|place| place as u32).ok_or_else(|| {
        let names = deployed
            .iter()
            .map(|adapter| adapter.name.as_str())
            .take(20);
        field
            .problem(
                "scenario::unknown_name",
                "names an adapter that is not deployed",
                "not in `[adapters]`",
            )
            .help(suggestion(&written, names, "deployed are"))
    })
}
