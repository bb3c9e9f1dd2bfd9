//! Matrices in the order in which products read them.
//!
//! ```text
//! [panel of 16 rows][pair of columns][row of the panel][column of the pair]
//! ```
//!
//! Sixteen outputs are computed side by side, one a lane, each as one chain of
//! additions over its columns. So an output's bits depend neither on how many
//! tokens share the panel, nor on the width of the processor's registers, and
//! a worker's rows are one stretch of memory, read from end to end.

#![allow(unsafe_code, reason = "workers fill panels at the same time")]

use super::disjoint::{Disjoint, share};
use super::entry::{Bf16Entry, Entry, F32Entry};
use super::memory::{Arena, Region};
use super::pool::Pool;
use super::vector::LANES;
use crate::weights::{HostMatrix, HostValues};

/// A matrix `[out][in]`, packed for products.
#[derive(Debug)]
pub struct Matrix(pub(super) Entries);

/// A packed matrix in one of the number formats.
#[derive(Debug)]
pub(super) enum Entries {
    Bf16(Packed<Bf16Entry>),
    F32(Packed<F32Entry>),
}

/// A matrix `[rows][columns]` in panels. What is beyond its last row and column is zero.
#[derive(Debug)]
pub(super) struct Packed<E> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    entries: Region<E>,
}

/// Does the same with the packed matrix, whatever its number format.
macro_rules! with_packed {
    ($matrix:expr, $packed:ident => $body:expr) => {
        match &$matrix.0 {
            $crate::cpu::packed::Entries::Bf16($packed) => $body,
            $crate::cpu::packed::Entries::F32($packed) => $body,
        }
    };
}
pub(super) use with_packed;

impl Matrix {
    /// Packs a matrix.
    pub(super) fn pack(matrix: &HostMatrix, arena: &mut Arena, pool: &mut Pool) -> Self {
        let (rows, columns) = (matrix.rows, matrix.columns);
        Self(match &matrix.values {
            HostValues::Bf16(values) => {
                Entries::Bf16(Packed::new(rows, columns, arena, pool, &|place| {
                    values[place].to_bits()
                }))
            }
            HostValues::F32(values) => {
                Entries::F32(Packed::new(rows, columns, arena, pool, &|place| {
                    values[place]
                }))
            }
        })
    }

    /// Bytes that a product with it reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        with_packed!(self, packed => size_of_val(&*packed.entries))
    }

    /// Outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        with_packed!(self, packed => packed.rows)
    }

    /// Inputs.
    #[must_use]
    pub fn columns(&self) -> usize {
        with_packed!(self, packed => packed.columns)
    }

    /// A row, unpacked.
    pub(super) fn copy_row(&self, row: usize, values: &mut [f32]) {
        with_packed!(self, packed => packed.copy_row(row, values));
    }
}

impl<E: Entry> Packed<E> {
    /// Packs a matrix of which `value` has the value at a place of the row-major form.
    fn new(
        rows: usize,
        columns: usize,
        arena: &mut Arena,
        pool: &mut Pool,
        value: &(impl Fn(usize) -> E::Value + Sync),
    ) -> Self {
        let (panels, pairs) = (rows.div_ceil(LANES), columns.div_ceil(2));
        let entries = arena.zeros(panels * pairs, pool);
        let mut entries: Region<E> = entries.expect("there is memory for the weights");
        let (shared, workers) = (Disjoint::new(&mut entries), pool.workers());
        pool.run(&|worker| {
            for panel in share(panels, worker, workers) {
                // SAFETY: a panel is in one worker's share.
                let entries = unsafe { shared.part(panel * pairs..(panel + 1) * pairs) };
                let rows = panel * LANES..rows.min((panel + 1) * LANES);
                for (pair, entry) in entries.iter_mut().enumerate() {
                    let values = E::values_mut(std::slice::from_mut(entry));
                    for (lane, row) in rows.clone().enumerate() {
                        let place = row * columns + 2 * pair;
                        values[E::place(lane, 0)] = value(place);
                        if 2 * pair + 1 < columns {
                            values[E::place(lane, 1)] = value(place + 1);
                        }
                    }
                }
            }
        });
        Self {
            rows,
            columns,
            entries,
        }
    }

    /// How many panels there are.
    #[inline(always)]
    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Pairs of columns, the last of which may be half empty.
    #[inline(always)]
    pub(super) fn pairs(&self) -> usize {
        self.columns.div_ceil(2)
    }

    /// A panel: an entry for each pair of columns.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> &[E] {
        let pairs = self.pairs();
        &self.entries[panel * pairs..][..pairs]
    }

    fn copy_row(&self, row: usize, values: &mut [f32]) {
        let panel = self.panel(row / LANES);
        for (column, value) in values.iter_mut().enumerate() {
            *value = panel[column / 2].at(row % LANES, column % 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;

    fn matrix(rows: usize, columns: usize, is_bf16: bool) -> HostMatrix {
        let values = (0..rows * columns).map(|place| place as f32 - 7.0);
        HostMatrix {
            rows,
            columns,
            values: if is_bf16 {
                HostValues::Bf16(values.map(bf16::from_f32).collect())
            } else {
                HostValues::F32(values.collect())
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn packing_loses_nothing(
            rows in 1_usize..40,
            columns in 1_usize..20,
            is_bf16: bool,
            threads in 1_usize..4,
        ) {
            let host = matrix(rows, columns, is_bf16);
            let packed = Matrix::pack(&host, &mut Arena::default(), &mut Pool::new(threads).unwrap());
            let mut values = vec![0.0; columns];
            for row in 0..rows {
                packed.copy_row(row, &mut values);
                for (column, value) in values.iter().enumerate() {
                    prop_assert_eq!(*value, host.at(row, column));
                }
            }
        }
    }

    #[test]
    fn it_takes_the_memory_of_its_values_and_of_the_padding() {
        let (mut arena, mut pool) = (Arena::default(), Pool::new(1).unwrap());
        assert_eq!(
            Matrix::pack(&matrix(32, 10, true), &mut arena, &mut pool).bytes(),
            640
        );
        assert_eq!(
            Matrix::pack(&matrix(33, 9, true), &mut arena, &mut pool).bytes(),
            960
        );
        assert_eq!(
            Matrix::pack(&matrix(32, 10, false), &mut arena, &mut pool).bytes(),
            1280
        );
    }
}
