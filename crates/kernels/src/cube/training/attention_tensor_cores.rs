//! Attention by tensor cores, and its gradients: rows, weights and slopes rounded to bf16, sums in f32.
//!
//! A warp has sixteen lines of its own, keys or queries, whose numbers stay in its registers, and goes through the other side's lines,
//! which the cube stages. Scores come out of an instruction as the next one takes them, so that weights and slopes never leave the
//! registers. Which line or number of an instruction is which in memory does not matter to a sum: a unit has four that are adjacent.

use cubecl::prelude::*;

use super::super::linear::{ProductPath, multiply, rounded_pair};
use super::attention_kernels::{Tile, UNSEEN};
use super::spans::{KEY_TILE, Tables, VISIT};
use super::tensor::{GpuTensor, arg, elements, with_type};
use crate::AttentionShape;

type U2 = Vector<u32, Const<2>>;
type U4 = Vector<u32, Const<4>>;
type F4 = Vector<f32, Const<4>>;

const WARPS: usize = 4;
const UNITS: usize = 32 * WARPS;
/// Lines of a cube.
pub(super) const LINES: usize = 16 * WARPS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Variant {
    shape: AttentionShape,
    /// Lines of the other side that are staged at a time.
    others: usize,
    emulated: bool,
}

impl Variant {
    /// Instructions that a product of two lines takes.
    fn chunks(self) -> usize {
        self.shape.head_dim.div_ceil(16)
    }

    /// Vectors of two words in what is staged of a matrix.
    fn staged(self) -> usize {
        self.others / 8 * self.chunks() * 32
    }

    /// Vectors of four numbers in a head, in a row of queries, in a row of keys.
    fn quads(self) -> (usize, usize, usize) {
        let quads = self.shape.head_dim / 4;
        (quads, quads * self.shape.heads, quads * self.shape.kv_heads)
    }
}

/// Tensors that the gradients follow from.
pub(super) struct Inputs<'a> {
    pub(super) q: &'a GpuTensor,
    pub(super) k: &'a GpuTensor,
    pub(super) v: &'a GpuTensor,
    pub(super) upstream: &'a GpuTensor,
    /// Logarithms of the sums of exponentials, and products of each output with its gradient, `[rows, heads]`.
    pub(super) log_sums: &'a GpuTensor,
    pub(super) of_outputs: &'a GpuTensor,
}

/// Whether heads are of a width that the kernels take.
pub(super) fn takes(shape: AttentionShape) -> bool {
    shape.head_dim.is_multiple_of(4)
}

impl Variant {
    fn of(path: ProductPath, shape: AttentionShape) -> Self {
        let emulated = path == ProductPath::EmulatedTensorCores;
        Self { shape, others: if shape.head_dim > 64 || emulated { 16 } else { 32 }, emulated }
    }
}

/// Writes what queries attend to, and the logarithms of their sums of exponentials. The table's tiles are of [`LINES`] queries.
pub(super) fn forward(
    path: ProductPath,
    [q, k, v]: [&GpuTensor; 3],
    [output, log_sums]: [&GpuTensor; 2],
    tables: &Tables,
    shape: AttentionShape,
) {
    with_type!(q, F => unsafe {
        attend::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(tables.queries.lines as u32, shape.heads as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            quads(q),
            quads(k),
            quads(v),
            tables.queries.buffer.arg(),
            quads(output),
            arg(log_sums),
            shape.scale(),
            Variant::of(path, shape),
        );
    });
}

/// Writes the gradients of `q`, `k` and `v`. The tables' tiles are of [`LINES`] queries and keys.
pub(super) fn backward(
    path: ProductPath,
    inputs: &Inputs<'_>,
    [d_q, d_k, d_v]: [&GpuTensor; 3],
    tables: &Tables,
    shape: AttentionShape,
) {
    let Inputs { q, k, v, upstream, log_sums, of_outputs } = inputs;
    let variant = Variant::of(path, shape);
    let units = CubeDim::new_1d(UNITS as u32);
    with_type!(q, F => unsafe {
        queries_gradient::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(tables.queries.lines as u32, shape.heads as u32, 1),
            units,
            quads(q),
            quads(k),
            quads(v),
            quads(upstream),
            tables.queries.buffer.arg(),
            arg(log_sums),
            arg(of_outputs),
            quads(d_q),
            shape.scale(),
            variant,
        );
        keys_gradient::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(tables.keys.lines as u32, shape.kv_heads as u32, 1),
            units,
            quads(q),
            quads(k),
            quads(v),
            quads(upstream),
            tables.keys.buffer.arg(),
            tables.visits.buffer.arg(),
            arg(log_sums),
            arg(of_outputs),
            quads(d_k),
            quads(d_v),
            shape.scale(),
            variant,
        );
    });
}

/// A tensor as the argument of a kernel that takes four of its numbers at a time.
fn quads(x: &GpuTensor) -> BufferArg {
    unsafe { BufferArg::from_raw_parts(x.handle.clone(), (elements(x) / 4).max(1)) }
}

/// Four numbers, zeros where there are none.
#[cube]
fn numbers<F: Float>(from: &[Vector<F, Const<4>>], at: usize, there: bool) -> F4 {
    let mut values = F4::new(0.0f32);
    if there {
        values = F4::cast_from(from[at]);
    }
    values
}

#[cube]
fn pair(low: f32, high: f32, #[comptime] emulated: bool) -> u32 {
    rounded_pair(u32::reinterpret(low), u32::reinterpret(high), emulated)
}

/// A unit's part of its warp's lines: of two of them, eight apart.
#[cube]
#[allow(clippy::too_many_arguments)]
fn own_lines<F: Float>(
    from: &[Vector<F, Const<4>>],
    to: &mut Array<U4>,
    row: usize,
    end: usize,
    stride: usize,
    column: usize,
    #[comptime] v: Variant,
) {
    let width = comptime!(v.quads().0);
    #[unroll]
    for chunk in 0..comptime!(v.chunks()) {
        let quad = chunk * 4 + UNIT_POS as usize % 4;
        let low = numbers::<F>(from, row * stride + column + quad, row < end && quad < width);
        let high = numbers::<F>(from, (row + 8) * stride + column + quad, row + 8 < end && quad < width);
        let mut fragment = U4::empty();
        #[unroll]
        for half in 0..2usize {
            let (first, second) = comptime!((half * 2, half * 2 + 1));
            fragment.insert(first, pair(low.extract(first), low.extract(second), comptime!(v.emulated)));
            fragment.insert(second, pair(high.extract(first), high.extract(second), comptime!(v.emulated)));
        }
        to[chunk] = fragment;
    }
}

/// Which way the other side's lines are staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ways {
    /// As factors of scores.
    Along,
    /// As what weights and slopes are multiplied by.
    Across,
    Both,
}

/// Stages the other side's lines from `begin` on.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage<F: Float>(
    from: &[Vector<F, Const<4>>],
    along: &mut Shared<[U2]>,
    across: &mut Shared<[U2]>,
    lines: &Tile,
    begin: usize,
    end: usize,
    stride: usize,
    column: usize,
    #[comptime] ways: Ways,
    #[comptime] v: Variant,
) {
    let width = comptime!(v.quads().0);
    let chunks = comptime!(v.chunks());
    let mut slot = UNIT_POS as usize;
    while slot < comptime!(v.others / 4 * v.chunks() * 4) {
        let quad = slot % comptime!(v.chunks() * 4);
        let other = slot / comptime!(v.chunks() * 4);
        let mut values = Array::<F4>::new(4usize);
        #[unroll]
        for i in 0..4usize {
            let position = begin + other * 4 + i;
            let there = position < end && quad < width;
            values[i] = numbers::<F>(from, lines.key_row(position) * stride + column + quad, there);
        }
        #[unroll]
        for i in 0..4usize {
            if comptime!(ways != Ways::Across) {
                let mut words = U2::empty();
                words.insert(0usize, pair(values[i].extract(0usize), values[i].extract(1usize), comptime!(v.emulated)));
                words.insert(1usize, pair(values[i].extract(2usize), values[i].extract(3usize), comptime!(v.emulated)));
                let instruction = other / 4 * 2 + comptime!(i / 2);
                let lane = (other % 4 * 2 + comptime!(i % 2)) * 4 + quad % 4;
                along[(instruction * chunks + quad / 4) * 32 + lane] = words;
            }
            if comptime!(ways != Ways::Along) {
                let mut words = U2::empty();
                words.insert(0usize, pair(values[0].extract(i), values[1].extract(i), comptime!(v.emulated)));
                words.insert(1usize, pair(values[2].extract(i), values[3].extract(i), comptime!(v.emulated)));
                let instruction = other / 4 * comptime!(2 * v.chunks()) + quad / 4 * 2 + comptime!(i / 2);
                let lane = (quad % 4 * 2 + comptime!(i % 2)) * 4 + other % 4;
                across[instruction * 32 + lane] = words;
            }
        }
        slot += UNITS;
    }
}

/// Products of the warp's lines with eight of the other side's.
#[cube]
fn products(
    own: &Array<U4>,
    along: &Shared<[U2]>,
    instruction: usize,
    lent_a: &mut Shared<[U4]>,
    lent_b: &mut Shared<[U2]>,
    #[comptime] v: Variant,
) -> F4 {
    let mut sum = F4::new(0.0f32);
    #[unroll]
    for chunk in 0..comptime!(v.chunks()) {
        let other = along[(instruction * comptime!(v.chunks()) + chunk) * 32 + UNIT_POS as usize % 32];
        sum = multiply(own[chunk], other, sum, lent_a, lent_b, comptime!(v.emulated));
    }
    sum
}

/// Adds sixteen of the other side's lines, times the numbers of two instructions' results.
#[cube]
#[allow(clippy::too_many_arguments)]
fn add_lines(
    low: F4,
    high: F4,
    across: &Shared<[U2]>,
    sixteen: usize,
    sums: &mut Array<F4>,
    lent_a: &mut Shared<[U4]>,
    lent_b: &mut Shared<[U2]>,
    #[comptime] v: Variant,
) {
    let mut factors = U4::empty();
    #[unroll]
    for half in 0..2usize {
        let (first, second) = comptime!((half * 2, half * 2 + 1));
        factors.insert(half, pair(low.extract(first), low.extract(second), comptime!(v.emulated)));
        factors.insert(comptime!(half + 2), pair(high.extract(first), high.extract(second), comptime!(v.emulated)));
    }
    #[unroll]
    for column in 0..comptime!(2 * v.chunks()) {
        let lines = across[(sixteen * comptime!(2 * v.chunks()) + column) * 32 + UNIT_POS as usize % 32];
        sums[column] = multiply(factors, lines, sums[column], lent_a, lent_b, comptime!(v.emulated));
    }
}

/// Stores the sums of two lines, eight apart.
#[cube]
fn store<F: Float>(
    sums: &Array<F4>,
    to: &mut [Vector<F, Const<4>>],
    row: usize,
    end: usize,
    stride: usize,
    column: usize,
    #[comptime] v: Variant,
) {
    #[unroll]
    for half in 0..2usize {
        #[unroll]
        for chunk in 0..comptime!(v.chunks()) {
            let quad = chunk * 4 + UNIT_POS as usize % 4;
            if row + half * 8 < end && quad < comptime!(v.quads().0) {
                let mut values = F4::empty();
                #[unroll]
                for i in 0..4usize {
                    values.insert(i, sums[comptime!(chunk * 2 + i / 2)].extract(comptime!(half * 2 + i % 2)));
                }
                to[(row + half * 8) * stride + column + quad] = Vector::<F, Const<4>>::cast_from(values);
            }
        }
    }
}

#[cube]
fn zeros(#[comptime] v: Variant) -> Array<F4> {
    let mut sums = Array::<F4>::new(comptime!(2 * v.chunks()));
    #[unroll]
    for column in 0..comptime!(2 * v.chunks()) {
        sums[column] = F4::new(0.0f32);
    }
    sums
}

/// Goes through the keys twice: for the sums of exponentials, then for the values, so that nothing that is summed changes its scale.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn attend<F: Float>(
    q: &[Vector<F, Const<4>>],
    k: &[Vector<F, Const<4>>],
    v: &[Vector<F, Const<4>>],
    tiles: &[u32],
    out: &mut [Vector<F, Const<4>>],
    log_sums: &mut [f32],
    scale: f32,
    #[comptime] variant: Variant,
) {
    let (width, stride, kv_stride) = comptime!(variant.quads());
    let heads = comptime!(variant.shape.heads);
    let emulated = comptime!(variant.emulated);
    let tile = Tile::read(tiles, CUBE_POS_X as usize);
    let head = CUBE_POS_Y as usize;
    let kv_column = head / comptime!(variant.shape.heads / variant.shape.kv_heads) * width;
    let unit = UNIT_POS as usize % 32;
    let row = tile.first + UNIT_POS as usize / 32 * 16 + unit / 4;
    let last = tile.first + tile.count;
    let mut keys = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut values = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    // Of the four units of a line, its greatest score and its sum.
    let mut parts = Shared::<[f32]>::new_slice(comptime!(4 * UNITS));
    let mut queries = Array::<U4>::new(comptime!(variant.chunks()));
    own_lines::<F>(q, &mut queries, row, last, stride, head * width, variant);
    let position = tile.shared_length + row - tile.own_start;
    let end = tile.shared_length + last - tile.own_start;
    // Of two lines.
    let mut most = Array::<f32>::new(2usize);
    let mut total = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        most[half] = f32::new(UNSEEN);
        total[half] = 0.0f32;
    }
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        let ways = comptime!(Ways::Along);
        stage::<F>(k, &mut keys, &mut values, &tile, begin, end, kv_stride, kv_column, ways, variant);
        sync_cube();
        #[unroll(!emulated)]
        for instruction in 0..comptime!(variant.others / 8) {
            let scores = products(&queries, &keys, instruction, &mut lent_a, &mut lent_b, variant);
            let first = begin + instruction / 2 * 16 + unit % 4 * 4 + instruction % 2 * 2;
            #[unroll]
            for half in 0..2usize {
                let mut score = Array::<f32>::new(2usize);
                #[unroll]
                for beside in 0..2usize {
                    score[beside] = f32::new(UNSEEN);
                    if first + beside <= position + half * 8 {
                        score[beside] = scores.extract(comptime!(half * 2 + beside)) * scale;
                    }
                }
                let higher = max(most[half], max(score[0], score[1]));
                // A unit that has seen no key yet has a sum of zero, whatever it is multiplied by.
                let kept = total[half] * f32::exp(most[half] - higher);
                total[half] = kept + weight_of(score[0], higher) + weight_of(score[1], higher);
                most[half] = higher;
            }
        }
        begin += comptime!(variant.others);
    }
    let mut log_sum = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        sync_cube();
        parts[UNIT_POS as usize * 2] = most[half];
        parts[UNIT_POS as usize * 2 + 1] = total[half];
        sync_cube();
        let line = UNIT_POS as usize / 4 * 8;
        let mut highest = parts[line];
        #[unroll]
        for other in 1..4usize {
            highest = max(highest, parts[line + other * 2]);
        }
        let mut sum = 0.0f32;
        #[unroll]
        for other in 0..4usize {
            sum = fma(f32::exp(parts[line + other * 2] - highest), parts[line + other * 2 + 1], sum);
        }
        log_sum[half] = highest + f32::ln(sum);
        if row + half * 8 < last && unit % 4 == 0 {
            log_sums[(row + half * 8) * heads + head] = log_sum[half];
        }
    }
    let mut sums = zeros(variant);
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        let (along, across) = comptime!((Ways::Along, Ways::Across));
        // A way that is not staged writes nothing.
        stage::<F>(k, &mut keys, &mut lent_b, &tile, begin, end, kv_stride, kv_column, along, variant);
        stage::<F>(v, &mut lent_b, &mut values, &tile, begin, end, kv_stride, kv_column, across, variant);
        sync_cube();
        #[unroll(!emulated)]
        for sixteen in 0..comptime!(variant.others / 16) {
            let mut weights = Array::<F4>::new(2usize);
            #[unroll]
            for other in 0..2usize {
                let instruction = sixteen * 2 + other;
                let scores = products(&queries, &keys, instruction, &mut lent_a, &mut lent_b, variant);
                let mut weight = F4::new(0.0f32);
                #[unroll]
                for i in 0..4usize {
                    let half = comptime!(i / 2);
                    let key = begin + sixteen * 16 + unit % 4 * 4 + comptime!(other * 2 + i % 2);
                    if key <= position + half * 8 {
                        weight.insert(i, f32::exp(scores.extract(i) * scale - log_sum[half]));
                    }
                }
                weights[other] = weight;
            }
            add_lines(weights[0], weights[1], &values, sixteen, &mut sums, &mut lent_a, &mut lent_b, variant);
        }
        begin += comptime!(variant.others);
    }
    store::<F>(&sums, out, row, last, stride, head * width, variant);
}

/// The exponential of a score below the highest, of which there is none for keys that are not seen.
#[cube]
fn weight_of(score: f32, highest: f32) -> f32 {
    let mut weight = 0.0f32;
    if score > f32::new(UNSEEN) {
        weight = f32::exp(score - highest);
    }
    weight
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn queries_gradient<F: Float>(
    q: &[Vector<F, Const<4>>],
    k: &[Vector<F, Const<4>>],
    v: &[Vector<F, Const<4>>],
    upstream: &[Vector<F, Const<4>>],
    tiles: &[u32],
    log_sums: &[f32],
    of_outputs: &[f32],
    d_q: &mut [Vector<F, Const<4>>],
    scale: f32,
    #[comptime] variant: Variant,
) {
    let (width, stride, kv_stride) = comptime!(variant.quads());
    let heads = comptime!(variant.shape.heads);
    let emulated = comptime!(variant.emulated);
    let tile = Tile::read(tiles, CUBE_POS_X as usize);
    let head = CUBE_POS_Y as usize;
    let kv_column = head / comptime!(variant.shape.heads / variant.shape.kv_heads) * width;
    let unit = UNIT_POS as usize % 32;
    let row = tile.first + UNIT_POS as usize / 32 * 16 + unit / 4;
    let last = tile.first + tile.count;
    let mut keys_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut keys_across = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut values_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut unused = Shared::<[U2]>::new_slice(1usize);
    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut queries = Array::<U4>::new(comptime!(variant.chunks()));
    let mut above = Array::<U4>::new(comptime!(variant.chunks()));
    own_lines::<F>(q, &mut queries, row, last, stride, head * width, variant);
    own_lines::<F>(upstream, &mut above, row, last, stride, head * width, variant);
    // Of two lines.
    let mut log_sum = Array::<f32>::new(2usize);
    let mut of_output = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        log_sum[half] = 0.0f32;
        of_output[half] = 0.0f32;
        if row + half * 8 < last {
            log_sum[half] = log_sums[(row + half * 8) * heads + head];
            of_output[half] = of_outputs[(row + half * 8) * heads + head];
        }
    }
    let mut sums = zeros(variant);
    let position = tile.shared_length + row - tile.own_start;
    let end = tile.shared_length + last - tile.own_start;
    let mut begin = 0usize;
    while begin < end {
        sync_cube();
        stage::<F>(
            k,
            &mut keys_along,
            &mut keys_across,
            &tile,
            begin,
            end,
            kv_stride,
            kv_column,
            comptime!(Ways::Both),
            variant,
        );
        stage::<F>(
            v,
            &mut values_along,
            &mut unused,
            &tile,
            begin,
            end,
            kv_stride,
            kv_column,
            comptime!(Ways::Along),
            variant,
        );
        sync_cube();
        #[unroll(!emulated)]
        for sixteen in 0..comptime!(variant.others / 16) {
            let mut slopes = Array::<F4>::new(2usize);
            #[unroll]
            for other in 0..2usize {
                let instruction = sixteen * 2 + other;
                let scores = products(&queries, &keys_along, instruction, &mut lent_a, &mut lent_b, variant);
                let d_weights = products(&above, &values_along, instruction, &mut lent_a, &mut lent_b, variant);
                let mut slope = F4::new(0.0f32);
                #[unroll]
                for i in 0..4usize {
                    let half = comptime!(i / 2);
                    let key = begin + sixteen * 16 + unit % 4 * 4 + comptime!(other * 2 + i % 2);
                    if key <= position + half * 8 {
                        let weight = f32::exp(scores.extract(i) * scale - log_sum[half]);
                        slope.insert(i, weight * (d_weights.extract(i) - of_output[half]) * scale);
                    }
                }
                slopes[other] = slope;
            }
            add_lines(slopes[0], slopes[1], &keys_across, sixteen, &mut sums, &mut lent_a, &mut lent_b, variant);
        }
        begin += comptime!(variant.others);
    }
    store::<F>(&sums, d_q, row, last, stride, head * width, variant);
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn keys_gradient<F: Float>(
    q: &[Vector<F, Const<4>>],
    k: &[Vector<F, Const<4>>],
    v: &[Vector<F, Const<4>>],
    upstream: &[Vector<F, Const<4>>],
    tiles: &[u32],
    visits: &[u32],
    log_sums: &[f32],
    of_outputs: &[f32],
    d_k: &mut [Vector<F, Const<4>>],
    d_v: &mut [Vector<F, Const<4>>],
    scale: f32,
    #[comptime] variant: Variant,
) {
    let (width, stride, kv_stride) = comptime!(variant.quads());
    let heads = comptime!(variant.shape.heads);
    let group = comptime!(variant.shape.heads / variant.shape.kv_heads);
    let emulated = comptime!(variant.emulated);
    let line = CUBE_POS_X as usize * KEY_TILE;
    let first = tiles[line] as usize;
    let last = first + tiles[line + 1] as usize;
    let kv_head = CUBE_POS_Y as usize;
    let unit = UNIT_POS as usize % 32;
    let row = first + UNIT_POS as usize / 32 * 16 + unit / 4;
    let mut queries_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut queries_across = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut above_along = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut above_across = Shared::<[U2]>::new_slice(comptime!(variant.staged()));
    let mut lent_a = Shared::<[U4]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut lent_b = Shared::<[U2]>::new_slice(comptime!(if emulated { UNITS } else { 1usize }));
    let mut keys = Array::<U4>::new(comptime!(variant.chunks()));
    let mut values = Array::<U4>::new(comptime!(variant.chunks()));
    own_lines::<F>(k, &mut keys, row, last, kv_stride, kv_head * width, variant);
    own_lines::<F>(v, &mut values, row, last, kv_stride, kv_head * width, variant);
    let mut key_sums = zeros(variant);
    let mut value_sums = zeros(variant);
    // Queries are one below the other.
    let rows = Tile { first: 0usize, count: 0usize, shared_start: 0usize, shared_length: 0usize, own_start: 0usize };
    let mut visit = tiles[line + 2] as usize;
    while visit < tiles[line + 3] as usize {
        let at = visit * VISIT;
        let (query_first, query_end) = (visits[at] as usize, visits[at + 1] as usize);
        let (from, to) = (visits[at + 2] as usize, visits[at + 3] as usize);
        let is_own = visits[at + 4] == 1u32;
        let mut of_group = 0usize;
        while of_group < group {
            let head = kv_head * group + of_group;
            let column = head * width;
            let mut begin = query_first;
            while begin < query_end {
                sync_cube();
                stage::<F>(
                    q,
                    &mut queries_along,
                    &mut queries_across,
                    &rows,
                    begin,
                    query_end,
                    stride,
                    column,
                    comptime!(Ways::Both),
                    variant,
                );
                stage::<F>(
                    upstream,
                    &mut above_along,
                    &mut above_across,
                    &rows,
                    begin,
                    query_end,
                    stride,
                    column,
                    comptime!(Ways::Both),
                    variant,
                );
                sync_cube();
                #[unroll(!emulated)]
                for sixteen in 0..comptime!(variant.others / 16) {
                    let mut weights = Array::<F4>::new(2usize);
                    let mut slopes = Array::<F4>::new(2usize);
                    #[unroll]
                    for other in 0..2usize {
                        let instruction = sixteen * 2 + other;
                        let scores = products(&keys, &queries_along, instruction, &mut lent_a, &mut lent_b, variant);
                        let d_weights = products(&values, &above_along, instruction, &mut lent_a, &mut lent_b, variant);
                        let mut weight = F4::new(0.0f32);
                        let mut slope = F4::new(0.0f32);
                        #[unroll]
                        for beside in 0..2usize {
                            let query = begin + sixteen * 16 + unit % 4 * 4 + comptime!(other * 2 + beside);
                            if query < query_end {
                                let log_sum = log_sums[query * heads + head];
                                let of_output = of_outputs[query * heads + head];
                                #[unroll]
                                for half in 0..2usize {
                                    let i = comptime!(half * 2 + beside);
                                    let key = row + half * 8;
                                    if from <= key && key < to && (!is_own || key <= query) {
                                        let share = f32::exp(scores.extract(i) * scale - log_sum);
                                        weight.insert(i, share);
                                        slope.insert(i, share * (d_weights.extract(i) - of_output) * scale);
                                    }
                                }
                            }
                        }
                        weights[other] = weight;
                        slopes[other] = slope;
                    }
                    add_lines(
                        weights[0],
                        weights[1],
                        &above_across,
                        sixteen,
                        &mut value_sums,
                        &mut lent_a,
                        &mut lent_b,
                        variant,
                    );
                    add_lines(
                        slopes[0],
                        slopes[1],
                        &queries_across,
                        sixteen,
                        &mut key_sums,
                        &mut lent_a,
                        &mut lent_b,
                        variant,
                    );
                }
                begin += comptime!(variant.others);
            }
            of_group += 1;
        }
        visit += 1;
    }
    store::<F>(&key_sums, d_k, row, last, kv_stride, kv_head * width, variant);
    store::<F>(&value_sums, d_v, row, last, kv_stride, kv_head * width, variant);
}
