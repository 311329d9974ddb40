//! Burn's tensors as the arguments of kernels.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, DType, DispatchDevice};
use burn::tensor::{Shape, Tensor};
use cubecl::prelude::*;

use super::super::elementwise::{UNITS, cubes};
use super::super::{Gpu, GpuBuffer};
use crate::buffer::Contiguous;

/// A tensor in a GPU's memory.
pub(crate) type GpuTensor = FloatTensor<Cube>;

/// Calls a kernel's launcher with the type of a tensor's elements.
macro_rules! with_type {
    ($tensor:expr, $name:ident => $launch:expr) => {
        match $tensor.dtype {
            burn::backend::DType::BF16 => {
                type $name = half::bf16;
                $launch
            }
            _ => {
                type $name = f32;
                $launch
            }
        }
    };
}
pub(super) use with_type;

/// Whether the kernels of training take a tensor.
pub(crate) fn is_gpu<const D: usize>(x: &Tensor<D>) -> bool {
    let on_gpu = matches!(x.device().without_autodiff().as_dispatch(), DispatchDevice::Cube(_));
    on_gpu && matches!(x.dtype(), DType::F32 | DType::BF16)
}

/// Refuses tensors of different types: a kernel would read one's memory as the other's.
pub(super) fn assert_one_type(tensors: &[&GpuTensor]) {
    let types: Vec<DType> = tensors.iter().map(|tensor| tensor.dtype).collect();
    assert!(types.windows(2).all(|pair| pair[0] == pair[1]), "expected tensors of one type, got {types:?}");
}

/// The GPU that holds a tensor.
pub(super) fn gpu_of(x: &GpuTensor) -> Gpu {
    Gpu { client: x.client.clone() }
}

/// Elements of a tensor.
pub(super) fn elements(x: &GpuTensor) -> usize {
    x.meta.shape().num_elements()
}

/// Rows and columns of a matrix.
pub(super) fn rows_and_columns(x: &GpuTensor) -> (usize, usize) {
    let shape = x.meta.shape();
    (shape[0], shape[1])
}

/// A tensor as the argument of a kernel that takes its elements one after another.
pub(super) fn arg(x: &GpuTensor) -> BufferArg {
    unsafe { BufferArg::from_raw_parts(x.handle.clone(), elements(x).max(1)) }
}

/// The memory of a tensor of 32-bit floats.
pub(super) fn buffer(x: &GpuTensor) -> GpuBuffer {
    GpuBuffer::over(x.handle.clone(), elements(x))
}

/// Memory for a tensor on the device of another. It holds anything until it is written.
pub(super) fn empty(beside: &GpuTensor, shape: impl Into<Shape>, dtype: DType) -> GpuTensor {
    let shape = shape.into();
    let bytes = shape.num_elements().max(1) * dtype.size();
    let handle = beside.client.empty(bytes);
    GpuTensor::new_contiguous(beside.client.clone(), beside.device.clone(), shape, handle, dtype)
}

/// Memory for a tensor of the same shape and type.
pub(super) fn empty_like(x: &GpuTensor) -> GpuTensor {
    empty(x, x.meta.shape().clone(), x.dtype)
}

impl Contiguous for Cube {
    fn contiguous(x: GpuTensor) -> GpuTensor {
        if x.is_contiguous() {
            return x;
        }
        let (shape, strides) = (x.meta.shape(), x.meta.strides());
        let [rows, columns, row_stride, column_stride] = match shape.num_dims() {
            1 => [1, shape[0], 0, strides[0]],
            2 => [shape[0], shape[1], strides[0], strides[1]],
            dimensions => panic!("a tensor of {dimensions} dimensions is not laid out for the kernels of training"),
        };
        let out = empty_like(&x);
        let reached = (rows.max(1) - 1) * row_stride + (columns.max(1) - 1) * column_stride + 1;
        let source = unsafe { BufferArg::from_raw_parts(x.handle.clone(), reached) };
        with_type!(x, F => unsafe {
            lay_out::launch_unchecked::<F>(
                &x.client,
                cubes(rows * columns),
                CubeDim::new_1d(UNITS as u32),
                source,
                arg(&out),
                (rows * columns) as u32,
                columns as u32,
                row_stride as u32,
                column_stride as u32,
            );
        });
        out
    }
}

#[cube(launch_unchecked)]
fn lay_out<F: Float>(x: &[F], out: &mut [F], elements: u32, columns: u32, row_stride: u32, column_stride: u32) {
    let mut index = ABSOLUTE_POS;
    while index < elements as usize {
        let (row, column) = (index / columns as usize, index % columns as usize);
        out[index] = x[row * row_stride as usize + column * column_stride as usize];
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}
