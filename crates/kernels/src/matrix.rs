//! Matrix products of strided views.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

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

    /// Makes all elements zero.
    pub(crate) fn clear(&mut self) {
        for row in 0..self.rows {
            // SAFETY: the row lies inside the borrowed elements. No reference to it is made, as it may never have been written.
            unsafe { self.start.add(row * self.stride).write_bytes(0, self.columns) };
        }
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

    /// Asks for the place of an element soon to be written, be it there or not.
    #[inline(always)]
    pub(crate) fn prefetch<S: Simd>(&self, row: usize, column: usize) {
        S::prefetch(self.start.wrapping_add(row * self.stride + column).cast());
    }

    /// An element, and how many there are from it to the end of its row.
    #[inline(always)]
    pub(crate) fn place(&mut self, row: usize, column: usize) -> (*mut f32, usize) {
        debug_assert!(row < self.rows && column < self.columns);
        (self.start.wrapping_add(row * self.stride + column), self.columns - column)
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

/// The elements of a new matrix, every one of which `write` writes. To clear the memory before, on one thread, would take a good
/// part of the time of a product.
pub(crate) fn written(rows: usize, columns: usize, write: impl FnOnce(MatrixMut<'_>)) -> Vec<f32> {
    let length = rows * columns;
    let mut values = Vec::with_capacity(length);
    if cfg!(debug_assertions) {
        // An element that was left out shows in the tests.
        values.resize(length, f32::NAN);
    }
    write(MatrixMut { start: values.as_mut_ptr(), rows, columns, stride: columns, lifetime: PhantomData });
    // SAFETY: the memory is there, and all of it was written.
    unsafe { values.set_len(length) };
    values
}

/// `out = scale * a · b`, added to what `out` holds if `accumulate`.
///
/// On the calling thread. A sum is made of parts of up to [`DEPTH`] inputs, each in ascending order, whatever the
/// instruction set.
///
/// # Panics
///
/// If the shapes do not fit together.
pub(crate) fn multiply<T: Element>(
    mut out: MatrixMut<'_>,
    accumulate: bool,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    // Kept from one product to the next: a task is often less work than its memory.
    let mut panels = PANELS.take();
    for (inputs, start) in parts(&mut out, accumulate, &a, &b) {
        panels.resize(b.columns.div_ceil(LANES) * inputs.len() * LANES, 0.0);
        b.lay_out(inputs.clone(), 0, &mut panels);
        let rows = 0..a.rows;
        with_simd(RowsTask { a, rows, inputs, panels: &panels, out: out.part(0..a.rows), start, scale });
    }
    PANELS.set(panels);
}

/// [`multiply`] on all threads, to the bit: they share what is laid out of `b`, and each has some rows of `out`.
///
/// # Panics
///
/// As [`multiply`].
pub(crate) fn multiply_in_parallel<T: Element>(
    mut out: MatrixMut<'_>,
    accumulate: bool,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    let height = a.rows.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(24).clamp(24, HEIGHT);
    let mut panels = PANELS.take();
    for (inputs, start) in parts(&mut out, accumulate, &a, &b) {
        let size = inputs.len() * LANES;
        panels.resize(b.columns.div_ceil(LANES) * size, 0.0);
        let few = (1 << 14) / size + 1;
        let parts = panels.par_chunks_mut(few * size).enumerate();
        parts.for_each(|(index, panels)| b.lay_out(inputs.clone(), index * few, panels));
        let cuts = (0..a.rows).step_by(height).map(|row| height.min(a.rows - row));
        let tasks = out.part(0..a.rows).cut(cuts).into_par_iter().with_max_len(1).enumerate();
        tasks.for_each(|(index, out)| {
            let rows = index * height..index * height + out.rows;
            with_simd(RowsTask { a, rows, inputs: inputs.clone(), panels: &panels, out, start, scale: 1.0 });
        });
    }
    PANELS.set(panels);
}

/// Inputs, at most, whose products are summed before they meet the others' sum: a panel of so many stays in the first cache. It
/// is part of the result.
const DEPTH: usize = 640;
/// Rows of the left operand that stay in the second cache while all panels pass.
pub(crate) const HEIGHT: usize = 96;

/// The inputs of each part of the sums, and where these begin.
fn parts<T>(
    out: &mut MatrixMut<'_>,
    accumulate: bool,
    a: &Matrix<'_>,
    b: &Matrix<'_, T>,
) -> impl Iterator<Item = (Range<usize>, Start)> + use<T> {
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
    let inner = a.columns;
    if inner == 0 && !accumulate {
        out.clear();
    }
    let depth = inner.div_ceil(inner.div_ceil(DEPTH).max(1)).max(1);
    (0..inner).step_by(depth).map(move |from| {
        let start = if accumulate || from > 0 { Start::Add } else { Start::Zero };
        (from..inner.min(from + depth), start)
    })
}

/// A part of the sums of some rows.
struct RowsTask<'a, 'b> {
    a: Matrix<'a>,
    rows: Range<usize>,
    inputs: Range<usize>,
    panels: &'a [f32],
    /// These rows.
    out: MatrixMut<'b>,
    start: Start,
    scale: f32,
}

impl Work for RowsTask<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { a, rows, inputs, panels, mut out, start, scale } = self;
        let depth = inputs.len();
        let mut copied = COPIED.take();
        for first in rows.clone().step_by(HEIGHT) {
            let block = first..rows.end.min(first + HEIGHT);
            let left = if a.column_stride == 1 {
                let stride = a.copy_rows(block.clone(), inputs.clone(), &mut copied);
                Left::Rows(&copied, stride)
            } else {
                a.interleave::<S>(block.clone(), inputs.clone(), &mut copied);
                Left::Interleaved(&copied)
            };
            let product = Part { left, panels, inner: depth, inputs: [0, depth], start, scale };
            product.multiply::<S>(0..block.len(), &mut out.part(block.start - rows.start..block.end - rows.start));
        }
        COPIED.set(copied);
    }
}

thread_local! {
    static PANELS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static COPIED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl<T: Element> Matrix<'_, T> {
    /// Some rows as panels `[columns / 16, rows, 16]`, of which `panels` are those from the `first` on.
    fn lay_out(&self, rows: Range<usize>, first: usize, panels: &mut [f32]) {
        for (index, panel) in (first..).zip(panels.chunks_exact_mut(rows.len() * LANES)) {
            let columns = index * LANES..self.columns.min((index + 1) * LANES);
            let width = columns.len();
            if self.column_stride == 1 {
                for (out, row) in panel.as_chunks_mut::<LANES>().0.iter_mut().zip(rows.clone()) {
                    let from = row * self.row_stride + columns.start;
                    let values = &self.data[from..from + width];
                    // Of a length that the compiler knows, but in the last panel.
                    if let Some(values) = values.first_chunk::<LANES>() {
                        *out = values.map(T::float);
                    } else {
                        out[width..].fill(0.0);
                        out.iter_mut().zip(values).for_each(|(out, value)| *out = value.float());
                    }
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
    /// Some columns of some rows, and how far apart the rows then are. Where they came from, they may be so far apart that few
    /// of them fit into a cache together.
    fn copy_rows(&self, rows: Range<usize>, columns: Range<usize>, out: &mut Vec<f32>) -> usize {
        let stride = columns.len() + LANES;
        out.resize(rows.len() * stride, 0.0);
        for (out, row) in out.chunks_exact_mut(stride).zip(rows) {
            let from = row * self.row_stride;
            out[..columns.len()].copy_from_slice(&self.data[from + columns.start..from + columns.end]);
        }
        stride
    }

    /// Some rows and columns as [`Left::Interleaved`] has them.
    #[inline(always)]
    fn interleave<S: Simd>(&self, rows: Range<usize>, columns: Range<usize>, out: &mut Vec<f32>) {
        let depth = columns.len();
        out.resize(rows.len() * depth + LANES, 0.0);
        for (first, height) in heights::<S>(rows.len()) {
            for (index, column) in columns.clone().enumerate() {
                let from = (rows.start + first) * self.row_stride + column * self.column_stride;
                let out = &mut out[first * depth + index * height..];
                let values = &self.data[from..];
                match (out.first_chunk_mut::<LANES>(), values.first_chunk::<LANES>()) {
                    // A whole register, of which the next one overwrites the end.
                    (Some(out), Some(values)) if self.row_stride == 1 => *out = *values,
                    _ => {
                        let values = values.iter().step_by(self.row_stride);
                        out[..height].iter_mut().zip(values).for_each(|(out, value)| *out = *value);
                    }
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
            let rows = block.rows();
            block.part(0..rows).into_rows().for_each(|row| row.fill(index as f32));
            if index == 5 {
                block.part(2..3).into_rows().for_each(|row| row[1] += 0.5);
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
            strip.part(1..2).into_rows().for_each(|row| row.fill(index as f32 + 1.0));
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
    fn a_column_that_is_transposed_is_a_row() {
        // Both of its strides are 1.
        for length in [1, 2, 16, 40] {
            let values: Vec<f32> = (1..=length).map(|value| value as f32).collect();
            let mut out = vec![0.0; 2 * length];
            let (a, b) = (Matrix::new(&[2.0, 3.0], 2, 1, 1), Matrix::new(&values, length, 1, 1).transposed());
            multiply(MatrixMut::new(&mut out, 2, length, length), false, 1.0, a, b);
            let expected: Vec<f32> = [2.0, 3.0].iter().flat_map(|a| values.iter().map(move |b| a * b)).collect();
            assert_eq!(out, expected);
            multiply_in_parallel(MatrixMut::new(&mut out, 2, length, length), false, a, b);
            assert_eq!(out, expected);
        }
    }

    #[test]
    #[should_panic(expected = "must fit")]
    fn a_matrix_larger_than_its_slice_is_refused() {
        let _ = Matrix::new(&[0.0; 5], 2, 3, 3);
    }
}
