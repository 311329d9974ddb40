//! Lines of queries, keys and values as instructions take them: a warp's own in registers, those of the other side in shared memory.

use cubecl::prelude::*;

use super::super::super::attention::Tile;
use super::super::super::linear::{ProductPath, multiply, rounded_pair};
use super::UNITS;
use crate::AttentionShape;

pub(super) type U2 = Vector<u32, Const<2>>;
pub(super) type U4 = Vector<u32, Const<4>>;
pub(super) type F4 = Vector<f32, Const<4>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub(super) shape: AttentionShape,
    /// Lines of the other side that are staged at a time.
    pub(super) others: usize,
    pub(super) emulated: bool,
}

impl Variant {
    pub(super) fn of(path: ProductPath, shape: AttentionShape) -> Self {
        let emulated = path == ProductPath::EmulatedTensorCores;
        Self { shape, others: if shape.head_dim > 64 || emulated { 16 } else { 32 }, emulated }
    }

    /// Instructions that a product of two lines takes.
    pub(super) fn chunks(self) -> usize {
        self.shape.head_dim.div_ceil(16)
    }

    /// Vectors of two words in what is staged of a matrix.
    pub(super) fn staged(self) -> usize {
        self.others / 8 * self.chunks() * 32
    }

    /// Vectors of four numbers in a head, in a row of queries, in a row of keys.
    pub(super) fn quads(self) -> (usize, usize, usize) {
        let quads = self.shape.head_dim / 4;
        (quads, quads * self.shape.heads, quads * self.shape.kv_heads)
    }
}

/// Four numbers, zeros where there are none.
#[cube]
pub(super) fn numbers<F: Float>(from: &[Vector<F, Const<4>>], at: usize, there: bool) -> F4 {
    let mut values = F4::new(0.0f32);
    if there {
        values = F4::cast_from(from[at]);
    }
    values
}

#[cube]
pub(super) fn pair(low: f32, high: f32, #[comptime] emulated: bool) -> u32 {
    rounded_pair(u32::reinterpret(low), u32::reinterpret(high), emulated)
}

/// A unit's part of its warp's lines: of two of them, eight apart.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn own_lines<F: Float>(
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
pub(super) enum Ways {
    /// As factors of scores.
    Along,
    /// As what weights and slopes are multiplied by.
    Across,
    Both,
}

/// Stages the other side's lines from `begin` on.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn stage<F: Float>(
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
pub(super) fn products(
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
pub(super) fn add_lines(
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
pub(super) fn store<F: Float>(
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
pub(super) fn zeros(#[comptime] v: Variant) -> Array<F4> {
    let mut sums = Array::<F4>::new(comptime!(2 * v.chunks()));
    #[unroll]
    for column in 0..comptime!(2 * v.chunks()) {
        sums[column] = F4::new(0.0f32);
    }
    sums
}
