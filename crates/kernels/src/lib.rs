//! Fused operations with hand-written backward, each beside its plain-Burn reference.
//!
//! Every operation takes and returns `Tensor`s, on any device: 32-bit floats on the flex (CPU) device go through threaded and
//! vectorised code, whose results depend neither on the number of threads nor on the processor's [`InstructionSet`]; tensors on a
//! GPU through kernels in CubeCL, where there are some for the operation; everything else through [`mod@reference`].
//!
//! ```
//! use burn::tensor::{Device, Tensor, Tolerance};
//! use zerosearch_kernels::{reference, rms_norm};
//!
//! let device = Device::flex().autodiff();
//! let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, -4.0]], &device).require_grad();
//! let weight = Tensor::<1>::from_floats([0.5, 2.0], &device);
//!
//! let fused = rms_norm(x.clone(), weight.clone(), 1e-6);
//! let plain = reference::rms_norm(x.clone(), weight, 1e-6);
//! plain.into_data().assert_approx_eq::<f32>(&fused.clone().into_data(), Tolerance::absolute(1e-6));
//!
//! let gradients = fused.sum().backward();
//! assert_eq!(x.grad(&gradients).map(|gradient| gradient.dims()), Some([2, 2]));
//! ```

mod attention;
mod buffer;
#[cfg(feature = "cube")]
pub mod cube;
mod embedding;
pub mod host;
mod instructions;
mod linear;
mod logprobs;
mod matrix;
mod memory;
mod optimizer;
pub mod reference;
mod rms_norm;
mod rotary;
mod simd;
mod swiglu;
mod tile;
mod vector;

pub use attention::{AttentionShape, LARGEST_HEAD, PackedSpan, causal_attention, causal_attention_in};
pub use buffer::is_cpu;
pub use embedding::embedding;
pub use instructions::{INSTRUCTIONS_VARIABLE, InstructionSet, InstructionsError};
pub use linear::{adapted_linear, linear, linear_among, merge_adapter};
pub use logprobs::token_logprobs;
pub use memory::keep_freed_memory;
pub use optimizer::{AdamWRule, SquareSum, WeightCopy, adamw, add, scale};
pub use rms_norm::rms_norm;
pub use rotary::rotary;
pub use swiglu::{swiglu, swiglu_linear};
