//! Files with several deployments: they run together, and each is reported.

use serde_json::Value;

use crate::sandbox::Sandbox;

/// Two deployments that want two replicas each, and three GPUs. `late` asks
/// for its second one last.
const TEAMS: &str = r#"description = "Two that share three GPUs."

[gpu_pool.gpus]
h100 = 3

[[deployments]]
name = "early"

[deployments.deployment]
model = "llama-3-8b"
gpu = "h100"
min_replica_count = 1
max_replica_count = 2
scale_up_window = "10s"

[deployments.workload]
duration = "3m"
arrivals = { process = "poisson", rate_per_s = 30.0 }
prompt_tokens = 512
output_tokens = 128

[deployments.batching]
max_num_seqs = 32

[deployments.objectives]
ttft_p95 = "2m"

[[deployments]]
name = "late"

[deployments.deployment]
model = "llama-3-8b"
gpu = "h100"
min_replica_count = 1
max_replica_count = 2
scale_up_window = "20s"

[deployments.workload]
duration = "3m"
arrivals = { process = "poisson", rate_per_s = 25.0 }
prompt_tokens = 512
output_tokens = 128

[deployments.batching]
max_num_seqs = 32

[deployments.objectives]
ttft_p95 = "2m"
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("teams.toml", TEAMS);
    sandbox
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Without the time that the runs took.
fn settled(text: &str) -> String {
    let is_speed = |line: &&str| line.contains(" engine steps, ");
    let lines = text.lines().filter(|line| !is_speed(line));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn each_deployment_has_a_summary_and_all_are_set_side_by_side() {
    let ended = sandbox().run(&["simulate", "teams.toml"]).with_code(0);
    assert_eq!(ended.stderr, "");
    insta::assert_snapshot!("teams", settled(&ended.stdout));
}

#[test]
fn each_deployment_has_a_folder() {
    let sandbox = sandbox();
    let arguments = ["simulate", "teams.toml", "--out", "runs"];
    sandbox.run(&arguments).with_code(0);
    let runs: Vec<_> = sandbox.names();
    let expected = [
        "runs",
        "runs/early",
        "runs/early/requests.csv",
        "runs/early/summary.json",
        "runs/early/timeline.csv",
        "runs/late",
        "runs/late/requests.csv",
        "runs/late/summary.json",
        "runs/late/timeline.csv",
        "small.toml",
        "teams.toml",
    ];
    assert_eq!(runs, expected);
    let timeline = sandbox.read("runs/late/timeline.csv");
    assert!(timeline.contains("waits for GPUs"), "{timeline}");
    // Records of deployments can be compared like those of scenarios.
    let compared = sandbox.run(&["compare", "runs/early", "runs/late"]);
    compared.with_code(0);
}

#[test]
fn several_files_have_a_folder_each_for_their_deployments() {
    let sandbox = sandbox();
    let arguments = [
        "simulate",
        "teams.toml",
        "small.toml",
        "--seeds",
        "2",
        "--out",
        "runs",
        "--format",
        "json",
    ];
    let ended = sandbox.run(&arguments).with_code(0);
    let summaries = json(&ended.stdout);
    let names: Vec<_> = summaries
        .as_array()
        .expect("several are an array")
        .iter()
        .map(|summary| (&summary["scenario"]["name"], &summary["seeds"]["seeds"]))
        .map(|(name, seeds)| (name.as_str().unwrap_or_default(), seeds.clone()))
        .collect();
    let seeds = serde_json::json!([1, 2]);
    let expected = ["early", "late", "small"].map(|name| (name, seeds.clone()));
    assert_eq!(names, expected);
    for folder in ["teams/early", "teams/late", "small"] {
        for seed in [1, 2] {
            let path = format!("runs/{folder}/seed-{seed}/summary.json");
            let summary = json(&sandbox.read(&path));
            assert_eq!(summary["seed"], seed, "{path}");
            let name = folder.rsplit('/').next();
            assert_eq!(summary["scenario"]["name"].as_str(), name, "{path}");
        }
    }
}

/// The traffic of a deployment is its own: it depends on the seed and on its name.
#[test]
fn each_deployment_draws_its_own_traffic_and_seeds_give_the_same_again() {
    let sandbox = sandbox();
    let same = "deployments.late.workload.arrivals.rate_per_s=30";
    let run = |seed: &str, threads: &str, out: &str| {
        let arguments = [
            "simulate",
            "teams.toml",
            "--set",
            same,
            "--seed",
            seed,
            "--threads",
            threads,
            "--seeds",
            "2",
            "--out",
            out,
        ];
        sandbox.run(&arguments).with_code(0);
        sandbox.contents(out)
    };
    let once = run("5", "1", "once");
    assert_eq!(once, run("5", "2", "again"));
    assert_eq!(once.len(), 2 * 2 * 3);
    let of = |folder: &str| sandbox.read(format!("once/{folder}/requests.csv"));
    assert_ne!(of("early/seed-5"), of("late/seed-5"));
    assert_ne!(of("early/seed-5"), of("early/seed-6"));
    run("6", "2", "later");
    assert_eq!(
        of("late/seed-6"),
        sandbox.read("later/late/seed-6/requests.csv")
    );
}

#[test]
fn an_objective_that_one_of_them_misses_is_exit_code_3() {
    let sandbox = sandbox();
    for name in ["early", "late"] {
        let set = format!("deployments.{name}.objectives.ttft_p95=1us");
        let ended = sandbox.run(&["simulate", "teams.toml", "--set", &set]);
        ended.with_code(3);
    }
}

#[test]
fn with_enough_gpus_nobody_waits() {
    let sandbox = sandbox();
    let waits = |gpus: &str| {
        let set = format!("gpu_pool.gpus.h100={gpus}");
        let arguments = ["simulate", "teams.toml", "--set", &set, "--format", "json"];
        let summaries = json(&sandbox.run(&arguments).with_code(0).stdout);
        let late = &summaries[1]["replicas"];
        let number = |key: &str| late[key].as_f64().expect("it is a number");
        (number("waited_for_gpus"), number("waited_for_gpus_s"))
    };
    assert_eq!(waits("4"), (0.0, 0.0));
    let (count, seconds) = waits("3");
    assert!(count >= 1.0 && seconds > 10.0, "{count} {seconds}");
}

/// A list of one is a list still, so that scripts need not know how many there are.
#[test]
fn a_list_of_one_is_an_array_and_has_its_folder() {
    let sandbox = sandbox();
    let (first, _) = TEAMS.rsplit_once("[[deployments]]").expect("there are two");
    sandbox.write("one.toml", first);
    let arguments = ["simulate", "one.toml", "--format", "json", "--out", "runs"];
    let ended = sandbox.run(&arguments).with_code(0);
    assert_eq!(json(&ended.stdout)[0]["scenario"]["name"], "early");
    assert!(sandbox.path("runs/early/summary.json").is_file());
}

/// The oracle of each foresees its own traffic.
#[test]
fn deployments_may_have_policies_of_their_own() {
    let sandbox = sandbox();
    let arguments = [
        "simulate",
        "teams.toml",
        "--set",
        "deployments.early.autoscaler.policy=oracle",
        "--set",
        "deployments.late.autoscaler.policy=oracle",
        "--set",
        "gpu_pool.gpus.h100=4",
        "--format",
        "json",
    ];
    let summaries = json(&sandbox.run(&arguments).with_code(0).stdout);
    for summary in summaries.as_array().expect("an array") {
        assert!(
            summary["replicas"]["starts"].as_u64() >= Some(1),
            "{summary}"
        );
    }
}

#[test]
fn commands_that_take_one_deployment_say_so() {
    let sandbox = sandbox();
    sandbox.write("load.csv", "time_s,load,ready\n0,1,1\n");
    let commands: [&[&str]; 4] = [
        &["compare", "small.toml", "teams.toml"],
        &["trace", "generate", "teams.toml", "--out", "requests.csv"],
        &["autoscale", "teams.toml", "--trace", "load.csv"],
        &[
            "compare",
            "teams.toml",
            "--vary",
            "deployments.late.deployment.max_replica_count=1,2",
        ],
    ];
    for command in commands {
        let ended = sandbox.run(command).with_code(2);
        let told = &ended.stderr;
        assert!(
            told.contains("`teams` has 2 deployments, and this takes one"),
            "{told}"
        );
        assert!(
            told.contains("`foresail simulate` runs several together"),
            "{told}"
        );
        assert_eq!(ended.stdout, "");
    }
    let ended = sandbox.run(&["compare", "teams.toml", "--policies", "k8s-hpa,fixed"]);
    let told = ended.with_code(2).stderr;
    assert!(
        told.contains("`--policies` is for one deployment"),
        "{told}"
    );
}

#[test]
fn a_trace_is_for_one_of_them() {
    let sandbox = sandbox();
    let header = crate::sandbox::NATIVE_HEADER;
    sandbox.write("t.csv", format!("{header}0,5,5,,,,,,\n1000,5,5,,,,,,\n"));
    let ended = sandbox.run(&["simulate", "teams.toml", "--trace", "t.csv"]);
    let told = ended.with_code(2).stderr;
    let set = "deployments.early.workload={ trace = \"t.csv\" }";
    assert!(told.contains(&format!("`--set '{set}'`")), "{told}");
    // What it says is what helps.
    let arguments = ["simulate", "teams.toml", "--set", set, "--format", "json"];
    let summaries = json(&sandbox.run(&arguments).with_code(0).stdout);
    assert_eq!(summaries[0]["requests"]["offered"], 2);
    assert_eq!(summaries[0]["scenario"]["workload"], "trace t.csv");
}

#[test]
fn names_that_cannot_be_folders() {
    let sandbox = sandbox();
    let parent = TEAMS.replace("name = \"late\"", "name = \"..\"");
    sandbox.write("parent.toml", parent);
    sandbox.run(&["simulate", "parent.toml"]).with_code(0);
    let ended = sandbox.run(&["simulate", "parent.toml", "--out", "runs"]);
    let told = ended.with_code(2).stderr;
    assert!(told.contains("a deployment is called `..`"), "{told}");
    assert!(!sandbox.path("runs").exists());
}

#[test]
fn a_ready_scenario_has_two_teams() {
    let sandbox = Sandbox::new();
    let list = sandbox.run(&["simulate", "--list"]).with_code(0).stdout;
    assert!(list.contains("\ntwo-teams "), "{list}");
    let ended = sandbox.run(&["simulate", "two-teams"]);
    assert!(
        ended.stdout.contains(" waited for GPUs, "),
        "{}",
        ended.stdout
    );
    let enough = ["simulate", "two-teams", "--set", "gpu_pool.gpus.h100=10"];
    let ended = sandbox.run(&enough);
    assert!(
        !ended.stdout.contains("waited for GPUs"),
        "{}",
        ended.stdout
    );
}
