//! Matrix products of strided views, one thread each.

use std::marker::PhantomData;
use std::ops::Range;

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `columns` elements, each row starting `stride` after the one before.
    ///
    /// # Panics
    ///
    /// If the rows do not fit into `data`.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
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
/// On the calling thread, so the bits do not depend on how many threads there are.
///
/// # Panics
///
/// If the shapes do not fit together.
pub(crate) fn multiply(out: MatrixMut<'_>, accumulate: bool, scale: f32, a: Matrix<'_>, b: Matrix<'_>) {
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
    // SAFETY: the three views lie inside their slices (checked when they were made); `out` is
    // exclusively borrowed, so it overlaps neither `a` nor `b`, and all its elements are
    // initialised.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.start,
            1,
            out.stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
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
