//! Causal attention over a cache in blocks, with grouped heads.

mod kernels;
mod place;

use std::ops::Range;

use cubecl::prelude::*;

use self::kernels::{Variant, attend_split, combine};
pub(super) use self::place::{TILE, TILE_WORDS, Tile};
use super::reduction::MOST_CUBES;
use super::{Gpu, GpuBuffer};

type F4 = Vector<f32, Const<4>>;

/// Positions of one block.
const BLOCK: usize = 16;
/// Positions whose scores are one cube's. What several cubes computed is then added in their order.
const SPLIT: usize = 256;
const UNITS: usize = 128;

/// The heads of a model and how one layer of its cache holds them.
///
/// Keys are `[blocks, kv_heads, head_dim / 4, 16, 4]` and values `[blocks, kv_heads, 16, head_dim]`, `head_dim` rounded up to
/// four. Where there is padding the cache must hold zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheShape {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / kv_heads` of the queries'.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl CacheShape {
    /// Width of a head in the cache.
    pub fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(4)
    }

    /// Numbers of one block of keys, or of values.
    pub fn block(&self) -> usize {
        self.kv_heads * BLOCK * self.padded()
    }

    fn quads(&self) -> usize {
        self.padded() / 4
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Parts of the positions whose values are summed side by side.
    fn slices(&self) -> usize {
        (UNITS / self.quads()).max(1)
    }
}

/// Rows of a step: each is one token of a sequence whose cache is listed in a table.
#[derive(Clone, Debug)]
pub struct PagedRows {
    /// How many there are.
    pub rows: usize,
    /// The position of each. `[rows]`.
    pub positions: GpuBuffer,
    /// The line of each row's sequence in the table. `[rows]`.
    pub sequences: GpuBuffer,
    /// Every sequence's blocks. `[sequences, width]`.
    pub tables: GpuBuffer,
    /// The blocks that a line of the table has room for.
    pub width: usize,
    /// The greatest of the positions, or more.
    pub last: usize,
}

/// Memory for what the splits of [`attend`] compute before they are added.
#[derive(Clone, Debug)]
pub struct SplitSums {
    sums: GpuBuffer,
    weights: GpuBuffer,
    /// For the logarithms of sums, which decoding does not need.
    unused: GpuBuffer,
}

impl SplitSums {
    /// Enough for rows up to position `last`.
    pub fn new(gpu: &Gpu, shape: CacheShape, rows: usize, last: usize) -> Self {
        // A split that is alone writes to the output itself.
        let parts = if splits(last) > 1 { rows * shape.heads * splits(last) } else { 1 };
        Self { sums: gpu.empty(parts * shape.padded()), weights: gpu.empty(parts * 2), unused: gpu.empty(1) }
    }
}

/// Splits of a cache up to a position.
fn splits(last: usize) -> usize {
    last / SPLIT + 1
}

/// Attention of every row to the positions of its sequence up to its own. `queries` `[rows, heads, padded]`, `out`
/// `[rows, heads · head_dim]`; `memory`: for at least these rows and this position.
pub fn attend(
    gpu: &Gpu,
    shape: CacheShape,
    rows: &PagedRows,
    queries: &GpuBuffer,
    [keys, values]: [&GpuBuffer; 2],
    memory: &SplitSums,
    out: &GpuBuffer,
) {
    let PagedRows { rows: count, positions, sequences, tables, width, last } = rows;
    Launch { rows: *count, splits: splits(*last), positions, sequences, tables, line: *width, packed: false }.run(
        gpu,
        shape,
        [queries, keys, values],
        memory,
        [out, &memory.unused],
    );
}

/// Rows of packed spans: each sees its span's rows up to itself, behind those that the span shares.
pub(super) struct PackedRows<'a> {
    /// Tiles of up to [`TILE`] queries, [`TILE_WORDS`] numbers each.
    pub(super) tiles: &'a GpuBuffer,
    /// The tiles to attend from.
    pub(super) range: Range<usize>,
    /// Positions of the longest sequence.
    pub(super) longest: usize,
}

/// [`attend`] for packed rows, with the bits of the same sequence in a cache. `queries`, `out` `[rows, heads, head_dim]`, `keys`,
/// `values` `[rows, kv_heads, head_dim]`, `log_sums` `[rows, heads]`: the logarithms of the sums of exponentials. `head_dim` is a
/// multiple of four.
pub(super) fn attend_packed(
    gpu: &Gpu,
    shape: CacheShape,
    PackedRows { tiles, range, longest }: PackedRows<'_>,
    inputs: [&GpuBuffer; 3],
    outputs: [&GpuBuffer; 2],
) {
    let (rows, last) = (range.len() * TILE, longest.saturating_sub(1));
    let memory = SplitSums::new(gpu, shape, rows, last);
    Launch {
        rows,
        splits: splits(last),
        positions: tiles,
        sequences: tiles,
        tables: tiles,
        line: range.start,
        packed: true,
    }
    .run(gpu, shape, inputs, &memory, outputs);
}

/// Tiles of packed rows whose split sums are in memory at a time.
pub(super) fn tiles_at_a_time(shape: CacheShape, longest: usize) -> usize {
    // Rows are cubes in one direction.
    let most = MOST_CUBES / TILE;
    match splits(longest.saturating_sub(1)) {
        1 => most,
        splits => ((1 << 24) / (TILE * shape.heads * splits * shape.padded())).clamp(1, most),
    }
}

/// Rows of either kind.
struct Launch<'a> {
    rows: usize,
    splits: usize,
    positions: &'a GpuBuffer,
    sequences: &'a GpuBuffer,
    tables: &'a GpuBuffer,
    /// The width of a line of the tables, or the first of packed rows' tiles.
    line: usize,
    packed: bool,
}

impl Launch<'_> {
    fn run(
        &self,
        gpu: &Gpu,
        shape: CacheShape,
        [queries, keys, values]: [&GpuBuffer; 3],
        SplitSums { sums, weights, .. }: &SplitSums,
        [out, log_sums]: [&GpuBuffer; 2],
    ) {
        let Self { rows, splits, positions, sequences, tables, line, packed } = *self;
        let variant = Variant { shape, alone: splits == 1, packed };
        unsafe {
            attend_split::launch_unchecked(
                &gpu.client,
                CubeCount::Static(splits as u32, shape.kv_heads as u32, rows as u32),
                CubeDim::new_1d(UNITS as u32),
                queries.quads(),
                keys.quads(),
                values.quads(),
                positions.arg(),
                sequences.arg(),
                tables.arg(),
                line as u32,
                sums.quads(),
                weights.arg(),
                out.arg(),
                log_sums.arg(),
                1.0 / (shape.head_dim as f32).sqrt(),
                variant,
            );
            if variant.alone {
                return;
            }
            combine::launch_unchecked(
                &gpu.client,
                CubeCount::Static(rows as u32, 1, 1),
                CubeDim::new_1d(256),
                sums.arg(),
                weights.arg(),
                positions.arg(),
                sequences.arg(),
                tables.arg(),
                line as u32,
                splits as u32,
                out.arg(),
                log_sums.arg(),
                variant,
            );
        }
    }
}

/// Copies one block of keys or values to another of the same layer.
pub fn copy_block(gpu: &Gpu, shape: CacheShape, cache: &GpuBuffer, from: usize, to: usize) {
    let quads = shape.block() / 4;
    unsafe {
        copy::launch_unchecked(
            &gpu.client,
            CubeCount::Static(quads.div_ceil(UNITS) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            cache.quads(),
            (from * quads) as u32,
            (to * quads) as u32,
            quads as u32,
        );
    }
}

#[cube(launch_unchecked)]
fn copy(cache: &mut [F4], from: u32, to: u32, quads: u32) {
    let quad = ABSOLUTE_POS;
    if quad < quads as usize {
        cache[to as usize + quad] = cache[from as usize + quad];
    }
}
