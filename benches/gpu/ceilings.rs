//! Bytes and products that a device does at best, by plain operations.

use std::time::Instant;

use serde_json::{Value, json};
use zerosearch::Failure;
use zerosearch::burn::tensor::{DType, Device, Tensor};

/// Runs that are measured, after one that is not.
const RUNS: usize = 5;

/// Rates of a copy and of a product in bf16 where the device has it, else in f32.
pub(crate) fn measure(device: &Device) -> Result<Value, Failure> {
    let on_cpu = *device == Device::flex();
    let (words, width) = if on_cpu { (1 << 24, 512) } else { (1 << 28, 4096) };
    let numbers = Tensor::<1>::ones([words], device);
    let copied = best(|| _ = (numbers.clone() + 1.0).slice(0..1).into_data());
    let dtype = if !on_cpu && device.supports_dtype(DType::BF16) { DType::BF16 } else { DType::F32 };
    let matrix = Tensor::<2>::ones([width, width], device).cast(dtype);
    let multiplied = best(|| _ = matrix.clone().matmul(matrix.clone()).slice([0..1, 0..1]).into_data());
    Ok(json!({
        "gigabytes_per_second": (2 * 4 * words) as f64 / copied / 1e9,
        "tflops": 2.0 * (width as f64).powi(3) / multiplied / 1e12,
        "tflops_in": format!("{dtype:?}"),
    }))
}

/// Seconds of the fastest run.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let timed = |_| {
        let began = Instant::now();
        run();
        began.elapsed().as_secs_f64()
    };
    (0..RUNS).map(timed).fold(f64::INFINITY, f64::min)
}
