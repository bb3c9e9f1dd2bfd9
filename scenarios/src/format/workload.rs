//! `[workload]`: which requests come, and when.

use std::path::PathBuf;

use super::distribution::{distribution, from_table, seconds};
use super::node::Value;
use super::problem::{Place, Problem};
use super::reader::{Field, Reader, suggestion};
use super::{adapter_mix, decode};
use crate::distribution::Distribution;
use crate::scenario::Adapter;
use crate::workload::{
    Adapters, Arrivals, Generator, Lengths, Process, ServeGenSource, Sessions, Shape, Slice,
    Source, Steps, Timestamps, TraceFormat, TraceSource, Transforms, Workload,
};
use foresail_core::time::HOUR;

const TIMESTAMPS: [(&str, Timestamps); 2] = [
    ("as-recorded", Timestamps::AsRecorded),
    ("spread", Timestamps::Spread),
];

const TRACE_KEYS: [&str; 2] = ["format", "timestamps"];

const GENERATOR_KEYS: [&str; 6] = [
    "requests",
    "arrivals",
    "shape",
    "prompt_tokens",
    "output_tokens",
    "sessions",
];

/// The workload; `None` if its source is missing, which has then been reported.
/// `deployed` are the adapters that requests may ask for, if that is known.
pub(super) fn decode(root: &Reader<'_>, deployed: Option<&[Adapter]>) -> Option<Workload> {
    if !root.has("workload") {
        let example = "duration, arrivals, prompt_tokens and output_tokens, or a trace";
        root.missing_table("workload", example);
        return None;
    }
    let reader = root.table("workload");
    let trace = reader.optional("trace", decode::text);
    let servegen = reader.optional("servegen", decode::text);
    if let (Some(trace), Some(servegen)) = (trace.place, servegen.place) {
        let problem = Problem::new("scenario::workload", "a workload has one source")
            .at(trace, "a recorded trace")
            .at(servegen, "client pools")
            .help("keep `trace` or `servegen`");
        reader.context.report(problem);
    }
    // Slices and scales apply to whatever the source is.
    let transforms = transforms(&reader);
    let names = |deployed: &[Adapter]| deployed.iter().map(|a| a.name.clone()).collect();
    let adapters = Adapters {
        deployed: deployed.map(names),
        mix: adapter_mix::decode(&reader, deployed),
    };
    let source = match (trace.place, servegen.place) {
        (Some(place), _) => {
            let because = "with a `trace`";
            reader.unused(&["duration"], because);
            reader.unused(&GENERATOR_KEYS, because);
            Some(recorded(&reader, trace.value, place))
        }
        (None, Some(place)) => {
            reader.unused(&TRACE_KEYS, "without a `trace`");
            reader.unused(&GENERATOR_KEYS, "with `servegen`");
            let folder = file(&reader, servegen.value, place, "folder", true);
            let duration = reader.optional("duration", decode::positive_duration).value;
            Some(Source::ServeGen(ServeGenSource { folder, duration }))
        }
        (None, None) => {
            reader.unused(&TRACE_KEYS, "without a `trace`");
            generator(&reader).map(Source::Generated)
        }
    };
    reader.finish();
    Some(Workload {
        source: source?,
        transforms,
        adapters,
    })
}

/// A recorded trace: a file, or a folder of client pools.
fn recorded(reader: &Reader<'_>, written: Option<String>, place: Place) -> Source {
    let folder = written
        .as_ref()
        .map(|written| reader.context.resolve(place, written));
    if let Some(folder) = folder.filter(|path| ServeGenSource::is_folder_of_pools(path)) {
        reader.unused(&TRACE_KEYS, "with a folder of client pools");
        let duration = None;
        return Source::ServeGen(ServeGenSource { folder, duration });
    }
    let path = file(reader, written, place, "trace", false);
    Source::Trace(trace_source(reader, path))
}

/// The path of a file or folder that must be there.
fn file(
    reader: &Reader<'_>,
    written: Option<String>,
    place: Place,
    what: &str,
    is_folder: bool,
) -> PathBuf {
    let Some(written) = written else {
        // It is not text, which has been reported.
        return PathBuf::new();
    };
    let path = reader.context.resolve(place, &written);
    let is_there = if is_folder {
        path.is_dir()
    } else {
        path.is_file()
    };
    if !is_there {
        let message = format!("there is no {what} `{}`", path.display());
        let help = match path.is_dir() {
            true => {
                "name a trace file in it, or a folder of ServeGen client pools, which has \
                 chunk-<client>-trace.csv and chunk-<client>-dataset.json"
            }
            false => {
                "a path is relative to the scenario's folder; on the command line, to the \
                 working directory"
            }
        };
        let problem = Problem::new("scenario::file", message)
            .at(
                place,
                if path.is_dir() {
                    "this is a folder, and not one of client pools"
                } else if path.exists() {
                    "something else is there"
                } else {
                    "not found"
                },
            )
            .help(help);
        reader.context.report(problem);
    }
    path
}

fn trace_source(reader: &Reader<'_>, path: PathBuf) -> TraceSource {
    TraceSource {
        path,
        format: reader.optional("format", trace_format).value,
        timestamps: reader
            .setting(
                "timestamps",
                Timestamps::AsRecorded,
                decode::choice(&TIMESTAMPS),
            )
            .value,
    }
}

fn trace_format(field: Field<'_>) -> Result<TraceFormat, Problem> {
    let written = decode::text(field)?;
    TraceFormat::from_name(&written).ok_or_else(|| {
        let names = TraceFormat::ALL.map(TraceFormat::name);
        let help = suggestion(&written, names, "the formats are");
        field
            .problem(
                "scenario::unknown_name",
                "is not a known format",
                "not a format",
            )
            .help(format!("{help}; leave it out to detect the format"))
    })
}

fn transforms(reader: &Reader<'_>) -> Transforms {
    Transforms {
        slice: reader.optional("slice", slice).value,
        rate_scale: reader
            .setting("rate_scale", 1.0, decode::positive_number)
            .value,
        time_stretch: reader
            .setting("time_stretch", 1.0, decode::positive_number)
            .value,
        repeat: reader.setting("repeat", 1, decode::positive_integer).value,
    }
}

fn slice(field: Field<'_>) -> Result<Slice, Problem> {
    let reader = field.reader()?;
    let from = reader.setting("from", 0, decode::duration);
    let to = reader.optional("to", decode::duration);
    reader.finish();
    match to.value {
        Some(end) if end <= from.value && from.is_sound => Err(Problem::new(
            "scenario::slice",
            format!("`{}` is empty", field.path),
        )
        .at_if_written(from.place, "it begins here")
        .at_if_written(to.place, "and ends no later")
        .help("`to` must be after `from`, which is 0 if left out")),
        to => Ok(Slice {
            from: from.value,
            to,
        }),
    }
}

/// `None` if a part is missing or wrong, which has been reported.
fn generator(reader: &Reader<'_>) -> Option<Generator> {
    let duration = reader.optional("duration", decode::positive_duration);
    let requests = reader.optional("requests", decode::positive_integer);
    if !(duration.is_written() || requests.is_written()) {
        let problem = Problem::new("scenario::missing", "the workload has no source, or no end")
            .at(
                reader.place_or_start(),
                "`duration`, `requests`, `trace` or `servegen` belongs here",
            )
            .help("for example `duration = \"1h\"`, `requests = 10000`, or `trace = \"file.csv\"`");
        reader.context.report(problem);
    }
    let arrivals = arrivals(reader.table("arrivals"), reader.has("arrivals"), reader);
    let shape = shape(reader.table("shape"));
    let example = "{ log_normal = { mean = 512, cv = 1.0 } }";
    let prompt_tokens = reader.required("prompt_tokens", example, lengths).value;
    let output_tokens = reader.required("output_tokens", example, lengths).value;
    let sessions = reader.optional("sessions", sessions).value;
    let generator = Generator {
        duration: duration.value,
        requests: requests.value,
        arrivals: arrivals?,
        shape: shape?,
        prompt_tokens: prompt_tokens?,
        output_tokens: output_tokens?,
        sessions,
    };
    if let (false, Err(error)) = (reader.context.has_problems(), generator.validate()) {
        let problem = Problem::new("scenario::workload", error.to_string())
            .at(reader.place_or_start(), "this workload cannot be generated");
        reader.context.report(problem);
    }
    Some(generator)
}

/// A distribution of tokens, with an optional `max` beside it.
fn lengths(field: Field<'_>) -> Result<Lengths, Problem> {
    let (distribution, max) = match &field.node.value {
        Value::Table(_) => {
            let reader = field.reader()?;
            let max = reader.optional("max", decode::positive_integer).value;
            let distribution = from_table(&reader, field)?;
            reader.finish();
            (distribution, max)
        }
        _ => (distribution(field)?, None),
    };
    if distribution.mean() > 0.0 {
        return Ok(Lengths { distribution, max });
    }
    Err(field
        .problem(
            "scenario::range",
            "must be above 0",
            "there is always at least one token",
        )
        .help("write 1 or more"))
}

fn arrivals(reader: Reader<'_>, is_written: bool, workload: &Reader<'_>) -> Option<Arrivals> {
    if !is_written {
        workload.missing("arrivals", "{ process = \"poisson\", rate_per_s = 2.0 }");
        return None;
    }
    let kinds = [
        ("constant", 0),
        ("poisson", 1),
        ("gamma", 2),
        ("weibull", 3),
    ];
    let process = reader.setting("process", 1, decode::choice(&kinds));
    let rate = reader.required("rate_per_s", "2.0", decode::positive_number);
    let cv = if process.value >= 2 {
        reader.required("cv", "2.0", decode::positive_number).value
    } else {
        reader.unused(&["cv"], "unless the process is gamma or weibull");
        Some(1.0)
    };
    reader.finish();
    let (rate_per_s, cv) = (rate.value?, cv?);
    let process = match process.value {
        0 => Process::Constant,
        1 => Process::Poisson,
        2 => Process::Gamma { cv },
        _ => Process::Weibull { cv },
    };
    Some(Arrivals {
        process,
        rate_per_s,
    })
}

#[derive(Clone, Copy)]
enum ShapeKind {
    Steady,
    OnOff,
    Ramp,
    Spike,
    Diurnal,
    Steps,
}

const SHAPES: [(&str, ShapeKind); 6] = [
    ("steady", ShapeKind::Steady),
    ("on-off", ShapeKind::OnOff),
    ("ramp", ShapeKind::Ramp),
    ("spike", ShapeKind::Spike),
    ("diurnal", ShapeKind::Diurnal),
    ("steps", ShapeKind::Steps),
];

const SHAPE_KEYS: [&str; 12] = [
    "on",
    "off",
    "low_factor",
    "to_factor",
    "over",
    "at",
    "duration",
    "factor",
    "period",
    "peak_to_trough",
    "step",
    "factors",
];

impl ShapeKind {
    /// The parameters of the kind.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Steady => &[],
            Self::OnOff => &["on", "off", "low_factor"],
            Self::Ramp => &["to_factor", "over"],
            Self::Spike => &["at", "duration", "factor"],
            Self::Diurnal => &["period", "peak_to_trough"],
            Self::Steps => &["step", "factors"],
        }
    }
}

/// `[workload.shape]`: its `kind`, and the parameters of that kind.
fn shape(reader: Reader<'_>) -> Option<Shape> {
    let kind = reader
        .setting("kind", ShapeKind::Steady, decode::choice(&SHAPES))
        .value;
    for key in SHAPE_KEYS
        .into_iter()
        .filter(|key| !kind.keys().contains(key))
    {
        reader.unused(&[key], "with this kind of shape");
    }
    let time = |key, example| {
        reader
            .required(key, example, decode::positive_duration)
            .value
    };
    let from = |key, example| reader.required(key, example, decode::duration).value;
    let factor = |key, example| {
        reader
            .required(key, example, decode::non_negative_number)
            .value
    };
    let shape = match kind {
        ShapeKind::Steady => Some(Shape::Steady),
        ShapeKind::OnOff => {
            let (on, off) = (time("on", "\"5m\""), time("off", "\"10m\""));
            let low = reader
                .setting("low_factor", 0.0, decode::non_negative_number)
                .value;
            on.zip(off).map(|(on, off)| Shape::OnOff {
                on,
                off,
                low_factor: low,
            })
        }
        ShapeKind::Ramp => {
            let (to, over) = (factor("to_factor", "4.0"), time("over", "\"1h\""));
            to.zip(over)
                .map(|(to_factor, over)| Shape::Ramp { to_factor, over })
        }
        ShapeKind::Spike => {
            let (at, duration) = (from("at", "\"10m\""), time("duration", "\"5m\""));
            let factor = factor("factor", "5.0");
            at.zip(duration)
                .zip(factor)
                .map(|((at, duration), factor)| Shape::Spike {
                    at,
                    duration,
                    factor,
                })
        }
        ShapeKind::Diurnal => {
            let period = reader
                .setting("period", 24 * HOUR, decode::positive_duration)
                .value;
            let ratio = reader.required("peak_to_trough", "4.0", at_least_one).value;
            ratio.map(|peak_to_trough| Shape::Diurnal {
                period,
                peak_to_trough,
            })
        }
        ShapeKind::Steps => {
            let step = time("step", "\"1h\"");
            let factors = reader.required("factors", "[0.5, 1.0, 1.5]", levels).value;
            step.zip(factors)
                .map(|(step, factors)| Shape::Steps(Steps::new(step, &factors)))
        }
    };
    reader.finish();
    shape
}

/// A list of factors, one of them above 0.
fn levels(field: Field<'_>) -> Result<Vec<f64>, Problem> {
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of numbers"));
    };
    let numbers = items
        .iter()
        .map(|node| decode::non_negative_number(Field { node, ..field }));
    let levels: Vec<f64> = numbers.collect::<Result<_, _>>()?;
    if levels.iter().any(|level| *level > 0.0) {
        return Ok(levels);
    }
    Err(field
        .problem(
            "scenario::range",
            "must have a number above 0",
            "no request would ever come",
        )
        .help("write the factor of each level, such as `[0.5, 1.0, 1.5]`"))
}

fn at_least_one(field: Field<'_>) -> Result<f64, Problem> {
    let value = decode::number(field)?;
    if value >= 1.0 {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            "must be at least 1",
            &format!("this is {value}"),
        )
        .help("write how many times the peak is above the trough"))
}

/// `[workload.sessions]`.
fn sessions(field: Field<'_>) -> Result<Sessions, Problem> {
    let reader = field.reader()?;
    let turns = reader
        .required("turns", "{ uniform = { min = 2, max = 8 } }", distribution)
        .value;
    let think = reader
        .required("think_time", "{ exponential = { mean = 20 } }", seconds)
        .value;
    let one = Distribution::Fixed { value: 1.0 };
    let sessions = Sessions {
        turns: turns.unwrap_or_else(|| one.clone()),
        think_time_s: think.unwrap_or(one),
        groups: reader.setting("groups", 1, decode::positive_integer).value,
        shared_tokens: reader.setting("shared_tokens", 0, decode::integer).value,
        max_context_tokens: reader
            .optional("max_context_tokens", decode::positive_integer)
            .value,
    };
    reader.finish();
    Ok(sessions)
}
