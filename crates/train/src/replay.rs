//! Recorded rollouts once more, for debugging and for scoring them anew: nothing is generated, nothing is searched.

use zerosearch_algorithms::Algorithm;
use zerosearch_metrics::Metrics;
use zerosearch_reward::RewardFn;
use zerosearch_rollout::Rollout;

use crate::collection::Collected;
use crate::update::Rewarded;
use crate::{Sample, StepReport, TrainError, Trainer};

/// What recorded rollouts earn from `reward`, and the advantages that `algorithm` makes of it.
///
/// The rollouts of a step are one batch, those of one of its questions a group; steps are taken as they come, which
/// matters to an algorithm that remembers earlier ones. With the reward and the algorithm of the run, and all rollouts
/// of a step (or, where only groups are compared, all of a group), the result is what was recorded, to the bit, save that
/// a rollout whose loss was masked has its advantages here. A penalty in the reward (`kl_reward`) is not paid: it takes a
/// reference model, as [`Trainer::replay`] has one.
///
/// # Errors
/// When the algorithm needs what is not recorded: a critic's values, greedy rollouts.
pub fn rescore(
    samples: &[Sample],
    reward: &dyn RewardFn,
    algorithm: &mut dyn Algorithm,
) -> Result<Vec<Sample>, TrainError> {
    let mut rescored = Vec::with_capacity(samples.len());
    for step in samples.chunk_by(|a, b| a.step == b.step) {
        let rollouts = step.iter().map(|sample| sample.rollout.clone()).collect();
        let collected = Collected::recorded(rollouts, reward, algorithm.dynamic_sampling())?;
        let rewarded = Rewarded::of(&collected);
        let lengths: Vec<usize> = rewarded.rollouts.iter().map(|r| r.trajectory.mask().trained()).collect();
        let mut advantages = Vec::new().into_iter();
        if !lengths.is_empty() {
            advantages = algorithm.advantages(&rewarded.batch(&lengths)?)?.advantages.into_iter();
        }
        let mut lengths = lengths.into_iter();
        let Collected { rollouts, rewards, kept, .. } = &collected;
        for ((rollout, reward), kept) in rollouts.iter().zip(rewards).zip(kept) {
            let length = if *kept { lengths.next().unwrap_or(0) } else { 0 };
            let advantages = advantages.by_ref().take(length).collect();
            rescored.push(Sample { step: step[0].step, reward: *reward, advantages, rollout: rollout.clone() });
        }
    }
    Ok(rescored)
}

impl Trainer<'_> {
    /// A step on recorded rollouts of one batch: rewards, advantages and update as in [`step`](Self::step), and no
    /// generator or engine is asked. From the state before a step and with all of its rollouts, the update is that step's,
    /// to the bit. There is no validation, and the curriculum hears of nothing.
    ///
    /// # Errors
    /// When the algorithm needs greedy rollouts, which are not recorded, or a loss or gradient is not finite.
    pub fn replay(&mut self, rollouts: Vec<Rollout>) -> Result<StepReport, TrainError> {
        let mut metrics = Metrics::new();
        let collected = Collected::recorded(rollouts, self.parts.reward, self.algorithm.dynamic_sampling())?;
        self.generator.release_weights();
        let (_, _, mut update) = self.split(self.step);
        let learnt = update.learn(&collected, &mut metrics);
        if learnt.is_err() {
            self.refit()?;
        }
        let advantages = learnt?;
        metrics.summary("critic/score", &collected.rewards);
        self.step += 1;
        self.refit()?;
        let Collected { rollouts, rewards, .. } = collected;
        Ok(StepReport { step: self.step, metrics, rollouts, rewards, advantages })
    }
}
