//! Products with a weight that is laid out once and used many times.

// Loops over const indices are unrolled before the compiler decides which arrays live in registers; iterators are not.
#![allow(clippy::needless_range_loop)]

use rayon::prelude::*;

use super::{LANES, lanes, multiply_add};
use crate::matrix::MatrixMut;
use crate::memory::in_huge_pages;
use crate::vector::vectorised_fused;

/// Panels that one tile spans: with [`ROWS`] rows their sums fill 24 of 32 AVX-512 registers.
const PANELS: usize = 3;
/// Rows that one tile spans.
const ROWS: usize = 8;

/// A weight `[outer, inner]`, in panels of sixteen outputs `[outer / 16, inner, 16]`: a product reads
/// it from end to end, and one load serves sixteen outputs.
///
/// ```
/// use zerosearch_kernels::host::Packed;
///
/// let weight = Packed::new(&[&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0]], 2);
/// let mut out = [0.0; 3];
/// weight.multiply(&[10.0, 1.0], &mut out);
/// assert_eq!(out, [12.0, 34.0, 56.0]);
/// ```
pub struct Packed {
    inner: usize,
    outer: usize,
    panels: Vec<f32>,
}

impl Packed {
    /// Lays out matrices `[_, inner]`, one below the other.
    ///
    /// # Panics
    /// When a matrix is not a whole number of rows.
    pub fn new(matrices: &[&[f32]], inner: usize) -> Self {
        let mut packed = Self { inner, outer: 0, panels: Vec::new() };
        packed.fill(matrices);
        packed
    }

    /// Takes other matrices in place of the present ones, in the same memory where they are as large.
    ///
    /// # Panics
    /// When a matrix is not a whole number of rows.
    pub fn fill(&mut self, matrices: &[&[f32]]) {
        let inner = self.inner;
        assert!(matrices.iter().all(|matrix| matrix.len().is_multiple_of(inner)), "Packed: rows of {inner}");
        let rows: Vec<&[f32]> = matrices.iter().flat_map(|matrix| matrix.chunks_exact(inner)).collect();
        if rows.len() != self.outer {
            self.outer = rows.len();
            self.panels = in_huge_pages(rows.len().div_ceil(LANES) * inner * LANES);
        }
        let panels = self.panels.par_chunks_mut((inner * LANES).max(1));
        panels.zip(rows.par_chunks(LANES)).for_each(|(panel, rows)| lay_out(rows, panel));
    }

    /// Rows of the weight: outputs of a product.
    pub fn outer(&self) -> usize {
        self.outer
    }

    /// Copies row `index` of the weight into `out`.
    ///
    /// # Panics
    /// When there is no such row, or `out` is not as long as one.
    pub fn copy_row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.outer && out.len() == self.inner, "Packed: no row {index} of {}", out.len());
        let panel = &self.panels[index / LANES * self.inner * LANES..];
        for (value, outputs) in out.iter_mut().zip(panel.chunks_exact(LANES)) {
            *value = outputs[index % LANES];
        }
    }

    /// `out[r, o] = Σ_i x[r, i] · weight[o, i]`, each sum in ascending order of `i`. `x` is
    /// `[rows, inner]`, `out` `[rows, outer]`. The panels are dealt to the threads.
    ///
    /// # Panics
    /// When the lengths do not agree.
    pub fn multiply(&self, x: &[f32], out: &mut [f32]) {
        let rows = x.len() / self.inner.max(1);
        assert_eq!(
            (x.len(), out.len()),
            (rows * self.inner, rows * self.outer),
            "Packed: [_, {}] by [{}, {}]",
            self.inner,
            self.outer,
            self.inner
        );
        let panels = self.outer.div_ceil(LANES);
        // Few rows wait for memory, and every task costs a hand-over; many rows leave time for it.
        let tasks = rayon::current_num_threads() * if rows > ROWS { 4 } else { 1 };
        let width = panels.div_ceil(tasks).next_multiple_of(PANELS).max(1);
        let strips = MatrixMut::new(out, rows, self.outer, self.outer).strips(width * LANES);
        let panels = self.panels.par_chunks((width * self.inner * LANES).max(1));
        strips.into_par_iter().zip(panels).with_max_len(1).for_each(|(out, panels)| {
            vectorised_fused(
                #[inline(always)]
                |fused| strip(fused, x, self.inner, panels, out),
            );
        });
    }
}

/// Up to sixteen rows of a weight as a panel.
fn lay_out(rows: &[&[f32]], panel: &mut [f32]) {
    for (i, outputs) in panel.chunks_exact_mut(LANES).enumerate() {
        for (slot, row) in outputs.iter_mut().zip(rows) {
            *slot = row[i];
        }
    }
}

/// [`Packed::multiply`] with a weight `[outer, inner]` as checkpoints store it, to the bit: each strip of it is laid out
/// on the way, which pays where the rows are many.
pub(crate) fn multiply_by_rows(x: &[f32], weight: &[f32], inner: usize, out: MatrixMut<'_>) {
    let strips = out.strips(PANELS * LANES);
    let weights = weight.par_chunks((PANELS * LANES * inner).max(1));
    strips.into_par_iter().zip(weights).with_max_len(1).for_each_init(Vec::new, |panels, (out, rows)| {
        let rows: Vec<&[f32]> = rows.chunks_exact(inner).collect();
        let size = inner * LANES;
        panels.clear();
        panels.resize(rows.len().div_ceil(LANES) * size, 0.0);
        panels.chunks_exact_mut(size).zip(rows.chunks(LANES)).for_each(|(panel, rows)| lay_out(rows, panel));
        vectorised_fused(
            #[inline(always)]
            |fused| strip(fused, x, inner, panels, out),
        );
    });
}

/// The product with some adjacent panels. The strip may be narrower than they are.
#[inline(always)]
fn strip(fused: bool, x: &[f32], inner: usize, panels: &[f32], mut out: MatrixMut<'_>) {
    let size = inner * LANES;
    let mut column = 0;
    for group in panels.chunks(PANELS * size) {
        if group.len() == PANELS * size {
            column_of_tiles::<PANELS>(fused, x, inner, group, &mut out, column);
            column += PANELS * LANES;
        } else {
            for panel in group.chunks_exact(size) {
                column_of_tiles::<1>(fused, x, inner, panel, &mut out, column);
                column += LANES;
            }
        }
    }
}

#[inline(always)]
fn column_of_tiles<const P: usize>(
    fused: bool,
    x: &[f32],
    inner: usize,
    panels: &[f32],
    out: &mut MatrixMut<'_>,
    column: usize,
) {
    let rows = x.len() / inner;
    let mut row = 0;
    while row < rows {
        let x = &x[row * inner..];
        macro_rules! tile_of {
            ($($height:literal)*) => {
                match rows - row {
                    $($height => { place(tile::<$height, P>(fused, x, inner, panels), out, row, column); row += $height; })*
                    _ => { place(tile::<ROWS, P>(fused, x, inner, panels), out, row, column); row += ROWS; }
                }
            };
        }
        tile_of!(1 2 3 4 5 6 7);
    }
}

/// The sums stay in registers from the first input to the last: nothing in the loop can panic, and they are copied
/// before anyone takes their address.
#[inline(always)]
fn tile<const R: usize, const P: usize>(
    fused: bool,
    x: &[f32],
    inner: usize,
    panels: &[f32],
) -> [[[f32; LANES]; P]; R] {
    assert!(x.len() >= R * inner && panels.len() >= P * inner * LANES);
    let mut sums = [[[0f32; LANES]; P]; R];
    for i in 0..inner {
        let mut weights = [[0f32; LANES]; P];
        for p in 0..P {
            // SAFETY: `(p * inner + i + 1) * LANES <= P * inner * LANES <= panels.len()`.
            weights[p] = lanes(unsafe { panels.get_unchecked((p * inner + i) * LANES..(p * inner + i + 1) * LANES) });
        }
        for r in 0..R {
            // SAFETY: `r * inner + i < R * inner <= x.len()`.
            let value = unsafe { *x.get_unchecked(r * inner + i) };
            for p in 0..P {
                for lane in 0..LANES {
                    sums[r][p][lane] = multiply_add(fused, value, weights[p][lane], sums[r][p][lane]);
                }
            }
        }
    }
    let mut done = [[[0f32; LANES]; P]; R];
    for r in 0..R {
        for p in 0..P {
            done[r][p] = sums[r][p];
        }
    }
    done
}

/// Apart from [`tile`], so that its sums are not kept in memory for the sake of the indices here.
#[inline(never)]
fn place<const R: usize, const P: usize>(
    sums: [[[f32; LANES]; P]; R],
    out: &mut MatrixMut<'_>,
    row: usize,
    column: usize,
) {
    for (r, sums) in sums.iter().enumerate() {
        // The last panel's outputs beyond the weight's are padding.
        let out = out.row(row + r)[column..].iter_mut();
        out.zip(sums.as_flattened()).for_each(|(out, sum)| *out = *sum);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::values;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_product_agrees_with_f64_and_never_depends_on_the_rows_beside(rows in 1usize..20, inner in 1usize..80, outer in 1usize..120, seed: u32) {
            let (x, w) = (values(rows * inner, seed), values(outer * inner, seed ^ 1));
            let cut = outer / 3 * inner;
            let weight = Packed::new(&[&w[..cut], &w[cut..]], inner);
            let mut together = vec![0.0; rows * outer];
            weight.multiply(&x, &mut together);
            for r in 0..rows {
                let mut alone = vec![0.0; outer];
                weight.multiply(&x[r * inner..][..inner], &mut alone);
                prop_assert_eq!(&alone, &together[r * outer..][..outer]);
                for o in 0..outer {
                    let exact: f64 = (0..inner).map(|i| f64::from(x[r * inner + i]) * f64::from(w[o * inner + i])).sum();
                    prop_assert!((exact - f64::from(alone[o])).abs() < 1e-5);
                }
            }
            let mut row = vec![0.0; inner];
            weight.copy_row(outer - 1, &mut row);
            prop_assert_eq!(&row, &w[(outer - 1) * inner..]);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (x, w) = (values(21 * 70, 3), values(500 * 70, 4));
        let product = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut out = vec![0.0; 21 * 500];
                Packed::new(&[&w], 70).multiply(&x, &mut out);
                out
            })
        };
        assert_eq!(product(1), product(3));
    }
}
