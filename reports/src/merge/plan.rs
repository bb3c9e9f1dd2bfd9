//! Whether shards are of one run.

use super::{MergeError, Source};
use crate::summary::{Load, Measured, Shard, Summary};

/// The shard that a summary is of. Only summaries of shards get here.
pub(super) fn shard(summary: &Summary) -> &Shard {
    let shard = measured(summary).shard.as_ref();
    shard.expect("sources are shards: that is checked when they are read")
}

/// How it was measured. Only summaries of measured runs get here.
pub(super) fn measured(summary: &Summary) -> &Measured {
    let measured = summary.measured.as_deref();
    measured.expect("sources were measured: that is checked when they are read")
}

/// Refuses what is not of one run, and what is there twice.
pub(super) fn check(sources: &[Source]) -> Result<(), MergeError> {
    let Some((first, others)) = sources.split_first() else {
        return Err(MergeError::Nothing);
    };
    for other in others {
        if let Some(what) = difference(&first.summary, &other.summary) {
            return Err(MergeError::NotAlike {
                first: first.folder.clone(),
                other: other.folder.clone(),
                what,
            });
        }
    }
    for (index, other) in sources.iter().enumerate() {
        for earlier in &sources[..index] {
            check_parts(earlier, other)?;
        }
    }
    Ok(())
}

fn difference(first: &Summary, other: &Summary) -> Option<&'static str> {
    let (shard, other_shard) = (shard(first), shard(other));
    let objectives = |summary: &Summary| -> Vec<_> {
        let objectives = summary.objectives.iter();
        objectives
            .map(|objective| (objective.name.clone(), objective.limit))
            .collect()
    };
    let (load, other_load) = (measured(first).load, measured(other).load);
    let differences = [
        ("their plan", shard.plan_digest != other_shard.plan_digest),
        ("how many shards there are", shard.of != other_shard.of),
        ("their seed", first.seed != other.seed),
        ("their scenario", first.scenario != other.scenario),
        ("their objectives", objectives(first) != objectives(other)),
        ("how requests were sent", kind(load) != kind(other_load)),
    ];
    let found = differences.into_iter().find(|(_, differs)| *differs);
    found.map(|(what, _)| what)
}

/// How many each of the shards had in flight may differ: it adds up.
fn kind(load: Load) -> u8 {
    match load {
        Load::Open => 0,
        Load::Capped { .. } => 1,
        Load::Closed { .. } => 2,
    }
}

fn check_parts(first: &Source, other: &Source) -> Result<(), MergeError> {
    let parts = &shard(&first.summary).parts;
    let twice = shard(&other.summary)
        .parts
        .iter()
        .find(|part| parts.contains(part));
    match twice {
        None => Ok(()),
        Some(&part) => Err(MergeError::Twice {
            first: first.folder.clone(),
            other: other.folder.clone(),
            part,
        }),
    }
}
