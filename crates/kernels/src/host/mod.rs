//! Batch-invariant operations on plain slices, for decoding on the CPU.
//!
//! Every output element is reduced in one fixed order, whatever the number of rows beside it and of
//! threads: the same token in the same context gets the same bits in a batch of 1 and of 64.

mod attention;
mod matrix;
mod rows;

pub use attention::{Attention, KV_BLOCK, KvBlocks, write_key, write_value};
pub use matrix::Packed;
pub(crate) use matrix::multiply_by_rows;
pub use rows::{Masses, add_rows, merge_adapter, rms_norm_rows, rotate_row, swiglu_rows};

/// `a · b + c`, rounded once where the processor can: without the instruction, `mul_add` is a
/// library call, a hundred times slower.
#[inline(always)]
fn multiply_add(fused: bool, a: f32, b: f32, c: f32) -> f32 {
    if fused { a.mul_add(b, c) } else { a * b + c }
}

/// Floats of one AVX-512 register.
const LANES: usize = 16;

#[inline(always)]
fn lanes(values: &[f32]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    out.copy_from_slice(&values[..LANES]);
    out
}
