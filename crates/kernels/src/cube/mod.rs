//! Kernels in CubeCL, for every GPU that CUDA or wgpu drives: those of decoding here, those of training behind the operations of
//! this crate.
//!
//! A kernel here needs no tensor cores, no plane operations and at most 32 KiB of shared memory, so it runs on any device; products
//! with weights in bf16 have a second one for tensor cores.
//! The result of a row depends neither on the rows beside it nor on their number: sums are cut by the shape of a weight and
//! by positions of the cache, never by the number of rows, and each product is one fused multiply-add in a fixed order.
//!
//! A launch is `unsafe` because nothing checks an index on the device: every kernel ends its loops at the lengths that it is given,
//! and the function that launches it takes them from the buffers.

mod attention;
mod elementwise;
mod embedding;
mod gpu;
mod linear;
mod recording;
mod reduction;
mod rms_norm;
mod rotary;
mod sampling;
pub(crate) mod training;

pub use attention::{CacheShape, PagedRows, SplitSums, attend, copy_block};
pub use embedding::{embed, select_rows};
pub use gpu::{Gpu, GpuBuffer, GpuError, Reading};
pub use linear::{Linear, LinearOutput, LinearParts, ProductPath, WeightCopy};
pub use recording::{GpuStream, Recording};
pub use rms_norm::rms_norm;
pub use rotary::{HeadNorms, rotate_and_append};
pub use sampling::{DrawMemory, DrawRule, Drawing, Drawn, Sampler};
