//! The interface between a trainer and an algorithm.

use std::fmt::Debug;

use crate::error::require;
use crate::{Advantages, AlgorithmError, LossInputs, LossOutput, LossTerms, RewardBatch, TokenLoss, ValueLoss};

/// A way to turn rewards into a gradient.
///
/// A step is: [`advantages`](Self::advantages) once for the whole batch of rollouts, then
/// [`loss`](Self::loss) once for each micro-batch. The forward pass, the optimizer and the split
/// into micro-batches are the trainer's.
///
/// An implementation writes `name`, `advantages`, `token_loss` and `terms`; the rest has defaults.
pub trait Algorithm: Debug + Send + Sync {
    /// Its name in configurations and messages.
    fn name(&self) -> &'static str;

    /// One advantage per trained token.
    ///
    /// # Errors
    /// When a group is too small for the estimator or an input is missing.
    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError>;

    /// The policy-gradient loss of each trained token, without the terms.
    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss;

    /// KL and entropy terms of the loss, and the aggregation of token losses.
    fn terms(&self) -> LossTerms;

    /// The loss of a micro-batch: `Σ weight·(pg + β·kl − c·entropy)`.
    ///
    /// # Errors
    /// When the inputs disagree in length, one that a term needs is missing, or the device fails.
    fn loss(&self, inputs: LossInputs) -> Result<LossOutput, AlgorithmError> {
        let terms = self.terms();
        inputs.validate(self.name(), &terms)?;
        let token = self.token_loss(&inputs);
        inputs.reduce(token, &terms)
    }

    /// The fewest samples of one question that the estimator can work with.
    fn min_group_size(&self) -> usize {
        1
    }

    /// The critic's loss; an algorithm that has one needs [`RewardBatch::with_values`].
    fn value_loss(&self) -> Option<ValueLoss> {
        None
    }

    /// Whether each question is also answered greedily, for [`RewardBatch::with_baselines`].
    fn greedy_baseline(&self) -> bool {
        false
    }

    /// Whether groups with equal rewards are to be replaced by further questions before the update.
    fn dynamic_sampling(&self) -> bool {
        false
    }

    /// State to save with a checkpoint; most algorithms have none.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Takes back what [`state`](Self::state) returned.
    ///
    /// # Errors
    /// When another algorithm or configuration saved it.
    fn restore(&mut self, state: &[f64]) -> Result<(), AlgorithmError> {
        if state.is_empty() {
            Ok(())
        } else {
            Err(AlgorithmError::State { algorithm: self.name(), found: state.len() })
        }
    }

    /// Refuses hyper-parameters outside their range; an implementation that has others checks them
    /// beside [`LossTerms::validate`].
    ///
    /// # Errors
    /// Names the parameter, its value and its range.
    fn validate(&self) -> Result<(), AlgorithmError> {
        self.terms().validate(self.name())
    }
}

impl LossTerms {
    /// Refuses terms outside their range, in the name of `algorithm`.
    ///
    /// # Errors
    /// Names the parameter, its value and its range.
    pub fn validate(&self, algorithm: &'static str) -> Result<(), AlgorithmError> {
        self.aggregation.validate(algorithm)?;
        self.kl.validate(algorithm)?;
        let c = self.entropy_coefficient;
        require(algorithm, "entropy_coefficient", c, c >= 0.0 && c.is_finite(), "0 or more: entropy is rewarded")
    }
}
