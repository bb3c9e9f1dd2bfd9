//! `[step_time] model = "profile"`: reads a profile, and checks that it is of what the scenario deploys.
//!
//! A calibrated profile (`foresail.profile/2`) says what it was measured on. One of another model,
//! GPU or number format would give confident figures of something else, so it is refused. What names
//! leave open is not: a served model is called whatever its server likes, and a device has no standard
//! name. Of a measured table (`foresail.profile/1`) nothing is compared: what it says of itself is free text.

use std::fs;
use std::path::Path;

use foresail_core::control::lifecycle::GpuKind;
use foresail_core::step_time::calibrated::{BatchingLimits, Cell, WorldSizeFit};
use foresail_core::step_time::{
    Calibrated, CalibratedProfile, ModelShape, Precision, Profile, ProfilePrecision, ProfileTable,
};

use super::FILE_BYTES_MAX;
use super::deployment::{Hardware, Model, NamedGpu, UNNAMED};
use super::engine::Limits;
use super::problem::{Place, Problem};
use super::reader::Reader;
use crate::catalogue::gpus;
use crate::scenario::StepTimeModel;

/// What a profile file is, for those whose file is none.
const PROFILE_IS: &str = "a profile is JSON with a `schema`: \"foresail.profile/2\", as `foresail calibrate` \
                          writes it, or \"foresail.profile/1\" with `provenance`, `decode` and `prefill`; \
                          `foresail init` writes an example";

/// The schemas that are read.
const SCHEMAS: [&str; 2] = [CalibratedProfile::SCHEMA, ProfileTable::SCHEMA];

/// What is deployed, which a profile has to be of.
#[derive(Clone, Copy)]
pub(super) struct Deployed<'a> {
    pub(super) hardware: &'a Hardware,
    pub(super) model: &'a Model,
    pub(super) gpu: &'a NamedGpu,
    pub(super) world_size: u32,
    pub(super) limits: &'a Limits,
}

/// Where the file is named, and whether it is to be of what is deployed.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) path: &'a str,
    pub(super) place: Place,
    pub(super) is_checked: bool,
}

/// The step times of a profile, and what else it says.
pub(super) struct Profiled {
    pub(super) model: StepTimeModel,
    /// Whether steps with adapters were measured.
    pub(super) adapter_step_is_identified: bool,
    /// Whether the time of each adapter in a step was.
    pub(super) adapter_is_identified: bool,
    /// What is good to know.
    pub(super) notes: Vec<String>,
}

/// Only what says which kind of profile a file is.
#[derive(serde::Deserialize)]
struct Versioned {
    schema: String,
}

/// Reads and checks a profile.
pub(super) fn read(
    reader: &Reader<'_>,
    named: Named<'_>,
    deployed: Deployed<'_>,
) -> Result<Profiled, Problem> {
    let path = reader.context.resolve(named.place, named.path);
    let text = read_text(&path).map_err(|what| {
        Problem::new(
            "scenario::file",
            format!("cannot read the profile `{}`", path.display()),
        )
        .at(named.place, what)
        .help(format!(
            "the path is relative to the scenario's folder; on the command line, to the working \
             directory; {PROFILE_IS}"
        ))
    })?;
    let file = File {
        path: &path,
        place: named.place,
    };
    let versioned: Versioned = serde_json::from_str(&text).map_err(|error| file.is_none(&error))?;
    match versioned.schema.as_str() {
        CalibratedProfile::SCHEMA => {
            let profile = serde_json::from_str(&text).map_err(|error| file.is_none(&error))?;
            calibrated(&file, &profile, named.is_checked, deployed)
        }
        ProfileTable::SCHEMA => {
            let table = serde_json::from_str(&text).map_err(|error| file.is_none(&error))?;
            measured(&file, &table, deployed.limits.max_num_seqs)
        }
        other => Err(file
            .unusable(&format!("the profile's schema is `{other}`"))
            .help(format!(
                "this version reads `{}`; measure again, or use the version that wrote it",
                SCHEMAS.join("` and `")
            ))),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    // Profiles are grids of a few thousand rows; 64 MiB is a thousand times that.
    if metadata.len() > 64 * FILE_BYTES_MAX {
        return Err("larger than 64 MiB".to_owned());
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// A file that is being read, for what is wrong with it.
struct File<'a> {
    path: &'a Path,
    place: Place,
}

impl File<'_> {
    fn is_none(&self, error: &serde_json::Error) -> Problem {
        let what = format!("`{}` is not a profile: {error}", self.path.display());
        Problem::new("scenario::profile", what)
            .at(
                self.place,
                format!("line {}, column {} of it", error.line(), error.column()),
            )
            .help(PROFILE_IS)
    }

    fn unusable(&self, what: &str) -> Problem {
        Problem::new(
            "scenario::profile",
            format!("`{}`: {what}", self.path.display()),
        )
        .at(self.place, "this profile cannot be used")
    }

    /// The profile is of something else. `place` is where the scenario says what it deploys.
    fn is_of_another(&self, what: &str, place: Option<Place>, label: String) -> Problem {
        Problem::new(
            "scenario::profile",
            format!("`{}` is of another {what}", self.path.display()),
        )
        .at(self.place, "this profile")
        .at_if_written(place, label)
    }
}

/// Rows of measured steps.
fn measured(file: &File<'_>, table: &ProfileTable, max_num_seqs: u32) -> Result<Profiled, Problem> {
    let profile = Profile::new(table, max_num_seqs).map_err(|error| {
        file.unusable(&error.to_string()).help(format!(
            "correct or measure the rows again, or lower max_num_seqs to what was measured; {PROFILE_IS}"
        ))
    })?;
    Ok(Profiled {
        model: StepTimeModel::Profile(Box::new(profile)),
        adapter_step_is_identified: false,
        adapter_is_identified: false,
        notes: Vec::new(),
    })
}

/// A fitted formula.
fn calibrated(
    file: &File<'_>,
    profile: &CalibratedProfile,
    is_checked: bool,
    deployed: Deployed<'_>,
) -> Result<Profiled, Problem> {
    let Deployed {
        world_size, limits, ..
    } = deployed;
    let unusable = |error: &dyn std::error::Error| file.unusable(&error.to_string());
    let model = Calibrated::new(profile, world_size, limits.max_num_seqs);
    let model = model.map_err(|error| {
        unusable(&error)
            .at_if_written(deployed.hardware.world_size.place, "this world size")
            .help(PROFILE_IS)
    })?;
    let fit = profile.world_size(world_size).map_err(|e| unusable(&e))?;
    let mut notes = Vec::new();
    if is_checked {
        check_model(file, profile, deployed)?;
        check_precision(file, profile, deployed)?;
        notes.extend(check_device(file, profile, deployed)?);
    }
    let max_model_len = deployed.hardware.max_model_len.value;
    notes.extend(beyond_measured(
        fit,
        profile.batching,
        limits,
        max_model_len,
    ));
    let is_identified = |name: &str| {
        let term = fit.terms.iter().find(|term| term.name == name);
        term.is_some_and(|term| term.is_identified)
    };
    Ok(Profiled {
        model: StepTimeModel::Calibrated(Box::new(model)),
        adapter_step_is_identified: is_identified("adapter_step_s"),
        adapter_is_identified: is_identified("adapter_s"),
        notes,
    })
}

/// What to do about a profile that is of something else.
const USE_ANOTHER: &str = "calibrate what is deployed, or describe what was measured; if they are the same by \
                           other names, write `check_provenance = false` in `[step_time]`";

/// Shapes are compared where both are known: names are whatever somebody liked.
fn check_model(
    file: &File<'_>,
    profile: &CalibratedProfile,
    deployed: Deployed<'_>,
) -> Result<(), Problem> {
    let Deployed {
        hardware, model, ..
    } = deployed;
    let measured = &profile.provenance;
    let difference = match &measured.shape {
        Some(shape) => shape_difference(shape, &model.shape),
        None if model.name == UNNAMED || are_alike(&measured.model, &model.name) => None,
        None => Some(format!(
            "the profile is of `{}`, the scenario of `{}`",
            measured.model, model.name
        )),
    };
    match difference {
        None => Ok(()),
        Some(difference) => Err(file
            .is_of_another(
                "model",
                hardware.model.place,
                format!("the profile is of `{}`", measured.model),
            )
            .help(format!("{difference}; {USE_ANOTHER}"))),
    }
}

/// The first difference between two shapes; `None` if steps of both take the same time.
fn shape_difference(measured: &ModelShape, deployed: &ModelShape) -> Option<String> {
    let sizes = |shape: &ModelShape| {
        [
            ("num_hidden_layers", shape.num_hidden_layers),
            ("hidden_size", shape.hidden_size),
            ("num_attention_heads", shape.num_attention_heads),
            ("num_key_value_heads", shape.num_key_value_heads),
            ("head_dim", shape.head_dim),
            ("intermediate_size", shape.intermediate_size),
            ("vocab_size", shape.vocab_size),
        ]
    };
    let both = sizes(measured).into_iter().zip(sizes(deployed));
    for ((name, theirs), (_, ours)) in both {
        if theirs != ours {
            return Some(format!("{name} is {theirs} there and {ours} here"));
        }
    }
    let differs = measured.experts != deployed.experts;
    differs.then(|| "the experts differ".to_owned())
}

/// Whether two names may be of one model: one has all words of the other, such as
/// `meta-llama/Meta-Llama-3-8B-Instruct` those of `llama-3-8b`.
fn are_alike(one: &str, other: &str) -> bool {
    let words = |name: &str| -> Vec<String> {
        let lower = name.to_lowercase();
        let words = lower.split(|c: char| !c.is_alphanumeric());
        let words = words.filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let (one, other) = (words(one), words(other));
    let has_all = |these: &[String], those: &[String]| those.iter().all(|w| these.contains(w));
    // A name without words says nothing.
    has_all(&one, &other) || has_all(&other, &one)
}

fn check_precision(
    file: &File<'_>,
    profile: &CalibratedProfile,
    deployed: Deployed<'_>,
) -> Result<(), Problem> {
    // A scenario has no word for 32-bit floats, which only processors compute in.
    if deployed.gpu.kind == GpuKind::Cpu {
        return Ok(());
    }
    let hardware = deployed.hardware;
    let measured = &profile.provenance;
    let settings = [
        ("precision", measured.precision, &hardware.precision),
        (
            "kv_precision",
            measured.kv_precision,
            &hardware.kv_precision,
        ),
    ];
    for (name, theirs, ours) in settings {
        let Some(theirs) = theirs.filter(|theirs| *theirs != of(ours.value)) else {
            continue;
        };
        let (theirs, ours_word) = (word(theirs), word(of(ours.value)));
        return Err(file
            .is_of_another(
                name,
                ours.place,
                format!("{ours_word} here, {theirs} in the profile"),
            )
            .help(format!(
                "the profile is of {theirs}, the scenario of {ours_word}: write `{name} = \"{theirs}\"` in \
                 `[deployment]`, or {USE_ANOTHER}"
            )));
    }
    Ok(())
}

fn of(precision: Precision) -> ProfilePrecision {
    match precision {
        Precision::Bf16 => ProfilePrecision::Bf16,
        Precision::Fp8 => ProfilePrecision::Fp8,
    }
}

fn word(precision: ProfilePrecision) -> &'static str {
    match precision {
        ProfilePrecision::F32 => "f32",
        ProfilePrecision::Bf16 => "bf16",
        ProfilePrecision::Fp8 => "fp8",
    }
}

/// Refuses a profile of a GPU that is known to be another one, or of a processor in a GPU's place. A device that the
/// catalogue does not know may be the scenario's by another name, which is worth a note.
fn check_device(
    file: &File<'_>,
    profile: &CalibratedProfile,
    deployed: Deployed<'_>,
) -> Result<Option<String>, Problem> {
    let measured = &profile.provenance;
    let (device, gpu) = (&measured.device, deployed.gpu);
    let is_processor = measured.threads > 0;
    let named = gpu_in(device);
    let is_other = match named {
        Some(kind) => kind != gpu.kind,
        None => is_processor && gpu.kind != GpuKind::Cpu,
    };
    if is_other {
        let remedy = if is_processor {
            "write `gpu = \"cpu\"` in `[deployment]`"
        } else {
            "name its GPU in `[deployment]`"
        };
        return Err(file
            .is_of_another(
                "GPU",
                deployed.hardware.gpu.place,
                format!("the profile is of `{device}`"),
            )
            .help(format!("{remedy}, or {USE_ANOTHER}")));
    }
    let is_open = named.is_none() && !is_processor && says_something(device);
    Ok(is_open.then(|| {
        format!(
            "the profile is of `{device}`, which may or may not be the {} that memory and price are of",
            gpu.name
        )
    }))
}

/// Whether a device is named at all.
fn says_something(device: &str) -> bool {
    !device.is_empty() && !device.to_lowercase().contains("unknown")
}

/// The GPU of the catalogue that a device's name has in it, such as `h100` in
/// `NVIDIA H100 80GB HBM3` and in `h100pcie`.
fn gpu_in(device: &str) -> Option<GpuKind> {
    let lower = device.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    words.find_map(|word| {
        let gpu = gpus::GPUS.iter().find(|gpu| word.starts_with(gpu.name))?;
        Some(gpu.kind)
    })
}

/// What the scenario allows a step to be that is larger than any measured one: its times are
/// the formula's beyond where anybody has looked.
fn beyond_measured(
    fit: &WorldSizeFit,
    known: BatchingLimits,
    limits: &Limits,
    max_model_len: u32,
) -> Vec<String> {
    let fitted = || fit.cells.iter().filter(|cell| !cell.is_left_out);
    let largest = |of: fn(&Cell) -> u32| fitted().map(of).max();
    let tokens = |cell: &Cell| {
        let chunks = cell.chunks.iter().map(|chunk| chunk.len);
        chunks.fold(cell.decodes, u32::saturating_add)
    };
    let figures = [
        (
            "sequences",
            "max_num_seqs",
            limits.max_num_seqs,
            largest(|cell| cell.decodes).or(known.max_num_seqs),
        ),
        (
            "tokens",
            "max_num_batched_tokens",
            limits.max_num_batched_tokens,
            largest(tokens).or(known.max_num_batched_tokens),
        ),
    ];
    let longest = largest(longest_sequence).filter(|longest| *longest < max_model_len);
    let of_contexts = longest.map(|longest| {
        format!(
            "sequences of more than {longest} tokens are extrapolated: that is the profile's longest, and \
             deployment.max_model_len is {max_model_len}"
        )
    });
    let notes = figures.into_iter().filter_map(|(what, key, allowed, measured)| {
        let measured = measured.filter(|measured| *measured > 0 && *measured < allowed)?;
        Some(format!(
            "steps of more than {measured} {what} are extrapolated: that is the profile's largest, and \
             batching.{key} is {allowed}"
        ))
    });
    notes.chain(of_contexts).collect()
}

/// Tokens of the longest sequence of a step, as far as it is known: sequences that decode have as many each.
fn longest_sequence(cell: &Cell) -> u32 {
    let each = cell.decode_past.checked_div(cell.decodes.into());
    let decoding = each.map_or(0, |past| u32::try_from(past).unwrap_or(u32::MAX));
    let ends = cell
        .chunks
        .iter()
        .map(|chunk| chunk.past.saturating_add(chunk.len));
    ends.fold(decoding, u32::max)
}
