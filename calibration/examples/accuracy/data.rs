//! Tables of other people's results, in the folder that they were collected in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Result;

/// The folder.
pub(crate) struct Data {
    folder: PathBuf,
}

/// A row of a table, by the names of its columns.
pub(crate) struct Row(BTreeMap<String, String>);

impl Data {
    /// The folder that was named, else that of the environment, else the one beside the repository.
    pub(crate) fn new(named: Option<&Path>) -> Self {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
        let shared = std::env::var_os("FORESAIL_SHARED").map_or(beside, PathBuf::from);
        let folder = named.map_or_else(|| shared.join("data/groundtruth"), Path::to_path_buf);
        Self { folder }
    }

    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        let missing = |error| {
            format!(
                "{} is needed and cannot be read ({error}); give the folder of results as --data, or set \
                 FORESAIL_SHARED; nothing was written",
                path.display()
            )
        };
        Ok(std::fs::read_to_string(&path).map_err(missing)?)
    }

    /// All rows of a table with a header.
    pub(crate) fn table(&self, name: &str) -> Result<Vec<Row>> {
        let text = self.text(name)?;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let row = |record: csv::Result<BTreeMap<String, String>>| {
            record
                .map(Row)
                .map_err(|error| format!("{name}: {error}").into())
        };
        reader.deserialize().map(row).collect()
    }
}

impl Row {
    pub(crate) fn text(&self, column: &str) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, column: &str) -> Result<T> {
        let text = self.text(column);
        text.parse()
            .map_err(|_| format!("column {column} has `{text}`, expected a number").into())
    }
}
