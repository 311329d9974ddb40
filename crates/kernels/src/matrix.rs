//! Matrix products of strided views, one thread each.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use crate::simd::{LANES, Simd, Work, with_simd};
use crate::tile::{Element, Left, Part, Start, heights};

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// `rows` rows of `columns` elements, each row starting `stride` after the one before.
    ///
    /// # Panics
    ///
    /// If the rows do not fit into `data`.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, stride), "a matrix of {rows} x {columns} must fit into its slice");
        Self { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix that can be written, of rows of adjacent elements.
///
/// The rows of several matrices may interleave in memory, as the heads of a projection do; no two
/// share an element.
pub(crate) struct MatrixMut<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is an exclusive borrow of its elements, as `&mut [f32]` is, and those are `Send`.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// `rows` rows of `columns` elements, each row starting `stride` after the one before.
    ///
    /// # Panics
    ///
    /// If the rows do not fit into `data` or overlap.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, stride), "a matrix of {rows} x {columns} must fit into its slice");
        Self { start: data.as_mut_ptr(), rows, columns, stride, lifetime: PhantomData }
    }

    /// Adjacent groups of so many rows, from the first row on.
    ///
    /// # Panics
    ///
    /// If there are fewer rows than that.
    pub(crate) fn cut(self, rows: impl Iterator<Item = usize>) -> Vec<Self> {
        let mut from = 0;
        let cut = |rows| {
            assert!(from + rows <= self.rows, "cannot cut {rows} rows at {from} from {}", self.rows);
            // No two groups share a row. An empty one may start past the end, so the offset wraps.
            let start = self.start.wrapping_add(from * self.stride);
            from += rows;
            Self { start, rows, ..self }
        };
        rows.map(cut).collect()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// An element, and how many there are from it to the end of its row.
    #[inline(always)]
    pub(crate) fn place(&mut self, row: usize, column: usize) -> (*mut f32, usize) {
        debug_assert!(row < self.rows && column < self.columns);
        (self.start.wrapping_add(row * self.stride + column), self.columns - column)
    }

    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: the row lies inside the borrowed elements (checked when `self` was made), which
        // no other matrix shares, and `&mut self` lets only one such slice exist.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }

    /// All rows.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = &'a mut [f32]> {
        let Self { start, rows, columns, stride, .. } = self;
        // SAFETY: each row lies inside the borrowed elements (checked when `self` was made), shares none of them with
        // another row or matrix, and `self` is gone.
        (0..rows).map(move |row| unsafe { std::slice::from_raw_parts_mut(start.add(row * stride), columns) })
    }

    pub(crate) fn part(&mut self, rows: Range<usize>) -> MatrixMut<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        // An empty part may start past the end, so the offset wraps rather than claims to be inside.
        let start = self.start.wrapping_add(rows.start * self.stride);
        MatrixMut { start, rows: rows.len(), lifetime: PhantomData, ..*self }
    }

    /// Adjacent strips of `width` columns of all rows; the last may be narrower.
    ///
    /// # Panics
    ///
    /// If `width` is zero.
    pub(crate) fn strips(self, width: usize) -> Vec<Self> {
        let columns = (0..self.columns).step_by(width);
        columns
            .map(|from| Self {
                // Inside the rows, as `from < self.columns`; no two strips share a column.
                start: self.start.wrapping_add(from),
                columns: width.min(self.columns - from),
                ..self
            })
            .collect()
    }

    /// These columns of all rows.
    pub(crate) fn strip(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        Self { start: self.start.wrapping_add(columns.start), columns: columns.len(), ..self }
    }
}

/// `out = scale * a · b`, added to what `out` holds if `accumulate`.
///
/// On the calling thread. A sum is made of parts of [`DEPTH`] inputs, each in ascending order, whatever the instruction set.
///
/// # Panics
///
/// If the shapes do not fit together.
pub(crate) fn multiply<T: Element>(out: MatrixMut<'_>, accumulate: bool, scale: f32, a: Matrix<'_>, b: Matrix<'_, T>) {
    assert!(
        out.rows == a.rows && a.columns == b.rows && b.columns == out.columns,
        "cannot multiply {} x {} by {} x {} into {} x {}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        out.rows,
        out.columns
    );
    with_simd(Multiply { out, accumulate, scale, a, b });
}

/// Inputs whose products are summed before they meet the others' sum: a panel of so many stays in the first cache. It is part
/// of the result.
pub(crate) const DEPTH: usize = 384;
/// Rows of the left operand that stay in the second cache while all panels pass.
pub(crate) const HEIGHT: usize = 96;

struct Multiply<'a, 'b, T> {
    out: MatrixMut<'a>,
    accumulate: bool,
    scale: f32,
    a: Matrix<'b>,
    b: Matrix<'b, T>,
}

impl<T: Element> Work for Multiply<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { mut out, accumulate, scale, a, b } = self;
        if a.columns == 0 && !accumulate {
            (0..out.rows).for_each(|row| out.row(row).fill(0.0));
        }
        // Kept from one product to the next: a task is often less work than its memory.
        let (mut panels, mut left) = SCRATCH.take();
        for from in (0..a.columns).step_by(DEPTH) {
            let inputs = from..a.columns.min(from + DEPTH);
            let depth = inputs.len();
            b.lay_out(inputs.clone(), &mut panels);
            let start = if accumulate || from > 0 { Start::Add } else { Start::Zero };
            for first in (0..a.rows).step_by(HEIGHT) {
                let rows = first..a.rows.min(first + HEIGHT);
                let mut part = out.part(rows.clone());
                let left = if a.column_stride == 1 {
                    Left::Rows(&a.data[first * a.row_stride + from..], a.row_stride)
                } else {
                    a.interleave::<S>(rows.clone(), inputs.clone(), &mut left);
                    Left::Interleaved(&left)
                };
                let product = Part { left, panels: &panels[..], inner: depth, inputs: [0, depth], start, scale };
                product.multiply::<S>(0..rows.len(), &mut part);
            }
        }
        SCRATCH.set((panels, left));
    }
}

thread_local! {
    static SCRATCH: Cell<(Vec<f32>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

impl<T: Element> Matrix<'_, T> {
    /// Some rows as panels `[columns / 16, rows, 16]`.
    #[inline(always)]
    fn lay_out(&self, rows: Range<usize>, panels: &mut Vec<f32>) {
        let size = rows.len() * LANES;
        panels.resize(self.columns.div_ceil(LANES) * size, 0.0);
        for (index, panel) in panels.chunks_exact_mut(size.max(1)).enumerate() {
            let columns = index * LANES..self.columns.min((index + 1) * LANES);
            let width = columns.len();
            if self.column_stride == 1 {
                for (out, row) in panel.chunks_exact_mut(LANES).zip(rows.clone()) {
                    let from = row * self.row_stride + columns.start;
                    // Of a length that the compiler knows where it can be.
                    let values = &self.data[from..from + width];
                    match values.first_chunk::<LANES>() {
                        Some(values) => out.iter_mut().zip(values).for_each(|(out, value)| *out = value.float()),
                        None => out.iter_mut().zip(values).for_each(|(out, value)| *out = value.float()),
                    }
                    out[width..].fill(0.0);
                }
            } else {
                for (lane, column) in columns.enumerate() {
                    let from = rows.start * self.row_stride + column * self.column_stride;
                    let values = self.data[from..].iter().step_by(self.row_stride);
                    panel[lane..].iter_mut().step_by(LANES).zip(values).for_each(|(out, value)| *out = value.float());
                }
                if width < LANES {
                    panel.chunks_exact_mut(LANES).for_each(|out| out[width..].fill(0.0));
                }
            }
        }
    }
}

impl Matrix<'_> {
    /// Some rows and columns as [`Left::Interleaved`] has them.
    #[inline(always)]
    fn interleave<S: Simd>(&self, rows: Range<usize>, columns: Range<usize>, out: &mut Vec<f32>) {
        // Whole registers are stored, and what they have too much is overwritten by the next.
        out.resize(rows.len() * columns.len() + LANES, 0.0);
        for (first, height) in heights::<S>(rows.len()) {
            for (index, column) in columns.clone().enumerate() {
                let from = (rows.start + first) * self.row_stride + column * self.column_stride;
                let to = first * columns.len() + index * height;
                if self.row_stride == 1 && from + LANES <= self.data.len() {
                    out[to..to + LANES].copy_from_slice(&self.data[from..from + LANES]);
                } else {
                    let values = self.data[from..].iter().step_by(self.row_stride);
                    out[to..to + height].iter_mut().zip(values).for_each(|(out, value)| *out = *value);
                }
            }
        }
    }
}

/// Whether `rows` rows of `columns` elements fit into `length` elements without overlap.
fn fits(length: usize, rows: usize, columns: usize, stride: usize) -> bool {
    rows == 0 || columns == 0 || (columns <= stride && (rows - 1) * stride + columns <= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_strips_are_the_blocks_of_a_matrix() {
        let mut data = vec![0.0; 5 * 4];
        let strips = MatrixMut::new(&mut data, 5, 4, 4).strips(2).into_iter();
        for (index, mut block) in strips.flat_map(|strip| strip.cut([2, 0, 3].into_iter())).enumerate() {
            (0..[2, 0, 3][index % 3]).for_each(|row| block.row(row).fill(index as f32));
            if index == 5 {
                block.part(2..3).row(0)[1] += 0.5;
                block.into_rows().take(1).for_each(|row| row[0] += 0.25);
            }
        }
        assert_eq!(data[..8], [0.0, 0.0, 3.0, 3.0, 0.0, 0.0, 3.0, 3.0]);
        assert_eq!(data[8..], [2.0, 2.0, 5.25, 5.0, 2.0, 2.0, 5.0, 5.0, 2.0, 2.0, 5.0, 5.5]);
    }

    #[test]
    fn strips_are_adjacent_and_cover_every_column() {
        let mut data = vec![0.0; 2 * 5];
        for (index, mut strip) in MatrixMut::new(&mut data, 2, 5, 5).strips(2).into_iter().enumerate() {
            strip.row(1).fill(index as f32 + 1.0);
        }
        assert_eq!(data, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
    }

    #[test]
    fn products_scale_accumulate_and_transpose() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 1.0, 0.0, 1.0]);
        let mut out = vec![1.0; 4];
        let (a, b) = (Matrix::new(&a, 2, 3, 3), Matrix::new(&b, 3, 2, 2));
        multiply(MatrixMut::new(&mut out, 2, 2, 2), false, 1.0, a, b);
        assert_eq!(out, [5.0, 5.0, 14.0, 11.0]);
        multiply(MatrixMut::new(&mut out, 2, 2, 2), true, 2.0, b.transposed(), a.transposed());
        assert_eq!(out, [15.0, 33.0, 24.0, 33.0]);
    }

    #[test]
    #[should_panic(expected = "must fit")]
    fn a_matrix_larger_than_its_slice_is_refused() {
        let _ = Matrix::new(&[0.0; 5], 2, 3, 3);
    }
}
