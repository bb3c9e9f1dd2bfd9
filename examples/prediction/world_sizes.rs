//! World size 2: one shard's steps and modelled exchanges, beside ranks that exchange.

use std::fs;
use std::path::Path;

use foresail_core::step_time::calibrated::{Cell, CellChunk, Formula};
use foresail_core::step_time::{CalibratedProfile, Chunk, StepLoad};

use crate::figures::percentile;
use crate::program::Program;
use crate::{Options, Result};

const WORLD_SIZE: u32 = 2;

/// Our engine with two ranks of a thread each. The heads of the smaller SmolLM2 do not split over two.
const ENGINE: [&str; 10] = [
    "calibrate",
    "engine",
    "--dummy=qwen2.5-0.5b",
    "--backend=cpu",
    "--threads=2",
    "--world-size=2",
    "--max-num-seqs=8",
    "--max-batched-tokens=64",
    "--max-model-len=512",
    "--kv-tokens=2048",
];

/// Measures ranks that exchange, ranks that do not, and the former again, which is the noise.
pub(crate) fn compare(program: &Program, options: &Options) -> Result<String> {
    let folder = options.out.join("world-sizes");
    fs::create_dir_all(&folder)?;
    let budget = format!("--budget={}s", options.inside_seconds);
    let measure = |name: &str, more: &[&str]| -> Result<CalibratedProfile> {
        let file = folder.join(format!("{name}.json"));
        if !file.exists() {
            let arguments = [&ENGINE, more, &[&budget, "--out"]].concat();
            program.run_to_file(&arguments, &file, &folder.join(format!("{name}.txt")))?;
        }
        read(&file)
    };
    let ranks = measure("ranks", &[])?;
    let alone = measure("shard-alone", &["--shard-alone=threads"])?;
    let again = measure("ranks-again", &["--seed=1"])?;
    text(&ranks, &alone, &again)
}

fn read(file: &Path) -> Result<CalibratedProfile> {
    let profile: CalibratedProfile = serde_json::from_str(&fs::read_to_string(file)?)?;
    profile.check()?;
    Ok(profile)
}

fn text(
    ranks: &CalibratedProfile,
    alone: &CalibratedProfile,
    again: &CalibratedProfile,
) -> Result<String> {
    let cells = &ranks.world_size(WORLD_SIZE)?.cells;
    let mut text = "## World size 2 of our engine on the CPU: Qwen2.5-0.5B, bf16, two ranks of a thread each\n\n\
        Steps of ranks that exchange their sums, beside what one rank's steps without exchanges and the exchanges \
        that were measured apart come to; magnitudes over the steps of the grid.\n\n\
        | predicted by | steps | median | p90 | largest |\n|---|---:|---:|---:|---:|\n"
        .to_owned();
    let rows = [
        ("one rank, and modelled exchanges", alone),
        ("the ranks themselves, fitted", ranks),
        ("the same measured once more, fitted", again),
    ];
    for (name, profile) in rows {
        let formula = profile.world_size(WORLD_SIZE)?.formula()?;
        let errors: Vec<f64> = cells
            .iter()
            .filter_map(|cell| error(&formula, cell))
            .collect();
        let at = |share| 100.0 * percentile(errors.clone(), share);
        text += &format!(
            "| {name} | {} | {:.1} % | {:.1} % | {:.1} % |\n",
            errors.len(),
            at(0.5),
            at(0.9),
            at(1.0)
        );
    }
    Ok(text)
}

/// How far a step is from what a formula says, as a share; none of a step that was an outlier.
fn error(formula: &Formula, cell: &Cell) -> Option<f64> {
    if cell.is_left_out || cell.adapters > 0 || cell.seconds.is_empty() {
        return None;
    }
    let chunk = |chunk: &CellChunk| Chunk {
        past: chunk.past,
        len: chunk.len,
        sample: true,
    };
    let chunks: Vec<Chunk> = cell.chunks.iter().map(chunk).collect();
    let load = StepLoad {
        decodes: cell.decodes,
        decode_past: cell.decode_past,
        chunks: &chunks,
    };
    let measured = percentile(cell.seconds.clone(), 0.5);
    Some((formula.seconds(&load) / measured - 1.0).abs())
}
