//! The inner loop of every matrix product: a tile of sums that stay in registers.
//!
//! A sum is one chain of fused multiply-adds in ascending order of the inputs, so that neither the shape of a tile nor the
//! instruction set changes its bits.

// Loops over const indices are unrolled before the compiler decides which arrays live in registers; iterators are not.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use half::bf16;

use crate::matrix::MatrixMut;
use crate::simd::{LANES, Simd};

/// How far ahead of their use, in bytes, panels are asked for that are read only once: processors look ahead on their own, but
/// not beyond a page.
const NEAR: usize = 4096;

/// Tiles above one another whose product waits for memory.
const FEW: usize = 8;

/// A number of the right operand.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// # Safety
    /// [`LANES`] of them must be there, and the set's instructions be enabled.
    unsafe fn load<S: Simd>(from: *const Self) -> S::Wide;

    /// The nearest to a float.
    fn rounded(value: f32) -> Self;

    fn float(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Wide {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }

    #[inline(always)]
    fn rounded(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn float(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Wide {
        // SAFETY: the caller's promise; in memory it is a `u16`.
        unsafe { S::load_bf16(from.cast()) }
    }

    #[inline(always)]
    fn rounded(value: f32) -> Self {
        Self::from_f32(value)
    }

    #[inline(always)]
    fn float(self) -> f32 {
        self.to_f32()
    }
}

/// The left operand of a product.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Rows that begin so far apart.
    Rows(&'a [f32], usize),
    /// The rows of each tile interleaved, `[depth, height]`, tile after tile as [`heights`] deals them.
    Interleaved(&'a [f32]),
}

/// Range of a sum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At zero, in place of what is there.
    Zero,
    /// At what is there, as if it had never left its register.
    Continue,
    /// At zero, to be added to what is there.
    Add,
}

/// Some inputs of a product of rows with adjacent panels.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a, E> {
    pub(crate) left: Left<'a>,
    /// `[panels, inner, 16]`; what lies beyond the columns of the result is padding.
    pub(crate) panels: &'a [E],
    pub(crate) inner: usize,
    /// The inputs that are multiplied.
    pub(crate) inputs: [usize; 2],
    pub(crate) start: Start,
    /// Multiplies the finished sums.
    pub(crate) scale: f32,
}

/// The first row and the height of each tile: all of one height or one less, as a low last tile would wait for its few sums.
#[inline(always)]
pub(crate) fn heights<S: Simd>(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(S::ROWS);
    (0..tiles).map(move |tile| (tile * rows / tiles, (tile + 1) * rows / tiles - tile * rows / tiles))
}

impl<E: Element> Part<'_, E> {
    /// Multiplies rows into the same rows of `out`.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd>(&self, rows: Range<usize>, out: &mut MatrixMut<'_>) {
        let Self { left, panels, inner, inputs: [from, to], start, scale } = *self;
        let (size, depth) = (inner * LANES, to - from);
        if rows.is_empty() || depth == 0 {
            return;
        }
        let count = panels.len() / size;
        assert!(to <= inner && rows.end <= out.rows() && count == out.columns().div_ceil(LANES));
        match left {
            Left::Rows(values, stride) => assert!((rows.end - 1) * stride + to <= values.len()),
            Left::Interleaved(values) => assert!(rows.len() * depth <= values.len()),
        }
        let tiles = rows.len().div_ceil(S::ROWS);
        for (panel, together) in widths::<S>(rows.len(), count) {
            for (index, (first, height)) in heights::<S>(rows.len()).enumerate() {
                let row = rows.start + first;
                // SAFETY: the rows, the inputs and the panels are inside their slices, as checked above.
                unsafe {
                    let (x, stride) = match left {
                        Left::Rows(values, stride) => (values.as_ptr().add(row * stride + from), Some(stride)),
                        Left::Interleaved(values) => (values.as_ptr().add(first * depth), None),
                    };
                    let panels = panels.as_ptr().add(panel * size + from * LANES);
                    // While the panels are in the caches for the later tiles, the next ones come from memory. With many tiles it
                    // costs more than it brings.
                    let pace = LANES * size_of::<E>() / tiles;
                    let next = together * size * size_of::<E>() + index * pace * depth;
                    let ahead = (tiles <= FEW).then_some((if tiles == 1 { NEAR } else { next }, pace));
                    let corner = (row, panel * LANES);
                    let tile =
                        ProductTile { x, stride, panels, size, depth, out: &mut *out, corner, start, scale, ahead };
                    with_shape::<S, _>(height, together, tile);
                }
            }
        }
    }
}

/// The first of the panels that tiles of these rows span, and their number.
#[inline(always)]
pub(crate) fn widths<S: Simd>(rows: usize, panels: usize) -> impl Iterator<Item = (usize, usize)> {
    let highest = rows.div_ceil(rows.div_ceil(S::ROWS).max(1)).max(1);
    let width = S::PANELS[highest - 1];
    // A rest is taken panel by panel.
    let whole = panels / width;
    (0..whole).map(move |index| (index * width, width)).chain((whole * width..panels).map(|panel| (panel, 1)))
}

/// Work on a tile of a height and a width that the compiler knows.
pub(crate) trait Shaped {
    /// # Safety
    /// The set's instructions must be enabled, and memory be there for the shape.
    unsafe fn run<S: Simd, const R: usize, const P: usize>(self);
}

/// Runs work on a tile of one of the shapes that [`heights`] and [`widths`] give.
///
/// # Safety
/// As [`Shaped::run`].
#[inline(always)]
pub(crate) unsafe fn with_shape<S: Simd, W: Shaped>(height: usize, width: usize, work: W) {
    macro_rules! shapes {
        ($($height:literal x $width:literal)*) => {
            match (height, width) {
                // Shapes that the set does not have are not compiled for it.
                $(($height, $width) if $height <= S::ROWS && $width <= S::PANELS[$height - 1] => {
                    // SAFETY: the caller's promise.
                    unsafe { work.run::<S, $height, $width>() }
                })*
                _ => unreachable!("there are no tiles of {height} x {width}"),
            }
        };
    }
    shapes!(
        1 x 1 2 x 1 3 x 1 4 x 1 5 x 1 6 x 1 7 x 1 8 x 1
        3 x 2
        2 x 3 6 x 3 7 x 3 8 x 3
        1 x 4 2 x 4 3 x 4 4 x 4 5 x 4 6 x 4
    );
}

/// A tile of [`Part::multiply`].
struct ProductTile<'a, 'b, E> {
    x: *const f32,
    /// Between the rows of `x`, unless they are interleaved.
    stride: Option<usize>,
    panels: *const E,
    size: usize,
    depth: usize,
    out: &'a mut MatrixMut<'b>,
    corner: (usize, usize),
    start: Start,
    scale: f32,
    /// How far behind the panels, in bytes, memory is asked for meanwhile, and how much farther with each input.
    ahead: Option<(usize, usize)>,
}

impl<E: Element> Shaped for ProductTile<'_, '_, E> {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const P: usize>(self) {
        let Self { x, stride, depth, out, corner: (row, column), start, scale, ahead, .. } = self;
        // SAFETY: the caller's promise.
        unsafe {
            let mut panels = [self.panels; P];
            for p in 0..P {
                panels[p] = self.panels.add(p * self.size);
            }
            let mut sums = [[S::zero(); P]; R];
            if start == Start::Continue {
                for r in 0..R {
                    for p in 0..P {
                        sums[r][p] = load::<S>(out.place(row + r, column + p * LANES));
                    }
                }
            }
            // The next tile's place: sums that go on from there would wait for it.
            for r in 0..R {
                for p in 0..P {
                    out.prefetch::<S>(row + R + r, column + p * LANES);
                }
            }
            let sums = match stride {
                Some(stride) if ahead.is_none() => {
                    tile::<S, E, false, R, P>(x, stride, panels, LANES, depth, sums, None)
                }
                Some(stride) => tile::<S, E, false, R, P>(x, stride, panels, LANES, depth, sums, ahead),
                None => tile::<S, E, true, R, P>(x, 0, panels, LANES, depth, sums, None),
            };
            let factor = S::splat(&scale);
            for r in 0..R {
                for p in 0..P {
                    let place = out.place(row + r, column + p * LANES);
                    let sum = match start {
                        Start::Add => S::multiply_add(factor, sums[r][p], load::<S>(place)),
                        _ if scale != 1.0 => S::multiply_add(factor, sums[r][p], S::zero()),
                        _ => sums[r][p],
                    };
                    store::<S>(sum, place);
                }
            }
        }
    }
}

/// Loads the floats of a place, zeros beyond its end.
#[inline(always)]
unsafe fn load<S: Simd>((start, count): (*mut f32, usize)) -> S::Wide {
    // SAFETY: the caller's promise; the buffer is long enough.
    unsafe {
        if count >= LANES {
            return S::load(start);
        }
        let mut buffer = [0.0; LANES];
        start.copy_to_nonoverlapping(buffer.as_mut_ptr(), count);
        S::load(buffer.as_ptr())
    }
}

/// Stores as many floats as a place has.
#[inline(always)]
unsafe fn store<S: Simd>(value: S::Wide, (start, count): (*mut f32, usize)) {
    // SAFETY: the caller's promise; the buffer is long enough.
    unsafe {
        if count >= LANES {
            return S::store(value, start);
        }
        let mut buffer = [0.0; LANES];
        S::store(value, buffer.as_mut_ptr());
        start.copy_from_nonoverlapping(buffer.as_ptr(), count);
    }
}

/// Adds the products of `depth` inputs to `sums`, which stay in registers: nothing in the loop can panic.
///
/// # Safety
/// `x` must have `R` rows of `depth` inputs, `stride` apart or interleaved, and each panel [`LANES`] numbers for every input,
/// `step` apart; the set's instructions must be enabled.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, E: Element, const INTERLEAVED: bool, const R: usize, const P: usize>(
    x: *const f32,
    stride: usize,
    panels: [*const E; P],
    step: usize,
    depth: usize,
    mut sums: [[S::Wide; P]; R],
    ahead: Option<(usize, usize)>,
) -> [[S::Wide; P]; R] {
    // Addresses of rows that an instruction can add up itself, from two that move: the additions would take the place of
    // multiplications. The strides are hidden from the compiler, which would add up all others from the first.
    let (one, three) = if INTERLEAVED { (0, 0) } else { std::hint::black_box((4 * stride, 12 * stride)) };
    let (mut first, mut fourth) = (x.cast::<u8>(), x.cast::<u8>().wrapping_add(three));
    for i in 0..depth {
        // SAFETY: the caller's promise.
        unsafe {
            let mut weights = [S::zero(); P];
            for p in 0..P {
                weights[p] = E::load::<S>(panels[p].add(i * step));
            }
            if let Some((distance, pace)) = ahead {
                for p in 0..P {
                    S::prefetch(panels[p].cast::<u8>().wrapping_add(distance + i * pace));
                }
            }
            for r in 0..R {
                let row = match r {
                    _ if INTERLEAVED => x.add(i * R + r).cast(),
                    0 => first,
                    1 => first.wrapping_add(one),
                    2 => first.wrapping_add(2 * one),
                    3 => fourth,
                    4 => fourth.wrapping_add(one),
                    5 => fourth.wrapping_add(2 * one),
                    6 => fourth.wrapping_add(three),
                    _ => fourth.wrapping_add(4 * one),
                };
                let value = S::splat(row.cast());
                for p in 0..P {
                    sums[r][p] = S::multiply_add(value, weights[p], sums[r][p]);
                }
            }
            (first, fourth) = (first.wrapping_add(4), fourth.wrapping_add(4));
        }
    }
    sums
}
