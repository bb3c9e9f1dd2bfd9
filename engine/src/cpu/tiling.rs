//! Tokens in tiles: the order in which products read activations.
//!
//! ```text
//! [tile of up to 12 tokens][column][token of the tile]
//! ```
//!
//! A tile has as many tokens as there are registers for their sums; all but
//! the last are full. Within it, the tokens' values of a column are side by
//! side, so that a product reads it from end to end.

use super::isa::Isa;
use super::vector::Vector;

/// Widths that kernels are compiled for. A tile of fewer tokens than its width
/// computes something for the others too, which nobody looks at.
pub(super) const WIDTHS: [usize; 7] = [1, 2, 3, 4, 6, 8, 12];

/// Does what is compiled for a width and a number of panels, of which the width is known only
/// when it runs. What a vector has too few registers for is not compiled.
macro_rules! with_width {
    ($vector:ident, $panels:ident, $width:expr, $name:ident => $body:expr) => {
        $crate::cpu::tiling::with_width!(@ $vector, $panels, $width, $name => $body, 1 2 3 4 6 8 12)
    };
    (@ $vector:ident, $panels:ident, $width:expr, $name:ident => $body:expr, $($known:literal)+) => {
        match $width {
            $($known if const { $known * $panels <= $vector::SUMS } => {
                const $name: usize = $known;
                $body
            })+
            other => unreachable!("no tile is {other} tokens wide"),
        }
    };
}
pub(super) use with_width;

/// Most tokens in any tile.
pub(super) const TILE_TOKENS_MAX: usize = WIDTHS[WIDTHS.len() - 1];

/// How the tokens of a step are put into tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    tokens: usize,
    /// Tokens of a full tile.
    full: usize,
}

/// One tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Its first token.
    pub(super) first: usize,
    /// Its tokens.
    pub(super) tokens: usize,
    /// The places for tokens that it has, one of [`WIDTHS`].
    pub(super) width: usize,
}

impl Tiling {
    pub(super) fn new(tokens: usize, isa: Isa) -> Self {
        let full = isa.tile_tokens();
        Self { tokens, full }
    }

    #[inline(always)]
    pub(super) fn of<V: Vector>(tokens: usize) -> Self {
        let full = V::TILE_TOKENS;
        Self { tokens, full }
    }

    /// How many tiles there are.
    #[inline(always)]
    pub(super) fn tiles(&self) -> usize {
        self.tokens.div_ceil(self.full)
    }

    #[inline(always)]
    pub(super) fn tile(&self, tile: usize) -> Tile {
        let first = tile * self.full;
        let tokens = self.full.min(self.tokens - first);
        Tile {
            first,
            tokens,
            width: width(tokens),
        }
    }

    /// Where a token's value of a column is, of so many columns in all.
    #[inline(always)]
    pub(super) fn place(&self, token: usize, column: usize, columns: usize) -> usize {
        let tile = self.tile(token / self.full);
        tile.start(columns) + column * tile.width + token - tile.first
    }

    /// How many places for tokens the tile of a token has.
    #[inline(always)]
    pub(super) fn width_at(&self, token: usize) -> usize {
        self.tile(token / self.full).width
    }

    /// Zeros the column that an odd number of them is rounded up by, which products read too.
    pub(super) fn clear_padding(&self, values: &mut [f32], columns: usize) {
        if columns % 2 == 1 {
            for tile in (0..self.tiles()).map(|tile| self.tile(tile)) {
                values[tile.start(columns) + columns * tile.width..][..tile.width].fill(0.0);
            }
        }
    }

    /// Values that so many tokens take at most.
    pub(super) fn room(tokens: usize, columns: usize) -> usize {
        // The last tile may be of a width that no number of tokens fills.
        (tokens + TILE_TOKENS_MAX) * columns.next_multiple_of(2)
    }
}

impl Tile {
    /// Where it begins among tiles of so many columns.
    #[inline(always)]
    pub(super) fn start(&self, columns: usize) -> usize {
        self.first * columns.next_multiple_of(2)
    }

    /// Values that it has.
    #[inline(always)]
    pub(super) fn len(&self, columns: usize) -> usize {
        self.width * columns.next_multiple_of(2)
    }
}

/// The narrowest width for so many tokens.
#[inline(always)]
pub(super) fn width(tokens: usize) -> usize {
    let mut place = 0;
    while WIDTHS[place] < tokens {
        place += 1;
    }
    WIDTHS[place]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_value_has_a_place_of_its_own() {
        for isa in Isa::available() {
            for tokens in 1..40 {
                let (tiling, columns) = (Tiling::new(tokens, isa), 5);
                let places: HashSet<usize> = (0..tokens)
                    .flat_map(|token| (0..columns).map(move |column| (token, column)))
                    .map(|(token, column)| tiling.place(token, column, columns))
                    .collect();
                assert_eq!(places.len(), tokens * columns);
                assert!(
                    places
                        .iter()
                        .all(|place| *place < Tiling::room(tokens, columns))
                );
            }
        }
    }

    #[test]
    fn padding_is_cleared_and_nothing_else() {
        for isa in Isa::available() {
            let (tiling, columns) = (Tiling::new(14, isa), 3);
            let mut values = vec![1.0; Tiling::room(14, columns)];
            tiling.clear_padding(&mut values, columns);
            for tile in (0..tiling.tiles()).map(|tile| tiling.tile(tile)) {
                let values = &values[tile.start(columns)..][..tile.len(columns)];
                let (columns, padding) = values.split_at(columns * tile.width);
                assert!(columns.iter().all(|value| *value == 1.0));
                assert!(padding.iter().all(|value| *value == 0.0));
            }
        }
    }
}
