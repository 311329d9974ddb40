//! Products by tensor cores, both factors rounded to bf16.
//!
//! A cube computes a tile of rows and columns; its eight warps share what it stages. Columns are the matrix of sixteen lines and rows that
//! of eight, as in a [`Linear`](crate::cube::Linear): an instruction then adds up what the generator's adds up. Which line of an
//! instruction a row or a column is does not matter to a sum, so that each unit is given some that lie side by side in memory: it
//! stages four numbers of each of four at a time, and stores four sums at a time.

use burn::backend::DType;
use cubecl::prelude::*;

use super::super::super::linear::{ProductPath, multiply, rounded_pair};
use super::super::tensor::{GpuTensor, elements};
use super::{Factor, Walk};

type U2 = Vector<u32, Const<2>>;
type U4 = Vector<u32, Const<4>>;
type F4 = Vector<f32, Const<4>>;

/// Inputs of a chunk, which one instruction takes.
const CHUNK: usize = 16;
/// Chunks that are staged at a time.
const CHUNKS: usize = 2;
/// Inputs that are staged at a time.
pub(super) const STAGE: usize = CHUNKS * CHUNK;
/// Vectors of four of them.
const QUADS: usize = STAGE / 4;
const UNITS: usize = 256;
/// Warps that share the columns, and those that share the rows.
const WARPS: [usize; 2] = [2, 4];

/// A factor as a kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source {
    transposed: bool,
    bf16: bool,
    /// Words of a vector: four numbers where they can be read at once, else one word.
    words: usize,
    /// Vectors of a cube's tile.
    tile: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Variant {
    rows: Source,
    columns: Source,
    /// Words of a vector of the result.
    words: usize,
    /// Whether it is added to what is there.
    onto: bool,
    slices: usize,
    /// Instructions of a warp, by columns and by rows.
    columns_by_16: usize,
    rows_by_8: usize,
    emulated: bool,
}

/// Rows and columns of a cube, where sums are in one slice.
pub(super) fn tile(path: ProductPath) -> [usize; 2] {
    let emulated = path == ProductPath::EmulatedTensorCores;
    [128, if emulated { 64 } else { 128 }]
}

/// See [`super::product`].
pub(super) fn launch(
    path: ProductPath,
    rows: Factor<'_>,
    columns: Factor<'_>,
    walk: Walk,
    onto: bool,
    out: &GpuTensor,
) {
    let ((row_count, inner), (column_count, _)) = (rows.shape(), columns.shape());
    let emulated = path == ProductPath::EmulatedTensorCores;
    let [_, column_tile] = tile(path);
    // Sums of slices take the registers of further rows.
    let row_tile = if walk.slices == 1 && row_count > 128 && !emulated { 256 } else { 128 };
    let words = match column_count % 4 {
        0 if out.dtype == DType::BF16 => 2,
        0 => 4,
        _ => 1,
    };
    assert!(words > 1 || out.dtype == DType::F32, "a product in bf16 is a multiple of four columns wide");
    let variant = Variant {
        rows: source(rows, row_tile),
        columns: source(columns, column_tile),
        words,
        onto,
        slices: walk.slices,
        columns_by_16: column_tile / (16 * WARPS[0]),
        rows_by_8: row_tile / (8 * WARPS[1]),
        emulated,
    };
    let tiles = [column_count.div_ceil(column_tile), row_count.div_ceil(row_tile), walk.parts];
    let [x, y, z] = tiles.map(|count| count as u32);
    unsafe {
        product::launch_unchecked(
            &out.client,
            CubeCount::Static(x, y, z),
            CubeDim::new_1d(UNITS as u32),
            variant.rows.words,
            variant.columns.words,
            words,
            vectors(rows.matrix, variant.rows.words),
            vectors(columns.matrix, variant.columns.words),
            vectors(out, words),
            row_count as u32,
            column_count as u32,
            inner as u32,
            walk.part as u32,
            variant,
        );
    }
}

fn source(factor: Factor<'_>, tile: usize) -> Source {
    let (vectors, inner) = factor.shape();
    let (transposed, bf16) = (factor.transposed, factor.matrix.dtype == DType::BF16);
    let words = if bf16 { 2 } else { 4 };
    let adjacent = if transposed { vectors } else { inner };
    let offset = factor.matrix.handle.offset_start.unwrap_or(0) as usize;
    let at_once = adjacent.is_multiple_of(4) && offset.is_multiple_of(4 * words);
    Source { transposed, bf16, words: if at_once { words } else { 1 }, tile }
}

/// A tensor as the argument of a kernel that takes so many words at a time.
fn vectors(x: &GpuTensor, words: usize) -> BufferArg {
    let bytes = elements(x) * x.dtype.size();
    unsafe { BufferArg::from_raw_parts(x.handle.clone(), bytes.div_ceil(4 * words).max(1)) }
}

/// Four numbers that lie side by side, zeros where there are no more: in f32 four words, in bf16 two.
#[cube]
#[allow(clippy::too_many_arguments)]
fn four<N: Size>(
    from: &[Vector<u32, N>],
    line: usize,
    lines: usize,
    place: usize,
    places: usize,
    stride: usize,
    #[comptime] source: Source,
) -> U4 {
    let mut values = U4::new(0u32);
    if line < lines {
        if comptime!(source.words > 1) {
            if place < places {
                let vector = from[(line * stride + place) / 4];
                #[unroll]
                for word in 0..source.words {
                    values.insert(word, vector.extract(word));
                }
            }
        } else {
            #[unroll]
            for lane in 0..4usize {
                if place + lane < places {
                    let at = line * stride + place + lane;
                    if comptime!(source.bf16) {
                        let half = (from[at / 2].extract(0usize) >> (at as u32 % 2u32 * 16u32)) & 0xffffu32;
                        let word = values.extract(comptime!(lane / 2));
                        values.insert(comptime!(lane / 2), word | (half << comptime!(lane as u32 % 2 * 16)));
                    } else {
                        values.insert(lane, from[at].extract(0usize));
                    }
                }
            }
        }
    }
    values
}

/// The place of a unit in a stage: its four vectors and its four inputs.
#[cube]
fn place(#[comptime] turn: usize, #[comptime] source: Source) -> (usize, usize) {
    let slot = turn * UNITS + UNIT_POS as usize;
    // Units that follow one another read what does.
    if comptime!(source.transposed) {
        (slot % comptime!(source.tile / 4), slot / comptime!(source.tile / 4))
    } else {
        (slot / QUADS, slot % QUADS)
    }
}

/// Reads what a unit will stage: four numbers of each of four vectors, or four vectors' of each of four inputs.
#[cube]
#[allow(clippy::too_many_arguments)]
fn fetch<N: Size>(
    from: &[Vector<u32, N>],
    fetched: &mut Array<U4>,
    first: usize,
    count: usize,
    chunk: usize,
    slices: usize,
    end: usize,
    inner: usize,
    #[comptime] source: Source,
) {
    #[unroll]
    for turn in 0..comptime!(turns(source.tile)) {
        let (vectors, inputs) = place(turn, source);
        let vector = first + vectors * 4;
        let input = (chunk + inputs / 4 * slices) * CHUNK + inputs % 4 * 4;
        #[unroll]
        for line in 0..4usize {
            fetched[turn * 4 + line] = if comptime!(source.transposed) {
                four::<N>(from, input + line, end, vector, count, count, source)
            } else {
                four::<N>(from, vector + line, count, input, end, inner, source)
            };
        }
    }
}

/// How often the units go to a tile of so many vectors in a stage.
fn turns(tile: usize) -> usize {
    (tile / 4 * QUADS).div_ceil(UNITS)
}

/// Of one vector, the four inputs as two words of brain floats.
#[cube]
fn words_of(
    fetched: &Array<U4>,
    #[comptime] first: usize,
    #[comptime] vector: usize,
    #[comptime] source: Source,
    #[comptime] emulated: bool,
) -> U2 {
    let mut words = U2::new(0u32);
    #[unroll]
    for pair in 0..2usize {
        let word = if comptime!(source.transposed) {
            let low = fetched[first + pair * 2];
            let high = fetched[first + pair * 2 + 1];
            if comptime!(source.bf16) {
                let shift = comptime!(vector as u32 % 2 * 16);
                let low = (low.extract(comptime!(vector / 2)) >> shift) & 0xffffu32;
                let high = (high.extract(comptime!(vector / 2)) >> shift) & 0xffffu32;
                low | (high << 16u32)
            } else {
                rounded_pair(low.extract(vector), high.extract(vector), emulated)
            }
        } else {
            let values = fetched[first + vector];
            if comptime!(source.bf16) {
                values.extract(pair)
            } else {
                rounded_pair(values.extract(comptime!(pair * 2)), values.extract(comptime!(pair * 2 + 1)), emulated)
            }
        };
        words.insert(pair, word);
    }
    words
}

/// Where a unit's column fragment lies among those of its instruction: units that write at a time write to different banks.
#[cube]
fn column_lane(lane: usize, instruction: usize, chunk: usize) -> usize {
    lane ^ (lane / 8) ^ (instruction / 2 % 2 * 2) ^ (chunk * 4)
}

/// As [`column_lane`], of rows.
#[cube]
fn row_lane(lane: usize, instruction: usize, chunk: usize) -> usize {
    lane ^ (lane / 16) ^ (instruction / 4 % 2 * 2) ^ (chunk * 8)
}

/// Stages columns as an instruction takes them.
#[cube]
fn put_columns(fetched: &Array<U4>, to: &mut Shared<[U4]>, #[comptime] v: Variant) {
    let by_16 = comptime!(v.columns_by_16);
    #[unroll]
    for turn in 0..comptime!(turns(v.columns.tile)) {
        let (vectors, inputs) = place(turn, v.columns);
        let column = vectors * 4;
        if column < comptime!(v.columns.tile) && inputs < QUADS {
            let lane = column % comptime!(16 * by_16) / comptime!(2 * by_16) * 4 + inputs % 4;
            #[unroll]
            for beside in 0..2usize {
                let within = column % comptime!(2 * by_16) / 2 + beside;
                let instruction = column / comptime!(16 * by_16) * by_16 + within;
                let low = words_of(
                    fetched,
                    comptime!(turn * 4),
                    comptime!(beside * 2),
                    comptime!(v.columns),
                    comptime!(v.emulated),
                );
                let high = words_of(
                    fetched,
                    comptime!(turn * 4),
                    comptime!(beside * 2 + 1),
                    comptime!(v.columns),
                    comptime!(v.emulated),
                );
                let mut fragment = U4::empty();
                #[unroll]
                for half in 0..2usize {
                    fragment.insert(comptime!(half * 2), low.extract(half));
                    fragment.insert(comptime!(half * 2 + 1), high.extract(half));
                }
                let chunk = inputs / 4;
                to[(chunk * comptime!(WARPS[0] * by_16) + instruction) * 32 + column_lane(lane, instruction, chunk)] =
                    fragment;
            }
        }
    }
}

/// Stages rows as an instruction takes them.
#[cube]
fn put_rows(fetched: &Array<U4>, to: &mut Shared<[U2]>, #[comptime] v: Variant) {
    let by_8 = comptime!(v.rows_by_8);
    #[unroll]
    for turn in 0..comptime!(turns(v.rows.tile)) {
        let (vectors, inputs) = place(turn, v.rows);
        let row = vectors * 4;
        let lane = row % comptime!(8 * by_8) / by_8 * 4 + inputs % 4;
        #[unroll]
        for beside in 0..4usize {
            let instruction = row / comptime!(8 * by_8) * by_8 + row % by_8 + beside;
            let chunk = inputs / 4;
            to[(chunk * comptime!(WARPS[1] * by_8) + instruction) * 32 + row_lane(lane, instruction, chunk)] =
                words_of(fetched, comptime!(turn * 4), beside, comptime!(v.rows), comptime!(v.emulated));
        }
    }
}

/// A tile. Chunks of inputs are taken slice after slice: `slice`, `slice + slices`, …, each slice summed for itself. While a stage is
/// multiplied, the next one is on its way.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn product<A: Size, B: Size, O: Size>(
    a: &[Vector<u32, A>],
    b: &[Vector<u32, B>],
    out: &mut [Vector<u32, O>],
    rows: u32,
    columns: u32,
    inner: u32,
    part: u32,
    #[comptime] v: Variant,
) {
    let slices = comptime!(v.slices);
    let (by_16, by_8) = comptime!((v.columns_by_16, v.rows_by_8));
    let (rows, columns, inner) = (rows as usize, columns as usize, inner as usize);
    let first_row = CUBE_POS_Y as usize * comptime!(v.rows.tile);
    let first_column = CUBE_POS_X as usize * comptime!(v.columns.tile);
    let begin = CUBE_POS_Z as usize * part as usize / CHUNK;
    let end = min(inner, (CUBE_POS_Z as usize + 1) * part as usize);
    let chunks = end.div_ceil(CHUNK);
    let lane = UNIT_POS as usize % 32;
    let warp_column = UNIT_POS as usize / 32 % comptime!(WARPS[0]);
    let warp_row = UNIT_POS as usize / comptime!(32 * WARPS[0]);

    let mut staged_columns = Shared::<[U4]>::new_slice(comptime!(CHUNKS * WARPS[0] * v.columns_by_16 * 32));
    let mut staged_rows = Shared::<[U2]>::new_slice(comptime!(CHUNKS * WARPS[1] * v.rows_by_8 * 32));
    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if v.emulated { UNITS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if v.emulated { UNITS } else { 1usize }));
    let mut fetched_columns = Array::<U4>::new(comptime!(4 * turns(v.columns.tile)));
    let mut fetched_rows = Array::<U4>::new(comptime!(4 * turns(v.rows.tile)));
    let mut sums = Array::<F4>::new(comptime!(v.columns_by_16 * v.rows_by_8));
    let mut totals = Array::<F4>::new(comptime!(if v.slices > 1 { v.columns_by_16 * v.rows_by_8 } else { 1usize }));
    #[unroll]
    for index in 0..comptime!(v.columns_by_16 * v.rows_by_8) {
        sums[index] = F4::new(0.0f32);
        if comptime!(v.slices > 1) {
            totals[index] = F4::new(0.0f32);
        }
    }

    let mut slice = 0usize;
    let mut chunk = begin.clone();
    fetch::<A>(a, &mut fetched_rows, first_row, rows, chunk, slices, end, inner, comptime!(v.rows));
    fetch::<B>(b, &mut fetched_columns, first_column, columns, chunk, slices, end, inner, comptime!(v.columns));
    while slice < slices && chunk < chunks {
        sync_cube();
        put_rows(&fetched_rows, &mut staged_rows, v);
        put_columns(&fetched_columns, &mut staged_columns, v);
        sync_cube();
        let mut next = chunk + 2 * slices;
        let mut next_slice = slice.clone();
        if next >= chunks {
            next_slice += 1;
            next = begin + next_slice;
        }
        if next_slice < slices && next < chunks {
            fetch::<A>(a, &mut fetched_rows, first_row, rows, next, slices, end, inner, comptime!(v.rows));
            fetch::<B>(b, &mut fetched_columns, first_column, columns, next, slices, end, inner, comptime!(v.columns));
        }
        #[unroll(!v.emulated)]
        for staged in 0..CHUNKS {
            let mut fragments = Array::<U4>::new(by_16);
            #[unroll]
            for column in 0..by_16 {
                let instruction = warp_column * by_16 + column;
                fragments[column] = staged_columns[(staged * comptime!(WARPS[0] * v.columns_by_16) + instruction) * 32
                    + column_lane(lane, instruction, staged)];
            }
            #[unroll]
            for row in 0..by_8 {
                let instruction = warp_row * by_8 + row;
                let fragment = staged_rows[(staged * comptime!(WARPS[1] * v.rows_by_8) + instruction) * 32
                    + row_lane(lane, instruction, staged)];
                #[unroll]
                for column in 0..by_16 {
                    let index = comptime!(column * by_8 + row);
                    sums[index] = multiply(
                        fragments[column],
                        fragment,
                        sums[index],
                        &mut lent_a,
                        &mut lent_b,
                        comptime!(v.emulated),
                    );
                }
            }
        }
        if comptime!(v.slices > 1) {
            if next_slice != slice {
                #[unroll]
                for index in 0..comptime!(v.columns_by_16 * v.rows_by_8) {
                    totals[index] = totals[index] + sums[index];
                    sums[index] = F4::new(0.0f32);
                }
            }
        }
        slice = next_slice;
        chunk = next;
    }

    let start = CUBE_POS_Z as usize * rows * columns;
    let column = first_column + warp_column * comptime!(16 * v.columns_by_16) + lane / 4 * comptime!(2 * by_16);
    #[unroll]
    for row in 0..by_8 {
        #[unroll]
        for beside in 0..2usize {
            let at_row = first_row + warp_row * comptime!(8 * v.rows_by_8) + (lane % 4 * 2 + beside) * by_8 + row;
            if at_row < rows {
                #[unroll]
                for pair in 0..comptime!(v.columns_by_16 / 2) {
                    let mut four = F4::empty();
                    #[unroll]
                    for other in 0..2usize {
                        let index = comptime!((pair * 2 + other) * by_8 + row);
                        let sum = if comptime!(v.slices > 1) { totals[index] } else { sums[index] };
                        #[unroll]
                        for half in 0..2usize {
                            four.insert(comptime!(other * 2 + half), sum.extract(comptime!(half * 2 + beside)));
                        }
                    }
                    store::<O>(four, out, start + at_row * columns, column + pair * 4, columns, v);
                }
            }
        }
    }
}

/// Stores four sums of a row.
#[cube]
fn store<O: Size>(
    four: F4,
    out: &mut [Vector<u32, O>],
    line: usize,
    column: usize,
    columns: usize,
    #[comptime] v: Variant,
) {
    if comptime!(v.words == 1) {
        #[unroll]
        for lane in 0..4usize {
            if column + lane < columns {
                let at = line + column + lane;
                let mut sum = four.extract(lane);
                if comptime!(v.onto) {
                    sum += f32::reinterpret(out[at].extract(0usize));
                }
                out[at] = Vector::<u32, O>::new(u32::reinterpret(sum));
            }
        }
    } else if column < columns {
        let at = (line + column) / 4;
        let mut vector = Vector::<u32, O>::empty();
        #[unroll]
        for word in 0..v.words {
            if comptime!(v.words == 2) {
                let low = u32::reinterpret(four.extract(comptime!(word * 2)));
                let high = u32::reinterpret(four.extract(comptime!(word * 2 + 1)));
                vector.insert(word, rounded_pair(low, high, comptime!(v.emulated)));
            } else {
                let mut sum = four.extract(word);
                if comptime!(v.onto) {
                    sum += f32::reinterpret(out[at].extract(word));
                }
                vector.insert(word, u32::reinterpret(sum));
            }
        }
        out[at] = vector;
    }
}
