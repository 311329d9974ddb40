//! Same bits for any number of threads, frozen inputs, and inputs that are refused.

mod common;

use std::sync::Arc;

use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor};
use zerosearch_kernels::{AttentionShape, PackedSpan, add, causal_attention, rms_norm, swiglu, token_logprobs};

use self::common::{bits_of_everything, leaf};

/// A sequence of so many rows.
fn sequence(rows: usize) -> Arc<[PackedSpan]> {
    [PackedSpan { shared: 0..0, own: 0..rows }].into()
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(bits_of_everything)
    };
    let one = with_threads(1);
    assert!(one.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()));
    assert_eq!(one, with_threads(2));
    assert_eq!(one, with_threads(5));
}

#[test]
fn a_frozen_input_gets_no_gradient_and_the_other_its_own() {
    let device = Device::flex().autodiff();
    let hidden = leaf(20, 8, &device);
    let head = leaf(30, 8, &device);
    let targets = Tensor::<1, Int>::arange(0..20, &device);
    let both = token_logprobs(hidden.clone(), head.clone(), targets.clone()).0.sum().backward();
    let frozen = token_logprobs(hidden.clone(), head.clone().detach(), targets.clone()).0.sum().backward();
    assert_eq!(hidden.grad(&both).map(Tensor::into_data), hidden.grad(&frozen).map(Tensor::into_data));
    let frozen = token_logprobs(hidden.clone().detach(), head.clone(), targets).0.sum().backward();
    assert_eq!(head.grad(&both).map(Tensor::into_data), head.grad(&frozen).map(Tensor::into_data));
    assert!(hidden.grad(&frozen).is_none());
}

#[test]
fn a_weight_without_autodiff_is_a_constant() {
    let device = Device::flex().autodiff();
    let x = leaf(4, 8, &device);
    let weight = Tensor::<1>::ones([8], &Device::flex());
    let gradients = rms_norm(x.clone(), weight, 1e-6).sum().backward();
    assert_eq!(x.grad(&gradients).map(|gradient| gradient.dims()), Some([4, 8]));
}

#[test]
fn a_tensor_used_twice_gets_both_gradients() {
    let device = Device::flex().autodiff();
    let x = leaf(4, 8, &device);
    let fused = swiglu(x.clone(), x.clone()).sum().backward();
    let plain = zerosearch_kernels::reference::swiglu(x.clone(), x.clone()).sum().backward();
    let (fused, plain) = (x.grad(&fused).expect("a gradient"), x.grad(&plain).expect("a gradient"));
    assert!((fused - plain).abs().max().into_scalar::<f32>() < 1e-6);
}

#[test]
fn other_float_types_take_the_reference() {
    let device = Device::flex();
    let x = Tensor::<2>::random([3, 4], Distribution::Default, &device).cast(burn::tensor::FloatDType::F64);
    assert_eq!(swiglu(x.clone(), x).dtype(), burn::tensor::DType::F64);
}

#[test]
fn large_scores_do_not_overflow() {
    let device = Device::flex();
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 4 };
    let x = Tensor::<2>::ones([3, 4], &device);
    let output = causal_attention(x.clone() * 1e4, x.clone() * 1e4, x.clone(), &sequence(3), shape);
    assert!((output - x.clone()).abs().max().into_scalar::<f32>() < 1e-6);
    let (logprobs, entropies) = token_logprobs(x.clone() * 1e4, x * 1e4, Tensor::from_data([0, 1, 2], &device));
    assert!((logprobs + 3.0f32.ln()).abs().max().into_scalar::<f32>() < 1e-6);
    assert!((entropies - 3.0f32.ln()).abs().max().into_scalar::<f32>() < 1e-6);
}

#[test]
#[should_panic(expected = "target 30 is not a token of a vocabulary of 30")]
fn a_target_outside_the_vocabulary_is_refused() {
    let device = Device::flex();
    let _ =
        token_logprobs(Tensor::ones([1, 2], &device), Tensor::ones([30, 2], &device), Tensor::from_data([30], &device));
}

#[test]
#[should_panic(expected = "causal_attention: expected q [6, 8]")]
fn attention_refuses_a_wrong_shape() {
    let x = Tensor::<2>::ones([6, 4], &Device::flex());
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 4 };
    let _ = causal_attention(x.clone(), x.clone(), x, &sequence(6), shape);
}

#[test]
#[should_panic(expected = "causal_attention: after 3 rows the next span cannot be rows 3..6 behind 0..4")]
fn attention_refuses_spans_that_share_what_comes_later() {
    let x = Tensor::<2>::ones([6, 4], &Device::flex());
    let spans = [(0..0, 0..3), (0..4, 3..6)].map(|(shared, own)| PackedSpan { shared, own });
    let _ =
        causal_attention(x.clone(), x.clone(), x, &spans.into(), AttentionShape { heads: 1, kv_heads: 1, head_dim: 4 });
}

#[test]
#[should_panic(expected = "expected 32-bit floats, got F64")]
fn a_gradient_of_another_format_is_not_left_out_of_a_sum() {
    let x = Tensor::<1>::ones([3], &Device::flex());
    let _ = add(x.clone(), x.cast(FloatDType::F64));
}
