//! The top level of a scenario file.

use super::decode;
use super::deployment;
use super::node::Table;
use super::objectives;
use super::problem::{Context, Place, Problem};
use super::reader::{Field, Reader};
use super::workload;
use crate::scenario::Scenario;

/// The scenario of a tree; `None` if there are problems, which are then in the context.
pub(super) fn decode(
    context: &Context,
    root: &Table,
    place: Place,
    stem: &str,
) -> Option<Scenario> {
    let reader = Reader::root(context, root, place);
    let name = reader.setting("name", stem.to_owned(), name).value;
    let description = reader
        .setting("description", String::new(), decode::text)
        .value;
    let seed = reader.setting("seed", 1, decode::integer).value;
    let deployment = deployment::decode(&reader);
    let workload = workload::decode(&reader);
    let objectives = objectives::decode(&reader.table("objectives"));
    reader.finish();
    if context.has_problems() {
        return None;
    }
    Some(Scenario {
        name,
        description,
        seed,
        deployment: deployment?,
        workload: workload?,
        objectives,
        gpu_pool: None,
    })
}

/// A name stands in titles and in file names, so it is one line and no path.
fn name(field: Field<'_>) -> Result<String, Problem> {
    let name = decode::text(field)?;
    let is_plain = |c: char| !c.is_control() && c != '/' && c != '\\';
    if !name.trim().is_empty() && name.chars().all(is_plain) {
        return Ok(name);
    }
    Err(field
        .problem(
            "scenario::name",
            "must be a short name",
            "empty, or with a slash or a line end",
        )
        .help("for example `name = \"chat\"`"))
}
