//! Operations of training, forward and backward, on the tensors of a GPU.
//!
//! Tensors are of 32-bit floats or of 16-bit brain floats; sums and functions are computed in f32 and rounded once, at the end. No
//! sum depends on how many cubes run at a time.

mod adamw;
mod attention;
mod attention_kernels;
mod attention_tensor_cores;
mod embedding;
mod linear;
mod logprobs;
mod product;
mod rms_norm;
mod rotary;
mod spans;
mod square_sum;
mod swiglu;
mod tensor;
#[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
mod testing;

pub(crate) use adamw::{adamw, takes};
pub(crate) use embedding::{embedding, is_table};
pub(crate) use square_sum::square_sum;
pub(crate) use tensor::{GpuTensor, is_gpu};
