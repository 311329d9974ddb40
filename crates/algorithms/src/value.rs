//! The critic's loss.

use burn::tensor::Tensor;

use crate::batch::same_length;
use crate::{Aggregation, AlgorithmError};

/// The clipped squared error of PPO implementations: `½·max((v − R)², (clip(v, v_old ± clip) − R)²)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueLoss {
    /// How far a prediction may move from the old one; `None` is the plain squared error.
    pub clip: Option<f64>,
    /// Aggregation of the token losses; its weights go into [`ValueInputs::weights`].
    pub aggregation: Aggregation,
}

/// Results of the critic's forward pass over one micro-batch; every tensor is `[tokens]`, trained tokens only.
#[derive(Clone, Debug)]
pub struct ValueInputs {
    /// The critic's predictions, differentiable.
    pub values: Tensor<1>,
    /// Its predictions when the batch was collected.
    pub old_values: Tensor<1>,
    /// The tokens' part of [`Advantages::returns`](crate::Advantages::returns).
    pub returns: Tensor<1>,
    /// The tokens' part of [`Aggregation::weights`], computed for the whole batch.
    pub weights: Tensor<1>,
}

/// The critic's loss of one micro-batch.
#[derive(Clone, Debug)]
pub struct ValueOutput {
    /// `[1]`, differentiable.
    pub loss: Tensor<1>,
    /// Its value.
    pub vf_loss: f64,
    /// Number of tokens at which clipping took effect.
    pub clipped: f64,
    /// Number of trained tokens.
    pub tokens: usize,
}

impl ValueLoss {
    /// The loss; its parts add up over micro-batches to the full batch's.
    ///
    /// # Errors
    /// When the inputs disagree in length, are empty, or the device fails.
    pub fn loss(&self, inputs: ValueInputs) -> Result<ValueOutput, AlgorithmError> {
        let tokens = inputs.values.dims()[0];
        if tokens == 0 {
            return Err(AlgorithmError::NoTrainedTokens);
        }
        let length = |what, tensor: &Tensor<1>| same_length(what, "trained token", tensor.dims()[0], tokens);
        length("old_values", &inputs.old_values)?;
        length("returns", &inputs.returns)?;
        length("weights", &inputs.weights)?;

        let returns = inputs.returns.without_autodiff();
        let mut error = (inputs.values.clone() - returns.clone()).square();
        let mut clipped = returns.zeros_like();
        if let Some(clip) = self.clip {
            // clip(v, v_old ± c) = v_old + clip(v − v_old, ±c)
            let old = inputs.old_values.without_autodiff();
            let near = old.clone() + (inputs.values - old).clamp(-clip, clip);
            let held = (near - returns).square();
            clipped = held.clone().without_autodiff().greater(error.clone().without_autodiff()).float();
            error = error.max_pair(held);
        }
        let loss = (error * inputs.weights.without_autodiff()).sum() * 0.5;
        let sums = Tensor::cat(vec![loss.clone().without_autodiff(), clipped.sum()], 0)
            .try_into_vec_as::<f32>()
            .map_err(|error| AlgorithmError::Device { message: error.to_string() })?;
        let sum = |index: usize| sums.get(index).copied().map_or(f64::NAN, f64::from);
        Ok(ValueOutput { loss, vf_loss: sum(0), clipped: sum(1), tokens })
    }
}
