//! Between Burn's CPU tensors and plain slices.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DType, DispatchDevice, Flex};
use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;

/// Whether tensors on this device go through the fused CPU code, as far as they are 32-bit floats.
pub fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// Whether the fused CPU code can take `x`: 32-bit floats on the flex device, with or without
/// autodiff. Calling an extension on a device that it does not list would panic.
pub(crate) fn is_cpu_f32<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_cpu(&x.device())
}

/// Whether there is fused code for `x`: on the CPU as [`is_cpu_f32`], on a GPU for 32-bit floats and 16-bit brain floats.
pub(crate) fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    #[cfg(feature = "cube")]
    if crate::cube::training::is_gpu(x) {
        return true;
    }
    is_cpu_f32(x)
}

/// A backend with fused code, whose kernels take elements that lie side by side.
pub(crate) trait Contiguous: Backend {
    /// `x` with its elements side by side, copied if they are not.
    fn contiguous(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Contiguous for Flex {
    fn contiguous(x: FlexTensor) -> FlexTensor {
        contiguous(x)
    }
}

/// `x` with its elements side by side, copied if they are not.
pub(crate) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The elements of a [`contiguous`] tensor of 32-bit floats.
///
/// # Panics
///
/// If `x` holds another type or is not contiguous.
pub(crate) fn floats(x: &FlexTensor) -> &[f32] {
    match x.as_slice() {
        Some(values) => values,
        None => panic!("expected contiguous 32-bit floats, got {x:?}; cast all inputs of the operation to f32"),
    }
}

/// The elements of a weight.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl Values<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

/// The elements of a [`contiguous`] weight, of 32-bit floats or 16-bit brain floats.
///
/// # Panics
///
/// As [`floats`].
pub(crate) fn values(x: &FlexTensor) -> Values<'_> {
    match x.as_slice() {
        Some(values) => Values::Bf16(values),
        None => Values::F32(floats(x)),
    }
}

/// A tensor over `values`, which are not copied.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<burn::tensor::Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// Rows and columns of a matrix.
pub(crate) fn rows_and_columns(x: &FlexTensor) -> (usize, usize) {
    let shape = x.layout().shape();
    (shape[0], shape[1])
}
