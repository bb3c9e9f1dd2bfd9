//! Safetensors files: one, or those of a folder (`model.safetensors`, or several
//! files with `model.safetensors.index.json`).
//!
//! Opening them reads their headers; values are read when they are asked for, those
//! of the rows and columns in question only, by positional reads. Files are not
//! mapped into memory: a mapped file that shrinks ends the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::config::{Dtype, ModelConfig};
use crate::weights::{HostMatrix, HostValues};

use super::error::CheckpointError;
use super::header::{self, Stored};
use super::layout::{self, Piece, Tensor};
use super::load::TensorSource;
use super::{decode, files};

/// The name of the only file of weights.
const SINGLE: &str = "model.safetensors";

/// The name of the file that says which of several files has which tensor.
const INDEX: &str = "model.safetensors.index.json";

/// How much is read at once (bytes): small enough to stay in the second-level
/// cache until it is converted, large enough that calls do not count.
const CHUNK_BYTES: usize = 256 * 1024;

/// Shorter pieces of rows than this (bytes) are cut out of whole rows, as a read of its own would cost more.
const PIECE_BYTES_MIN: usize = 4096;

/// Open files, and what is in them.
#[derive(Debug)]
pub struct SafetensorsFiles {
    /// What was opened, for messages: a folder, or a file.
    path: PathBuf,
    files: Vec<OpenFile>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
}

/// A tensor, and which of the files has it.
#[derive(Debug)]
struct Entry {
    file: usize,
    stored: Stored,
}

/// What of an index is needed.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl SafetensorsFiles {
    /// Opens the weights of a model in a folder, and checks their headers.
    ///
    /// # Errors
    /// If there are none, or a file is not whole.
    pub fn open_folder(folder: &Path) -> Result<Self, CheckpointError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        let mut opened = Self::at(folder);
        match (single.exists(), index.exists()) {
            (true, true) => Err(no_weights(folder, BOTH)),
            (false, false) => Err(no_weights(folder, what_is_there(folder))),
            (true, false) => opened.add(single),
            (false, true) => opened.add_indexed(&index),
        }?;
        Ok(opened)
    }

    /// Opens one file, and checks its header.
    ///
    /// # Errors
    /// If it cannot be read, or is not whole.
    pub fn open_file(path: &Path) -> Result<Self, CheckpointError> {
        let mut opened = Self::at(path);
        opened.add(path.to_owned())?;
        Ok(opened)
    }

    fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        }
    }

    /// Opens the files that an index names, and checks that they have what it says.
    fn add_indexed(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let index = read_index(path)?;
        let names: BTreeSet<_> = index.values().collect();
        for name in names {
            self.add(self.path.join(name))?;
        }
        for (tensor, name) in &index {
            let entry = self.tensors.get(tensor);
            let path = entry.map(|entry| &self.files[entry.file].path);
            if path != Some(&self.path.join(name)) {
                let reason = "the index says that it is here, and it is not";
                return Err(CheckpointError::Tensor {
                    file: self.path.join(name),
                    tensor: tensor.clone(),
                    reason: reason.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<(), CheckpointError> {
        let file = File::open(&path).map_err(|error| files::failed(&path, error))?;
        for (tensor, stored) in header::read(&path, &file)? {
            let place = self.files.len();
            if let Some(other) = self.tensors.get(&tensor) {
                return Err(CheckpointError::Twice {
                    tensor,
                    first: self.files[other.file].path.clone(),
                    second: path,
                });
            }
            let entry = Entry {
                file: place,
                stored,
            };
            self.tensors.insert(tensor, entry);
        }
        self.files.push(OpenFile { path, file });
        Ok(())
    }

    /// The names of the tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one of this name.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.stored.shape)
    }

    /// The number format of a tensor, if there is one of this name and it is one that is computed with.
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        supported(self.tensors.get(name)?.stored.dtype)
    }

    /// Reads a whole matrix, in the format in which it is stored, or f32 for f16.
    ///
    /// # Errors
    /// If there is none of this name, it is not a matrix of supported numbers, or it cannot be read.
    pub fn matrix(&self, name: &str) -> Result<HostMatrix, CheckpointError> {
        let (file, stored) = self.find(name)?;
        let &[rows, columns] = stored.shape.as_slice() else {
            let reason = format!("it is {:?}, and should be a matrix", stored.shape);
            return Err(file.wrong(name, reason));
        };
        let dtype = file.supported(name, stored)?;
        let mut values = match dtype {
            Dtype::Bf16 => HostValues::Bf16(Vec::with_capacity(rows * columns)),
            Dtype::F32 | Dtype::F16 => HostValues::F32(Vec::with_capacity(rows * columns)),
        };
        let part = Part {
            width: columns,
            rows: 0..rows,
            columns: 0..columns,
        };
        file.read(name, stored.offset, dtype, &part, &mut values)?;
        Ok(HostMatrix {
            rows,
            columns,
            values,
        })
    }

    /// Checks that a tensor has the shape that it should have, and numbers that are computed with.
    ///
    /// # Errors
    /// If not, or there is none of this name.
    pub fn check_tensor(&self, name: &str, expected: &[usize]) -> Result<(), CheckpointError> {
        let (file, stored) = self.find(name)?;
        file.supported(name, stored)?;
        if stored.shape != expected {
            return Err(CheckpointError::Shape {
                file: file.path.clone(),
                tensor: name.to_owned(),
                expected: expected.to_owned(),
                found: stored.shape.clone(),
            });
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<(&OpenFile, &Stored), CheckpointError> {
        let entry = self.tensors.get(name);
        let entry = entry.ok_or_else(|| CheckpointError::Missing {
            folder: self.path.clone(),
            tensors: vec![name.to_owned()],
        })?;
        Ok((&self.files[entry.file], &entry.stored))
    }

    fn check_names(
        &self,
        config: &ModelConfig,
        needed: &BTreeSet<String>,
    ) -> Result<(), CheckpointError> {
        let missing = needed
            .iter()
            .filter(|name| !self.tensors.contains_key(*name));
        let tensors: Vec<_> = missing.cloned().collect();
        if !tensors.is_empty() {
            let folder = self.path.clone();
            return Err(CheckpointError::Missing { folder, tensors });
        }
        let is_known = |name: &str| needed.contains(name) || is_harmless(config, name);
        let unexpected = self.tensors.keys().filter(|name| !is_known(name));
        let tensors: Vec<_> = unexpected.cloned().collect();
        if !tensors.is_empty() {
            let folder = self.path.clone();
            return Err(CheckpointError::Unexpected { folder, tensors });
        }
        Ok(())
    }

    /// Checks, where the output projection is the embedding, that files that have both have the same
    /// twice. Transformers computes with the two that are stored if they differ
    /// (`tie_weights` in src/transformers/modeling_utils.py), and vLLM with the embedding.
    ///
    /// # Errors
    /// If they differ, or cannot be read.
    pub fn check_tied(&self, config: &ModelConfig) -> Result<(), CheckpointError> {
        use layout::{EMBEDDING_NAME, LM_HEAD_NAME as HEAD};
        if !config.tie_word_embeddings || !self.tensors.contains_key(HEAD) {
            return Ok(());
        }
        self.check_tensor(HEAD, &[config.vocab_size, config.hidden_size])?;
        if self.matrix(HEAD)? == self.matrix(EMBEDDING_NAME)? {
            return Ok(());
        }
        let (file, _) = self.find(HEAD)?;
        let reason = "it differs from model.embed_tokens.weight, and by config.json \
                      (tie_word_embeddings) they are the same";
        Err(file.wrong(HEAD, reason))
    }
}

impl TensorSource for SafetensorsFiles {
    /// There has to be all that the model needs, in its shapes and in formats that are computed
    /// with, and nothing else that would change the result.
    fn check(&self, config: &ModelConfig) -> Result<(), CheckpointError> {
        let needed = layout::tensors(config).map(|tensor| tensor.name);
        self.check_names(config, &needed.collect())?;
        layout::tensors(config)
            .try_for_each(|tensor| self.check_tensor(&tensor.name, &tensor.shape()))
    }

    fn dtype(&self, tensor: &Tensor) -> Result<Dtype, CheckpointError> {
        let (file, stored) = self.find(&tensor.name)?;
        file.supported(&tensor.name, stored)
    }

    fn read(&self, piece: &Piece, values: &mut HostValues) -> Result<(), CheckpointError> {
        let name = &piece.tensor.name;
        let (file, stored) = self.find(name)?;
        let dtype = file.supported(name, stored)?;
        let part = Part {
            width: piece.tensor.columns,
            rows: piece.rows.clone(),
            columns: piece.columns.clone(),
        };
        file.read(name, stored.offset, dtype, &part, values)
    }
}

/// Rows and columns of a matrix that has `width` of the latter.
#[derive(Clone, Debug)]
struct Part {
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl OpenFile {
    fn wrong(&self, tensor: &str, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Tensor {
            file: self.path.clone(),
            tensor: tensor.to_owned(),
            reason: reason.into(),
        }
    }

    fn supported(&self, tensor: &str, stored: &Stored) -> Result<Dtype, CheckpointError> {
        supported(stored.dtype).ok_or_else(|| CheckpointError::Dtype {
            file: self.path.clone(),
            tensor: tensor.to_owned(),
            dtype: stored.dtype.to_string(),
        })
    }

    /// Appends part of a tensor that begins at `offset`.
    fn read(
        &self,
        tensor: &str,
        offset: u64,
        dtype: Dtype,
        part: &Part,
        values: &mut HostValues,
    ) -> Result<(), CheckpointError> {
        let size = dtype.bytes();
        let row_bytes = part.width * size;
        let columns = part.columns.start * size..part.columns.end * size;
        let row = |row: usize| offset + (row * row_bytes) as u64;
        let append = |bytes: &[u8]| decode::append(bytes, dtype, values);
        let read = if columns.len() == row_bytes {
            let bytes = part.rows.len() * row_bytes;
            self.read_run(row(part.rows.start), bytes, append)
        } else if columns.len() >= PIECE_BYTES_MIN {
            self.read_pieces(part.rows.clone().map(row), &columns, append)
        } else {
            let rows = row(part.rows.start)..row(part.rows.end);
            self.read_and_cut(rows, row_bytes, &columns, append)
        };
        read.map_err(|error| self.wrong(tensor, error.to_string()))
    }

    /// Reads what lies side by side.
    fn read_run(
        &self,
        mut offset: u64,
        mut bytes: usize,
        mut append: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut buffer = vec![0; bytes.min(CHUNK_BYTES)];
        while bytes > 0 {
            let chunk = bytes.min(CHUNK_BYTES);
            files::read_exact_at(&self.file, &mut buffer[..chunk], offset)?;
            append(&buffer[..chunk]);
            (offset, bytes) = (offset + chunk as u64, bytes - chunk);
        }
        Ok(())
    }

    /// Reads the same bytes of each of several rows.
    fn read_pieces(
        &self,
        rows: impl Iterator<Item = u64>,
        columns: &Range<usize>,
        mut append: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut buffer = vec![0; columns.len()];
        for row in rows {
            files::read_exact_at(&self.file, &mut buffer, row + columns.start as u64)?;
            append(&buffer);
        }
        Ok(())
    }

    /// Reads whole rows, and keeps the same bytes of each.
    fn read_and_cut(
        &self,
        rows: Range<u64>,
        row_bytes: usize,
        columns: &Range<usize>,
        mut append: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let chunk = CHUNK_BYTES.max(row_bytes) / row_bytes * row_bytes;
        let mut buffer = vec![0; chunk];
        for offset in rows.clone().step_by(chunk) {
            let bytes = (rows.end - offset).min(chunk as u64) as usize;
            files::read_exact_at(&self.file, &mut buffer[..bytes], offset)?;
            for row in buffer[..bytes].chunks_exact(row_bytes) {
                append(&row[columns.clone()]);
            }
        }
        Ok(())
    }
}

/// The numbers that are computed with.
fn supported(dtype: safetensors::Dtype) -> Option<Dtype> {
    match dtype {
        safetensors::Dtype::F32 => Some(Dtype::F32),
        safetensors::Dtype::BF16 => Some(Dtype::Bf16),
        safetensors::Dtype::F16 => Some(Dtype::F16),
        _ => None,
    }
}

/// Tensors that may be in a file without being part of the forward pass: rotary frequencies, which
/// old versions of transformers stored, and an output projection that is the embedding.
fn is_harmless(config: &ModelConfig, name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
        || (name == layout::LM_HEAD_NAME && config.tie_word_embeddings)
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let index: Result<Index, _> = serde_json::from_slice(&files::read(path)?);
    let index = index.map_err(|error| CheckpointError::File {
        file: path.to_owned(),
        reason: error.to_string(),
    })?;
    for (tensor, name) in &index.weight_map {
        let mut components = Path::new(name).components();
        let is_plain = matches!(components.next(), Some(Component::Normal(_)));
        if !is_plain || components.next().is_some() {
            return Err(CheckpointError::Tensor {
                file: path.to_owned(),
                tensor: tensor.clone(),
                reason: format!("it would be in {name:?}, which is not a file of this folder"),
            });
        }
    }
    Ok(index.weight_map)
}

const BOTH: &str = "both model.safetensors and model.safetensors.index.json are there; \
                    remove the one that is not meant";

fn no_weights(folder: &Path, reason: impl Into<String>) -> CheckpointError {
    CheckpointError::NoWeights {
        folder: folder.to_owned(),
        reason: reason.into(),
    }
}

/// Why there is nothing to read in a folder.
fn what_is_there(folder: &Path) -> String {
    if !folder.is_dir() {
        return "there is no such folder".to_owned();
    }
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    match pickled.iter().find(|name| folder.join(name).exists()) {
        Some(name) => format!("there is {name}, and only safetensors are read; convert it"),
        None => format!("there is neither {SINGLE} nor {INDEX}"),
    }
}
