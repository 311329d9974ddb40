//! Batch-invariant operations on plain slices, for decoding on the CPU.
//!
//! Every output element is reduced in one fixed order, whatever the number of rows beside it and of
//! threads: the same token in the same context gets the same bits in a batch of 1 and of 64.

mod attention;
mod awake;
mod matrix;
mod rows;

pub use crate::memory::resize_buffer;
pub use attention::{Attention, KV_BLOCK, KvBlocks, write_key, write_value};
pub use awake::ThreadsAwake;
pub use matrix::Packed;
pub(crate) use matrix::multiply_by_rows;
pub use rows::{Masses, add_rows, merge_adapter, rms_norm_rows, rotate_row, swiglu_rows};
