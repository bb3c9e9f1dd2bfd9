//! The top level of a scenario file: one deployment, or a list of several.

use super::account::{self, Written};
use super::clients;
use super::decode;
use super::deployment;
use super::gpu_pool;
use super::node::{Node, Table, Value};
use super::objectives;
use super::operations;
use super::problem::{Context, Place, Problem};
use super::reader::{Field, Reader};
use super::workload;
use crate::scenario::{Group, Scenario};

/// The tables of one deployment. In a file with several, each has its own.
const OF_ONE_DEPLOYMENT: [&str; 13] = [
    "deployment",
    "autoscaler",
    "router",
    "batching",
    "adapters",
    "step_time",
    "cold_start",
    "failures",
    "price",
    "workload",
    "clients",
    "objectives",
    "operations",
];

/// What the file says as a whole.
struct Title {
    name: String,
    description: String,
    seed: u64,
}

/// The deployments of a tree; `None` if there are problems, which are then in the context.
pub(super) fn decode(context: &Context, root: &Table, place: Place, stem: &str) -> Option<Group> {
    let reader = Reader::root(context, root, place);
    let title = title(&reader, stem);
    let is_list = reader.has("deployments");
    let account = account::decode(&reader);
    let found = if is_list {
        several(&reader, &title, &account)
    } else {
        one(&reader, root, &title, &account).into_iter().collect()
    };
    let gpus: Vec<_> = found.iter().map(|(_, gpu)| *gpu).collect();
    let mut deployments: Vec<_> = found.into_iter().map(|(scenario, _)| scenario).collect();
    account::check(&reader, &account, &deployments, &gpus);
    let pool = gpu_pool::decode(&reader, &deployments);
    reader.finish();
    if context.has_problems() {
        return None;
    }
    for deployment in &mut deployments {
        deployment.gpu_pool.clone_from(&pool);
    }
    Some(Group {
        name: title.name,
        description: title.description,
        seed: title.seed,
        deployments,
        is_list,
    })
}

fn title(reader: &Reader<'_>, stem: &str) -> Title {
    Title {
        name: reader.setting("name", stem.to_owned(), name).value,
        description: reader
            .setting("description", String::new(), decode::text)
            .value,
        seed: reader.setting("seed", 1, decode::integer).value,
    }
}

/// One deployment with its traffic, and where its GPU is written; `None` if a
/// part is missing, which has then been reported. `table` is what `reader` reads.
fn one(
    reader: &Reader<'_>,
    table: &Table,
    title: &Title,
    account: &Written,
) -> Option<(Scenario, Option<Place>)> {
    let deployment = deployment::decode(reader);
    let deployed = match (&deployment, reader.has("adapters")) {
        (Some(_), false) => Some(&[][..]),
        (Some(deployment), true) => {
            (deployment.adapters.as_ref()).map(|adapters| &*adapters.deployed)
        }
        (None, _) => None,
    };
    let workload = workload::decode(reader, deployed);
    let clients = clients::decode(reader.table("clients"));
    let objectives = objectives::decode(&reader.table("objectives"));
    reader.has("operations");
    let deployment = deployment?;
    let operations = operations::decode(reader, table, &deployment);
    let scenario = Scenario {
        name: title.name.clone(),
        description: title.description.clone(),
        seed: title.seed,
        deployment,
        workload: workload?,
        clients,
        objectives,
        gpu_pool: None,
        account: account.account.clone(),
        operations: operations.operations,
        other_world_sizes: operations.other_world_sizes,
    };
    Some((scenario, reader.table("deployment").value_place("gpu")))
}

/// `[[deployments]]`: each has a name, and the tables of a whole scenario.
fn several(root: &Reader<'_>, title: &Title, account: &Written) -> Vec<(Scenario, Option<Place>)> {
    root.unused(
        &OF_ONE_DEPLOYMENT,
        "beside `[[deployments]]`, each of which has its own",
    );
    let items = root.optional("deployments", tables).value;
    let mut scenarios = Vec::new();
    let mut names: Vec<(String, Option<Place>)> = Vec::new();
    for item in items.unwrap_or_default() {
        let field = Field {
            context: root.context,
            node: &item,
            path: "deployments",
        };
        let (reader, table) = match (field.reader(), &item.value) {
            (Ok(reader), Value::Table(table)) => (reader, table),
            (Ok(_), _) => continue,
            (Err(problem), _) => {
                root.context.report(problem);
                continue;
            }
        };
        let called = reader.required("name", "\"chat\"", name);
        let description = reader.setting("description", String::new(), decode::text);
        let its_name = called.value.unwrap_or_default();
        if let Some((_, place)) = names.iter().find(|(other, _)| *other == its_name)
            && called.is_sound
        {
            let message = format!("two deployments are called `{its_name}`");
            let problem = Problem::new("scenario::deployments", message)
                .at_if_written(called.place, "the second")
                .at_if_written(*place, "the first")
                .help("give each a name of its own");
            root.context.report(problem);
        }
        let title = Title {
            name: its_name.clone(),
            description: description.value,
            seed: title.seed,
        };
        scenarios.extend(one(&reader, table, &title, account));
        reader.finish();
        names.push((its_name, called.place));
    }
    scenarios
}

/// A list of at least one table.
fn tables(field: Field<'_>) -> Result<Vec<Node>, Problem> {
    match &field.node.value {
        Value::Array(items) if !items.is_empty() => Ok(items.clone()),
        _ => Err(field
            .wrong_type("a list of deployments")
            .help("begin each with a line `[[deployments]]`")),
    }
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
