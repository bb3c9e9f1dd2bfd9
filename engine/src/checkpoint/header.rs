//! The header of a safetensors file: which tensors it has, and where.
//!
//! A file is 8 bytes of header length `n`, `n` bytes of JSON, and the values of
//! all tensors without a gap (<https://huggingface.co/docs/safetensors/index#format>).
//! Nothing in a header is believed before it is checked against the file's size.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::error::CheckpointError;
use super::files;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its number format.
    pub(super) dtype: safetensors::Dtype,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// Where its values begin, from the start of the file (bytes).
    pub(super) offset: u64,
}

/// Reads and checks the header of an open file.
pub(super) fn read(path: &Path, file: &File) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let metadata = file.metadata();
    let size = metadata.map_err(|error| files::failed(path, error))?.len();
    let wrong = |reason: String| CheckpointError::File {
        file: path.to_owned(),
        reason,
    };
    let Some(after_length) = size.checked_sub(8) else {
        return Err(wrong(format!("{size} bytes; not a safetensors file")));
    };
    let mut length = [0; 8];
    files::read_exact_at(file, &mut length, 0).map_err(|error| files::failed(path, error))?;
    let length = u64::from_le_bytes(length);
    if length > files::TEXT_BYTES_MAX || length > after_length {
        return Err(wrong(format!(
            "the header would be {length} bytes, of a file of {size}; it is truncated, or not a safetensors file"
        )));
    }
    let mut json = vec![0; length as usize];
    files::read_exact_at(file, &mut json, 8).map_err(|error| files::failed(path, error))?;
    let tensors = parse(&json).map_err(|error| wrong(format!("in the header: {error}")))?;
    check(path, &tensors, after_length - length)?;
    let place = |(name, info): (String, TensorInfo)| {
        let stored = Stored {
            dtype: info.dtype,
            shape: info.shape,
            offset: 8 + length + info.data_offsets.0 as u64,
        };
        (name, stored)
    };
    Ok(tensors.into_iter().map(place).collect())
}

/// Checks that the tensors fill the rest of the file exactly, each as large as its shape says.
fn check(
    path: &Path,
    tensors: &BTreeMap<String, TensorInfo>,
    room: u64,
) -> Result<(), CheckpointError> {
    let mut by_place: Vec<_> = tensors.iter().collect();
    by_place.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    for (name, info) in by_place {
        let wrong = |reason: String| CheckpointError::Tensor {
            file: path.to_owned(),
            tensor: name.clone(),
            reason,
        };
        let (first, last) = info.data_offsets;
        let bytes = bytes(info).ok_or_else(|| wrong(format!("a shape of {:?}", info.shape)))?;
        if first.checked_add(bytes) != Some(last) {
            let (shape, dtype) = (&info.shape, info.dtype);
            return Err(wrong(format!(
                "its bytes are {first} to {last}, and {shape:?} of {dtype} are {bytes}"
            )));
        }
        if first != end {
            return Err(wrong(format!(
                "its bytes begin at {first}, and those before it end at {end}"
            )));
        }
        end = last;
        if end as u64 > room {
            return Err(wrong(format!(
                "its bytes end at {end}, and the file has {room}: it is truncated"
            )));
        }
    }
    if end as u64 != room {
        let reason = format!("{room} bytes of values, of which its tensors are {end}");
        return Err(CheckpointError::File {
            file: path.to_owned(),
            reason,
        });
    }
    Ok(())
}

/// How many bytes a tensor is by its shape, unless that is absurd.
fn bytes(info: &TensorInfo) -> Option<usize> {
    let mut shape = info.shape.iter();
    let values = shape.try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    let bits = values.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The tensors of a header. Unlike the parser of the `safetensors` crate, this
/// says which tensor an error is about, and does not let the last of two
/// entries of the same name win.
fn parse(json: &[u8]) -> Result<BTreeMap<String, TensorInfo>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let tensors = deserializer.deserialize_map(Header)?;
    deserializer.end()?;
    Ok(tensors)
}

#[derive(Debug)]
struct Header;

impl<'de> Visitor<'de> for Header {
    type Value = BTreeMap<String, TensorInfo>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with an entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info = map.next_value::<TensorInfo>();
            let info = info.map_err(|error| A::Error::custom(format!("tensor {name}: {error}")))?;
            if tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("tensor {name} is there twice")));
            }
            tensors.insert(name, info);
        }
        Ok(tensors)
    }
}
