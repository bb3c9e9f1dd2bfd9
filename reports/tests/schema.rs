//! `summary.json`, the JSON of a comparison, of a verdict and of a bench are what
//! their schemas say they are, and say nothing else.

mod fixture;

use foresail_reports::bench::Bench;
use foresail_reports::compare::{Comparison, PairedLatency, PairedRequests};
use foresail_reports::gate::baseline::Baseline;
use foresail_reports::gate::{ExactComparison, Gate, GateReport, GateRun, LatencyName, expression};
use foresail_reports::histogram::Histogram;
use foresail_reports::seeds::Seeds;
use foresail_reports::summary::{Load, SCHEMA, Summary, SummaryError, Tool};
use foresail_reports::validation::{
    Comparison as RunComparison, Counts, MeasuredFacts, Scaled, ScenarioName, Times, Tolerances,
    Validation, Variants,
};
use serde_json::{Map, Value, json};

fn schema() -> Value {
    serde_json::from_str(include_str!("../schema/summary.schema.json")).unwrap()
}

fn compare_schema() -> Value {
    serde_json::from_str(include_str!("../schema/compare.schema.json")).unwrap()
}

fn bench_schema() -> Value {
    serde_json::from_str(include_str!("../schema/bench.schema.json")).unwrap()
}

fn full_summary() -> Summary {
    let mut summary = fixture::summary("burst", u64::MAX).with_wall_s(0.5);
    summary.adapters = Some(Default::default());
    summary.seeds = Some(Seeds::of(&[summary.clone(), fixture::summary("burst", 2)]));
    summary
}

/// Measured: with everything that may be known, and with little.
fn measured_summaries() -> [Summary; 2] {
    [fixture::measured::summary(), fixture::measured::doubtful()]
}

fn value_of(summary: &Summary) -> Value {
    serde_json::from_str(&summary.to_json().unwrap()).unwrap()
}

#[test]
fn summaries_are_of_the_schema() {
    let empty = fixture::summary_of(&[], &Default::default());
    let simulated = [full_summary(), full_summary().without_wall(), empty];
    for summary in simulated.into_iter().chain(measured_summaries()) {
        assert_eq!(errors(&value_of(&summary)), Vec::<String>::new());
    }
}

#[test]
fn summaries_are_read_as_they_were_written() {
    let simulated = [full_summary(), full_summary().without_wall()];
    for summary in simulated.into_iter().chain(measured_summaries()) {
        let json = summary.to_json().unwrap();
        let read = Summary::from_json(&json).unwrap();
        assert_eq!(read, summary);
        assert_eq!(read.to_json().unwrap(), json);
    }
}

#[test]
fn wall_time_stays_out_of_what_is_kept() {
    let kept = full_summary().without_wall();
    assert_eq!(kept, full_summary().with_wall_s(77.0).without_wall());
    assert!(!kept.to_json().unwrap().contains("wall"));
}

#[test]
fn another_version_is_named() {
    let error = Summary::from_json(r#"{"schema": "foresail.summary/9", "new": 1}"#).unwrap_err();
    assert!(matches!(&error, SummaryError::Schema { found } if found == "foresail.summary/9"));
    assert!(error.to_string().contains(SCHEMA), "{error}");
    let error = Summary::from_json("id,due_s\n").unwrap_err();
    assert!(matches!(error, SummaryError::Form(_)), "{error}");
}

/// With and without the oracle, with several seeds and with one.
#[test]
fn comparisons_are_of_the_schema() {
    let mut variants = fixture::compared::variants();
    let mut comparisons = vec![fixture::compared::comparison()];
    variants
        .iter_mut()
        .for_each(|variant| variant.runs.truncate(1));
    variants[1].runs[0].seed = 9;
    variants[1].runs[0].objectives.clear();
    comparisons.push(Comparison::of(&variants, "fixed", None).unwrap());
    for comparison in comparisons {
        let json = comparison.to_json().unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(errors_of(&compare_schema(), &value), Vec::<String>::new());
        let read: Comparison = serde_json::from_str(&json).unwrap();
        assert_eq!(read, comparison);
    }
}

#[test]
fn the_schema_notices_every_field() {
    let summary = value_of(&full_summary());
    let optional = [
        "/seeds",
        "/seeds/include_calibration_error",
        "/parts/all/outside_s",
        "/parts/slowest/outside_s",
        "/adapters",
        "/run/wall_s",
        "/run/requests_per_wall_s",
        "/scenario/leaves_out_request_overhead",
    ];
    let fields = assert_every_field_is_noticed(&schema(), &summary, &optional);
    assert!(fields > 100, "{fields}");
}

/// Whatever it is, nobody can send requests in a way that is neither of the three.
#[test]
fn the_schema_notices_every_field_of_a_measured_run() {
    let mut summary = fixture::measured::summary();
    let measured = summary.measured.as_mut().unwrap();
    measured.degraded = vec![Default::default()];
    measured.load = Load::Capped { in_flight_max: 5 };
    let optional = [
        "/measured",
        "/requests/measured",
        "/gpu_seconds/ready",
        "/scenario/leaves_out_request_overhead",
    ];
    let fields = assert_every_field_is_noticed(&schema(), &value_of(&summary), &optional);
    assert!(fields > 200, "{fields}");
    summary.measured.as_mut().unwrap().load = Load::Closed { concurrency: 5 };
    assert_eq!(errors(&value_of(&summary)), Vec::<String>::new());
}

#[test]
fn the_schema_of_comparisons_notices_every_field() {
    let mut comparison = fixture::compared::comparison();
    // Its first figure has a difference and one from the oracle.
    comparison.variants.remove(0);
    comparison.paired_requests = vec![paired_requests()];
    comparison.include_calibration_error = true;
    let value = serde_json::to_value(&comparison).unwrap();
    let optional = [
        "/paired_requests",
        "/include_calibration_error",
        "/variants/0/scenario/leaves_out_request_overhead",
    ];
    let fields = assert_every_field_is_noticed(&compare_schema(), &value, &optional);
    assert!(fields > 40, "{fields}");
}

fn paired_requests() -> PairedRequests {
    PairedRequests {
        variant: "fixed".to_owned(),
        pairs: 2,
        not_completed: 1,
        latencies: vec![PairedLatency {
            name: "ttft".to_owned(),
            pairs: 2,
            mean_s: 0.001,
            p50_s: 0.001,
            p5_s: -0.002,
            p95_s: 0.004,
            slower: 0.5,
        }],
    }
}

/// With whole requests and without.
#[test]
fn benches_are_of_the_schema() {
    let mut short = fixture::bench::bench();
    short.requests = None;
    for bench in [fixture::bench::bench(), short] {
        let json = bench.to_json().unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(errors_of(&bench_schema(), &value), Vec::<String>::new());
        let read: Bench = serde_json::from_str(&json).unwrap();
        assert_eq!(read, bench);
    }
}

#[test]
fn the_schema_of_benches_notices_every_field() {
    let value = serde_json::to_value(fixture::bench::bench()).unwrap();
    let fields = assert_every_field_is_noticed(&bench_schema(), &value, &[]);
    assert!(fields > 50, "{fields}");
}

fn gate_schema() -> Value {
    serde_json::from_str(include_str!("../schema/gate.schema.json")).unwrap()
}

fn gate_run(seed: u64) -> GateRun {
    let mut run = GateRun::of(format!("run-{seed}"), &full_summary());
    let mut histogram = Histogram::new();
    (1..100).for_each(|ms| histogram.record(ms * 1_000_000));
    run.histograms.insert(LatencyName::Ttft, histogram);
    GateRun { seed, ..run }
}

/// Everything that there can be at once.
fn gate_report() -> GateReport {
    let mut runs: Vec<GateRun> = (1..=3).map(gate_run).collect();
    runs[0].degraded.push("sends were late".to_owned());
    let gate = Gate {
        baseline: (1..=3).map(gate_run).collect(),
        candidate: runs,
        objectives: vec![expression::objective("ttft.p99 < 1ms").unwrap()],
        allow_degraded: true,
        ..Gate::default()
    };
    let mut exact = ExactComparison::new();
    exact.differs("ttft_s.p99", Some("1"), Some("2"));
    GateReport {
        exact: Some(exact.finish()),
        notes: vec!["a note".to_owned()],
        ..gate.judge()
    }
}

#[test]
fn verdicts_are_of_the_schema() {
    let gate = Gate {
        candidate: vec![gate_run(1)],
        ..Gate::default()
    };
    for report in [gate_report(), gate.judge()] {
        let value: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(errors_of(&gate_schema(), &value), Vec::<String>::new());
    }
}

#[test]
fn the_schema_of_verdicts_notices_every_field() {
    let value = serde_json::to_value(gate_report()).unwrap();
    let fields = assert_every_field_is_noticed(&gate_schema(), &value, &[]);
    assert!(fields > 50, "{fields}");
}

fn validation_schema() -> Value {
    serde_json::from_str(include_str!("../schema/validation.schema.json")).unwrap()
}

/// Everything that there can be at once.
fn validation() -> Validation {
    let times = |index: u64| Times {
        due_ns: index * 1_000_000_000,
        last_ns: index * 1_000_000_000 + 200_000_000,
        ttft_s: 0.1,
        tpot_s: Some(0.01),
        e2e_s: 0.2,
        output_tokens: 11,
        service_s: None,
    };
    let measured: Vec<Times> = (0..120).map(times).collect();
    let predicted: Vec<Option<Times>> = measured.iter().copied().map(Some).collect();
    let counts = Counts {
        mean: 1.0,
        max: 1.0,
    };
    let comparison = RunComparison {
        facts: MeasuredFacts {
            degraded: vec![Default::default()],
            ..MeasuredFacts::default()
        },
        scenario: ScenarioName {
            world_size: 1,
            ..ScenarioName::default()
        },
        is_idle: vec![true; measured.len()],
        draws: vec![predicted.clone(), predicted.clone()],
        measured,
        variants: Variants {
            server_tokens: None,
            scaled: Some(Scaled {
                scale: 1.0,
                times: predicted.clone(),
            }),
        },
        predicted,
        include_calibration_error: true,
        replicas: Some((counts, counts)),
        throughput_is_given: Some("it is".to_owned()),
        tolerances: Tolerances::default(),
        notes: vec!["a note".to_owned()],
    };
    comparison.judge(Tool::default(), |below| below - 1)
}

#[test]
fn validations_are_of_the_schema() {
    let value: Value = serde_json::from_str(&validation().to_json().unwrap()).unwrap();
    assert_eq!(
        errors_of(&validation_schema(), &value),
        Vec::<String>::new()
    );
    let fields = assert_every_field_is_noticed(&validation_schema(), &value, &[]);
    assert!(fields > 40, "{fields}");
}

#[test]
fn baselines_are_of_the_schema() {
    let schema = serde_json::from_str(include_str!("../schema/baseline.schema.json")).unwrap();
    let baseline = Baseline::new(Tool::default(), vec![gate_run(1), gate_run(2)]);
    let mut value: Value = serde_json::from_str(&baseline.to_json().unwrap()).unwrap();
    assert_eq!(errors_of(&schema, &value), Vec::<String>::new());
    value["runs"][1]["values"]["ttft.p99"] = json!("slow");
    assert_eq!(errors_of(&schema, &value).len(), 1);
}

/// A schema that would let anything pass proves nothing: each field that is
/// taken away, added or of another type must be noticed. Says how many there are.
#[track_caller]
fn assert_every_field_is_noticed(schema: &Value, whole: &Value, optional: &[&str]) -> usize {
    let errors = |value: &Value| errors_of(schema, value);
    let mut fields = Vec::new();
    collect_fields(whole, "", &mut fields);
    for field in &fields {
        let (parent, name) = field.rsplit_once('/').unwrap();
        let object = |value: &mut Value| -> Map<String, Value> {
            value
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .clone()
        };
        let mut changed = whole.clone();
        let mut fewer = object(&mut changed);
        fewer.remove(name);
        *changed.pointer_mut(parent).unwrap() = fewer.into();
        assert_eq!(
            errors(&changed).is_empty(),
            optional.contains(&field.as_str()),
            "{field}"
        );

        let mut changed = whole.clone();
        let mut more = object(&mut changed);
        more.insert("surprise".to_owned(), json!(1));
        *changed.pointer_mut(parent).unwrap() = more.into();
        assert!(!errors(&changed).is_empty(), "{field}");

        let mut changed = whole.clone();
        *changed.pointer_mut(field).unwrap() = json!({ "of": "another type" });
        assert!(!errors(&changed).is_empty(), "{field}");
    }
    fields.len()
}

#[test]
fn what_both_schemas_describe_they_describe_alike() {
    let summary = &schema()["properties"];
    let compare = &compare_schema()["properties"];
    let variant = &compare["variants"]["items"]["properties"];
    assert_eq!(compare["tool"], summary["tool"]);
    assert_eq!(bench_schema()["properties"]["tool"], summary["tool"]);
    assert_eq!(variant["source"], summary["source"]);
    assert_eq!(variant["scenario"], summary["scenario"]);
}

fn collect_fields(value: &Value, at: &str, fields: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let field = format!("{at}/{name}");
                collect_fields(value, &field, fields);
                fields.push(field);
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                collect_fields(first, &format!("{at}/0"), fields);
            }
        }
        _ => {}
    }
}

fn errors(value: &Value) -> Vec<String> {
    errors_of(&schema(), value)
}

fn errors_of(root: &Value, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    validate(root, root, value, "", &mut errors);
    errors
}

/// JSON Schema, as much of it as our schema uses; any other keyword panics, so
/// that nothing in the schema goes unchecked.
fn validate(root: &Value, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    let mut fail = |what: String| errors.push(format!("{at}: {what}"));
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "const" if value != rule => fail(format!("is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => fail(format!("not in {rule}")),
            "type" if !is_of_type(value, rule) => fail(format!("is not of type {rule}")),
            "minimum" if value.as_f64() < rule.as_f64() && value.is_number() => {
                fail(format!("is below {rule}"));
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        fail(format!("lacks {name}"));
                    }
                }
            }
            "additionalProperties" if rule == false => {
                let known = schema["properties"].as_object().unwrap();
                for name in value.as_object().into_iter().flat_map(Map::keys) {
                    if !known.contains_key(name) {
                        fail(format!("has an unknown field {name}"));
                    }
                }
            }
            "const"
            | "enum"
            | "type"
            | "minimum"
            | "properties"
            | "items"
            | "$ref"
            | "anyOf"
            | "additionalProperties" => {}
            other => panic!("{at}: the keyword {other} is not checked"),
        }
    }
    for (name, rule) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(field) = value.get(name) {
            validate(root, rule, field, &format!("{at}/{name}"), errors);
        }
    }
    // A table of any names, all of one kind.
    if let Some(rule) = schema
        .get("additionalProperties")
        .filter(|rule| rule.is_object())
    {
        for (name, field) in value.as_object().into_iter().flatten() {
            validate(root, rule, field, &format!("{at}/{name}"), errors);
        }
    }
    if let (Some(rule), Some(items)) = (schema.get("items"), value.as_array()) {
        for (index, item) in items.iter().enumerate() {
            validate(root, rule, item, &format!("{at}/{index}"), errors);
        }
    }
    if let Some(reference) = schema.get("$ref") {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        validate(root, root.pointer(pointer).unwrap(), value, at, errors);
    }
    if let Some(choices) = schema.get("anyOf") {
        let fits = |choice| {
            let mut errors = Vec::new();
            validate(root, choice, value, at, &mut errors);
            errors.is_empty()
        };
        if !choices.as_array().unwrap().iter().any(fits) {
            errors.push(format!("{at}: is none of the choices"));
        }
    }
}

fn is_of_type(value: &Value, rule: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not checked"),
    };
    rule.as_array()
        .map_or_else(|| is(rule), |names| names.iter().any(is))
}
