//! `[adapters]`: the LoRA adapters that are deployed on the model, and what it
//! costs a replica to hold, load and use them.

use foresail_core::step_time::{AdapterOverhead, adapter_bytes_per_rank};
use foresail_core::time::{Nanos, PICOS_PER_NANO, SECOND};

use super::decode;
use super::deployment::{Model, NamedGpu};
use super::engine::Limits;
use super::node::{self, Value};
use super::problem::Problem;
use super::reader::{Field, Reader, Setting};
use crate::catalogue::models;
use crate::drawn::SaidOverheads;
use crate::scenario::{Adapter, Adapters};
use crate::workload::is_adapter_name;

/// The rank of an adapter that does not say: vLLM's default for `max_lora_rank`.
const RANK_DEFAULT: u32 = 16;

/// The largest rank that is accepted, vLLM's `MaxLoRARanks`.
const RANK_MAX: u32 = 512;

/// Adapters of one deployment that are accepted. Each is a name and a few numbers.
const COUNT_MAX: u32 = 1 << 16;

/// Reading an adapter of 1 GB from local storage into a GPU takes 370 ms with
/// Safetensors, and 83.5 ms with a loader made for speed, which would be 12
/// (ServerlessLLM, OSDI '24, its evaluation of LoRA adapters).
const STORAGE_GB_PER_S_DEFAULT: f64 = 2.7;

/// Copying from pinned host memory over PCIe 4.0 x16, of whose 32 GB/s about so
/// much is left for data. Punica loads an adapter that way in about 2 ms
/// (arXiv 2310.18547, section 5.2).
const HOST_GB_PER_S_DEFAULT: f64 = 25.0;

/// The settings, before the memory of a replica is known.
pub(super) struct Settings {
    deployed: Vec<Adapter>,
    slots: u32,
    host_slots: u32,
    storage_bytes_per_s: f64,
    host_bytes_per_s: f64,
    step_overhead: Option<Nanos>,
    adapter_overhead: Option<Nanos>,
}

/// Which overheads the scenario says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub(super) step_overhead: bool,
    pub(super) adapter_overhead: bool,
}

/// Of a processor nothing is known but what was measured or is said.
pub(super) fn check_cpu(root: &Reader<'_>, said: Said, measured: SaidOverheads) {
    let missing = [
        (
            "step_overhead",
            said.step_overhead || measured.adapter_step_is_calibrated,
        ),
        (
            "adapter_overhead",
            said.adapter_overhead || measured.adapter_is_calibrated,
        ),
    ];
    for (key, is_known) in missing {
        if root.has("adapters") && !is_known {
            let message = format!("nobody says `adapters.{key}`");
            let problem = Problem::new("scenario::adapters", message)
                .at_if_written(root.key_place("adapters"), "on a processor")
                .help(format!(
                    "calibrate steps with adapters too, or write `{key}`, such as `{key} = \"1ms\"`"
                ));
            root.context.report(problem);
        }
    }
}

impl Settings {
    /// What all slots of a replica take, each as large as the largest adapter (bytes).
    pub(super) fn slot_bytes(&self) -> u64 {
        self.largest_bytes().saturating_mul(self.slots.into())
    }

    fn largest_bytes(&self) -> u64 {
        let bytes = self.deployed.iter().map(|adapter| adapter.bytes);
        bytes.max().unwrap_or(0)
    }

    /// Adapters in a batch: not more than a replica holds.
    pub(super) fn max_loras(&self, limits: &Limits) -> u32 {
        limits.max_loras.value.min(self.slots)
    }

    pub(super) fn resolve(
        self,
        model: &Model,
        gpu: &NamedGpu,
        world_size: u32,
    ) -> (Adapters, Said) {
        let bytes = adapter_bytes_per_rank(self.largest_bytes(), world_size);
        let default = AdapterOverhead::roofline(&model.shape, &gpu.spec, bytes);
        let picos = |nanos: Nanos| nanos * PICOS_PER_NANO;
        let said = Said {
            step_overhead: self.step_overhead.is_some(),
            adapter_overhead: self.adapter_overhead.is_some(),
        };
        let adapters = Adapters {
            overhead: AdapterOverhead {
                step: self.step_overhead.map_or(default.step, picos),
                adapter: self.adapter_overhead.map_or(default.adapter, picos),
            },
            deployed: self.deployed,
            slots: self.slots,
            host_slots: self.host_slots,
            storage_bytes_per_s: self.storage_bytes_per_s,
            host_bytes_per_s: self.host_bytes_per_s,
        };
        (adapters, said)
    }
}

/// The table; `None` if it is not there, or no adapter could be read. Without a
/// model its keys are read all the same, so that only unknown ones are called so.
pub(super) fn decode(
    root: &Reader<'_>,
    model: &Setting<Option<Model>>,
    limits: &Limits,
) -> Option<Settings> {
    let is_written = root.has("adapters");
    let reader = root.table("adapters");
    let list = reader.optional("list", |field| list(field, model));
    let count = reader.optional("count", |field| {
        decode::integer_between(field, 1, COUNT_MAX)
    });
    let alike = read_size(&reader);
    if is_written {
        check_source(&reader, &list, &count, alike.is_written);
    }
    let deployed = match (list.value, count.value) {
        (Some(list), _) => list,
        (None, count) => (0..count.unwrap_or(0))
            .map(|index| alike.adapter(format!("adapter-{index}"), model))
            .collect(),
    };
    let slots = read_slots(&reader, limits);
    let host_slots = read_host_slots(&reader, &slots);
    let gb_per_s = |key, default| {
        let decode = |field: Field<'_>| decode::number_between(field, 1e-3, 1e6);
        reader.setting(key, default, decode).value * 1e9
    };
    let overhead = |key| {
        let decode = |field: Field<'_>| decode::duration_up_to(field, SECOND);
        reader.optional(key, decode).value
    };
    let settings = Settings {
        deployed,
        slots: slots.value,
        host_slots,
        storage_bytes_per_s: gb_per_s("storage_gb_per_s", STORAGE_GB_PER_S_DEFAULT),
        host_bytes_per_s: gb_per_s("host_gb_per_s", HOST_GB_PER_S_DEFAULT),
        step_overhead: overhead("step_overhead"),
        adapter_overhead: overhead("adapter_overhead"),
    };
    reader.finish();
    (is_written && !settings.deployed.is_empty()).then_some(settings)
}

/// Adapters are listed or counted, not both and not neither.
fn check_source(
    reader: &Reader<'_>,
    list: &Setting<Option<Vec<Adapter>>>,
    count: &Setting<Option<u32>>,
    is_alike_written: bool,
) {
    match (list.place, count.place) {
        (Some(list), Some(count)) => {
            let problem = Problem::new("scenario::adapters", "adapters are given in one way")
                .at(list, "one by one")
                .at(count, "so many alike")
                .help("keep `list` or `count`");
            reader.context.report(problem);
        }
        (Some(_), None) if is_alike_written => {
            let why = "with a `list`, whose adapters have their own";
            reader.unused(&["rank", "size_mib"], why);
        }
        (None, None) => reader.missing("count", "40"),
        _ => {}
    }
}

/// `rank` and `size_mib`.
struct Size {
    rank: u32,
    bytes: Option<u64>,
    is_written: bool,
}

impl Size {
    fn adapter(&self, name: String, model: &Setting<Option<Model>>) -> Adapter {
        let shape = model.value.as_ref().map(|model| &model.shape);
        let bytes = self
            .bytes
            .or(shape.map(|shape| shape.adapter_bytes(self.rank)));
        Adapter {
            name,
            rank: self.rank,
            bytes: bytes.unwrap_or(0),
        }
    }
}

fn read_size(reader: &Reader<'_>) -> Size {
    let rank = reader.setting("rank", RANK_DEFAULT, |field| {
        decode::integer_between(field, 1, RANK_MAX)
    });
    // A TiB is more than any GPU has.
    let size_mib = reader.optional("size_mib", |field| {
        decode::number_between(field, 1e-3, f64::from(1 << 20))
    });
    Size {
        rank: rank.value,
        bytes: size_mib.value.map(|mib| (mib * f64::from(1 << 20)) as u64),
        is_written: rank.is_written() || size_mib.is_written(),
    }
}

/// `[[adapters.list]]`: adapters one by one.
fn list(field: Field<'_>, model: &Setting<Option<Model>>) -> Result<Vec<Adapter>, Problem> {
    const EXAMPLE: &str = "for example `list = [{ name = \"sql\", rank = 16 }]`";
    let items = match &field.node.value {
        Value::Array(items) if !items.is_empty() => items,
        _ => return Err(field.wrong_type("a list of adapters").help(EXAMPLE)),
    };
    let mut adapters: Vec<Adapter> = Vec::with_capacity(items.len());
    let mut are_named = true;
    for node in items {
        let reader = Field { node, ..field }.reader()?;
        let name = reader.required("name", "\"sql\"", adapter_name);
        let base = reader.optional("base", decode::text);
        let size = read_size(&reader);
        check_base(&reader, &base, model);
        reader.finish();
        let (Some(name), Some(place)) = (name.value, name.place) else {
            are_named = false;
            continue;
        };
        if adapters.iter().any(|adapter| adapter.name == name) {
            let message = format!("there are two adapters `{}`", node::shorten(&name));
            let problem = Problem::new("scenario::adapters", message)
                .at(place, "the second")
                .help("requests ask for adapters by name, so each needs its own");
            field.context.report(problem);
        }
        adapters.push(size.adapter(name, model));
    }
    // Half a list would make requests for the others look wrong.
    Ok(if are_named { adapters } else { Vec::new() })
}

/// A deployment's model must be the one that the adapter was trained on.
fn check_base(reader: &Reader<'_>, base: &Setting<Option<String>>, model: &Setting<Option<Model>>) {
    let (Some(written), Some(deployed)) = (&base.value, &model.value) else {
        return;
    };
    let deployed = &deployed.name;
    let is_same = |base: &str| models::find(base).is_some_and(|model| model.name == *deployed);
    if written == deployed || is_same(written) {
        return;
    }
    let written = node::shorten(written);
    let message = format!("an adapter of {written} cannot be deployed on {deployed}");
    let problem = Problem::new("scenario::adapter_base", message)
        .at_if_written(base.place, format!("its base model is {written}"))
        .at_if_written(model.place, format!("the deployment's model is {deployed}"))
        .help("the deployment's model must be the adapter's base model: change one of them");
    reader.context.report(problem);
}

fn adapter_name(field: Field<'_>) -> Result<String, Problem> {
    let name = decode::text(field)?;
    if is_adapter_name(&name) {
        return Ok(name);
    }
    Err(field
        .problem(
            "scenario::name",
            "must be a name that fits a CSV file",
            "empty, or with a comma, a quote or a line end",
        )
        .help("for example `name = \"sql\"`"))
}

/// In vLLM a replica holds just as many adapters as a batch may use.
fn read_slots(reader: &Reader<'_>, limits: &Limits) -> Setting<u32> {
    let max_loras = &limits.max_loras;
    let slots = reader.setting("slots", max_loras.value, |field| {
        decode::integer_between(field, 1, COUNT_MAX)
    });
    // What is left out follows what is written.
    if !(max_loras.is_written() && max_loras.is_sound && slots.is_sound) {
        return slots;
    }
    if slots.value < max_loras.value {
        let message = format!(
            "slots ({}) is less than max_loras ({})",
            slots.value, max_loras.value
        );
        let problem = Problem::new("scenario::adapters", message)
            .at_if_written(slots.place, "adapters that a replica can hold")
            .at_if_written(max_loras.place, "adapters that a batch may use")
            .help(format!(
                "raise slots to at least {}, or lower batching.max_loras",
                max_loras.value
            ));
        reader.context.report(problem);
    }
    slots
}

/// vLLM's default for `max_cpu_loras` is `max_loras`: no copies but those of what is on the GPU.
fn read_host_slots(reader: &Reader<'_>, slots: &Setting<u32>) -> u32 {
    let host_slots = reader.setting("host_slots", slots.value, |field| {
        decode::integer_between(field, 1, COUNT_MAX)
    });
    if host_slots.is_sound && slots.is_sound && host_slots.value < slots.value {
        let message = format!(
            "host_slots ({}) is less than slots ({})",
            host_slots.value, slots.value
        );
        let problem = Problem::new("scenario::adapters", message)
            .at_if_written(
                host_slots.place,
                "adapters in host memory, those on the GPU included",
            )
            .at_if_written(slots.place, "adapters on the GPU")
            .help("leave host_slots out, or raise it to what host memory holds");
        reader.context.report(problem);
    }
    host_slots.value
}
