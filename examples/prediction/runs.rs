//! The runs: what is sent, doing it, and predicting it.

use std::fs;
use std::path::{Path, PathBuf};

use foresail_core::step_time::CalibratedProfile;

use crate::program::{Program, Server};
use crate::systems::{Limits, Mix, System};
use crate::{Prediction, Result};

/// Requests a second that a system can take, of either mix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacities {
    pub(crate) mix: f64,
    pub(crate) other_mix: f64,
}

/// A run: the same arrivals in every repeat, and in every prediction.
pub(crate) struct Run {
    pub(crate) name: &'static str,
    /// The name of its files.
    file: &'static str,
    /// Its `[workload]`, or that of which its trace is made.
    workload: String,
    is_trace: bool,
    seed: u32,
}

/// Keeps a system busy with as many clients as it can batch, and sees how fast it answers.
pub(crate) fn capacities(
    system: &System,
    program: &Program,
    server: &Server,
    folder: &Path,
) -> Result<Capacities> {
    let of = |mix: &Mix, name: &str| -> Result<f64> {
        let out = folder.join(name);
        if !out.exists() {
            let arguments = [
                "load".to_owned(),
                format!("--url={}", server.url()),
                "--tokenizer=bytes".to_owned(),
                format!("--concurrency={}", system.clients),
                format!("--num-prompts={}", system.capacity_requests),
                format!("--random-input-len={}", mix.prompt_mean),
                format!("--random-output-len={}", mix.output_mean),
                "--random-range-ratio=0.5".to_owned(),
                "--quiet".to_owned(),
                "--out".to_owned(),
            ];
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            program.run_to_file(&arguments, &out, &folder.join(format!("{name}.txt")))?;
        }
        crate::figures::rate(&out)
    };
    Ok(Capacities {
        mix: of(&system.mix, "capacity")?,
        other_mix: of(&system.other_mix, "capacity-other")?,
    })
}

/// All runs of a system.
pub(crate) fn all(system: &System, capacities: Capacities, seconds: u32) -> Vec<Run> {
    let poisson = |share: f64, capacity: f64, mix: &Mix| {
        let rate = share * capacity;
        workload(
            seconds,
            &format!("{{ process = \"poisson\", rate_per_s = {rate:.4} }}"),
            mix,
        )
    };
    let bursts = format!(
        "{{ process = \"gamma\", cv = 3.0, rate_per_s = {:.4} }}",
        0.4 * capacities.mix
    );
    let run = |name, file, workload, seed| Run {
        name,
        file,
        workload,
        is_trace: false,
        seed,
    };
    vec![
        run(
            "30 % of capacity",
            "30",
            poisson(0.3, capacities.mix, &system.mix),
            11,
        ),
        run(
            "60 % of capacity",
            "60",
            poisson(0.6, capacities.mix, &system.mix),
            12,
        ),
        run(
            "85 % of capacity",
            "85",
            poisson(0.85, capacities.mix, &system.mix),
            13,
        ),
        Run {
            is_trace: true,
            ..run(
                "a trace of bursts",
                "bursts",
                workload(seconds, &bursts, &system.mix),
                14,
            )
        },
        run(
            "other prompts",
            "other",
            poisson(0.6, capacities.other_mix, &system.other_mix),
            15,
        ),
    ]
}

fn workload(seconds: u32, arrivals: &str, mix: &Mix) -> String {
    format!(
        "[workload]\nduration = \"{seconds}s\"\narrivals = {arrivals}\nprompt_tokens = {}\n\
         output_tokens = {}\n",
        mix.prompt_tokens, mix.output_tokens
    )
}

impl Run {
    /// Writes its scenarios, one for each prediction, and its trace if it has one.
    pub(crate) fn write(
        &self,
        system: &System,
        limits: &Limits,
        predictions: &[Prediction],
        program: &Program,
        folder: &Path,
    ) -> Result<()> {
        let traffic = match self.is_trace {
            true => self.write_trace(program, folder)?,
            false => self.workload.clone(),
        };
        let head = format!("seed = {}\n{}", self.seed, system.tables(limits));
        for prediction in predictions {
            let text = format!("{head}\n{traffic}\n{}", step_time(prediction)?);
            fs::write(self.scenario(prediction, folder), text)?;
        }
        Ok(())
    }

    /// The `[workload]` of the trace that it writes.
    fn write_trace(&self, program: &Program, folder: &Path) -> Result<String> {
        // What a trace is made of has step times too, which are of no account here.
        let source = folder.join(format!("{}-source.toml", self.file));
        let known = "[deployment]\nmodel = \"llama-3-8b\"\ngpu = \"h100\"\n";
        let seed = self.seed;
        fs::write(&source, format!("seed = {seed}\n{known}{}", self.workload))?;
        let source = source.to_str().ok_or("the folder's name is no text")?;
        let trace = folder.join(format!("{}.csv", self.file));
        let printed = folder.join(format!("{}-trace.txt", self.file));
        program.run_to_file(&["trace", "generate", source, "--out"], &trace, &printed)?;
        Ok(format!("[workload]\ntrace = \"{}.csv\"\n", self.file))
    }

    fn scenario(&self, prediction: &Prediction, folder: &Path) -> PathBuf {
        folder.join(format!("{}.toml", self.file_of(prediction)))
    }

    /// Where the records of a repeat are.
    pub(crate) fn folder(&self, folder: &Path, repeat: usize) -> PathBuf {
        folder.join(format!("{}-{repeat}", self.file))
    }

    /// Does it once, if that has not been done. Of a scenario, load only takes the traffic.
    pub(crate) fn measure(
        &self,
        repeat: usize,
        scenario: &Prediction,
        program: &Program,
        server: &Server,
        folder: &Path,
    ) -> Result<()> {
        let out = self.folder(folder, repeat);
        if out.exists() {
            return Ok(());
        }
        let scenario = self.scenario(scenario, folder);
        let scenario = scenario.to_str().ok_or("the folder's name is no text")?;
        let url = format!("--url={}", server.url());
        program.run_to_file(
            &[
                "load",
                scenario,
                &url,
                "--tokenizer=bytes",
                "--quiet",
                "--out",
            ],
            &out,
            &folder.join(format!("{}-{repeat}.txt", self.file)),
        )
    }

    /// What is predicted of the same arrivals: where its records are.
    pub(crate) fn predict(
        &self,
        prediction: &Prediction,
        program: &Program,
        folder: &Path,
    ) -> Result<PathBuf> {
        let name = self.file_of(prediction);
        let out = folder.join(format!("{name}-predicted"));
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        let scenario = self.scenario(prediction, folder);
        let scenario = scenario.to_str().ok_or("the folder's name is no text")?;
        let printed = folder.join(format!("{name}.txt"));
        program.run_to_file(&["simulate", scenario, "--quiet", "--out"], &out, &printed)?;
        Ok(out)
    }

    /// Lets the program say of the first repeat how far off a prediction is, and where that comes from.
    pub(crate) fn validate(
        &self,
        prediction: &Prediction,
        program: &Program,
        folder: &Path,
    ) -> Result<()> {
        let name = self.file_of(prediction);
        let (measured, scenario) = (self.folder(folder, 0), self.scenario(prediction, folder));
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let (Some(measured), Some(scenario)) = (text(&measured), text(&scenario)) else {
            return Err("the folder's name is no text".into());
        };
        let picture = folder.join(format!("{name}-validated.svg"));
        let printed = folder.join(format!("{name}-validated.txt"));
        program.run_to_file(
            &["validate", &measured, &scenario, "--quiet", "--picture"],
            &picture,
            &printed,
        )
    }

    fn file_of(&self, prediction: &Prediction) -> String {
        let words = prediction
            .name
            .split([' ', ','])
            .filter(|word| !word.is_empty());
        let words: Vec<&str> = [self.file].into_iter().chain(words).collect();
        words.join("-")
    }
}

/// The `[step_time]` of a prediction. Its profile is beside the scenario.
fn step_time(prediction: &Prediction) -> Result<String> {
    let mut text = "[step_time]\n".to_owned();
    if let Some(profile) = &prediction.profile {
        let file = profile.file_name().unwrap_or_default().to_string_lossy();
        // An endpoint does not say what it runs on.
        let is_checked = file == "inside.json";
        text +=
            &format!("model = \"profile\"\nfile = \"{file}\"\ncheck_provenance = {is_checked}\n");
    }
    if let Some(profile) = &prediction.overheads_of {
        let profile: CalibratedProfile = serde_json::from_str(&fs::read_to_string(profile)?)?;
        let terms = profile.world_size(1)?.formula()?.terms;
        text += &format!(
            "request_overhead = \"{:.3}us\"\nprompt_token_overhead = \"{:.3}us\"\n",
            terms.request_s * 1e6,
            terms.prompt_token_s * 1e6
        );
    }
    Ok(text)
}
