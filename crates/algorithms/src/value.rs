//! The critic's loss.

use burn::tensor::Tensor;

use crate::batch::same_length;
use crate::loss::read;
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
    /// Its part of the full batch's metrics.
    pub sums: ValueSums,
}

/// The sums behind [`ValueMetrics`], on the loss's device until they are read.
#[derive(Clone, Debug)]
pub struct ValueSums {
    /// `[2]`, in the order of the metrics.
    values: Tensor<1>,
    tokens: usize,
}

/// Sums that add up over micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ValueMetrics {
    /// The whole loss.
    pub vf_loss: f64,
    /// Number of tokens at which clipping took effect.
    pub clipped: f64,
    /// Number of trained tokens.
    pub tokens: usize,
}

impl ValueSums {
    /// The metrics of one micro-batch.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(self) -> Result<ValueMetrics, AlgorithmError> {
        Self::read_all(vec![self])
    }

    /// The metrics of all micro-batches of one device, which is waited for once.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read_all(sums: Vec<Self>) -> Result<ValueMetrics, AlgorithmError> {
        let mut total = ValueMetrics { tokens: sums.iter().map(|sums| sums.tokens).sum(), ..ValueMetrics::default() };
        for [vf_loss, clipped] in read(sums.into_iter().map(|sums| sums.values).collect())? {
            total.vf_loss += vf_loss;
            total.clipped += clipped;
        }
        Ok(total)
    }
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
        let sums = Tensor::cat(vec![loss.clone().without_autodiff(), clipped.sum()], 0);
        Ok(ValueOutput { loss, sums: ValueSums { values: sums, tokens } })
    }
}
