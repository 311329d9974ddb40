//! One network of all operations.

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Int, Tensor};
use zerosearch_kernels::{
    AttentionShape, PackedSpan, adapted_linear, causal_attention, linear, rms_norm, rotary, swiglu, swiglu_linear,
    token_logprobs,
};

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
const ROWS: usize = 450;

/// A sequence of 100 rows that two further ones continue, and one of its own.
fn spans() -> Arc<[PackedSpan]> {
    [(0..0, 0..100), (0..100, 100..250), (0..100, 250..280), (0..0, 280..ROWS)]
        .map(|(shared, own)| PackedSpan { shared, own })
        .into()
}

/// A deterministic leaf with values of moderate size.
pub(crate) fn leaf(rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    let values = Tensor::<1, Int>::arange(0..(rows * columns) as i64, device).float();
    (values * 0.7371).sin().reshape([rows, columns]).detach().require_grad()
}

/// Outputs and gradients of a network of all operations, as bits.
pub(crate) fn bits_of_everything() -> Vec<Vec<u32>> {
    let device = Device::flex().autodiff();
    let rows = ROWS;
    let (x, y, head) = (leaf(rows, 64, &device), leaf(rows, 32, &device), leaf(500, 64, &device));
    let (weight, square, wide) = (leaf(1, 64, &device), leaf(64, 64, &device), leaf(64, 500, &device));
    let (a, b) = (leaf(3, 64, &device), leaf(64, 3, &device));
    let angles = Tensor::<2>::ones([ROWS, 8], &device) * 0.3;
    let normed = rms_norm(x.clone(), weight.clone().reshape([64]), 1e-6);
    let rotated = rotary(normed, angles.clone().cos(), angles.sin(), SHAPE.heads);
    let attended = causal_attention(rotated, y.clone(), y.clone(), &spans(), SHAPE);
    let projected = linear(attended, square.clone());
    let adapted = adapted_linear(projected, square.clone(), a.clone(), b.clone(), 0.1, true, 64);
    let gated = swiglu(adapted, x.clone());
    let both = linear(gated, head.clone().cast(FloatDType::BF16));
    let gated = swiglu_linear(both.clone(), both, wide.clone());
    let targets = Tensor::<1, Int>::arange(0..rows as i64, &device);
    let (logprobs, entropies) = token_logprobs(gated * 0.1, head.clone(), targets);
    let gradients = (logprobs.clone().sum() + entropies.clone().sum() * 0.3).backward();
    let mut results = vec![logprobs.into_data(), entropies.into_data()];
    let leaves = [x, y, head, weight, square, wide, a, b];
    results.extend(leaves.map(|leaf| leaf.grad(&gradients).expect("a gradient").into_data()));
    results.into_iter().map(|data| data.iter::<f32>().map(f32::to_bits).collect()).collect()
}
