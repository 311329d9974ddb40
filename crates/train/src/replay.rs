//! Recorded rollouts once more, for debugging and for scoring them anew: nothing is generated, nothing is searched.

use zerosearch_algorithms::Algorithm;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_metrics::Metrics;
use zerosearch_reward::RewardFn;
use zerosearch_rollout::Rollout;

use crate::batch::TrainBatch;
use crate::collection::Collection;
use crate::collector::Collector;
use crate::{Experience, Sample, StepReport, TrainError, Trainer};

/// The rewards of recorded rollouts by `reward`, and the advantages that `algorithm` makes of them.
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
    // All formats that a run can be configured with have the same tags.
    let format = EpisodeFormat::default();
    let mut rescored = Vec::with_capacity(samples.len());
    for step in samples.chunk_by(|a, b| a.step == b.step) {
        let rollouts = step.iter().map(|sample| sample.rollout.clone()).collect();
        let collection = Collection::recorded(rollouts, reward, &format, algorithm.dynamic_sampling())?;
        let kept: Vec<&Experience> = collection.experiences.iter().filter(|experience| experience.kept).collect();
        let batch = TrainBatch::new(&kept);
        let tokens = if kept.is_empty() { Vec::new() } else { algorithm.advantages(&batch.rewards()?)?.advantages };
        let mut rows = batch.rows(&tokens);
        let of = |experience: &Experience| experience.kept.then(|| rows.next()).flatten().unwrap_or_default().to_vec();
        let advantages = collection.experiences.iter().map(of).collect();
        rescored.extend(Sample::of_step(step[0].step, collection, advantages));
    }
    Ok(rescored)
}

impl Trainer {
    /// A step on recorded rollouts of one batch: rewards, advantages and update as in [`next_step`](Self::next_step), and no
    /// generator or engine is asked. From the state before a step and with all of its rollouts, the update is that step's,
    /// to the bit. There is no validation, the curriculum hears of nothing, and nothing is written.
    ///
    /// # Errors
    /// When the algorithm needs greedy rollouts, which are not recorded, or a loss or gradient is not finite.
    pub fn replay(&mut self, rollouts: Vec<Rollout>) -> Result<StepReport, TrainError> {
        self.refuse_broken()?;
        let mut metrics = Metrics::new();
        let Collector { reward, format, dynamic_sampling, .. } = &self.collector;
        let collection = Collection::recorded(rollouts, reward.as_ref(), format, *dynamic_sampling)?;
        self.collector.sleep()?;
        self.is_broken = true;
        let advantages = self.updater.learn(self.step, &collection.experiences, &mut metrics)?;
        self.is_broken = false;
        collection.score_metrics(&mut metrics);
        self.step += 1;
        Ok(StepReport { step: self.step, metrics, samples: Sample::of_step(self.step, collection, advantages) })
    }
}
