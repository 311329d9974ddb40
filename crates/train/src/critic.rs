//! The value of a state: a decoder of its own with one output instead of a vocabulary.

use burn::tensor::Tensor;
use zerosearch_lm::{Decoder, HostTensor, HostWeights, LanguageModel, ScoredSequence, Weight};

/// The name of the output layer among the critic's weights, `[1, hidden]`.
pub(crate) const VALUE_HEAD: &str = "value_head.weight";

/// Starts as the policy with an output of zero everywhere, as is usual.
pub(crate) fn initial_weights(policy: &LanguageModel) -> HostWeights {
    let mut weights = HostWeights::clone(&policy.weights);
    let width = policy.config.hidden_size;
    weights.insert(VALUE_HEAD, HostTensor { shape: vec![1, width], values: vec![0.0; width] });
    weights
}

/// The value of the state before each scored token, `[n]`.
pub(crate) fn values(critic: &Decoder, sequences: &[ScoredSequence<'_>]) -> Tensor<1> {
    let features = critic.features(sequences);
    let rows = features.dims()[0];
    match critic.weights().get(VALUE_HEAD) {
        Some(Weight::Matrix(head)) => features.matmul(head.clone().transpose()).reshape([rows]),
        _ => features.sum_dim(1).mul_scalar(0.0).reshape([rows]),
    }
}
