//! Steps and times in words.

use foresail_core::step_time::calibrated::{Cell, CellChunk};

/// A step in words: "8 sequences after 4096 tokens, and a piece of 512 after 0".
#[must_use]
pub fn name(cell: &Cell) -> String {
    let mut parts = Vec::new();
    match cell.decodes {
        0 => {}
        1 => parts.push(format!("1 sequence after {} tokens", cell.decode_past)),
        n => parts.push(format!(
            "{n} sequences after {} tokens together",
            cell.decode_past
        )),
    }
    let piece = |chunk: &CellChunk| format!("a piece of {} after {}", chunk.len, chunk.past);
    let same = cell.chunks.windows(2).all(|pair| pair[0] == pair[1]);
    match cell.chunks.as_slice() {
        [first, _, ..] if same => {
            let (count, CellChunk { past, len }) = (cell.chunks.len(), first);
            parts.push(format!("{count} pieces of {len} after {past} each"));
        }
        chunks => parts.extend(chunks.iter().map(piece)),
    }
    match cell.adapters {
        0 => {}
        1 => parts.push("1 adapter".to_owned()),
        n => parts.push(format!("{n} adapters")),
    }
    parts.join(", and ")
}

/// A time with three digits in the largest unit that leaves one before the point.
pub(super) fn duration(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0".to_owned();
    }
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")];
    let fits = units.into_iter().find(|(unit, _)| seconds >= *unit);
    let (unit, name) = fits.unwrap_or((1e-12, "ps"));
    let value = seconds / unit;
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let times = [0.0, 12.3456, 0.123_45, 1.5e-3, 45.6e-6, 7e-9, 3.2e-12].map(duration);
        let expected = [
            "0", "12.3 s", "123 ms", "1.50 ms", "45.6 us", "7.00 ns", "3.20 ps",
        ];
        assert_eq!(times, expected);
    }
}
