//! `[account]`: whose the deployments are, what they may use and spend; and
//! what the provider says to that.

use foresail_core::control::lifecycle::{AccountId, GpuKind, LifecycleError, Tier};

use super::decode;
use super::problem::{Place, Problem};
use super::reader::{Field, Reader, Setting, suggestion};
use crate::catalogue::gpus;
use crate::provider::{Provider, default_account};
use crate::scenario::{Account, Scenario};

const TIERS: [(&str, Tier); 3] = [
    ("developer", Tier::Developer),
    ("business", Tier::Business),
    ("enterprise", Tier::Enterprise),
];

/// The account, and where what limits it is written.
pub(super) struct Written {
    pub(super) account: Account,
    tier: Option<Place>,
    spend_limit: Option<Place>,
    gpu_quota: Option<Place>,
}

pub(super) fn decode(root: &Reader<'_>) -> Written {
    let reader = root.table("account");
    let id = reader.setting("id", default_account(), account_id).value;
    let tier: Setting<Option<Tier>> = reader.setting("tier", None, |field| {
        decode::choice(&TIERS)(field).map(Some)
    });
    let spend_limit = reader
        .optional("spend_limit_usd", decode::nanodollars)
        .value
        .map(u128::from);
    let spend_limit_place = reader.value_place("spend_limit_usd");
    let quota_place = reader.key_place("gpu_quota");
    let gpu_quota = quota(reader.table("gpu_quota"));
    reader.finish();
    Written {
        account: Account {
            id,
            tier: tier.value,
            spend_limit_nanodollars: spend_limit,
            gpu_quota,
        },
        tier: tier.place,
        spend_limit: spend_limit_place,
        gpu_quota: quota_place,
    }
}

fn account_id(field: Field<'_>) -> Result<AccountId, Problem> {
    let text = decode::text(field)?;
    text.parse().map_err(|_| {
        field
            .problem("scenario::account", "must be an id", "this is not one")
            .help("write lower-case letters, digits, `-` and `.`")
    })
}

/// `[account.gpu_quota]`: a GPU a key.
fn quota(reader: Reader<'_>) -> Vec<(GpuKind, u32)> {
    let mut quota = Vec::new();
    for (gpu, gpus) in gpu_counts(&reader) {
        quota.push((gpu.kind, gpus));
    }
    quota
}

/// How many of each kind of GPU a table says.
pub(super) fn gpu_counts(reader: &Reader<'_>) -> Vec<(&'static gpus::GpuEntry, u32)> {
    let mut counts = Vec::new();
    for entry in reader.entries() {
        let path = reader.path_of(&entry.key);
        let field = Field {
            context: reader.context,
            node: &entry.node,
            path: &path,
        };
        let Some(gpu) = gpus::find(&entry.key) else {
            let names = gpus::GPUS.iter().map(|gpu| gpu.name);
            let message = format!("unknown GPU `{}`", entry.key);
            let problem = Problem::new("scenario::gpu", message)
                .at(entry.key_place, "not in the catalogue")
                .help(suggestion(&entry.key, names, "the GPUs are"));
            reader.context.report(problem);
            continue;
        };
        match decode::integer(field) {
            Ok(gpus) => counts.push((gpu, gpus)),
            Err(problem) => reader.context.report(problem),
        }
    }
    counts
}

/// What the provider says when the deployments are created. `gpus` are the
/// places of the GPUs that they ask for.
pub(super) fn check(
    root: &Reader<'_>,
    written: &Written,
    scenarios: &[Scenario],
    gpus: &[Option<Place>],
) {
    // What was found wrong already would be said twice.
    if root.context.has_problems() {
        return;
    }
    let scenarios: Vec<_> = scenarios.iter().collect();
    let Err((index, error)) = Provider::new(&scenarios) else {
        return;
    };
    let gpu = gpus.get(index).copied().flatten();
    let problem = Problem::new("scenario::account", error.to_string());
    let problem = match error {
        LifecycleError::TierMayNotUse { .. } => problem
            .at_if_written(gpu, "on this GPU")
            .at_if_written(written.tier, "of this tier"),
        LifecycleError::SpendLimitReached { .. } => {
            problem.at_if_written(written.spend_limit, "nothing may be spent")
        }
        _ => problem
            .at_if_written(written.gpu_quota, "the quota of the account")
            .at_if_written(gpu, "on this GPU"),
    };
    root.context.report(problem);
}
