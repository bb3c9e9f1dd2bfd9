//! `[gpu_pool]`: the GPUs that all deployments of a file share, and when none can be had.

use super::account::gpu_counts;
use super::decode;
use super::distribution::seconds;
use super::node::Value;
use super::problem::Problem;
use super::reader::{Field, Reader};
use crate::scenario::{GpuPool, GpuStock, RandomStockOuts, Scenario, StockOut, StockOuts};

/// Least mean time from the end of a random stock-out to the next (s). At none at
/// all, nothing else would ever happen.
const EVERY_S_MIN: f64 = 1.0;

/// The pool; `None` if the file has none.
pub(super) fn decode(root: &Reader<'_>, deployments: &[Scenario]) -> Option<GpuPool> {
    if !root.has("gpu_pool") {
        return None;
    }
    let reader = root.table("gpu_pool");
    let sizes = sizes(reader.table("gpus"));
    let fixed = reader
        .optional("stock_outs", stock_outs)
        .value
        .unwrap_or_default();
    let random = random(&reader);
    reader.finish();
    let mut kinds: Vec<GpuStock> = Vec::new();
    for scenario in deployments {
        let gpu = &scenario.deployment.gpu;
        if kinds.iter().any(|kind| kind.gpu == *gpu) {
            continue;
        }
        let size = sizes.iter().find(|size| size.gpu == *gpu);
        kinds.push(size.cloned().unwrap_or(GpuStock {
            gpu: gpu.clone(),
            gpus: None,
        }));
    }
    let pool = GpuPool {
        kinds,
        stock_outs: StockOuts { fixed, random },
    };
    check_beginning(root, &pool, deployments);
    Some(pool)
}

/// `[gpu_pool.gpus]`: a GPU a key.
fn sizes(reader: Reader<'_>) -> Vec<GpuStock> {
    let sizes = gpu_counts(&reader).into_iter().map(|(gpu, gpus)| GpuStock {
        gpu: gpu.name.to_owned(),
        gpus: Some(gpus),
    });
    sizes.collect()
}

/// `[{ at = "1h", lasts = "20m" }, …]`, in order of time.
fn stock_outs(field: Field<'_>) -> Result<Vec<StockOut>, Problem> {
    const EXAMPLE: &str = "for example `stock_outs = [{ at = \"1h\", lasts = \"20m\" }]`";
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of stock-outs").help(EXAMPLE));
    };
    let mut stock_outs: Vec<StockOut> = Vec::with_capacity(items.len());
    for item in items {
        let reader = Field {
            node: item,
            ..field
        }
        .reader()?;
        let at = reader.required("at", "\"1h\"", decode::duration);
        let lasts = reader.required("lasts", "\"20m\"", decode::duration);
        reader.finish();
        let (Some(begin), Some(lasts)) = (at.value, lasts.value) else {
            continue;
        };
        if stock_outs.last().is_some_and(|before| before.at >= begin) {
            let message = "stock-outs must be in order of time";
            return Err(Problem::new("scenario::stock_outs", message)
                .at_if_written(at.place, "not after the one before it")
                .help("sort them by `at`"));
        }
        stock_outs.push(StockOut { at: begin, lasts });
    }
    Ok(stock_outs)
}

/// `[gpu_pool.random_stock_outs]`: from one to the next, and how long each lasts.
fn random(pool: &Reader<'_>) -> Option<RandomStockOuts> {
    if !pool.has("random_stock_outs") {
        return None;
    }
    let reader = pool.table("random_stock_outs");
    let every_s = reader.required("every", "{ exponential = { mean = 14400 } }", |field| {
        let every_s = seconds(field)?;
        if every_s.mean() < EVERY_S_MIN {
            let message = "is too short: stock-outs would follow one another without end";
            return Err(field
                .problem("scenario::stock_outs", message, "less than 1 s in the mean")
                .help("write a mean of at least 1 s"));
        }
        Ok(every_s)
    });
    let lasts_s = reader.required("lasts", "{ exponential = { mean = 600 } }", seconds);
    reader.finish();
    Some(RandomStockOuts {
        every_s: every_s.value?,
        lasts_s: lasts_s.value?,
    })
}

/// The replicas that are there when a run begins have their GPUs already.
fn check_beginning(root: &Reader<'_>, pool: &GpuPool, deployments: &[Scenario]) {
    for kind in &pool.kinds {
        let Some(size) = kind.gpus else { continue };
        let on_it = deployments
            .iter()
            .map(|scenario| &scenario.deployment)
            .filter(|deployment| deployment.gpu == kind.gpu);
        let needed: u64 = on_it
            .map(|d| u64::from(d.initial_replica_count) * u64::from(d.world_size))
            .sum();
        if needed > u64::from(size) {
            let message = format!(
                "the pool has {size} {}, and the run begins with replicas on {needed}",
                kind.gpu
            );
            let problem = Problem::new("scenario::gpu_pool", message)
                .at_if_written(root.key_place("gpu_pool"), "too few")
                .help(format!(
                    "give the pool at least {needed}, or lower `initial_replica_count`"
                ));
            root.context.report(problem);
        }
    }
}
