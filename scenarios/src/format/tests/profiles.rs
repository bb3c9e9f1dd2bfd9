//! Calibrated profiles: what they are refused for, and what they bring along.

use foresail_core::step_time::calibrated::{
    BatchingLimits, CalibratedProfile, CalibrationProvenance, Cell, CellChunk, Factor, HowMeasured,
    Residuals, TermEstimate, Terms, WorldSizeFit,
};
use foresail_core::step_time::{EfficiencySpread, ProfilePrecision, StepTime};
use tempfile::TempDir;

use super::*;
use crate::catalogue::models;
use crate::scenario::StepTimeModel;

fn terms() -> Terms {
    Terms {
        launch_s: 1e-3,
        weights_s: 5e-3,
        token_s: 1e-4,
        adapter_step_s: 2e-3,
        adapter_s: 3e-4,
        request_s: 4e-3,
        prompt_token_s: 1e-6,
        ..Terms::default()
    }
}

/// A profile of llama-3-8b on an H100, with two draws, twice and half as slow.
fn profile() -> CalibratedProfile {
    let estimate = |(name, value): (&str, f64)| TermEstimate {
        name: name.to_owned(),
        value,
        low: value,
        high: value,
        is_identified: name != "adapter_s",
    };
    let shape = models::find("llama-3-8b").unwrap().shape;
    CalibratedProfile {
        schema: CalibratedProfile::SCHEMA.into(),
        provenance: CalibrationProvenance {
            tool: "foresail".into(),
            engine: "vllm".into(),
            model: "meta-llama/Meta-Llama-3-8B-Instruct".into(),
            shape: Some(shape),
            device: "NVIDIA H100 80GB HBM3".into(),
            threads: 0,
            precision: Some(ProfilePrecision::Bf16),
            kv_precision: Some(ProfilePrecision::Bf16),
            measured_on: "2026-11-21".into(),
            source: "made up".into(),
        },
        batching: BatchingLimits {
            max_num_seqs: Some(256),
            ..BatchingLimits::default()
        },
        world_sizes: vec![WorldSizeFit {
            world_size: 1,
            how: HowMeasured::Ranks,
            terms: Terms::names().zip(terms().to_vec()).map(estimate).collect(),
            token_factor: Factor::default(),
            kv_factor: Factor::default(),
            all_reduce: None,
            draws: vec![terms().times(2.0).to_vec(), terms().times(0.5).to_vec()],
            run_to_run: 0.0,
            residuals: Residuals::default(),
            cells: Vec::new(),
        }],
        not_identified: Vec::new(),
    }
}

/// What comes of the base scenario with a profile and more `--set` arguments.
fn with(
    change: impl FnOnce(&mut CalibratedProfile),
    arguments: &[&str],
) -> Result<Scenario, String> {
    let mut profile = profile();
    change(&mut profile);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("profile.json");
    std::fs::write(&path, serde_json::to_string(&profile).unwrap()).unwrap();
    let mut set = vec![
        "deployment.world_size=1".to_owned(),
        "step_time.model=profile".to_owned(),
        format!("step_time.file={}", path.display()),
    ];
    set.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let overrides = Overrides {
        set,
        ..Overrides::default()
    };
    let text = |error: LoadError| {
        let folder = folder.path().display().to_string();
        error_text(&error).replace(&folder, "FOLDER")
    };
    parse("s.toml", BASE, Path::new(""), &overrides).map_err(text)
}

/// All messages and remedies, without the drawing around them.
fn error_text(error: &LoadError) -> String {
    let mut text = String::new();
    for diagnostic in error.diagnostics() {
        text += &diagnostic.to_string();
        if let Some(help) = miette::Diagnostic::help(diagnostic) {
            text += &format!(" HELP {help}");
        }
    }
    text
}

fn refused(change: impl FnOnce(&mut CalibratedProfile), arguments: &[&str]) -> String {
    with(change, arguments).expect_err("the profile should be refused")
}

#[test]
fn a_profile_of_what_is_deployed_is_used() {
    let scenario = with(|_| (), &[]).unwrap();
    let deployment = &scenario.deployment;
    assert!(matches!(deployment.step_time, StepTimeModel::Calibrated(_)));
    assert_eq!(deployment.notes, Vec::<String>::new());
    assert_eq!(deployment.request_overhead().of(1000), 5_000_000);
}

#[test]
fn a_profile_of_another_model_is_refused_by_its_shape() {
    let text = refused(
        |profile| profile.provenance.shape.as_mut().unwrap().hidden_size = 5120,
        &[],
    );
    assert!(text.contains("is of another model"), "{text}");
    assert!(
        text.contains("hidden_size is 5120 there and 4096 here"),
        "{text}"
    );
    assert!(text.contains("check_provenance = false"), "{text}");
    // Then a name does not matter.
    assert!(with(|profile| profile.provenance.model = "served".into(), &[]).is_ok());
}

#[test]
fn without_a_shape_names_are_compared_word_by_word() {
    let named = |name: &str| {
        let name = name.to_owned();
        with(
            |profile| {
                profile.provenance.shape = None;
                profile.provenance.model = name;
            },
            &[],
        )
    };
    assert!(named("meta-llama/Meta-Llama-3-8B-Instruct").is_ok());
    assert!(named("").is_ok());
    let text = named("meta-llama/Llama-3-70B").unwrap_err();
    assert!(
        text.contains("the profile is of `meta-llama/Llama-3-70B`, the scenario of `llama-3-8b`"),
        "{text}"
    );
    assert!(named("qwen2-7b").is_err());
}

#[test]
fn a_profile_of_another_gpu_is_refused_and_one_of_no_known_gpu_is_noted() {
    let on = |device: &str, threads: u32| {
        let device = device.to_owned();
        move |profile: &mut CalibratedProfile| {
            profile.provenance.device = device;
            profile.provenance.threads = threads;
        }
    };
    let text = refused(on("NVIDIA A100-SXM4-80GB", 0), &[]);
    assert!(text.contains("is of another GPU"), "{text}");
    let text = refused(on("Intel Xeon, avx512", 4), &[]);
    assert!(text.contains("write `gpu = \"cpu\"`"), "{text}");
    assert!(
        with(on("h100pcie", 0), &[])
            .unwrap()
            .deployment
            .notes
            .is_empty()
    );
    assert!(
        with(on("unknown", 0), &[])
            .unwrap()
            .deployment
            .notes
            .is_empty()
    );
    let noted = with(on("NVIDIA L4", 0), &[]).unwrap().deployment.notes;
    assert!(
        noted[0].contains("`NVIDIA L4`, which may or may not be the h100"),
        "{noted:?}"
    );
    let cpu = ["deployment.gpu=cpu", "batching.num_blocks=4000"];
    let noted = with(on("NVIDIA L4", 0), &cpu).unwrap().deployment.notes;
    assert!(
        noted[0].contains("`NVIDIA L4`, which may or may not be the cpu"),
        "{noted:?}"
    );
    let noted = with(on("Intel Xeon, avx512", 4), &cpu)
        .unwrap()
        .deployment
        .notes;
    assert_eq!(noted, Vec::<String>::new());
    let unchecked = with(on("NVIDIA A100", 0), &["step_time.check_provenance=false"]);
    assert!(unchecked.is_ok());
}

#[test]
fn a_profile_of_another_precision_is_refused() {
    let text = refused(|_| (), &["deployment.precision=fp8"]);
    assert!(text.contains("is of another precision"), "{text}");
    assert!(text.contains("write `precision = \"bf16\"`"), "{text}");
    let text = refused(|_| (), &["deployment.kv_precision=fp8"]);
    assert!(text.contains("is of another kv_precision"), "{text}");
    assert!(with(|profile| profile.provenance.precision = None, &[]).is_ok());
}

#[test]
fn an_unknown_schema_is_told_which_are_read() {
    let text = refused(|profile| profile.schema = "foresail.profile/3".into(), &[]);
    assert!(
        text.contains("the profile's schema is `foresail.profile/3`"),
        "{text}"
    );
    assert!(
        text.contains("this version reads `foresail.profile/2` and `foresail.profile/1`"),
        "{text}"
    );
}

#[test]
fn a_world_size_that_was_not_measured_is_refused() {
    let text = refused(|_| (), &["deployment.world_size=2"]);
    assert!(text.contains("no world size 2, only 1"), "{text}");
}

#[test]
fn larger_batches_than_measured_are_noted() {
    let notes = with(|_| (), &["batching.max_num_seqs=512"])
        .unwrap()
        .deployment
        .notes;
    assert_eq!(
        notes,
        [
            "steps of more than 256 sequences are extrapolated: that is the profile's largest, and \
          batching.max_num_seqs is 512"
        ]
    );
}

#[test]
fn what_no_fitted_step_shows_is_noted() {
    let cell = |decodes, past_each: u64, len, is_left_out| Cell {
        decodes,
        decode_past: u64::from(decodes) * past_each,
        chunks: vec![CellChunk { past: 0, len }],
        adapters: 0,
        seconds: vec![1e-3],
        rounds: vec![0],
        device_seconds: Vec::new(),
        is_left_out,
    };
    let measured = |cells: Vec<Cell>| {
        let limits = [
            "batching.max_num_seqs=512",
            "batching.max_num_batched_tokens=8192",
        ];
        let change = |profile: &mut CalibratedProfile| profile.world_sizes[0].cells = cells;
        with(change, &limits).unwrap().deployment.notes
    };
    let long = cell(512, 100_000_000, 8192, false);
    assert_eq!(measured(vec![long.clone()]), Vec::<String>::new());
    let outlier = Cell {
        is_left_out: true,
        ..long
    };
    let notes = measured(vec![cell(256, 512, 2048, false), outlier]);
    let what: Vec<&str> = (notes.iter())
        .filter_map(|note| note.split(" are").next())
        .collect();
    assert_eq!(
        what,
        [
            "steps of more than 256 sequences",
            "steps of more than 2304 tokens",
            "sequences of more than 2048 tokens",
        ]
    );
    assert!(
        notes[2].contains("deployment.max_model_len is 8192"),
        "{notes:?}"
    );
}

#[test]
fn what_the_scenario_says_goes_before_what_was_measured() {
    let said = ["step_time.request_overhead=1ms"];
    let overhead = with(|_| (), &said).unwrap().deployment.request_overhead();
    assert_eq!(overhead.of(1000), 2_000_000);
}

#[test]
fn adapters_cost_what_was_measured_where_it_was() {
    let adapters = |arguments: &[&str]| {
        let mut all = vec!["adapters.count=4"];
        all.extend(arguments);
        with(|_| (), &all)
            .unwrap()
            .deployment
            .adapters
            .unwrap()
            .overhead
    };
    let overhead = adapters(&[]);
    assert_eq!(overhead.step, 2_000_000_000);
    // `adapter_s` was not identified: the roofline's stays.
    assert_ne!(overhead.adapter, 300_000_000);
    assert_eq!(
        adapters(&["adapters.step_overhead=1ms"]).step,
        1_000_000_000
    );
}

#[test]
fn seeds_have_draws_and_each_its_own_for_ever() {
    let scenario = with(|_| (), &["adapters.count=4"]).unwrap();
    assert!(scenario.has_draws());
    let fixed = |scenario: &Scenario| match &scenario.deployment.step_time {
        StepTimeModel::Calibrated(calibrated) => calibrated.decode(1, 0).fixed,
        _ => panic!("the model is calibrated"),
    };
    let best = fixed(&scenario);
    let mut seen = Vec::new();
    for seed in 0..16 {
        let drawn = scenario.drawn(seed);
        let twice = fixed(&drawn) > best;
        assert_eq!(fixed(&drawn), fixed(&scenario.drawn(seed)));
        let overhead = if twice { 10_000_000 } else { 2_500_000 };
        assert_eq!(drawn.deployment.request_overhead().of(1000), overhead);
        let step = drawn.deployment.adapters.unwrap().overhead.step;
        assert_eq!(step, if twice { 4_000_000_000 } else { 1_000_000_000 });
        seen.push(twice);
    }
    assert!(seen.contains(&true) && seen.contains(&false), "{seen:?}");
}

#[test]
fn rooflines_of_known_gpus_have_draws_and_tables_have_none() {
    let roofline = ok(BASE);
    assert!(roofline.has_draws());
    let fixed = |scenario: &Scenario| match &scenario.deployment.step_time {
        StepTimeModel::Roofline(roofline) => roofline.decode(1, 0).fixed,
        _ => panic!("the model is a roofline"),
    };
    assert_ne!(fixed(&roofline.drawn(1)), fixed(&roofline.drawn(2)));
}

#[test]
fn figures_that_the_scenario_says_itself_are_certain() {
    let spread = |arguments: &[&str]| {
        let roofline = set(BASE, arguments);
        match &roofline.deployment.step_time {
            StepTimeModel::Roofline(roofline) => roofline.gpu().spread,
            _ => panic!("the model is a roofline"),
        }
    };
    let built_in = spread(&[]);
    let said = spread(&["step_time.kv_read=0.9", "step_time.step_overhead=1ms"]);
    assert!(built_in.kv_read > 0.0 && built_in.step_overhead > 0.0);
    let expected = EfficiencySpread {
        kv_read: 0.0,
        step_overhead: 0.0,
        ..built_in
    };
    assert_eq!(said, expected);
}

#[test]
fn a_processor_is_described_by_its_profile() {
    let on_cpu = |profile: &mut CalibratedProfile| {
        profile.provenance.device = "Intel Xeon, avx512".into();
        profile.provenance.threads = 4;
        profile.provenance.precision = Some(ProfilePrecision::F32);
    };
    let cpu = ["deployment.gpu=cpu", "batching.num_blocks=4000"];
    let deployment = with(on_cpu, &cpu).unwrap().deployment;
    assert_eq!(deployment.gpu, "cpu");
    assert_eq!(deployment.price.nanodollars_per_gpu_hour, 0);
    assert_eq!(deployment.batching.num_blocks, 4000);
    let text = refused(on_cpu, &cpu[..1]);
    assert!(
        text.contains("write `num_blocks` in `[batching]`"),
        "{text}"
    );
    let text = refused(|_| (), &cpu);
    assert!(text.contains("is of another GPU"), "{text}");
    let text = broken_by(&cpu);
    assert!(
        text.contains("no step times: none are known of processors"),
        "{text}"
    );
}
