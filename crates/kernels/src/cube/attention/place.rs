//! Where a row finds the keys and values that it sees.

use cubecl::prelude::*;

use super::kernels::Variant;

/// Queries of a tile that a generator's kernel takes.
pub(in crate::cube) const TILE: usize = 8;
/// Numbers of a tile: its first row, its rows, the first shared row, the shared rows, the first row of its span.
pub(in crate::cube) const TILE_WORDS: usize = 5;

/// A tile of queries of a packed span, and its place among the keys.
#[derive(CubeType)]
pub(in crate::cube) struct Tile {
    pub(in crate::cube) first: usize,
    pub(in crate::cube) count: usize,
    pub(in crate::cube) shared_start: usize,
    pub(in crate::cube) shared_length: usize,
    pub(in crate::cube) own_start: usize,
}

#[cube]
impl Tile {
    pub(in crate::cube) fn read(tiles: &[u32], index: usize) -> Tile {
        let at = index * TILE_WORDS;
        Tile {
            first: tiles[at] as usize,
            count: tiles[at + 1] as usize,
            shared_start: tiles[at + 2] as usize,
            shared_length: tiles[at + 3] as usize,
            own_start: tiles[at + 4] as usize,
        }
    }

    /// Of rows that are positions: one below the other, from the first.
    pub(in crate::cube) fn of_all_rows() -> Tile {
        Tile { first: 0usize, count: 0usize, shared_start: 0usize, shared_length: 0usize, own_start: 0usize }
    }

    /// The row of a key by its position in the sequence.
    pub(in crate::cube) fn key_row(&self, position: usize) -> usize {
        if position < self.shared_length {
            self.shared_start + position
        } else {
            self.own_start + position - self.shared_length
        }
    }
}

/// A row and where its keys and values are.
#[derive(CubeType)]
pub(super) struct Place {
    pub(super) row: usize,
    /// Positions that it sees; 0 where there is no row.
    pub(super) length: usize,
    /// The line of its sequence in the tables.
    table: usize,
    /// Of a packed row.
    tile: Tile,
}

#[cube]
impl Place {
    pub(super) fn of(
        slot: usize,
        positions: &[u32],
        sequences: &[u32],
        tables: &[u32],
        line: u32,
        #[comptime] variant: Variant,
    ) -> Place {
        if comptime!(variant.packed) {
            let tile = Tile::read(tables, line as usize + slot / TILE);
            let row = tile.first + slot % TILE;
            let mut length = 0usize;
            if slot % TILE < tile.count {
                length = tile.shared_length + row - tile.own_start + 1;
            }
            Place { row, length, table: 0usize, tile }
        } else {
            Place {
                row: slot,
                length: positions[slot] as usize + 1,
                table: sequences[slot] as usize * line as usize,
                tile: Tile::of_all_rows(),
            }
        }
    }

    /// Where the first four numbers of a key are, and of a value.
    pub(super) fn vectors(
        &self,
        tables: &[u32],
        position: usize,
        head: usize,
        #[comptime] variant: Variant,
    ) -> (usize, usize) {
        let quads = comptime!(variant.shape.quads());
        if comptime!(variant.packed) {
            let at = (self.tile.key_row(position) * comptime!(variant.shape.kv_heads) + head) * quads;
            (at, at)
        } else {
            let block = tables[self.table + position / 16] as usize * comptime!(variant.shape.kv_heads) + head;
            (block * comptime!(quads * 16) + position % 16, (block * 16 + position % 16) * quads)
        }
    }
}
