//! The types in which a generator holds its weights and a trainer computes.

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};
use zerosearch_kernels::is_cpu;

/// The type of the weights that a generator holds. It sums and keeps activations in f32 with either.
///
/// Decoding few sequences waits for the weights: half the bytes are nearly half the time. A policy that is sampled with
/// rounded weights is trained with the same ones ([`Decoder::with_bf16_weights`](crate::Decoder::with_bf16_weights)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightDtype {
    /// As they were read or trained.
    #[default]
    F32,
    /// Matrices rounded to 16-bit brain floats, norms and biases as they are.
    Bf16,
}

impl WeightDtype {
    /// The type in which a device multiplies by weights unless it is told otherwise: bf16 on a GPU that has it, else f32.
    pub fn default_on(device: &Device) -> Self {
        if !is_cpu(device) && device.supports_dtype(DType::BF16) { Self::Bf16 } else { Self::F32 }
    }
}

/// How a GPU multiplies in the training passes. Sums, softmaxes, parameters, gradients of weights and the optimizer are in f32 with
/// either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuProducts {
    /// In the generator's order of sums, with activations in f32: a sampled token has the log-probability in training, to the bit,
    /// that it was sampled with.
    #[default]
    Exact,
    /// With activations in bf16 where the GPU has it, half the memory, in the order of sums that is quickest. The difference is a metric
    /// (`rollout/logprob_gap`), and importance sampling corrects for it.
    Fast,
}

impl GpuProducts {
    /// Whether they are a generator's.
    pub fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}
