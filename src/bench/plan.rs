//! What is measured, on which engine: the arguments, checked against the model.

use foresail_engine::bench::cost::Formats;
use foresail_engine::bench::{Grid, RequestSizes};
use foresail_engine::config::{ModelConfig, Partition};
use foresail_engine::startup::{Device, EngineSettings, KvCacheSize};

use super::Arguments;
use crate::failure::Failure;
use crate::subject::all_reduce;
use crate::terminal::Terminal;

/// With these, the model of the README (smollm2-135m) is measured in under two minutes on two cores.
const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
const CONTEXTS: [usize; 2] = [128, 1024];
const CHUNKS: [usize; 3] = [16, 128, 512];

/// The whole requests: a batch of which the steps are bound by neither bytes nor operations alone.
const REQUESTS: RequestSizes = RequestSizes {
    batch: 8,
    prompt_tokens: 32,
    output_tokens: 32,
};

/// What is measured, on which engine.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) grid: Grid,
    pub(super) requests: RequestSizes,
    pub(super) settings: EngineSettings,
    /// What was decided that nobody asked for.
    pub(super) note: Option<String>,
    pub(super) formats: Formats,
    pub(super) model_name: String,
}

impl Plan {
    pub(super) fn of(arguments: &Arguments, terminal: &Terminal) -> Result<Self, Failure> {
        let subject = &arguments.subject;
        let model = subject.model()?;
        Partition::check(&model, arguments.world_size.get())
            .map_err(|error| Failure::Input(error.to_string()))?;
        let grid = grid(arguments, &model, terminal)?;
        if arguments.out.is_some() {
            check_profile(&grid)?;
        }
        let ranks = match arguments.shard_alone {
            Some(_) => 1,
            None => arguments.world_size.get(),
        };
        let (device, note) = subject.device(ranks)?;
        if arguments.shard_alone.is_some() && arguments.world_size.get() == 1 {
            let message = "--shard-alone is one rank of several: add --world-size";
            return Err(Failure::Input(message.to_owned()));
        }
        let shard_alone = arguments.shard_alone.as_deref();
        let shard_alone = shard_alone.map(all_reduce).transpose()?;
        let requests = requests(&model);
        Ok(Self {
            settings: EngineSettings {
                shard_alone,
                ..settings(arguments, &grid, requests, device)?
            },
            requests,
            grid,
            note,
            formats: subject.formats(&model, device),
            model_name: subject.model_name(),
        })
    }
}

/// The grid that was asked for; where nothing was, what the model has positions for.
fn grid(arguments: &Arguments, config: &ModelConfig, terminal: &Terminal) -> Result<Grid, Failure> {
    let positions = config.max_position_embeddings;
    let mut left_out = Vec::new();
    let mut chosen = |asked: &Vec<usize>, defaults: &[usize], most: usize| match &asked[..] {
        [] => {
            let (fit, other): (Vec<_>, Vec<_>) = defaults.iter().partition(|&&value| value <= most);
            left_out.extend(other);
            fit
        }
        asked => asked.to_vec(),
    };
    let batches = chosen(&arguments.batch, &BATCHES, usize::MAX);
    let chunks = chosen(&arguments.chunk, &CHUNKS, positions / 2);
    let longest_chunk = chunks.iter().copied().max().unwrap_or(0);
    let contexts = chosen(
        &arguments.context,
        &CONTEXTS,
        positions.saturating_sub(longest_chunk.max(1)),
    );
    if !left_out.is_empty() {
        let left_out: Vec<String> = left_out.iter().map(usize::to_string).collect();
        terminal.note(&format!(
            "the model has {positions} positions: default contexts and chunks of {} tokens are \
             not measured",
            left_out.join(", ")
        ));
    }
    let input = |error: foresail_engine::bench::GridError| Failure::Input(error.to_string());
    let grid = Grid::new(batches, contexts, chunks, arguments.repeats.get()).map_err(input)?;
    grid.check_model(config).map_err(input)?;
    Ok(grid)
}

/// What a profile needs, before anything is measured.
fn check_profile(grid: &Grid) -> Result<(), Failure> {
    if grid.has_profile() {
        return Ok(());
    }
    Err(Failure::Input(
        "a profile needs decode steps of batch 1 and at least one chunk: add 1 to --batch, or \
         leave --out away"
            .to_owned(),
    ))
}

/// Short enough for any model.
fn requests(config: &ModelConfig) -> RequestSizes {
    let half = (config.max_position_embeddings / 2).max(1);
    RequestSizes {
        prompt_tokens: REQUESTS.prompt_tokens.min(half),
        output_tokens: REQUESTS.output_tokens.min(half),
        ..REQUESTS
    }
}

fn settings(
    arguments: &Arguments,
    grid: &Grid,
    requests: RequestSizes,
    device: Device,
) -> Result<EngineSettings, Failure> {
    let settings = arguments.subject.settings(device)?;
    let block_size = settings.block_size;
    let room = grid.room(block_size);
    let request_tokens = requests.prompt_tokens + requests.output_tokens;
    let num_blocks = room.num_blocks.max(requests.num_blocks(block_size));
    Ok(EngineSettings {
        world_size: arguments.world_size.get(),
        max_model_len: Some(room.max_model_len.max(request_tokens)),
        max_num_seqs: room.max_num_seqs.max(requests.batch),
        // All prompts of the requests in one step, so that they are the same whatever the grid.
        max_batched_tokens: room
            .max_batched_tokens
            .max(requests.batch * requests.prompt_tokens),
        kv_cache: KvCacheSize::Blocks(num_blocks),
        max_loras: 0,
        ..settings
    })
}
