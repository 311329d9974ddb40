//! Tensors of tests, and the paths on which their products are tried.

use burn::backend::{Cube, DType};
use burn::tensor::{Device, Tensor, TensorData};
use cubecl::prelude::*;
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::Gpu;
use super::super::linear::ProductPath;
use super::tensor::{GpuTensor, elements};

pub(super) fn gpu() -> Gpu {
    // Of the feature that is on.
    Gpu::of(&Device::default()).unwrap()
}

/// Tensor cores as every device plays them, and as this one has them.
pub(super) fn tensor_cores() -> Vec<ProductPath> {
    let own = Some(ProductPath::of(&gpu(), true)).filter(|path| *path != ProductPath::Units);
    std::iter::once(ProductPath::EmulatedTensorCores).chain(own).collect()
}

/// Numbers up to `most`, rounded to brain floats or not.
pub(super) fn draw(seed: u64, count: usize, most: f32, rounded: bool) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..count).map(|_| rng.random_range(-most..most));
    values.map(|value: f32| if rounded { bf16::from_f32(value).to_f32() } else { value }).collect()
}

pub(super) fn tensor(values: &[f32], shape: [usize; 2]) -> GpuTensor {
    let tensor = Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &Device::default());
    tensor.try_into_primitive::<Cube>().unwrap()
}

pub(super) fn read(x: &GpuTensor) -> Vec<f32> {
    let bytes = x.client.read_one(x.handle.clone()).unwrap();
    match x.dtype {
        DType::BF16 => {
            u16::from_bytes(&bytes)[..elements(x)].iter().map(|bits| bf16::from_bits(*bits).to_f32()).collect()
        }
        _ => f32::from_bytes(&bytes)[..elements(x)].to_vec(),
    }
}
