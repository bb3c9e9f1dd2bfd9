//! Which of the library's ways to multiply is the fastest, for each shape of product: measured once, and kept on disk.
//!
//! A file holds the plans of one kind of GPU and one version of the library, as
//! the library takes back what it described only in the version that described it. A file that is not understood is not
//! used, with a note, and is written anew.

use super::cubin_cache::write_whole;
use super::gpu::{Format, Product};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The format of the file.
const VERSION: u32 = 1;

/// What a product has in common with others that are done in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Rows of `x` and of `y`, of the bucket: see [`bucket`].
    pub rows: usize,
    /// Rows of `W`.
    pub outputs: usize,
    /// Columns of `x` and of `W`.
    pub inputs: usize,
    /// Values from one row of `x` to the next.
    pub x_stride: usize,
    /// Values from one row of `W` to the next.
    pub weights_stride: usize,
    /// Values from one row of `y` to the next.
    pub y_stride: usize,
    /// Bytes of a value of `y`.
    pub y_bytes: usize,
    /// Whether the product is added to what `y` is.
    pub adds: bool,
}

impl Key {
    /// That of a product.
    #[must_use]
    pub fn of(product: &Product) -> Self {
        Self {
            rows: bucket(product.rows),
            outputs: product.outputs,
            inputs: product.inputs,
            x_stride: product.x_stride,
            weights_stride: product.weights_stride,
            y_stride: product.y_stride,
            y_bytes: match product.y_format {
                Format::Bf16 => 2,
                Format::F32 => 4,
            },
            adds: product.adds,
        }
    }
}

/// The rows that a plan is made for: those of the product, rounded up so that there are
/// few plans, and products of about as many rows are done alike.
#[must_use]
pub fn bucket(rows: usize) -> usize {
    let step = match rows {
        0..=64 => 16,
        65..=512 => 64,
        513..=2048 => 256,
        _ => 1024,
    };
    rows.max(1).next_multiple_of(step)
}

/// How products of a key are done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The library's own description of it.
    pub algorithm: [u64; 8],
    /// What it took when it was measured (s).
    pub seconds: f64,
}

/// The plans of one kind of GPU, and the file that they are in.
#[derive(Debug)]
pub struct PlanCache {
    gpu: String,
    library: usize,
    path: Option<PathBuf>,
    plans: BTreeMap<Key, Plan>,
}

impl PlanCache {
    /// Those under a folder for everything that is kept, and a note if there is a file that is not understood.
    #[must_use]
    pub fn open(folder: Option<&Path>, gpu: &str, library: usize) -> (Self, Option<String>) {
        let name: String = gpu
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let name = format!("{}-{library}.json", name.to_lowercase());
        let mut cache = Self {
            gpu: gpu.to_owned(),
            library,
            path: folder.map(|folder| folder.join("products").join(name)),
            plans: BTreeMap::new(),
        };
        let note = match cache.read() {
            Ok(plans) => {
                cache.plans = plans;
                None
            }
            Err(why) => Some(why),
        };
        (cache, note)
    }

    /// The plan of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Plan> {
        self.plans.get(key).copied()
    }

    /// Forgets a plan that the library does not take back.
    pub fn remove(&mut self, key: &Key) {
        self.plans.remove(key);
    }

    /// Keeps a plan, beside those that others have written meanwhile.
    ///
    /// # Errors
    /// If the file cannot be written. It is measured again next time then.
    pub fn insert(&mut self, key: Key, plan: Plan) -> io::Result<()> {
        self.plans.insert(key, plan);
        let Some(path) = &self.path else {
            return Ok(());
        };
        // What is there and not understood is written over.
        let mut plans = self.read().unwrap_or_default();
        plans.extend(self.plans.iter().map(|(key, plan)| (*key, *plan)));
        let file = File {
            version: VERSION,
            gpu: self.gpu.clone(),
            cublas_lt: self.library,
            products: plans
                .iter()
                .map(|(key, plan)| Line::of(*key, *plan))
                .collect(),
        };
        let mut text = serde_json::to_vec_pretty(&file)?;
        text.push(b'\n');
        write_whole(path, &text)
    }

    /// What is in the file; nothing if there is none.
    fn read(&self) -> Result<BTreeMap<Key, Plan>, String> {
        let Some(path) = &self.path else {
            return Ok(BTreeMap::new());
        };
        let unused = |why: String| {
            format!(
                "{} is not used, and products are measured again: {why}",
                path.display()
            )
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(unused(error.to_string())),
        };
        let file: File =
            serde_json::from_slice(&text).map_err(|error| unused(error.to_string()))?;
        if (file.version, &file.gpu, file.cublas_lt) != (VERSION, &self.gpu, self.library) {
            return Err(unused(
                "it is of another version, GPU or library".to_owned(),
            ));
        }
        let plans = file.products.iter().map(Line::plan);
        let plans: Option<_> = plans.collect();
        plans.ok_or_else(|| unused("an algorithm is not 128 hexadecimal digits".to_owned()))
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    gpu: String,
    cublas_lt: usize,
    products: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    key: Key,
    algorithm: String,
    microseconds: f64,
}

impl Line {
    fn of(key: Key, plan: Plan) -> Self {
        Self {
            key,
            algorithm: plan.algorithm.map(|word| format!("{word:016x}")).concat(),
            microseconds: plan.seconds * 1e6,
        }
    }

    fn plan(&self) -> Option<(Key, Plan)> {
        let digits = self.algorithm.as_bytes();
        if digits.len() != 128 {
            return None;
        }
        let mut algorithm = [0; 8];
        for (word, digits) in algorithm.iter_mut().zip(digits.chunks(16)) {
            *word = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        }
        let seconds = self.microseconds / 1e6;
        Some((self.key, Plan { algorithm, seconds }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::gpu::Address;

    const LIBRARY: usize = 130_100;

    fn key(rows: usize) -> Key {
        Key::of(&Product {
            rows,
            outputs: 6144,
            inputs: 4096,
            x: Address(16),
            x_stride: 4096,
            weights: Address(32),
            weights_stride: 4096,
            y: Address(64),
            y_stride: 6144,
            y_format: Format::Bf16,
            adds: false,
        })
    }

    fn plan(word: u64) -> Plan {
        Plan {
            algorithm: [word, 0, u64::MAX, 3, 4, 5, 6, 7],
            seconds: 250e-6,
        }
    }

    fn open(folder: &Path) -> (PlanCache, Option<String>) {
        PlanCache::open(Some(folder), "NVIDIA H200", LIBRARY)
    }

    #[test]
    fn buckets_hold_their_rows_and_grow() {
        let mut before = 0;
        for rows in 1..20_000 {
            let bucket = bucket(rows);
            assert!(bucket >= rows && bucket >= before, "{rows} rows");
            assert!(bucket < rows + 1024);
            assert_eq!(super::bucket(bucket), bucket, "a bucket is in its own");
            before = bucket;
        }
        assert_eq!(bucket(0), 16);
        let different: std::collections::BTreeSet<usize> = (1..=8192).map(bucket).collect();
        assert!(different.len() < 30, "{}", different.len());
    }

    #[test]
    fn products_of_a_bucket_have_one_key_whatever_their_addresses() {
        assert_eq!(key(65), key(128));
        assert_ne!(key(128), key(129));
    }

    #[test]
    fn plans_are_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut cache, note) = open(folder.path());
        assert_eq!((cache.get(&key(8)), note), (None, None));
        cache.insert(key(8), plan(1)).expect("written");
        cache.insert(key(200), plan(2)).expect("written");
        let (again, note) = open(folder.path());
        assert_eq!(note, None);
        let algorithm = |rows| again.get(&key(rows)).expect("it is kept").algorithm;
        assert_eq!(algorithm(8), plan(1).algorithm);
        assert_eq!(algorithm(200), plan(2).algorithm);
        let seconds = again.get(&key(8)).expect("it is kept").seconds;
        assert!((seconds - 250e-6).abs() < 1e-12);
    }

    #[test]
    fn what_another_process_wrote_meanwhile_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut first, _) = open(folder.path());
        let (mut second, _) = open(folder.path());
        first.insert(key(8), plan(1)).expect("written");
        second.insert(key(200), plan(2)).expect("written");
        let (both, _) = open(folder.path());
        assert!(both.get(&key(8)).is_some() && both.get(&key(200)).is_some());
    }

    #[test]
    fn another_gpu_or_library_has_other_plans() {
        let folder = tempfile::tempdir().expect("a folder");
        open(folder.path())
            .0
            .insert(key(8), plan(1))
            .expect("written");
        for (gpu, library) in [
            ("NVIDIA H200", LIBRARY + 1),
            ("NVIDIA H100 80GB HBM3", LIBRARY),
        ] {
            let (cache, note) = PlanCache::open(Some(folder.path()), gpu, library);
            assert_eq!((cache.get(&key(8)), note), (None, None));
        }
    }

    #[test]
    fn a_file_that_is_not_understood_is_noted_and_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        open(folder.path())
            .0
            .insert(key(8), plan(1))
            .expect("written");
        let path = folder.path().join("products/nvidia-h200-130100.json");
        let whole = fs::read_to_string(&path).expect("it is there");
        for text in [
            "not JSON".to_owned(),
            whole[..whole.len() / 2].to_owned(),
            whole.replace("\"version\": 1", "\"version\": 2"),
            whole.replace("NVIDIA H200", "NVIDIA H20"),
            whole.replace("ffff", "fff"),
            whole.replace("ffff", "zzzz"),
        ] {
            fs::write(&path, &text).expect("written");
            let (mut cache, note) = open(folder.path());
            assert_eq!(cache.get(&key(8)), None, "{text}");
            let note = note.expect("it is said");
            assert!(note.contains("products are measured again"), "{note}");
            cache.insert(key(200), plan(2)).expect("written");
            assert_eq!(open(folder.path()).1, None);
        }
    }

    #[test]
    fn without_a_folder_plans_are_kept_in_memory_alone() {
        let (mut cache, note) = PlanCache::open(None, "NVIDIA H200", LIBRARY);
        assert_eq!(note, None);
        cache.insert(key(8), plan(1)).expect("nothing is written");
        assert_eq!(cache.get(&key(8)), Some(plan(1)));
        cache.remove(&key(8));
        assert_eq!(cache.get(&key(8)), None);
    }
}
