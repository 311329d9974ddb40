//! The operations of training on a GPU against plain Burn on the CPU: values and gradients, however a tensor lies in memory.

#![cfg(any(feature = "cuda", feature = "webgpu"))]

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zerosearch_kernels::cube::{Gpu, GpuBuffer, Linear, LinearOutput, LinearParts, ProductPath};
use zerosearch_kernels::{
    AdamWRule, AttentionShape, PackedSpan, SquareSum, WeightCopy, adamw, adapted_linear, causal_attention, embedding,
    linear, reference, rms_norm, rotary, swiglu, swiglu_linear, token_logprobs,
};

fn gpu() -> Device {
    // Of the feature that is on.
    Device::default()
}

fn draw(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
}

/// Ways in which a matrix lies in memory.
const LAYOUTS: [&str; 3] = ["plain", "transposed", "strip"];

/// A leaf, and a matrix `[rows, columns]` over its memory.
fn matrix(device: &Device, seed: u64, [rows, columns]: [usize; 2], layout: &str) -> (Tensor<2>, Tensor<2>) {
    let leaf = |shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(draw(seed, shape[0] * shape[1]), shape), device).require_grad()
    };
    match layout {
        "transposed" => {
            let leaf = leaf([columns, rows]);
            (leaf.clone(), leaf.transpose())
        }
        "strip" => {
            let leaf = leaf([rows, columns + 3]);
            (leaf.clone(), leaf.narrow(1, 2, columns))
        }
        _ => {
            let leaf = leaf([rows, columns]);
            (leaf.clone(), leaf)
        }
    }
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// The output, and the gradients of a random weighting of it.
fn run(device: &Device, operation: impl Fn(&Device) -> (Tensor<2>, Vec<Tensor<2>>)) -> Vec<Vec<f32>> {
    let (output, leaves) = operation(device);
    let shape = output.dims();
    let weights = Tensor::<2>::from_data(TensorData::new(draw(99, shape[0] * shape[1]), shape), device);
    let gradients = (output.clone() * weights).sum().backward();
    let of_leaf = |leaf: &Tensor<2>| numbers(leaf.grad(&gradients).unwrap());
    std::iter::once(numbers(output)).chain(leaves.iter().map(of_leaf)).collect()
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}, {index}");
        let scale = expected.iter().fold(1e-3f32, |scale, x| scale.max(x.abs()));
        for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-5 * scale, "{what}, {index}, {place}: {found} for {expected}");
        }
    }
}

/// Runs an operation on the GPU and its reference on the CPU, and both with gradients checkpointed.
fn compare(
    what: &str,
    fused: impl Fn(&Device) -> (Tensor<2>, Vec<Tensor<2>>),
    plain: impl Fn(&Device) -> (Tensor<2>, Vec<Tensor<2>>),
) {
    let expected = run(&Device::flex().autodiff(), plain);
    for device in [gpu().autodiff(), gpu().autodiff().gradient_checkpointing()] {
        assert_close(&run(&device, &fused), &expected, what);
    }
}

#[test]
fn norms() {
    for (rows, width) in [(1, 3), (3, 64), (130, 7), (65, 577)] {
        for layout in LAYOUTS {
            let of = |norm: fn(Tensor<2>, Tensor<1>, f64) -> Tensor<2>| {
                move |device: &Device| {
                    let (leaf, x) = matrix(device, 1, [rows, width], layout);
                    let (gain_leaf, gain) = matrix(device, 2, [width, 1], layout);
                    (norm(x, gain.squeeze_dim(1), 1e-5), vec![leaf, gain_leaf])
                }
            };
            compare(&format!("norm [{rows}, {width}], {layout}"), of(rms_norm), of(reference::rms_norm));
        }
    }
}

#[test]
fn gates() {
    for (rows, width) in [(1, 1), (5, 33), (70, 300)] {
        for layout in LAYOUTS {
            let inputs = move |device: &Device| {
                let (gate_leaf, gate) = matrix(device, 3, [rows, width], layout);
                let (up_leaf, up) = matrix(device, 4, [rows, width], layout);
                let (weight_leaf, weight) = matrix(device, 5, [4, width], layout);
                ([gate, up, weight], vec![gate_leaf, up_leaf, weight_leaf])
            };
            let gate = |gate: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
                move |device: &Device| {
                    let ([x, up, _], mut leaves) = inputs(device);
                    leaves.pop();
                    (gate(x, up), leaves)
                }
            };
            let what = format!("gate [{rows}, {width}], {layout}");
            compare(&what, gate(swiglu), gate(reference::swiglu));
            let projected = |project: fn(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>| {
                move |device: &Device| {
                    let ([gate, up, weight], leaves) = inputs(device);
                    (project(gate, up, weight), leaves)
                }
            };
            let plain = |gate, up, weight| reference::linear(reference::swiglu(gate, up), weight);
            compare(&format!("{what}, projected"), projected(swiglu_linear), projected(plain));
        }
    }
}

#[test]
fn projections() {
    for (rows, inner, outer, rank) in [(1, 1, 1, 1), (5, 33, 20, 2), (140, 70, 300, 4)] {
        for layout in LAYOUTS {
            type Product = fn(Tensor<2>, [Tensor<2>; 3]) -> Tensor<2>;
            let of = |product: Product, adapted: bool| {
                move |device: &Device| {
                    let shapes = [[rows, inner], [outer, inner], [rank, inner], [outer, rank]];
                    let matrices = [40, 41, 42, 43].into_iter().zip(shapes);
                    let (mut leaves, matrices): (Vec<_>, Vec<_>) =
                        matrices.map(|(seed, shape)| matrix(device, seed, shape, layout)).unzip();
                    let [x, weight, a, b] = matrices.try_into().unwrap();
                    if !adapted {
                        leaves.truncate(2);
                    }
                    (product(x, [weight, a, b]), leaves)
                }
            };
            let what = format!("{rows} × {inner} × {outer}, {layout}");
            let plain = of(|x, [weight, ..]| reference::linear(x, weight), false);
            compare(&what, of(|x, [weight, ..]| linear(x, weight), false), plain);
            let fused = of(
                |x, [weight, a, b]| {
                    let outputs = weight.dims()[0];
                    adapted_linear(x, weight, a, b, 0.7, false, outputs)
                },
                true,
            );
            let plain = of(|x, [weight, a, b]| reference::adapted_linear(x, weight, a, b, 0.7), true);
            compare(&format!("{what}, rank {rank}"), fused, plain);
        }
    }
}

#[test]
fn embeddings() {
    let tokens: Vec<u32> = (0..400).map(|i| i * i % 50 / 7 * 5).chain([49, 0]).collect();
    for tokens in [&tokens[..], &tokens[..1], &[]] {
        for layout in LAYOUTS {
            let of = |embed: fn(Tensor<2>, &[u32]) -> Tensor<2>| {
                let tokens = tokens.to_vec();
                move |device: &Device| {
                    let (leaf, table) = matrix(device, 44, [50, 33], layout);
                    // Rows of nothing have no gradient.
                    let plain = table.clone().narrow(0, 0, 1);
                    (Tensor::cat(vec![embed(table, &tokens), plain], 0), vec![leaf])
                }
            };
            compare(&format!("{} tokens, {layout}", tokens.len()), of(embedding), of(reference::embedding));
        }
    }
}

#[test]
fn rotations() {
    for (batch, time, heads, half) in [(1, 1, 1, 1), (2, 5, 3, 4), (1, 40, 2, 32)] {
        for layout in LAYOUTS {
            let of = |rotate: fn(Tensor<2>, Tensor<2>, Tensor<2>, usize) -> Tensor<2>| {
                move |device: &Device| {
                    let (leaf, x) = matrix(device, 6, [batch * time, heads * 2 * half], layout);
                    let table = |seed| matrix(device, seed, [time, half], layout).1.detach();
                    (rotate(x, table(7), table(8), heads), vec![leaf])
                }
            };
            compare(&format!("{batch} × {time}, {heads} heads, {layout}"), of(rotary), of(reference::rotary));
        }
    }
}

#[test]
fn steps_of_adamw_change_nothing_that_is_held_elsewhere() {
    let rule =
        |step| AdamWRule { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, learning_rate: 1e-2, step };
    let play = |device: &Device| {
        let tensor = |seed| Tensor::<2>::from_data(TensorData::new(draw(seed, 700), [7, 100]), device);
        let held = tensor(10);
        let (mut weight, mut moments) = (held.clone(), None);
        for step in 1..=3 {
            let gradient = Tensor::from_data(TensorData::new(draw(20 + step, 700), [100, 7]), device).transpose();
            let [next, first, second] = adamw(weight, gradient, moments, &rule(step), None);
            (weight, moments) = (next, Some((first, second)));
        }
        let (first, second) = moments.unwrap();
        assert_eq!(numbers(held), draw(10, 700));
        [weight, first, second].map(numbers).to_vec()
    };
    assert_close(&play(&gpu()), &play(&Device::flex()), "AdamW");
}

#[test]
fn a_step_of_adamw_writes_the_generators_weight_as_filling_it_would() {
    let device = gpu();
    let gpu = Gpu::of(&device).unwrap();
    let rule = AdamWRule { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, learning_rate: 0.3, step: 1 };
    let stepped = |seed, shape: [usize; 2], copy: Option<&WeightCopy>| {
        let [weight, gradient] = [seed, seed + 1]
            .map(|seed| Tensor::<2>::from_data(TensorData::new(draw(seed, shape[0] * shape[1]), shape), &device));
        adamw(weight, gradient, None, &rule, copy)[0].clone()
    };
    let paths = [
        (ProductPath::Units, false),
        (ProductPath::Units, true),
        (ProductPath::EmulatedTensorCores, true),
        (ProductPath::of(&gpu, true), true),
    ];
    for (path, bf16) in paths {
        for (parts, rows) in [(LinearParts::Stacked, vec![5, 40, 3]), (LinearParts::Gated, vec![37, 37])] {
            for inner in [1, 37, 130] {
                let linear = || Linear::on(&gpu, path, inner, rows.iter().sum(), parts, bf16);
                let (filled, written) = (linear(), linear());
                let matrices: Vec<GpuBuffer> = (0..)
                    .zip(rows.iter().zip(written.copies(&rows)))
                    .map(|(index, (rows, copy))| {
                        let shape = [*rows, inner];
                        let [alone, copied] = [None, Some(&copy)].map(|copy| stepped(10 * index, shape, copy));
                        assert_eq!(numbers(alone.clone()), numbers(copied));
                        GpuBuffer::of(&alone).unwrap()
                    })
                    .collect();
                filled.fill(&gpu, &matrices.iter().collect::<Vec<_>>());
                let outputs = [filled, written].map(|linear| {
                    let (x, out) = (gpu.upload(&draw(5, 3 * inner)), gpu.empty(3 * linear.outer()));
                    let memory = Linear::rounded(&gpu, 3, inner);
                    linear.forward(&gpu, &x, 3, LinearOutput::Store, &memory, &out);
                    gpu.read(&out).unwrap()
                });
                assert!(outputs[0].iter().any(|value| *value != 0.0));
                assert_eq!(outputs[0], outputs[1], "{path:?}, bf16: {bf16}, {parts:?}, {inner}");
            }
        }
    }
    let vector = gpu.upload(&[7.0; 8]);
    let gradient = Tensor::<1>::from_floats([1.0, -1.0, 2.0], &device);
    let copy = WeightCopy::of_vector(&vector, 4, 3);
    let [weight, ..] = adamw(gradient.clone(), gradient, None, &rule, Some(&copy));
    let expected = [vec![7.0; 4], numbers(weight), vec![7.0]].concat();
    assert_eq!(gpu.read(&vector).unwrap(), expected);
}

#[test]
fn logprobs_and_entropies() {
    for (rows, width, vocab) in [(1, 1, 1), (5, 8, 97), (37, 16, 3000), (33, 4, 1_100_000)] {
        // Many blocks of rows are tried with plain matrices alone.
        let layouts = if vocab > 100_000 { &LAYOUTS[..1] } else { &LAYOUTS[..] };
        for layout in layouts {
            type Logprobs = fn(Tensor<2>, Tensor<2>, Tensor<1, Int>) -> (Tensor<1>, Tensor<1>);
            let of = |logprobs: Logprobs| {
                move |device: &Device| {
                    let (hidden_leaf, hidden) = matrix(device, 11, [rows, width], layout);
                    let (head_leaf, head) = matrix(device, 12, [vocab, width], layout);
                    let targets: Vec<i32> = (0..rows).map(|row| (row * 7919 % vocab) as i32).collect();
                    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), device);
                    let (logprobs, entropies) = logprobs(hidden, head, targets);
                    let both = Tensor::cat(vec![logprobs, entropies], 0).unsqueeze();
                    (both, vec![hidden_leaf, head_leaf])
                }
            };
            // Plain Burn adds a million numbers of 32 bits one after another; the CPU's own operation does not.
            let plain = if vocab > 100_000 { token_logprobs } else { reference::token_logprobs };
            compare(&format!("{rows} rows of {vocab}, {layout}"), of(token_logprobs), of(plain));
        }
    }
}

#[test]
fn attention_of_packed_spans() {
    let span = |shared, own| PackedSpan { shared, own };
    let packed = [
        vec![span(0..0, 0..1)],
        vec![span(0..0, 0..23)],
        vec![span(0..0, 0..40), span(0..37, 40..57), span(0..37, 57..58), span(0..0, 58..58), span(0..0, 58..75)],
        vec![span(0..0, 0..16), span(5..16, 16..33), span(20..22, 33..41)],
    ];
    for (heads, kv_heads, head_dim) in [(1, 1, 1), (2, 1, 5), (6, 2, 16), (3, 3, 64), (2, 1, 128), (2, 1, 130)] {
        let shape = AttentionShape { heads, kv_heads, head_dim };
        for spans in &packed {
            let spans: Arc<[PackedSpan]> = spans.clone().into();
            let rows = spans.iter().map(|span| span.own.len()).sum();
            for layout in LAYOUTS {
                let inputs = |device: &Device| {
                    let of = |seed, heads| matrix(device, seed, [rows, heads * head_dim], layout);
                    let [(a, q), (b, k), (c, v)] = [of(13, heads), of(14, kv_heads), of(15, kv_heads)];
                    ([q, k, v], vec![a, b, c])
                };
                let fused = |device: &Device| {
                    let ([q, k, v], leaves) = inputs(device);
                    (causal_attention(q, k, v, &spans, shape), leaves)
                };
                let plain = |device: &Device| {
                    let ([q, k, v], leaves) = inputs(device);
                    (reference::causal_attention(q, k, v, &spans, shape), leaves)
                };
                compare(&format!("{shape:?}, {spans:?}, {layout}"), fused, plain);
            }
        }
    }
}

#[test]
fn squares_of_many_tensors() {
    let total = |device: &Device| {
        let mut sum = SquareSum::default();
        for (seed, shape) in [(30, [1, 1]), (31, [7, 100]), (32, [300, 400]), (33, [20, 900])] {
            for layout in LAYOUTS {
                sum.add(matrix(device, seed, shape, layout).1);
            }
            sum.add(Tensor::<1>::from_data(TensorData::new(draw(seed, 50), [50]), device));
        }
        sum.total()
    };
    let (found, expected) = (total(&gpu().autodiff()), total(&Device::flex().autodiff()));
    assert!((found - expected).abs() < 1e-6 * expected, "{found} for {expected}");
    assert_eq!(SquareSum::default().total(), 0.0);
}

/// The output of a sequence has the same bits whatever is packed beside it.
#[test]
fn a_sequence_is_the_same_whatever_lies_beside_it() {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let device = gpu();
    let of = |columns: usize, seed| {
        Tensor::<2>::from_data(TensorData::new(draw(seed, 50 * columns), [50, columns]), &device)
    };
    let [q, k, v] = [of(64, 16), of(32, 17), of(32, 18)];
    let attend = |rows: std::ops::Range<usize>, spans: Vec<PackedSpan>| {
        let [q, k, v] = [&q, &k, &v].map(|x| x.clone().slice(rows.clone()));
        numbers(causal_attention(q, k, v, &spans.into(), shape))
    };
    let span = |shared, own| PackedSpan { shared, own };
    let all = attend(0..50, vec![span(0..0, 0..19), span(0..0, 19..30), span(0..0, 30..50)]);
    let alone = attend(19..30, vec![span(0..0, 0..11)]);
    assert_eq!(all[19 * 64..30 * 64], alone[..]);
    // Keys that are shared are summed as keys of its own.
    let shared = attend(0..30, vec![span(0..0, 0..19), span(0..19, 19..30)]);
    let whole = attend(0..30, vec![span(0..0, 0..30)]);
    assert_eq!(shared, whole);
}
