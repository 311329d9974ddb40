//! The rollouts of one step with their rewards, and what they say about the step.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zerosearch_algorithms::RewardBatch;
use zerosearch_generate::{Role, Usage, WeightVersion};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_metrics::Metrics;
use zerosearch_reward::RewardFn;
use zerosearch_rollout::{Rollout, RolloutStats, RolloutTimes};
use zerosearch_search::Quality;

use crate::{Experience, TrainError};

/// Everything that a step learns from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Collection {
    pub(crate) experiences: Vec<Experience>,
    /// How many times questions were asked to fill the step.
    pub(crate) gen_batches: usize,
    pub(crate) noise_probability: f64,
    /// The most bytes that the caches of live sequences held meanwhile.
    pub(crate) cache_peak_bytes: u64,
    /// Tokens whose cache the generator gave up meanwhile.
    pub(crate) cache_evicted: u64,
    pub(crate) seconds: f64,
    /// Those seconds, by activity.
    #[serde(default)]
    pub(crate) times: RolloutTimes,
    /// By how much the counters of generator and engine grew meanwhile.
    #[serde(default)]
    pub(crate) counters: BTreeMap<String, f64>,
    /// Usage of each role meanwhile; absent in checkpoints of earlier versions.
    #[serde(default)]
    pub(crate) usage: BTreeMap<Role, Usage>,
}

impl Collection {
    /// Recorded rollouts with the rewards that `reward` gives them.
    pub(crate) fn recorded(
        rollouts: Vec<Rollout>,
        reward: &dyn RewardFn,
        format: &EpisodeFormat,
        dynamic_sampling: bool,
    ) -> Result<Self, TrainError> {
        let experiences = rollouts.into_iter().map(|rollout| Experience::new(rollout, reward, format)).collect();
        let mut collection = Self { experiences, ..Self::default() };
        if dynamic_sampling {
            collection.keep_informative()?;
        }
        Ok(collection)
    }

    /// Leaves out the groups whose rewards are all equal; returns the number of groups that are left.
    pub(crate) fn keep_informative(&mut self) -> Result<u64, TrainError> {
        let lengths: Vec<usize> = self.rollouts().map(|rollout| rollout.trajectory.mask().trained()).collect();
        let groups: Vec<usize> = self.rollouts().map(|rollout| rollout.question_index as usize).collect();
        let informative = RewardBatch::new(&self.rewards(), &groups, &lengths)?.informative();
        self.experiences.iter_mut().zip(informative).for_each(|(experience, kept)| experience.kept &= kept);
        Ok(self.kept_groups().len() as u64)
    }

    pub(crate) fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        self.experiences.iter().map(|experience| &experience.rollout)
    }

    fn rewards(&self) -> Vec<f32> {
        self.experiences.iter().map(|experience| experience.reward).collect()
    }

    fn kept_groups(&self) -> BTreeSet<u64> {
        let kept = self.experiences.iter().filter(|experience| experience.kept);
        kept.map(|experience| experience.rollout.question_index).collect()
    }

    /// The mean of all rewards, those of groups that are left out included.
    pub(crate) fn mean_reward(&self) -> f64 {
        let rewards = self.experiences.iter().map(|experience| f64::from(experience.reward));
        rewards.sum::<f64>() / self.experiences.len() as f64
    }

    /// How many updates older than `present` the weights were that sampled a token, on average; 0 without tokens.
    fn staleness(&self, present: WeightVersion) -> f64 {
        let turns = self.rollouts().flat_map(|rollout| rollout.trajectory.versions());
        let updates: f64 = turns.map(|(version, tokens)| (present.0 - version.0) as f64 * tokens as f64).sum();
        updates / self.sampled_tokens().max(1) as f64
    }

    /// Tokens that the policy sampled, without those of greedy rollouts.
    fn sampled_tokens(&self) -> usize {
        self.rollouts().map(|rollout| rollout.trajectory.mask().trained()).sum()
    }

    /// The rewards of recorded rollouts, which have no other figures.
    pub(crate) fn score_metrics(&self, metrics: &mut Metrics) {
        metrics.summary("critic/score", &self.rewards());
    }

    /// The mean rewards of the rollouts whose documents were all useful, and of those that were given noisy ones: a reward that falls
    /// because noise rises is not one that falls. Rollouts without a search belong to neither.
    fn score_by_noise(&self, metrics: &mut Metrics) {
        let mut sums = [(0.0, 0.0); 2];
        for Experience { rollout, reward, .. } in &self.experiences {
            let mut qualities = rollout.calls().filter_map(|call| call.quality).peekable();
            if qualities.peek().is_some() {
                let (sum, count) = &mut sums[usize::from(qualities.any(|quality| quality == Quality::Noisy))];
                *sum += f64::from(*reward);
                *count += 1.0;
            }
        }
        for (name, (sum, count)) in ["critic/score/useful", "critic/score/noisy"].into_iter().zip(sums) {
            if count > 0.0 {
                metrics.insert(name, sum / count);
            }
        }
    }

    /// The figures of a step's rollouts, which an update learns from that begins with the weights `present`.
    pub(crate) fn metrics(&self, present: WeightVersion, metrics: &mut Metrics) {
        self.score_metrics(metrics);
        self.score_by_noise(metrics);
        metrics.insert("rollout/staleness", self.staleness(present));
        metrics.insert("curriculum/noise_probability", self.noise_probability);
        metrics.extend(RolloutStats::of(self.rollouts()).metrics());
        metrics.insert("rollout/kv_cache_peak_mb", self.cache_peak_bytes as f64 / 1e6);
        metrics.insert("rollout/kv_cache_evicted", self.cache_evicted as f64);
        metrics.insert("rollout/tokens_per_s", self.sampled_tokens() as f64 / self.seconds);
        metrics.insert("rollout/idle_share", self.times.idle_share());
        metrics.insert("timing_s/rollout", self.seconds);
        metrics.insert("timing_s/decoding", self.times.decoding_s);
        metrics.insert("timing_s/search_wait", self.times.waiting_s);
        metrics.insert("timing_s/search", self.times.searching_s);
        self.counters.iter().for_each(|(name, grown)| metrics.insert(name, *grown));
        for (role, usage) in &self.usage {
            let name = role.name();
            metrics.insert(format!("cost/{name}_calls"), usage.calls as f64);
            metrics.insert(format!("cost/{name}_failures"), usage.failures as f64);
            metrics.insert(format!("cost/{name}_cache_hits"), usage.cache_hits as f64);
            metrics.insert(format!("cost/{name}_tokens_in"), usage.tokens_in as f64);
            metrics.insert(format!("cost/{name}_tokens_out"), usage.tokens_out as f64);
            metrics.insert(format!("timing_s/{name}"), usage.device_seconds);
        }
    }

    /// How dynamic sampling filled the step. A place is given up when no question was found for it.
    pub(crate) fn sampling_metrics(&self, questions_per_step: u64, metrics: &mut Metrics) {
        let kept = self.kept_groups();
        let asked: BTreeSet<u64> = self.rollouts().map(|rollout| rollout.question_index).collect();
        let refilled = kept.iter().filter(|slot| **slot >= questions_per_step).count();
        metrics.insert("rollout/filtered_groups", (asked.len() - kept.len()) as f64);
        metrics.insert("rollout/refilled_groups", refilled as f64);
        metrics.insert("rollout/given_up_groups", questions_per_step.saturating_sub(kept.len() as u64) as f64);
        metrics.insert("rollout/gen_batches", self.gen_batches as f64);
    }
}

#[cfg(test)]
mod tests {
    use zerosearch_generate::Finish;
    use zerosearch_grammar::Action;
    use zerosearch_rollout::{RolloutEnd, ToolRecord, TurnRecord};
    use zerosearch_trajectory::Trajectory;

    use super::*;

    fn experience(reward: f32, qualities: &[Quality]) -> Experience {
        let turn = |quality: &Quality| TurnRecord {
            text: String::new(),
            action: Action::Answer(String::new()),
            finish: Finish::Stop,
            call: Some(ToolRecord {
                input: String::new(),
                quality: Some(*quality),
                documents: Vec::new(),
                failure: None,
            }),
            observation: None,
            cut_tokens: 0,
        };
        let rollout = Rollout {
            question_index: 0,
            sample: 0,
            question: String::new(),
            golden_answers: Vec::new(),
            trajectory: Trajectory::new(Vec::new()),
            turns: qualities.iter().map(turn).collect(),
            end: RolloutEnd::Answered,
        };
        Experience { rollout, reward, baseline: None, kept: true }
    }

    #[test]
    fn rewards_are_told_apart_by_noise() {
        use Quality::{Noisy, Useful};

        let scores = |experiences: Vec<Experience>| {
            let mut metrics = Metrics::new();
            Collection { experiences, ..Collection::default() }.score_by_noise(&mut metrics);
            ["critic/score/useful", "critic/score/noisy"].map(|name| metrics.get(name))
        };
        let mixed = vec![
            experience(1.0, &[Useful]),
            experience(0.5, &[Useful, Useful]),
            experience(0.25, &[Useful, Noisy]),
            experience(0.0, &[Noisy]),
            // Belongs to neither.
            experience(1.0, &[]),
        ];
        assert_eq!(scores(mixed), [Some(0.75), Some(0.125)]);
        assert_eq!(scores(vec![experience(1.0, &[])]), [None, None]);
    }
}
