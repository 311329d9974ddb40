//! Causal attention over a cache in blocks, with grouped heads.

use std::ops::Range;

use cubecl::prelude::*;

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
        let parts = rows * shape.heads * splits(last);
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

/// Queries of a tile of [`PackedRows`].
pub(super) const TILE: usize = 8;
/// Numbers of a tile: its first row, its rows, the first shared row, the shared rows, the first row of its span.
pub(super) const TILE_WORDS: usize = 5;

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
    let numbers = TILE * shape.heads * splits(longest) * shape.padded();
    ((1 << 24) / numbers).clamp(1, 8191)
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Variant {
    shape: CacheShape,
    /// One split, which divides and writes to the output itself.
    alone: bool,
    /// Keys and values are packed rows, and the logarithms of sums are wanted.
    packed: bool,
}

/// A row and where its keys and values are.
#[derive(CubeType)]
struct Place {
    row: usize,
    /// Positions that it sees; 0 where there is no row.
    length: usize,
    /// The line of its sequence in the tables.
    table: usize,
    shared_start: usize,
    shared_length: usize,
    own_start: usize,
}

#[cube]
impl Place {
    fn of(
        slot: usize,
        positions: &[u32],
        sequences: &[u32],
        tables: &[u32],
        line: u32,
        #[comptime] variant: Variant,
    ) -> Place {
        if comptime!(variant.packed) {
            let at = (line as usize + slot / TILE) * TILE_WORDS;
            let row = tables[at] as usize + slot % TILE;
            let shared_length = tables[at + 3] as usize;
            let own_start = tables[at + 4] as usize;
            let mut length = 0usize;
            if slot % TILE < tables[at + 1] as usize {
                length = shared_length + row - own_start + 1;
            }
            Place { row, length, table: 0usize, shared_start: tables[at + 2] as usize, shared_length, own_start }
        } else {
            Place {
                row: slot,
                length: positions[slot] as usize + 1,
                table: sequences[slot] as usize * line as usize,
                shared_start: 0usize,
                shared_length: 0usize,
                own_start: 0usize,
            }
        }
    }

    /// Where the first four numbers of a key are, and of a value.
    fn vectors(&self, tables: &[u32], position: usize, head: usize, #[comptime] variant: Variant) -> (usize, usize) {
        let quads = comptime!(variant.shape.quads());
        if comptime!(variant.packed) {
            let row = if position < self.shared_length {
                self.shared_start + position
            } else {
                self.own_start + position - self.shared_length
            };
            let at = (row * comptime!(variant.shape.kv_heads) + head) * quads;
            (at, at)
        } else {
            let block = tables[self.table + position / 16] as usize * comptime!(variant.shape.kv_heads) + head;
            (block * comptime!(quads * 16) + position % 16, (block * 16 + position % 16) * quads)
        }
    }
}

/// The part of one split. The sum of the values, not divided by the sum of the weights; beside it the greatest score and that
/// sum.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn attend_split(
    queries: &[F4],
    keys: &[F4],
    values: &[F4],
    positions: &[u32],
    sequences: &[u32],
    tables: &[u32],
    line: u32,
    sums: &mut [F4],
    weights: &mut [f32],
    out: &mut [f32],
    log_sums: &mut [f32],
    scale: f32,
    #[comptime] variant: Variant,
) {
    let shape = comptime!(variant.shape);
    let quads = comptime!(shape.quads());
    let group = comptime!(shape.group());
    let slices = comptime!(shape.slices());
    let split = CUBE_POS_X as usize;
    let head = CUBE_POS_Y as usize;
    let slot_of_row = CUBE_POS_Z as usize;
    let unit = UNIT_POS as usize;
    let place = Place::of(slot_of_row, positions, sequences, tables, line, variant);
    let length = place.length;
    let begin = split * SPLIT;
    let first = place.row * comptime!(shape.heads) + head * group;
    let first_part = slot_of_row * comptime!(shape.heads) + head * group;

    let mut query = Shared::<[F4]>::new_slice(comptime!(group * quads));
    let mut scores = Shared::<[f32]>::new_slice(comptime!(group * SPLIT));
    let mut greatest = Shared::<[f32]>::new_slice(comptime!(group * 16));
    let mut totals = Shared::<[f32]>::new_slice(comptime!(group * 16));
    let mut parts = Shared::<[F4]>::new_slice(UNITS);

    if begin < length {
        let mut i = unit;
        while i < comptime!(group * quads) {
            query[i] = queries[first * quads + i];
            i += UNITS;
        }
        sync_cube();
        #[unroll]
        for turn in 0..2usize {
            let slot = turn * UNITS + unit;
            let position = begin + slot;
            let mut score = Array::<f32>::new(group);
            #[unroll]
            for g in 0..group {
                score[g] = f32::new(-1.0e30);
            }
            if position < length {
                #[unroll]
                for g in 0..group {
                    score[g] = 0.0f32;
                }
                let (at, _) = place.vectors(tables, position, head, variant);
                let mut quad = 0usize;
                while quad < quads {
                    let key = keys[at + quad * comptime!(if variant.packed { 1usize } else { 16usize })];
                    #[unroll]
                    for g in 0..group {
                        let q = query[g * quads + quad];
                        let mut sum = score[g];
                        #[unroll]
                        for lane in 0..4usize {
                            sum = fma(q.extract(lane), key.extract(lane), sum);
                        }
                        score[g] = sum;
                    }
                    quad += 1;
                }
                #[unroll]
                for g in 0..group {
                    score[g] = score[g] * scale;
                }
            }
            #[unroll]
            for g in 0..group {
                scores[g * SPLIT + slot] = score[g];
            }
        }
        sync_cube();
        // Sixteen units look at the scores of one head.
        let lane = unit % 16;
        let mut g = unit / 16;
        while g < group {
            let mut most = scores[g * SPLIT + lane];
            let mut slot = lane + 16;
            while slot < SPLIT {
                most = max(most, scores[g * SPLIT + slot]);
                slot += 16;
            }
            greatest[g * 16 + lane] = most;
            g += 8;
        }
        sync_cube();
        let mut g = unit / 16;
        while g < group {
            let mut most = greatest[g * 16];
            let mut other = 1usize;
            while other < 16 {
                most = max(most, greatest[g * 16 + other]);
                other += 1;
            }
            let mut total = 0.0f32;
            let mut slot = lane.clone();
            while slot < SPLIT {
                let mut weight = 0.0f32;
                if begin + slot < length {
                    weight = (scores[g * SPLIT + slot] - most).exp();
                }
                scores[g * SPLIT + slot] = weight;
                total += weight;
                slot += 16;
            }
            totals[g * 16 + lane] = total;
            g += 8;
        }
        sync_cube();
        let mut sum = Array::<F4>::new(group);
        #[unroll]
        for g in 0..group {
            sum[g] = F4::new(0.0f32);
        }
        let column = unit % quads;
        let mut slot = unit / quads;
        if slot < slices {
            while slot < SPLIT {
                let position = begin + slot;
                if position < length {
                    let (_, at) = place.vectors(tables, position, head, variant);
                    let value = values[at + column];
                    #[unroll]
                    for g in 0..group {
                        sum[g] = fma(F4::new(scores[g * SPLIT + slot]), value, sum[g]);
                    }
                }
                slot += slices;
            }
        }
        let splits = CUBE_COUNT_X as usize;
        #[unroll]
        for g in 0..group {
            sync_cube();
            parts[unit] = sum[g];
            sync_cube();
            let part = (first_part + g) * splits + split;
            if unit < quads {
                let mut whole = parts[unit];
                #[unroll]
                for slice in 1..slices {
                    whole += parts[slice * quads + unit];
                }
                if comptime!(variant.alone) {
                    let total = sum_of_sixteen(&totals, g);
                    #[unroll]
                    for lane in 0..4usize {
                        let element = unit * 4 + lane;
                        if element < comptime!(shape.head_dim) {
                            out[(first + g) * comptime!(shape.head_dim) + element] = whole.extract(lane) / total;
                        }
                    }
                } else {
                    sums[part * quads + unit] = whole;
                }
            }
            if comptime!(!variant.alone || variant.packed) {
                if unit == 0 {
                    let mut most = greatest[g * 16];
                    let mut other = 1usize;
                    while other < 16 {
                        most = max(most, greatest[g * 16 + other]);
                        other += 1;
                    }
                    let total = sum_of_sixteen(&totals, g);
                    if comptime!(variant.alone) {
                        log_sums[first + g] = most + total.ln();
                    } else {
                        weights[part * 2] = most;
                        weights[part * 2 + 1] = total;
                    }
                }
            }
        }
    }
}

#[cube]
fn sum_of_sixteen(totals: &Shared<[f32]>, head: usize) -> f32 {
    let mut total = totals[head * 16];
    let mut other = 1usize;
    while other < 16 {
        total += totals[head * 16 + other];
        other += 1;
    }
    total
}

/// The splits of every head, added in their order.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn combine(
    sums: &[f32],
    weights: &[f32],
    positions: &[u32],
    sequences: &[u32],
    tables: &[u32],
    line: u32,
    splits: u32,
    out: &mut [f32],
    log_sums: &mut [f32],
    #[comptime] variant: Variant,
) {
    let shape = comptime!(variant.shape);
    let dim = comptime!(shape.head_dim);
    let slot = CUBE_POS_X as usize;
    let splits = splits as usize;
    let place = Place::of(slot, positions, sequences, tables, line, variant);
    let used = place.length.div_ceil(SPLIT);
    let mut element = UNIT_POS as usize;
    while element < comptime!(shape.heads * shape.head_dim) && used > 0 {
        let part = (slot * comptime!(shape.heads) + element / dim) * splits;
        let mut most = weights[part * 2];
        let mut split = 1usize;
        while split < used {
            most = max(most, weights[(part + split) * 2]);
            split += 1;
        }
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        let mut split = 0usize;
        while split < used {
            let factor = (weights[(part + split) * 2] - most).exp();
            sum = fma(factor, sums[(part + split) * comptime!(shape.padded()) + element % dim], sum);
            total = fma(factor, weights[(part + split) * 2 + 1], total);
            split += 1;
        }
        out[place.row * comptime!(shape.heads * shape.head_dim) + element] = sum / total;
        if comptime!(variant.packed) {
            if element % dim == 0 {
                log_sums[place.row * comptime!(shape.heads) + element / dim] = most + total.ln();
            }
        }
        element += 256usize;
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
