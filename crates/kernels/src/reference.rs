//! The same operations in plain Burn: what the fused ones are tested against, and what runs on
//! devices that have no fused code.
//!
//! Of numbers with less than 32 bits the products are taken as they are; sums over a row, exponentials and rotations are
//! computed in f32, and rounded back at the end. Log-probabilities and entropies stay in f32.

use std::iter::repeat;

use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::{Bool, DType, FloatDType, Int, Tensor, TensorData};

use crate::{AdamWRule, AttentionShape, PackedSpan};

/// In at least 32 bits.
fn single<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.cast(FloatDType::F32) } else { x }
}

/// Computes in at least 32 bits, and rounds the result to what it was made of.
fn in_f32<const D: usize>(x: Tensor<D>, compute: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    let y = compute(single(x));
    if y.dtype() == dtype { y } else { y.cast(FloatDType::from(dtype)) }
}

/// [`crate::swiglu`] in plain Burn.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

/// [`crate::embedding`] in plain Burn.
pub fn embedding(table: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    let indices: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    let device = table.device();
    table.select(0, Tensor::<1, Int>::from_data(TensorData::new(indices, [tokens.len()]), &device))
}

/// [`crate::linear`] in plain Burn.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    x.matmul(weight.transpose())
}

/// [`crate::adapted_linear`] in plain Burn.
pub fn adapted_linear(x: Tensor<2>, weight: Tensor<2>, a: Tensor<2>, b: Tensor<2>, scale: f32) -> Tensor<2> {
    linear(x.clone(), weight) + linear(linear(x, a), b).mul_scalar(scale)
}

/// [`crate::rms_norm`] in plain Burn.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    in_f32(x, |x| {
        let mean = (x.clone() * x.clone()).mean_dim(1);
        x / (mean + epsilon).sqrt() * single(weight).unsqueeze()
    })
}

/// [`crate::rotary`] in plain Burn.
pub fn rotary(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, heads: usize) -> Tensor<2> {
    let ([rows, width], [time, half]) = (x.dims(), cos.dims());
    in_f32(x, |x| {
        let x = x.reshape([rows / time, time, heads, 2 * half]);
        let [cos, sin] = [cos, sin].map(|table| single(table).reshape([1, time, 1, half]));
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let rotated_a = a.clone() * cos.clone() - b.clone() * sin.clone();
        let rotated_b = b * cos + a * sin;
        Tensor::cat(vec![rotated_a, rotated_b], 3).reshape([rows, width])
    })
}

/// [`crate::causal_attention`] in plain Burn, with materialised scores: every span becomes a padded sequence of its
/// own, shared rows included.
pub fn causal_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    spans: &[PackedSpan],
    shape: AttentionShape,
) -> Tensor<2> {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let (batch, group) = (spans.len(), heads / kv_heads);
    let time = spans.iter().map(PackedSpan::length).max().unwrap_or(0);
    // Padding stands on the right, where causality hides it; any row does for it.
    let padded = |span: &PackedSpan| span.rows().chain(repeat(0)).take(time).map(|row| row as i32).collect::<Vec<_>>();
    let own = |(index, span): (usize, &PackedSpan)| {
        let first = index * time + span.shared.len();
        (first..first + span.own.len()).map(|row| row as i32).collect::<Vec<_>>()
    };
    let device = q.device();
    let index = |rows: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(rows.clone(), [rows.len()]), &device);
    let rows = index(spans.iter().flat_map(padded).collect());
    let [q, k, v] = [q, k, v].map(|x| x.select(0, rows.clone()));
    // The query heads of one key head become rows of one product, so that keys are not repeated.
    let q = q.reshape([batch, time, kv_heads, group, head_dim]).permute([0, 2, 3, 1, 4]);
    let q = q.reshape([batch, kv_heads, group * time, head_dim]);
    let k = k.reshape([batch, time, kv_heads, head_dim]).permute([0, 2, 3, 1]);
    let v = v.reshape([batch, time, kv_heads, head_dim]).permute([0, 2, 1, 3]);
    let later = Tensor::<2, Bool>::tril_mask([time, time], 0, &device).reshape([1, 1, 1, time, time]);
    let later = later.expand([batch, kv_heads, group, time, time]);
    let scores = q.matmul(k).reshape([batch, kv_heads, group, time, time]);
    let weights =
        in_f32(scores, |scores| softmax(scores.mul_scalar(shape.scale()).mask_fill(later, f32::NEG_INFINITY), 4));
    let output = weights.reshape([batch, kv_heads, group * time, time]).matmul(v);
    let output = output.reshape([batch, kv_heads, group, time, head_dim]).permute([0, 3, 1, 2, 4]);
    let output = output.reshape([batch * time, heads * head_dim]);
    output.select(0, index(spans.iter().enumerate().flat_map(own).collect()))
}

/// [`crate::token_logprobs`] in plain Burn, with materialised distributions.
pub fn token_logprobs(hidden: Tensor<2>, head: Tensor<2>, targets: Tensor<1, Int>) -> (Tensor<1>, Tensor<1>) {
    let [rows, _] = hidden.dims();
    let all = log_softmax(single(hidden.matmul(head.transpose())), 1);
    let entropies = (all.clone().exp() * all.clone()).sum_dim(1).neg();
    (all.gather(1, targets.reshape([rows, 1])).reshape([rows]), entropies.reshape([rows]))
}

/// [`crate::adamw`] in plain Burn.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
    rule: &AdamWRule,
) -> [Tensor<D>; 3] {
    let (correct1, correct2) = rule.corrections();
    let first = first.mul_scalar(rule.beta1) + gradient.clone().mul_scalar(1.0 - rule.beta1);
    let second = second.mul_scalar(rule.beta2) + gradient.square().mul_scalar(1.0 - rule.beta2);
    let scale = second.clone().div_scalar(correct2).sqrt().add_scalar(rule.epsilon);
    let change = first.clone().div(scale).mul_scalar(rule.learning_rate / correct1);
    let weight = weight.mul_scalar(1.0 - rule.learning_rate * rule.weight_decay) - change;
    [weight, first, second]
}
