//! Ranks on threads, as a replica has them, without what serves.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use foresail_engine::batch::Batch;
use foresail_engine::comm::{Comm, Exchange, Solo};
use foresail_engine::config::Partition;
use foresail_engine::model::Model;
use foresail_engine::ops::{Ops, Role};
use foresail_engine::weights::{Adapter, HostMatrix, Layer, Weights};

use crate::devices::{Device, Setting};

/// A model on all of its ranks.
pub(crate) struct World {
    vocab_size: usize,
    commands: Vec<Sender<Command>>,
    logits: Receiver<Vec<f32>>,
    ranks: Vec<JoinHandle<()>>,
}

enum Command {
    Step(Arc<Batch>),
    LoadAdapter(usize, Arc<Adapter>),
    UnloadAdapter(usize),
}

impl World {
    /// Starts the ranks of a model, each with the weights of its partition.
    pub(crate) fn start<D: Device>(
        device: D,
        setting: &Setting,
        world_size: usize,
        weights: impl Fn(Partition) -> Weights<HostMatrix>,
    ) -> Self {
        let (logits_to, logits) = channel();
        let (mut commands, mut ranks) = (Vec::new(), Vec::new());
        for comm in comms(world_size) {
            let partition = comm.partition();
            let weights = weights(partition);
            let (command_to, command) = channel();
            let (setting, logits_to) = (setting.clone(), logits_to.clone());
            commands.push(command_to);
            ranks.push(thread::spawn(move || {
                let mut ops = device.open(&setting, comm);
                let weights = packed(&mut ops, weights);
                let mut model = Model::new(&mut ops, &setting.config, partition, weights);
                while let Ok(command) = command.recv() {
                    obey(&mut ops, &mut model, command, partition.rank, &logits_to);
                }
            }));
        }
        Self {
            vocab_size: setting.config.vocab_size,
            commands,
            logits,
            ranks,
        }
    }

    /// Computes a step; a vector of logits for each row that wants them.
    pub(crate) fn step(&mut self, batch: Batch) -> Vec<Vec<f32>> {
        let rows = batch.logit_rows.len();
        let batch = Arc::new(batch);
        self.tell(|| Command::Step(Arc::clone(&batch)));
        let logits = self.logits.recv().expect("rank 0 computes the step");
        assert_eq!(logits.len(), rows * self.vocab_size);
        let vectors = logits.chunks_exact(self.vocab_size);
        vectors.map(<[f32]>::to_vec).collect()
    }

    pub(crate) fn load_adapter(&mut self, slot: usize, adapter: &Adapter) {
        let adapter = Arc::new(adapter.clone());
        self.tell(|| Command::LoadAdapter(slot, Arc::clone(&adapter)));
    }

    pub(crate) fn unload_adapter(&mut self, slot: usize) {
        self.tell(|| Command::UnloadAdapter(slot));
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for rank in &self.commands {
            rank.send(command()).expect("every rank lives");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.commands.clear();
        for rank in self.ranks.drain(..) {
            let ended = rank.join();
            // A rank's own panic has been printed; a second one here would hide it.
            assert!(ended.is_ok() || thread::panicking(), "a rank panicked");
        }
    }
}

fn comms(world_size: usize) -> Vec<Box<dyn Comm>> {
    if world_size == 1 {
        return vec![Box::new(Solo)];
    }
    let (_, ranks) = Exchange::world(world_size);
    let boxed = |rank| -> Box<dyn Comm> { Box::new(rank) };
    ranks.into_iter().map(boxed).collect()
}

fn obey<O: Ops>(
    ops: &mut O,
    model: &mut Model<O>,
    command: Command,
    rank: usize,
    logits_to: &Sender<Vec<f32>>,
) {
    match command {
        Command::Step(batch) => {
            let logits = model.forward(ops, &batch);
            if rank == 0 {
                logits_to.send(logits.to_vec()).expect("the test waits");
            } else {
                assert!(logits.is_empty(), "only rank 0 has logits");
            }
        }
        Command::LoadAdapter(slot, adapter) => {
            ops.load_adapter(slot, &adapter).expect("there is memory");
        }
        Command::UnloadAdapter(slot) => ops.unload_adapter(slot),
    }
}

/// The weights in the device's form.
fn packed<O: Ops>(ops: &mut O, weights: Weights<HostMatrix>) -> Weights<O::Matrix> {
    let layers = weights.layers.into_iter().map(|layer| Layer {
        index: layer.index,
        attention_norm: layer.attention_norm,
        qkv: ops.pack(layer.qkv, Role::Projection),
        qkv_bias: layer.qkv_bias,
        query_key_norm: layer.query_key_norm,
        output: ops.pack(layer.output, Role::Projection),
        output_bias: layer.output_bias,
        mlp_norm: layer.mlp_norm,
        gate_up: ops.pack(layer.gate_up, Role::GateUp),
        down: ops.pack(layer.down, Role::Projection),
    });
    let layers = layers.collect();
    Weights {
        embedding: ops.pack(weights.embedding, Role::Embedding),
        layers,
        norm: weights.norm,
        lm_head: weights
            .lm_head
            .map(|lm_head| ops.pack(lm_head, Role::Projection)),
    }
}
