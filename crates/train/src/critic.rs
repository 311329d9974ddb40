//! The value of a state: a decoder of its own with one output instead of a vocabulary.

use burn::tensor::{FloatDType, Tensor};
use zerosearch_lm::{Decoder, HostTensor, HostWeights, LanguageModel, Weight};

/// The name of the output layer among the critic's weights, `[1, hidden]`.
pub(crate) const VALUE_HEAD: &str = "value_head.weight";

/// Starts as the policy with an output of zero everywhere, as is usual.
pub(crate) fn initial_weights(policy: &LanguageModel) -> HostWeights {
    let mut weights = HostWeights::clone(&policy.weights);
    let width = policy.config.hidden_size;
    weights.insert(VALUE_HEAD, HostTensor { shape: vec![1, width], values: vec![0.0; width] });
    weights
}

/// The values of states, `[n]`, by their features `[n, hidden]`.
pub(crate) fn values(critic: &Decoder, features: Tensor<2>) -> Tensor<1> {
    let rows = features.dims()[0];
    match critic.extra(VALUE_HEAD) {
        Some(Weight::Matrix(head)) => {
            let features = if features.dtype() == head.dtype() { features } else { features.cast(FloatDType::F32) };
            features.matmul(head.clone().transpose()).reshape([rows])
        }
        _ => features.sum_dim(1).mul_scalar(0.0).reshape([rows]),
    }
}
