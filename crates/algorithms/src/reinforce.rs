//! REINFORCE (Williams 1992): the reward, less a baseline, times `∇log π`.

use serde::{Deserialize, Serialize};

use crate::advantage::mean;
use crate::error::require;
use crate::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Clip, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};

/// `A = r − b` for every token of a sequence; the loss of a token is `−A·log π_θ`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reinforce {
    /// Baseline that is subtracted from the reward.
    pub baseline: Baseline,
    /// With a clip the loss is PPO's surrogate, whose gradient is the same in the first update of a batch and which
    /// corrects the later ones for stale samples. Absent by default: one update for each batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term.
    pub kl: Kl,
    /// How much entropy is rewarded.
    pub entropy_coefficient: f64,
    /// The running baseline after the batches seen so far, `None` before the first. It is saved with
    /// checkpoints ([`Algorithm::state`]) and is no part of a configuration.
    #[serde(skip)]
    pub running_mean: Option<f64>,
}

/// Baselines of REINFORCE, subtracted from the reward. None of them changes the gradient's direction in expectation.
///
/// In a configuration file: `"none"`, `"batch_mean"` or `{ running = { decay = 0.9 } }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Baseline {
    /// Nothing: the return itself.
    None,
    /// An exponential moving average of *earlier* batches' mean rewards, 0 before the first. It does not
    /// depend on the present batch, so it adds no bias.
    Running {
        /// The share of the old average that an update keeps, 0 to below 1.
        decay: f64,
    },
    /// The mean reward of the batch, the sequence itself included (which scales the gradient by 1 − 1/n).
    BatchMean,
}

impl Default for Reinforce {
    fn default() -> Self {
        Self {
            baseline: Baseline::None,
            clip: None,
            aggregation: Aggregation::TokenMean,
            kl: Kl::default(),
            entropy_coefficient: 0.001,
            running_mean: None,
        }
    }
}

impl Algorithm for Reinforce {
    fn name(&self) -> &'static str {
        "reinforce"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let scores = batch.scores();
        let batch_mean = mean(&scores);
        let baseline = match self.baseline {
            Baseline::None => 0.0,
            Baseline::BatchMean => batch_mean,
            Baseline::Running { decay } => {
                let before = self.running_mean;
                self.running_mean = Some(before.map_or(batch_mean, |old| decay * old + (1.0 - decay) * batch_mean));
                before.unwrap_or(0.0)
            }
        };
        let advantages: Vec<f64> = scores.iter().map(|score| score - baseline).collect();
        Ok(Advantages::from_sequences(batch, &advantages))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        match self.clip {
            Some(clip) => clip.surrogate(inputs.ratio(), inputs.advantages()),
            None => TokenLoss::unclipped(-inputs.advantages() * inputs.logprobs.clone()),
        }
    }

    fn terms(&self) -> LossTerms {
        LossTerms { aggregation: self.aggregation, kl: self.kl, entropy_coefficient: self.entropy_coefficient }
    }

    fn state(&self) -> Vec<f64> {
        self.running_mean.into_iter().collect()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), AlgorithmError> {
        self.running_mean = match (state, self.baseline) {
            ([], _) => None,
            ([mean], Baseline::Running { .. }) => Some(*mean),
            _ => return Err(AlgorithmError::State { algorithm: self.name(), found: state.len() }),
        };
        Ok(())
    }

    fn validate(&self) -> Result<(), AlgorithmError> {
        self.terms().validate(self.name())?;
        if let Baseline::Running { decay } = self.baseline {
            require(self.name(), "baseline.running.decay", decay, (0.0..1.0).contains(&decay), "0 to below 1")?;
        }
        self.clip.map_or(Ok(()), |clip| clip.validate(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_gets_its_sequences_reward() {
        let batch = RewardBatch::new(&[1.0, -0.5], &[0, 1], &[1, 2]).unwrap();
        let out = Reinforce::default().advantages(&batch).unwrap();
        assert_eq!(out.advantages, [1.0, -0.5, -0.5]);
        assert_eq!(out.returns, out.advantages);
    }

    #[test]
    fn the_running_baseline_knows_earlier_batches_only_and_survives_a_resume() {
        let baseline = Baseline::Running { decay: 0.5 };
        let mut algorithm = Reinforce { baseline, ..Default::default() };
        let step = |algorithm: &mut Reinforce, rewards: &[f32]| {
            algorithm.advantages(&RewardBatch::new(rewards, &[0, 1], &[1, 1]).unwrap()).unwrap().advantages
        };
        assert_eq!(step(&mut algorithm, &[1.0, 3.0]), [1.0, 3.0]);
        assert_eq!(step(&mut algorithm, &[4.0, 0.0]), [2.0, -2.0]);
        let mut resumed = Reinforce { baseline, ..Default::default() };
        resumed.restore(&algorithm.state()).unwrap();
        assert_eq!(step(&mut resumed, &[0.0, 0.0]), step(&mut algorithm, &[0.0, 0.0]));
        assert!(Reinforce::default().restore(&[1.0]).is_err());
    }

    #[test]
    fn the_batch_mean_is_subtracted() {
        let mut algorithm = Reinforce { baseline: Baseline::BatchMean, ..Default::default() };
        let batch = RewardBatch::new(&[1.0, 0.0, 0.0, 3.0], &[0, 1, 2, 3], &[1; 4]).unwrap();
        assert_eq!(algorithm.advantages(&batch).unwrap().advantages, [0.0, -1.0, -1.0, 2.0]);
    }
}
