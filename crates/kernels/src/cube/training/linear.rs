//! Products with a projection's weight, and their gradients.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, DType};
use burn::tensor::FloatDType;

use super::super::linear::ProductPath;
use super::product::{Destination, Factor, Sums, product};
use super::tensor::{GpuTensor, gpu_of};
use crate::buffer::Contiguous;
use crate::linear::LinearKernels;

impl LinearKernels for Cube {
    fn forward(x: GpuTensor, weight: GpuTensor, outputs: usize) -> GpuTensor {
        // Rows in bf16 are not a generator's.
        let sums = if x.dtype == DType::F32 { Sums::Generator { outputs } } else { Sums::Any };
        product(path_of(&weight), Factor::plain(&x), Factor::plain(&weight), sums, Destination::New(x.dtype))
    }

    fn input_gradient(upstream: GpuTensor, weight: GpuTensor) -> GpuTensor {
        let dtype = upstream.dtype;
        product(
            path_of(&weight),
            Factor::plain(&upstream),
            Factor::transposed(&weight),
            Sums::Any,
            Destination::New(dtype),
        )
    }

    fn weight_gradient(upstream: GpuTensor, x: GpuTensor, weight: &GpuTensor) -> GpuTensor {
        let (upstream, x) = (Factor::transposed(&upstream), Factor::transposed(&x));
        product(path_of(weight), upstream, x, Sums::Any, Destination::New(DType::F32))
    }

    fn merge(weight: GpuTensor, a: GpuTensor, b: GpuTensor, scale: f32, bf16: bool) -> GpuTensor {
        let a = Self::contiguous(transposed::<Self>(a));
        let outputs = a.meta.shape()[0];
        let adapter = Self::scaled(Self::forward(b, a, outputs), scale);
        let merged = sum_of::<Self>(weight, adapter);
        if bf16 { cast::<Self>(merged, FloatDType::BF16) } else { merged }
    }
}

/// The path of products with a weight.
pub(super) fn path_of(weight: &GpuTensor) -> ProductPath {
    ProductPath::of(&gpu_of(weight), weight.dtype == DType::BF16)
}

// Burn's own operations, which a concrete backend has through a trait that is not exported.

fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_transpose(x)
}

fn sum_of<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(a, b)
}

fn cast<B: Backend>(x: FloatTensor<B>, dtype: FloatDType) -> FloatTensor<B> {
    B::float_cast(x, dtype)
}
