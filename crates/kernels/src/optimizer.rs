//! Element-wise updates of an optimizer: one pass over the memory, in place where nothing else holds the tensor.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::buffer::is_cpu_f32;
#[cfg(feature = "cube")]
pub use crate::cube::WeightCopy;
#[cfg(feature = "cube")]
use crate::cube::training;
use crate::reference;
use crate::vector::vectorised;

/// Elements of one task.
const TASK: usize = 1 << 15;

/// One step of AdamW (Loshchilov and Hutter, 2019, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWRule {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Steps done with this one, from 1: what the moments are corrected by.
    pub step: u64,
}

impl AdamWRule {
    /// `1 - beta^step` of both moments.
    pub(crate) fn corrections(&self) -> (f64, f64) {
        let power = |beta: f64| 1.0 - beta.powf(self.step as f64);
        (power(self.beta1), power(self.beta2))
    }
}

/// A generator's copy of a weight, which only a GPU has.
#[cfg(not(feature = "cube"))]
#[derive(Clone, Debug)]
pub enum WeightCopy {}

/// The updated weight and its two moments, which are zero where there are none yet. On a GPU the updated weight also goes to `copy`,
/// in the type and the order of that.
///
/// # Panics
///
/// If the weight is of 32-bit floats on the CPU and another tensor is not, or `copy` is not one of a weight of this size on the
/// same GPU.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    moments: Option<(Tensor<D>, Tensor<D>)>,
    rule: &AdamWRule,
    copy: Option<&WeightCopy>,
) -> [Tensor<D>; 3] {
    let (first, second) = moments.unwrap_or_else(|| (gradient.zeros_like(), gradient.zeros_like()));
    #[cfg(feature = "cube")]
    if training::takes([&weight, &gradient, &first, &second]) {
        let elements = weight.shape().num_elements();
        assert!(copy.is_none_or(|copy| copy.elements() == elements), "adamw: a copy of another weight");
        return training::adamw([weight, gradient, first, second], rule, copy);
    }
    assert!(copy.is_none(), "adamw: only a GPU has copies of a weight");
    if !is_cpu_f32(&weight) {
        return reference::adamw(weight, gradient, first, second, rule);
    }
    let shape = weight.shape();
    let device = weight.device();
    let gradient = values(gradient);
    let (mut weight, mut first, mut second) = (values(weight), values(first), values(second));
    let (correct1, correct2) = rule.corrections();
    let [beta1, beta2, epsilon] = [rule.beta1, rule.beta2, rule.epsilon].map(|value| value as f32);
    let (rest1, rest2) = ((1.0 - rule.beta1) as f32, (1.0 - rule.beta2) as f32);
    let kept = (1.0 - rule.learning_rate * rule.weight_decay) as f32;
    let (rate, inverse2) = ((rule.learning_rate / correct1) as f32, (1.0 / correct2) as f32);
    let tasks = weight.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK));
    tasks.zip(first.par_chunks_mut(TASK).zip(second.par_chunks_mut(TASK))).for_each(
        |((weight, gradient), (first, second))| {
            vectorised(
                #[inline(always)]
                || {
                    let moments = first.iter_mut().zip(second);
                    for ((weight, gradient), (first, second)) in weight.iter_mut().zip(gradient).zip(moments) {
                        *first = beta1 * *first + rest1 * gradient;
                        *second = beta2 * *second + rest2 * (gradient * gradient);
                        *weight = *weight * kept - rate * *first / ((*second * inverse2).sqrt() + epsilon);
                    }
                },
            );
        },
    );
    [weight, first, second].map(|values| Tensor::from_data(TensorData::new(values, shape.clone()), &device))
}

/// `a + b`.
///
/// # Panics
///
/// If `a` is of 32-bit floats on the CPU and `b` is not.
pub fn add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    if !is_cpu_f32(&a) {
        return a + b;
    }
    let b = values(b);
    in_place(a, |start, a| a.iter_mut().zip(&b[start..]).for_each(|(a, b)| *a += b))
}

/// `factor · x`.
pub fn scale<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    if !is_cpu_f32(&x) {
        return x.mul_scalar(factor);
    }
    let factor = factor as f32;
    in_place(x, |_, x| x.iter_mut().for_each(|value| *value *= factor))
}

/// The sum of the squares of several tensors. On the CPU squares are added up in 64 bits; from a GPU the sums of all tensors are
/// copied together.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use zerosearch_kernels::SquareSum;
///
/// let device = Device::flex();
/// let mut sum = SquareSum::default();
/// sum.add(Tensor::<1>::from_floats([3.0], &device));
/// sum.add(Tensor::<2>::from_floats([[4.0]], &device));
/// assert_eq!(sum.total().sqrt(), 5.0);
/// ```
#[derive(Debug, Default)]
pub struct SquareSum {
    sum: f64,
    #[cfg(feature = "cube")]
    on_gpu: Vec<training::GpuTensor>,
}

impl SquareSum {
    /// Adds the squares of a tensor.
    pub fn add<const D: usize>(&mut self, x: Tensor<D>) {
        #[cfg(feature = "cube")]
        if D <= 2 && training::is_gpu(&x) {
            // Of a tensor on a GPU there is always such a one.
            self.on_gpu.extend(x.without_autodiff().try_into_primitive::<burn::backend::Cube>());
            return;
        }
        self.sum += square_sum(x);
    }

    /// The sum so far. All tensors are on one GPU, or none is.
    pub fn total(self) -> f64 {
        #[cfg(feature = "cube")]
        if !self.on_gpu.is_empty() {
            return self.sum + training::square_sum(self.on_gpu);
        }
        self.sum
    }
}

fn square_sum<const D: usize>(x: Tensor<D>) -> f64 {
    if !is_cpu_f32(&x) {
        return f64::from(x.square().sum().into_scalar::<f32>());
    }
    let x = x.into_data();
    let Ok(x) = x.as_slice::<f32>() else { return f64::NAN };
    // The parts' sums are added in order, so that the number of threads changes nothing.
    let sums: Vec<f64> = x
        .par_chunks(TASK)
        .map(|x| {
            vectorised(
                #[inline(always)]
                || {
                    let mut lanes = [0f64; 16];
                    for x in x.chunks(lanes.len()) {
                        lanes.iter_mut().zip(x).for_each(|(lane, value)| *lane += f64::from(*value).powi(2));
                    }
                    lanes.iter().sum()
                },
            )
        })
        .collect();
    sums.iter().sum()
}

fn in_place<const D: usize>(x: Tensor<D>, work: impl Fn(usize, &mut [f32]) + Sync) -> Tensor<D> {
    let (shape, device) = (x.shape(), x.device());
    let mut x = values(x);
    x.par_chunks_mut(TASK).enumerate().for_each(|(task, x)| {
        vectorised(
            #[inline(always)]
            || work(task * TASK, x),
        );
    });
    Tensor::from_data(TensorData::new(x, shape), &device)
}

/// The elements in order; not copied where the tensor is contiguous and the only one over its memory.
fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    let dtype = x.dtype();
    match x.into_data().try_into_vec() {
        Ok(values) => values,
        Err(_) => panic!("expected 32-bit floats, got {dtype:?}; cast all inputs of the operation to f32"),
    }
}
