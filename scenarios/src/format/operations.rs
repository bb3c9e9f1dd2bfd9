//! `[[operations]]`: what is done to a deployment while it runs.

use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_core::control::lifecycle::{DeploymentSpec, Settings};

use super::decode;
use super::deployment;
use super::node::{Entry, Node, Table, Value};
use super::problem::{Context, Place, Problem};
use super::reader::{Field, Reader};
use crate::scenario::{Action, Deployment, Operation};

/// The operations of a deployment, and what they need to be carried out.
#[derive(Default)]
pub(super) struct Operations {
    pub(super) operations: Vec<Operation>,
    /// The deployment at each other world size that an update asks for.
    pub(super) other_world_sizes: Vec<Deployment>,
}

/// An operation, and where its parts are written.
struct Written {
    operation: Operation,
    at: Option<Place>,
    action: Option<Place>,
    world_size: Option<(u32, Node)>,
}

/// `root` are the tables of the deployment, as text and decoded.
pub(super) fn decode(root: &Reader<'_>, table: &Table, deployment: &Deployment) -> Operations {
    let written = root.optional("operations", operations).value;
    let written = written.unwrap_or_default();
    check_policy(root, &written, deployment);
    check_settings(root, &written, &deployment.spec);
    let mut other_world_sizes: Vec<Deployment> = Vec::new();
    for (world_size, node) in written.iter().filter_map(|each| each.world_size.as_ref()) {
        let known = |other: &Deployment| other.world_size == *world_size;
        if known(deployment) || other_world_sizes.iter().any(known) {
            continue;
        }
        let other = at_world_size(root.context, table, node.clone());
        other_world_sizes.extend(other);
    }
    Operations {
        operations: written.iter().map(|each| each.operation).collect(),
        other_world_sizes,
    }
}

/// The deployment of the same tables but for its world size.
fn at_world_size(context: &Context, table: &Table, world_size: Node) -> Option<Deployment> {
    let mut table = table.clone();
    let place = world_size.place;
    if let Value::Table(deployment) = &mut table.entry_or_table("deployment", place).node.value {
        deployment.put(Entry {
            key: "world_size".to_owned(),
            key_place: place,
            node: world_size,
        });
    }
    deployment::decode(&Reader::root(context, &table, place))
}

/// `[{ at = "1h", update = { scale_up_window = "10s" } }, …]`, in order of time.
fn operations(field: Field<'_>) -> Result<Vec<Written>, Problem> {
    const EXAMPLE: &str = "for example `operations = [{ at = \"1h\", scale = 3 }]`";
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of operations").help(EXAMPLE));
    };
    let mut operations: Vec<Written> = Vec::with_capacity(items.len());
    for item in items {
        let item = Field {
            node: item,
            ..field
        };
        let Some(written) = operation(item)? else {
            continue;
        };
        let is_late = |before: &Written| before.operation.at > written.operation.at;
        if operations.last().is_some_and(is_late) {
            let message = "operations must be in order of time";
            return Err(Problem::new("scenario::operations", message)
                .at_if_written(written.at, "before the one before it")
                .help("sort the operations by `at`"));
        }
        operations.push(written);
    }
    Ok(operations)
}

/// One operation; `None` if it has been reported.
fn operation(field: Field<'_>) -> Result<Option<Written>, Problem> {
    let reader = field.reader()?;
    let at = reader.required("at", "\"1h\"", decode::duration);
    let mut world_size = None;
    let update = reader.optional("update", |field| {
        let (settings, other) = settings(field)?;
        world_size = other;
        Ok(Action::Update(settings))
    });
    let scale = reader.optional("scale", |field| {
        decode::integer_between(field, 0, 1000).map(Action::Scale)
    });
    let delete = reader.optional("delete", |field| only_true(field, Action::Delete));
    let undelete = reader.optional("undelete", |field| only_true(field, Action::Undelete));
    let place = reader.place_or_start();
    reader.finish();
    let actions = [update, scale, delete, undelete];
    if actions.iter().any(|action| !action.is_sound) || !at.is_sound {
        return Ok(None);
    }
    let mut written = actions.iter().filter(|action| action.is_written());
    let (Some(action), None) = (written.next(), written.next()) else {
        let message = "an operation does one thing";
        return Err(Problem::new("scenario::operations", message)
            .at(place, "this does none, or several")
            .help("write one of `update`, `scale`, `delete` and `undelete`"));
    };
    Ok(at.value.zip(action.value).map(|(time, what)| Written {
        operation: Operation {
            at: time,
            action: what,
        },
        at: at.place,
        action: action.place,
        world_size,
    }))
}

fn only_true(field: Field<'_>, action: Action) -> Result<Action, Problem> {
    if decode::boolean(field)? {
        return Ok(action);
    }
    Err(field
        .problem(
            "scenario::operations",
            "can only be `true`",
            "this is `false`",
        )
        .help("leave the operation out"))
}

/// What an update changes, and the world size as it is written.
fn settings(field: Field<'_>) -> Result<(Settings, Option<(u32, Node)>), Problem> {
    let reader = field.reader()?;
    let world_size = reader.optional("world_size", |field| {
        let world_size: u32 = decode::positive_integer(field)?;
        Ok((world_size, field.node.clone()))
    });
    let count = |key| reader.optional(key, decode::integer).value;
    let span = |key| {
        let duration = reader.optional(key, decode::duration).value;
        // It was read from 63 bits.
        duration.map(|nanos| nanos as i64)
    };
    let settings = Settings {
        world_size: world_size.value.as_ref().map(|(world_size, _)| *world_size),
        min_replica_count: count("min_replica_count"),
        max_replica_count: count("max_replica_count"),
        scale_up_window: span("scale_up_window"),
        scale_down_window: span("scale_down_window"),
        scale_to_zero_window: span("scale_to_zero_window"),
        unused_auto_delete_duration: span("unused_auto_delete_duration"),
    };
    if reader.entries().is_empty() {
        return Err(field
            .problem("scenario::operations", "changes nothing", "no setting")
            .help("for example `update = { scale_up_window = \"10s\" }`"));
    }
    reader.finish();
    Ok((settings, world_size.value))
}

/// Windows and counts are those of the policy `fireworks`; others follow their own parameters.
fn check_policy(root: &Reader<'_>, written: &[Written], deployment: &Deployment) {
    if matches!(deployment.autoscaler, AutoscalerConfig::Fireworks(_)) {
        return;
    }
    for each in written {
        let problem = Problem::new(
            "scenario::operations",
            "only a deployment with the policy `fireworks` can be changed while it runs",
        )
        .at_if_written(each.action, "this would have no effect")
        .help("remove the operations, or the `policy`");
        if each.operation.action != Action::Delete {
            root.context.report(problem);
        }
    }
}

/// What the provider will say to the settings, one update after the other.
fn check_settings(root: &Reader<'_>, written: &[Written], spec: &DeploymentSpec) {
    let mut settings = spec.settings;
    for each in written {
        let updated = match each.operation.action {
            Action::Update(update) => settings.updated(update),
            Action::Scale(replicas) => {
                check_scale(root, each, replicas, &settings, spec);
                continue;
            }
            Action::Delete | Action::Undelete => continue,
        };
        match updated.resolve(spec.profile, 1) {
            Ok(_) => settings = updated,
            Err(error) => {
                let problem = Problem::new("scenario::operations", error.to_string())
                    .at_if_written(each.action, "after this update")
                    .help("the settings of an update add to those before it");
                root.context.report(problem);
            }
        }
    }
}

/// Whether the limits of that moment allow so many replicas.
fn check_scale(
    root: &Reader<'_>,
    written: &Written,
    replicas: u32,
    settings: &Settings,
    spec: &DeploymentSpec,
) {
    let Ok(resolved) = settings.resolve(spec.profile, 1) else {
        return;
    };
    let limits = resolved.scaling.replicas;
    if limits.nearest(replicas) != replicas {
        let message = format!("`scale` must be {} to {}", limits.min, limits.max);
        let problem = Problem::new("scenario::operations", message)
            .at_if_written(written.action, "outside the limits of that moment")
            .help("update `min_replica_count` or `max_replica_count` before it");
        root.context.report(problem);
    }
}
