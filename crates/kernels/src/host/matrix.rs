//! Products with a weight that is laid out once and used many times.

use half::bf16;
use rayon::prelude::*;

use crate::matrix::{HEIGHT, MatrixMut};
use crate::memory::in_huge_pages;
use crate::simd::{LANES, Simd, Work, with_simd};
use crate::tile::{Element, Left, Part, Start};

/// Panels that a thread lays out at most before it multiplies by them.
const LAID_OUT: usize = 12;
/// Inputs of a part of a panel at most: more, and the part leaves the first cache; fewer, and sums are loaded and stored too often.
const DEEPEST: usize = 640;
/// Rows that are few: their product waits for memory.
const FEW: usize = 8;

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
    panels: Panels,
}

enum Panels {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Packed {
    /// Lays out matrices `[_, inner]`, one below the other.
    ///
    /// # Panics
    /// When a matrix is not a whole number of rows.
    pub fn new(matrices: &[&[f32]], inner: usize) -> Self {
        let mut packed = Self { inner, outer: 0, panels: Panels::F32(Vec::new()) };
        packed.fill(matrices);
        packed
    }

    /// As [`new`](Self::new) with every number rounded to the nearest 16-bit brain float: half the memory, which is what
    /// products of few rows wait for. They are summed in 32 bits all the same.
    ///
    /// # Panics
    /// When a matrix is not a whole number of rows.
    pub fn new_bf16(matrices: &[&[f32]], inner: usize) -> Self {
        let mut packed = Self { inner, outer: 0, panels: Panels::Bf16(Vec::new()) };
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
        self.outer = rows.len();
        match &mut self.panels {
            Panels::F32(panels) => fill(panels, &rows, inner),
            Panels::Bf16(panels) => fill(panels, &rows, inner),
        }
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
        match &self.panels {
            Panels::F32(panels) => copy_row(panels, self.inner, index, out),
            Panels::Bf16(panels) => copy_row(panels, self.inner, index, out),
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
        match &self.panels {
            Panels::F32(panels) => multiply(x, panels, self.inner, MatrixMut::new(out, rows, self.outer, self.outer)),
            Panels::Bf16(panels) => multiply(x, panels, self.inner, MatrixMut::new(out, rows, self.outer, self.outer)),
        }
    }
}

fn fill<E: Element>(panels: &mut Vec<E>, rows: &[&[f32]], inner: usize) {
    let length = rows.len().div_ceil(LANES) * inner * LANES;
    if panels.len() != length {
        *panels = in_huge_pages(length, E::default());
    }
    let panels = panels.par_chunks_mut((inner * LANES).max(1));
    panels.zip(rows.par_chunks(LANES)).for_each(|(panel, rows)| lay_out(rows, panel, E::rounded));
}

fn copy_row<E: Element>(panels: &[E], inner: usize, index: usize, out: &mut [f32]) {
    let panel = &panels[index / LANES * inner * LANES..];
    for (value, outputs) in out.iter_mut().zip(panel.chunks_exact(LANES)) {
        *value = outputs[index % LANES].float();
    }
}

fn multiply<E: Element>(x: &[f32], panels: &[E], inner: usize, out: MatrixMut<'_>) {
    let width = dealt(&out);
    let strips = out.strips(width * LANES);
    let panels = panels.par_chunks((width * inner * LANES).max(1));
    strips.into_par_iter().zip(panels).with_max_len(1).for_each(|(out, panels)| {
        with_simd(Strip { x, inner, panels, out });
    });
}

/// Panels of a task.
fn dealt(out: &MatrixMut<'_>) -> usize {
    // Few rows wait for memory, and every task costs a hand-over; many rows leave time for it.
    let tasks = rayon::current_num_threads() * if out.rows() > FEW { 4 } else { 1 };
    out.columns().div_ceil(LANES).div_ceil(tasks).max(1)
}

/// Up to sixteen rows of a weight as a panel.
fn lay_out<T: Copy, E: Element>(rows: &[&[T]], panel: &mut [E], convert: impl Fn(T) -> E) {
    for (i, outputs) in panel.chunks_exact_mut(LANES).enumerate() {
        for (slot, row) in outputs.iter_mut().zip(rows) {
            *slot = convert(row[i]);
        }
        // There may have been other rows.
        outputs[rows.len()..].fill(E::default());
    }
}

/// [`Packed::multiply`] with a weight `[outer, inner]` as checkpoints store it, to the bit: each strip of it is laid out
/// on the way, which pays where the rows are many.
pub(crate) fn multiply_by_rows<E: Element>(x: &[f32], weight: &[E], inner: usize, mut out: MatrixMut<'_>) {
    if inner == 0 {
        return out.clear();
    }
    // Whole tiles of three panels.
    let width = dealt(&out).next_multiple_of(3).min(LAID_OUT);
    let strips = out.strips(width * LANES);
    let weights = weight.par_chunks((width * LANES * inner).max(1));
    strips.into_par_iter().zip(weights).with_max_len(1).for_each_init(Vec::new, |panels, (out, rows)| {
        let rows: Vec<&[E]> = rows.chunks_exact(inner).collect();
        let size = inner * LANES;
        panels.resize(rows.len().div_ceil(LANES) * size, E::default());
        panels.chunks_exact_mut(size).zip(rows.chunks(LANES)).for_each(|(panel, rows)| lay_out(rows, panel, |x| x));
        with_simd(Strip { x, inner, panels, out });
    });
}

/// The product with some adjacent panels. The strip may be narrower than they are.
struct Strip<'a, E> {
    x: &'a [f32],
    inner: usize,
    panels: &'a [E],
    out: MatrixMut<'a>,
}

impl<E: Element> Work for Strip<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let Self { x, inner, panels, .. } = self;
        let rows = self.out.rows();
        // Few rows read a panel once, from memory, from end to end. Many go through a part of it that stays in the first cache.
        let parts = if rows <= FEW { 1 } else { inner.div_ceil(DEEPEST).max(1) };
        let depth = inner.div_ceil(parts).max(1);
        for first in (0..rows).step_by(HEIGHT) {
            let rows = first..rows.min(first + HEIGHT);
            for from in (0..inner).step_by(depth) {
                let (inputs, start) =
                    ([from, inner.min(from + depth)], if from == 0 { Start::Zero } else { Start::Continue });
                let part = Part { left: Left::Rows(x, inner), panels, inner, inputs, start, scale: 1.0 };
                part.multiply::<S>(rows.clone(), &mut self.out);
            }
        }
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
    fn a_weight_in_bf16_is_a_rounded_one() {
        let (x, w) = (values(9 * 70, 3), values(50 * 70, 4));
        let rounded: Vec<f32> = w.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
        let (half, whole) = (Packed::new_bf16(&[&w], 70), Packed::new(&[&rounded], 70));
        let (mut found, mut expected) = (vec![0.0; 9 * 50], vec![0.0; 9 * 50]);
        half.multiply(&x, &mut found);
        whole.multiply(&x, &mut expected);
        assert_eq!(found, expected);
        let mut row = vec![0.0; 70];
        half.copy_row(49, &mut row);
        assert_eq!(row, rounded[49 * 70..]);
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
