//! Every fused operation gives the values and the gradients of its plain-Burn reference.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, Tolerance};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zerosearch_kernels::{
    AdamWRule, AttentionShape, PackedSpan, SquareSum, adamw, adapted_linear, add, causal_attention, linear, reference,
    rms_norm, rotary, scale, swiglu, swiglu_linear, token_logprobs,
};

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Plain,
    /// A transposed view of its transpose.
    Transposed,
    /// A strip of the columns of a wider matrix.
    Strip,
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::Plain), Just(Layout::Transposed), Just(Layout::Strip)]
}

/// Inputs drawn from one seed, the same on every device.
struct Draw(ChaCha8Rng);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.0.random_range(-2.0..2.0)).collect()
    }

    /// A matrix and the leaf that gradients are asked of.
    fn matrix(&mut self, [rows, columns]: [usize; 2], layout: Layout, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let mut leaf = |shape: [usize; 2]| {
            let leaf = Tensor::<2>::from_data(TensorData::new(self.values(shape[0] * shape[1]), shape), device);
            if device.is_autodiff() { leaf.require_grad() } else { leaf }
        };
        match layout {
            Layout::Plain => {
                let leaf = leaf([rows, columns]);
                (leaf.clone(), leaf)
            }
            Layout::Transposed => {
                let leaf = leaf([columns, rows]);
                (leaf.clone().transpose(), leaf)
            }
            Layout::Strip => {
                let leaf = leaf([rows, columns + 3]);
                (leaf.clone().narrow(1, 2, columns), leaf)
            }
        }
    }

    fn vector(&mut self, length: usize, device: &Device) -> Tensor<1> {
        Tensor::from_data(TensorData::new(self.values(length), [length]), device)
    }
}

/// Results of an operation: outputs, then gradients of a random weighting of them.
type Run = Vec<Vec<f32>>;

/// Runs an operation on plain and on autodiff devices and collects outputs and gradients.
fn run(
    seed: u64,
    operation: impl Fn(&mut Draw, &Device) -> (Vec<Tensor<1>>, Vec<Tensor<2>>, Option<Tensor<1>>),
) -> Run {
    let numbers = |data: TensorData| data.iter::<f32>().collect::<Vec<_>>();
    let plain = Device::flex();
    let (outputs, ..) = operation(&mut Draw::new(seed), &plain);
    let mut results: Run = outputs.into_iter().map(|output| numbers(output.into_data())).collect();
    for device in [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
        let mut draw = Draw::new(seed);
        let (outputs, leaves, vector) = operation(&mut draw, &device);
        let losses = outputs.into_iter().map(|output| {
            results.push(numbers(output.clone().into_data()));
            let weights = draw.vector(output.dims()[0], &device);
            (output * weights).sum()
        });
        let gradients = losses.reduce(|a, b| a + b).expect("an output").backward();
        results.extend(leaves.iter().map(|leaf| numbers(leaf.grad(&gradients).expect("a gradient").into_data())));
        results.extend(vector.map(|leaf| numbers(leaf.grad(&gradients).expect("a gradient").into_data())));
    }
    results
}

/// The largest difference, relative to the largest number where that is above 1.
fn difference(a: &Run, b: &Run) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(a.len(), b.len());
        let scale = b.iter().fold(1.0f32, |most, x| most.max(x.abs()));
        a.iter().zip(b).map(move |(a, b)| (a - b).abs() / scale)
    });
    pairs.fold(0.0, |worst, x| if x <= worst { worst } else { x })
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.shape().num_elements();
    x.reshape([count])
}

fn run_swiglu(
    seed: u64,
    shape: [usize; 2],
    layouts: (Layout, Layout),
    op: fn(Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> Run {
    run(seed, |draw, device| {
        let (gate, gate_leaf) = draw.matrix(shape, layouts.0, device);
        let (up, up_leaf) = draw.matrix(shape, layouts.1, device);
        (vec![flat(op(gate * 3.0, up))], vec![gate_leaf, up_leaf], None)
    })
}

fn run_linear(
    seed: u64,
    [rows, inner, outer]: [usize; 3],
    layouts: (Layout, Layout),
    op: fn(Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> Run {
    run(seed, |draw, device| {
        let (x, x_leaf) = draw.matrix([rows, inner], layouts.0, device);
        let (weight, weight_leaf) = draw.matrix([outer, inner], layouts.1, device);
        (vec![flat(op(x, weight))], vec![x_leaf, weight_leaf], None)
    })
}

type RmsNorm = fn(Tensor<2>, Tensor<1>, f64) -> Tensor<2>;

fn run_rms_norm(seed: u64, shape: [usize; 2], layout: Layout, op: RmsNorm) -> Run {
    run(seed, |draw, device| {
        let (x, leaf) = draw.matrix(shape, layout, device);
        // Of one or two numbers near zero the gradient would be the rounding of terms that cancel.
        let x = if shape[1] < 3 { x.clone() + x.sign() } else { x };
        let weight = draw.vector(shape[1], device);
        let weight = if device.is_autodiff() { weight.require_grad() } else { weight };
        (vec![flat(op(x, weight.clone(), 1e-5))], vec![leaf], Some(weight))
    })
}

type Rotary = fn(Tensor<2>, Tensor<2>, Tensor<2>, usize) -> Tensor<2>;

fn run_rotary(seed: u64, [batch, time, heads, half]: [usize; 4], layout: Layout, op: Rotary) -> Run {
    run(seed, |draw, device| {
        let (x, leaf) = draw.matrix([batch * time, heads * 2 * half], layout, device);
        let angles = Tensor::<2>::from_data(TensorData::new(draw.values(time * half), [time, half]), device);
        (vec![flat(op(x, angles.clone().cos(), angles.sin(), heads))], vec![leaf], None)
    })
}

/// Groups of sequences: the length of what they share, and of what each has behind it.
fn spans() -> impl Strategy<Value = Arc<[PackedSpan]>> {
    let length = || prop_oneof![0usize..40, 60usize..70, 125usize..135];
    let groups = prop::collection::vec((length(), prop::collection::vec(length(), 0..3)), 1..3);
    groups.prop_map(|groups| {
        let mut spans = Vec::new();
        let mut rows = 0;
        for (common, behind) in groups {
            let common = rows..rows + common.max(1);
            spans.push(PackedSpan { shared: 0..0, own: common.clone() });
            rows = common.end;
            for length in behind {
                spans.push(PackedSpan { shared: common.clone(), own: rows..rows + length });
                rows += length;
            }
        }
        spans.into()
    })
}

fn run_attention(
    seed: u64,
    rows: usize,
    shape: AttentionShape,
    layouts: [Layout; 3],
    op: impl Fn(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> Run {
    run(seed, |draw, device| {
        let (q, q_leaf) = draw.matrix([rows, shape.heads * shape.head_dim], layouts[0], device);
        let (k, k_leaf) = draw.matrix([rows, shape.kv_heads * shape.head_dim], layouts[1], device);
        let (v, v_leaf) = draw.matrix([rows, shape.kv_heads * shape.head_dim], layouts[2], device);
        (vec![flat(op(q, k, v))], vec![q_leaf, k_leaf, v_leaf], None)
    })
}

type TokenLogprobs = fn(Tensor<2>, Tensor<2>, Tensor<1, Int>) -> (Tensor<1>, Tensor<1>);

fn run_logprobs(seed: u64, [rows, width, vocab]: [usize; 3], layouts: [Layout; 2], op: TokenLogprobs) -> Run {
    run(seed, |draw, device| {
        let (hidden, hidden_leaf) = draw.matrix([rows, width], layouts[0], device);
        let (head, head_leaf) = draw.matrix([vocab, width], layouts[1], device);
        let targets: Vec<i32> = (0..rows).map(|_| draw.0.random_range(0..vocab as i32)).collect();
        let targets = Tensor::from_data(TensorData::new(targets, [rows]), device);
        let (logprobs, entropies) = op(hidden, head, targets);
        (vec![logprobs, entropies], vec![hidden_leaf, head_leaf], None)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn optimizer_passes_agree_with_plain_burn(
        rows in 1usize..200, columns in 1usize..400, layout in layout(), step in 1u64..2000, seed: u64
    ) {
        let device = Device::flex();
        let mut draw = Draw::new(seed);
        let [weight, gradient, first, second] = [(); 4].map(|()| draw.matrix([rows, columns], layout, &device).0);
        let second = second.abs();
        let rule = AdamWRule { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1, learning_rate: 1e-3, step };
        let held = weight.clone();
        let plain = reference::adamw(weight.clone(), gradient.clone(), first.clone(), second.clone(), &rule);
        let fused = adamw(weight.clone(), gradient.clone(), Some((first, second)), &rule, None);
        for (plain, fused) in plain.into_iter().zip(fused) {
            plain.into_data().assert_approx_eq::<f32>(&fused.into_data(), Tolerance::absolute(2e-6));
        }
        let begun = adamw(weight.clone(), gradient.clone(), None, &rule, None);
        let zeros = gradient.zeros_like();
        let plain = reference::adamw(weight.clone(), gradient.clone(), zeros.clone(), zeros, &rule);
        for (plain, fused) in plain.into_iter().zip(begun) {
            plain.into_data().assert_approx_eq::<f32>(&fused.into_data(), Tolerance::absolute(2e-6));
        }
        let exact: f64 = gradient.clone().into_data().iter::<f64>().map(|value| value * value).sum();
        let mut sum = SquareSum::default();
        sum.add(gradient.clone());
        prop_assert!((sum.total() - exact).abs() <= 1e-9 * exact);
        let sum = (weight.clone() + gradient.clone()).into_data();
        prop_assert_eq!(add(weight.clone(), gradient.clone()).into_data(), sum);
        prop_assert_eq!(scale(gradient.clone(), 0.3).into_data(), gradient.mul_scalar(0.3).into_data());
        // A tensor that is held elsewhere is not written over.
        prop_assert_eq!(weight.into_data(), held.into_data());
    }

    #[test]
    fn swiglu_equals_its_reference(seed: u64, rows in 1usize..40, width in 1usize..40, a in layout(), b in layout()) {
        let shape = [rows, width];
        let error = difference(&run_swiglu(seed, shape, (a, b), swiglu), &run_swiglu(seed, shape, (a, b), reference::swiglu));
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn linear_equals_its_reference(
        seed: u64, rows in 1usize..40, inner in 1usize..250, outer in 1usize..250, a in layout(), b in layout()
    ) {
        let shape = [rows, inner, outer];
        let error = difference(&run_linear(seed, shape, (a, b), linear), &run_linear(seed, shape, (a, b), reference::linear));
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn adapted_linear_equals_its_reference(
        seed: u64, rows in 1usize..40, inner in 1usize..120, outer in 1usize..120, rank in 1usize..5, a in layout(), b in layout()
    ) {
        let run = |op: fn(Tensor<2>, Tensor<2>, Tensor<2>, Tensor<2>, f32) -> Tensor<2>| {
            run(seed, |draw, device| {
                let (x, x_leaf) = draw.matrix([rows, inner], a, device);
                let (weight, weight_leaf) = draw.matrix([outer, inner], b, device);
                let (low, low_leaf) = draw.matrix([rank, inner], a, device);
                let (high, high_leaf) = draw.matrix([outer, rank], b, device);
                (vec![flat(op(x, weight, low, high, 0.7))], vec![x_leaf, weight_leaf, low_leaf, high_leaf], None)
            })
        };
        let fused = |x, weight: Tensor<2>, a, b, scale| {
            let outputs = weight.dims()[0];
            adapted_linear(x, weight, a, b, scale, false, outputs)
        };
        let error = difference(&run(fused), &run(reference::adapted_linear));
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn swiglu_linear_is_linear_of_swiglu_to_the_bit(
        seed: u64, rows in 1usize..40, inner in 1usize..120, outer in 1usize..120, a in layout(), b in layout()
    ) {
        let run = |op: fn(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>| {
            run(seed, |draw, device| {
                let (gate, gate_leaf) = draw.matrix([rows, inner], a, device);
                let (up, up_leaf) = draw.matrix([rows, inner], b, device);
                let (weight, weight_leaf) = draw.matrix([outer, inner], b, device);
                (vec![flat(op(gate, up, weight))], vec![gate_leaf, up_leaf, weight_leaf], None)
            })
        };
        let apart = run(|gate, up, weight| linear(swiglu(gate, up), weight));
        prop_assert_eq!(run(swiglu_linear), apart);
    }

    #[test]
    fn rms_norm_equals_its_reference(seed: u64, rows in 1usize..300, hidden in 1usize..70, layout in layout()) {
        let shape = [rows, hidden];
        let error = difference(
            &run_rms_norm(seed, shape, layout, rms_norm),
            &run_rms_norm(seed, shape, layout, reference::rms_norm),
        );
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn rotary_equals_its_reference(
        seed: u64, batch in 1usize..4, time in 1usize..50, heads in 1usize..4, half in 1usize..20, layout in layout(),
    ) {
        let shape = [batch, time, heads, half];
        let error = difference(
            &run_rotary(seed, shape, layout, rotary),
            &run_rotary(seed, shape, layout, reference::rotary),
        );
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn attention_equals_its_reference(
        seed: u64,
        spans in spans(),
        kv_heads in 1usize..3,
        group in 1usize..3,
        head_dim in 1usize..20,
        layouts in [layout(), layout(), layout()],
    ) {
        let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim };
        let rows = spans.last().expect("a span").own.end;
        let error = difference(
            &run_attention(seed, rows, shape, layouts, |q, k, v| causal_attention(q, k, v, &spans, shape)),
            &run_attention(seed, rows, shape, layouts, |q, k, v| reference::causal_attention(q, k, v, &spans, shape)),
        );
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn token_logprobs_equal_their_reference(
        seed: u64, rows in 1usize..300, width in 1usize..20, vocab in 1usize..300, layouts in [layout(), layout()],
    ) {
        let shape = [rows, width, vocab];
        let error = difference(
            &run_logprobs(seed, shape, layouts, token_logprobs),
            &run_logprobs(seed, shape, layouts, reference::token_logprobs),
        );
        prop_assert!(error < 1e-5, "{error}");
    }
}

#[test]
fn more_rows_than_one_block_of_the_backward_pass() {
    let (shape, layouts) = ([1500, 3, 7], [Layout::Plain; 2]);
    let error = difference(
        &run_logprobs(1, shape, layouts, token_logprobs),
        &run_logprobs(1, shape, layouts, reference::token_logprobs),
    );
    assert!(error < 1e-5, "{error}");
}
