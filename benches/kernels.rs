//! Each fused operation beside its plain-Burn reference, forward and backward, on the CPU: 1,024 rows through the shapes of
//! SmolLM2-135M. `cargo bench --bench kernels`.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use zerosearch::burn::tensor::{Device, Int, Tensor};
use zerosearch::kernels::{self, AttentionShape, PackedSpan, reference};

const ROWS: usize = 1024;
const HIDDEN: usize = 576;
const MLP: usize = 1536;
const VOCABULARY: usize = 49_152;
const SHAPE: AttentionShape = AttentionShape { heads: 9, kv_heads: 3, head_dim: 64 };

/// A leaf with values of moderate size that differ from one another.
fn leaf(rows: usize, columns: usize) -> Tensor<2> {
    let values = Tensor::<1, Int>::arange(0..(rows * columns) as i64, &Device::flex()).float();
    (values * 0.7371).sin().reshape([rows, columns]).autodiff().require_grad()
}

/// Forward and backward passes of an operation's two forms.
fn compare(criterion: &mut Criterion, name: &str, fused: impl Fn() -> Tensor<2>, plain: impl Fn() -> Tensor<2>) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    group.bench_function("fused", |b| b.iter(|| fused().sum().backward()));
    group.bench_function("reference", |b| b.iter(|| plain().sum().backward()));
}

fn benches(criterion: &mut Criterion) {
    kernels::keep_freed_memory();
    let (x, gate, up) = (leaf(ROWS, HIDDEN), leaf(ROWS, MLP), leaf(ROWS, MLP));
    let (wide, narrow) = (leaf(MLP, HIDDEN), leaf(HIDDEN, MLP));
    compare(
        criterion,
        "linear",
        || kernels::linear(x.clone(), wide.clone()),
        || reference::linear(x.clone(), wide.clone()),
    );
    let (a, b) = (leaf(16, HIDDEN), leaf(MLP, 16));
    let frozen = wide.clone().without_autodiff();
    compare(
        criterion,
        "adapted_linear",
        || kernels::adapted_linear(x.clone(), frozen.clone(), a.clone(), b.clone(), 2.0, false, frozen.dims()[0]),
        || reference::adapted_linear(x.clone(), frozen.clone(), a.clone(), b.clone(), 2.0),
    );
    compare(
        criterion,
        "swiglu",
        || kernels::swiglu(gate.clone(), up.clone()),
        || reference::swiglu(gate.clone(), up.clone()),
    );
    compare(
        criterion,
        "swiglu_linear",
        || kernels::swiglu_linear(gate.clone(), up.clone(), narrow.clone()),
        || reference::linear(reference::swiglu(gate.clone(), up.clone()), narrow.clone()),
    );
    let norm = leaf(1, HIDDEN).without_autodiff().reshape([HIDDEN]).autodiff().require_grad();
    compare(
        criterion,
        "rms_norm",
        || kernels::rms_norm(x.clone(), norm.clone(), 1e-5),
        || reference::rms_norm(x.clone(), norm.clone(), 1e-5),
    );
    let angles = leaf(ROWS, SHAPE.head_dim / 2).without_autodiff();
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    compare(
        criterion,
        "rotary",
        || kernels::rotary(x.clone(), cos.clone(), sin.clone(), SHAPE.heads),
        || reference::rotary(x.clone(), cos.clone(), sin.clone(), SHAPE.heads),
    );
    let (k, v) = (leaf(ROWS, SHAPE.kv_heads * SHAPE.head_dim), leaf(ROWS, SHAPE.kv_heads * SHAPE.head_dim));
    let span = |index: usize| PackedSpan { shared: 0..0, own: index * 256..(index + 1) * 256 };
    let spans: Arc<[PackedSpan]> = (0..ROWS / 256).map(span).collect();
    compare(
        criterion,
        "causal_attention",
        || kernels::causal_attention(x.clone(), k.clone(), v.clone(), &spans, SHAPE),
        || reference::causal_attention(x.clone(), k.clone(), v.clone(), &spans, SHAPE),
    );
    let head = leaf(VOCABULARY, HIDDEN);
    let targets = Tensor::<1, Int>::arange(0..ROWS as i64, &Device::flex());
    let both = |(logprobs, entropies): (Tensor<1>, Tensor<1>)| (logprobs + entropies).unsqueeze::<2>();
    compare(
        criterion,
        "token_logprobs",
        || both(kernels::token_logprobs(x.clone(), head.clone(), targets.clone())),
        || both(reference::token_logprobs(x.clone(), head.clone(), targets.clone())),
    );
}

criterion_group!(group, benches);
criterion_main!(group);
