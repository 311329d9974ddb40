//! What a step's rollouts do to the weights: advantages, then updates of policy and critic.

use burn::tensor::{Tensor, TensorData};
use zerosearch_algorithms::{KlReward, LossInputs, LossMetrics, RewardBatch, ValueInputs};
use zerosearch_generate::Stream;
use zerosearch_lm::{Decoder, Gradients};
use zerosearch_metrics::Metrics;
use zerosearch_rollout::Rollout;

use crate::batch::{MicroBatch, MiniBatch, TrainBatch};
use crate::totals::Totals;
use crate::{OldLogprobs, TrainError, Trainer, critic};

/// Rollouts with what they earned and the questions they belong to.
pub(crate) struct Rewarded<'a> {
    pub(crate) rollouts: Vec<&'a Rollout>,
    pub(crate) rewards: Vec<f32>,
    pub(crate) groups: Vec<usize>,
    /// What the greedy rollout of each one's question earned; empty where the algorithm does not ask for it.
    pub(crate) baselines: Vec<f32>,
}

impl Rewarded<'_> {
    fn batch<'b>(&'b self, lengths: &'b [usize]) -> Result<RewardBatch<'b>, TrainError> {
        let batch = RewardBatch::new(&self.rewards, &self.groups, lengths)?;
        Ok(if self.baselines.is_empty() { batch } else { batch.with_baselines(&self.baselines)? })
    }

    fn keep(&mut self, kept: &[bool]) {
        fn only<T>(items: &mut Vec<T>, kept: &[bool]) {
            let mut kept = kept.iter();
            items.retain(|_| kept.next().copied().unwrap_or(false));
        }
        only(&mut self.rollouts, kept);
        only(&mut self.rewards, kept);
        only(&mut self.groups, kept);
        only(&mut self.baselines, kept);
    }
}

/// What an update pulls towards, one value for each trained token of the batch.
struct Targets<'t> {
    /// The log-probabilities that ratios start from.
    old: &'t [f32],
    advantages: &'t [f32],
    importance: Option<&'t [f32]>,
    returns: &'t [f32],
    /// The critic's predictions before the update, where there is one.
    values: Option<&'t [f32]>,
}

impl Trainer<'_> {
    /// Updates from the whole batch or, where the algorithm asks for dynamic sampling, from the groups that say something.
    /// They are filtered and counted, not replaced by further questions. Returns each rollout's advantages.
    pub(crate) fn learn(
        &mut self,
        mut rewarded: Rewarded<'_>,
        metrics: &mut Metrics,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let lengths: Vec<usize> = rewarded.rollouts.iter().map(|r| r.trajectory.mask().trained()).collect();
        let mut kept = vec![true; lengths.len()];
        if self.algorithm.dynamic_sampling() {
            kept = rewarded.batch(&lengths)?.informative();
            metrics.insert("rollout/filtered", kept.iter().filter(|kept| !**kept).count() as f64);
            rewarded.keep(&kept);
        }
        if rewarded.rollouts.is_empty() {
            return Ok(vec![Vec::new(); lengths.len()]);
        }
        let mut advantages = self.update(&rewarded, metrics)?.into_iter();
        let of = |(length, kept): (&usize, bool)| advantages.by_ref().take(if kept { *length } else { 0 }).collect();
        Ok(lengths.iter().zip(kept).map(of).collect())
    }

    /// Returns one advantage for each trained token.
    fn update(&mut self, rewarded: &Rewarded<'_>, metrics: &mut Metrics) -> Result<Vec<f32>, TrainError> {
        let batch = TrainBatch::new(rewarded.rollouts.iter().copied());
        let rewards = rewarded.batch(&batch.lengths)?;
        let old = self.old_logprobs(&batch);
        let penalties = self.kl_penalties(&batch, &old, metrics);
        let rewards = if penalties.is_empty() { rewards } else { rewards.with_token_rewards(&penalties)? };
        metrics.summary("critic/rewards", &rewards.scores().iter().map(|score| *score as f32).collect::<Vec<_>>());
        let values = self.critic.as_ref().map(|critic| self.values(&critic.decoder, &batch));
        let rewards = match &values {
            Some(values) => {
                metrics.summary("critic/values", values);
                rewards.with_values(values)?
            }
            None => rewards,
        };
        let advantages = self.algorithm.advantages(&rewards)?;
        metrics.summary("critic/advantages", &advantages.advantages);
        metrics.summary("critic/returns", &advantages.returns);
        metrics.insert("rollout/groups", advantages.groups as f64);
        metrics.insert("rollout/constant_groups", advantages.constant_groups as f64);
        let importance = self.importance(&batch, &old, metrics)?;
        let targets = Targets {
            old: &old,
            advantages: &advantages.advantages,
            importance: importance.as_deref(),
            returns: &advantages.returns,
            values: values.as_deref(),
        };
        let mut totals = Totals::default();
        if self.config.old_logprobs == OldLogprobs::Recomputed {
            totals.gaps(&old, &batch.generator_logprobs);
        }
        let outcome = self.updates(&batch, &targets, &mut totals);
        totals.scalars().into_iter().for_each(|(name, value)| metrics.insert(name, value));
        outcome?;
        Ok(advantages.advantages)
    }

    /// The optimizer steps on one batch of rollouts.
    fn updates(&mut self, batch: &TrainBatch, targets: &Targets<'_>, totals: &mut Totals) -> Result<(), TrainError> {
        let size = self.config.mini_batch_size * self.config.samples_per_question;
        let trained = vec![true; batch.lengths.len()];
        for epoch in 0..self.config.epochs as u64 {
            let (seed, step) = (self.config.seed, self.step);
            let stream = Stream { seed, purpose: "mini_batches", step, turn: epoch, ..Stream::default() };
            for mini_batch in batch.mini_batches(&trained, size, stream) {
                self.update_policy(batch, &mini_batch, targets, totals)?;
                self.update_critic(batch, &mini_batch, targets, totals)?;
            }
        }
        Ok(())
    }

    /// The log-probabilities that ratios start from, one for each trained token.
    fn old_logprobs(&self, batch: &TrainBatch) -> Vec<f32> {
        match self.config.old_logprobs {
            OldLogprobs::Generator => batch.generator_logprobs.clone(),
            OldLogprobs::Recomputed => {
                let policy = self.policy.decoder.without_autodiff();
                self.over_tokens(batch, |micro| policy.score(&micro.scored()).0)
            }
        }
    }

    /// The weights that correct for what the generator sampled with; `None` where that is off.
    fn importance(
        &self,
        batch: &TrainBatch,
        old: &[f32],
        metrics: &mut Metrics,
    ) -> Result<Option<Vec<f32>>, TrainError> {
        let Some(correction) = &self.config.importance_sampling else { return Ok(None) };
        let found = correction.weights(old, &batch.generator_logprobs, &batch.lengths)?;
        let tokens = batch.tokens() as f64;
        metrics.summary("rollout/is_weight", &found.weights);
        metrics.insert("rollout/is_truncated", found.truncated as f64 / tokens);
        metrics.insert("rollout/is_masked", found.masked as f64 / tokens);
        Ok(Some(found.weights))
    }

    /// What each trained token pays for its distance to the reference; nothing where `kl_reward` is off.
    fn kl_penalties(&mut self, batch: &TrainBatch, old: &[f32], metrics: &mut Metrics) -> Vec<f32> {
        let beta = self.kl_beta;
        if self.config.kl_reward.coefficient == 0.0 {
            return Vec::new();
        }
        let reference = self.over_tokens(batch, |micro| self.reference.score(&micro.scored()).0);
        // The mean over each sequence's tokens, then over sequences, as verl takes it.
        let (mut kl, mut start) = (0.0, 0);
        for length in batch.lengths.iter().filter(|length| **length > 0) {
            let range = start..start + length;
            let tokens = old[range.clone()].iter().zip(&reference[range.clone()]);
            kl += tokens.map(|(log, reference)| f64::from(log - reference)).sum::<f64>() / *length as f64;
            start = range.end;
        }
        kl /= batch.lengths.len().max(1) as f64;
        metrics.insert("actor/reward_kl_penalty", kl);
        metrics.insert("actor/reward_kl_penalty_coeff", beta);
        self.kl_beta = self.config.kl_reward.next(beta, kl, batch.lengths.len());
        KlReward::token_rewards(beta, old, &reference)
    }

    fn update_policy(
        &mut self,
        batch: &TrainBatch,
        mini_batch: &MiniBatch<'_>,
        targets: &Targets<'_>,
        totals: &mut Totals,
    ) -> Result<(), TrainError> {
        let terms = self.algorithm.terms();
        let weights = mini_batch.weights(terms.aggregation, batch.tokens());
        let reference_needed = terms.kl.coefficient != 0.0;
        let mut gradients = Gradients::default();
        let mut sums = LossMetrics::default();
        for micro in mini_batch.micro_batches(self.config.micro_batch_tokens) {
            let scored = micro.scored();
            let (logprobs, entropy) = self.policy.decoder.score(&scored);
            if totals.updates == 0 && self.config.old_logprobs == OldLogprobs::Generator {
                totals.gaps(&host(&logprobs), &micro.gather(&batch.generator_logprobs));
            }
            let output = self.algorithm.loss(LossInputs {
                logprobs,
                old_logprobs: self.tensor(micro.gather(targets.old)),
                ref_logprobs: reference_needed.then(|| self.reference.score(&scored).0),
                entropy: Some(entropy),
                advantages: self.tensor(micro.gather(targets.advantages)),
                weights: self.tensor(micro.gather(&weights)),
                importance: targets.importance.map(|values| self.tensor(micro.gather(values))),
                sequence_lengths: micro.lengths(),
            })?;
            sums += output.metrics;
            gradients.add(Gradients::of(output.loss, self.policy.decoder.trained()));
        }
        let norm = gradients.clip(self.config.gradient_norm);
        if !sums.loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite { step: self.step, loss: sums.loss, norm });
        }
        let rate = self.config.lr_scheduler_type.rate(
            self.config.learning_rate,
            self.config.warmup_ratio,
            self.step,
            self.config.steps,
        );
        self.policy.optimizer.step(self.policy.decoder.trained_mut(), &gradients, rate);
        totals.policy(sums, mini_batch.share(), norm, rate);
        Ok(())
    }

    fn update_critic(
        &mut self,
        batch: &TrainBatch,
        mini_batch: &MiniBatch<'_>,
        targets: &Targets<'_>,
        totals: &mut Totals,
    ) -> Result<(), TrainError> {
        let (Some(critic), Some(loss), Some(values)) = (&self.critic, self.algorithm.value_loss(), targets.values)
        else {
            return Ok(());
        };
        let weights = mini_batch.weights(loss.aggregation, batch.tokens());
        let mut gradients = Gradients::default();
        let mut sum = 0.0;
        for micro in mini_batch.micro_batches(self.config.micro_batch_tokens) {
            let output = loss.loss(ValueInputs {
                values: critic::values(&critic.decoder, &micro.scored()),
                old_values: self.tensor(micro.gather(values)),
                returns: self.tensor(micro.gather(targets.returns)),
                weights: self.tensor(micro.gather(&weights)),
            })?;
            sum += output.vf_loss;
            gradients.add(Gradients::of(output.loss, critic.decoder.trained()));
        }
        let norm = gradients.clip(self.config.gradient_norm);
        if !sum.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite { step: self.step, loss: sum, norm });
        }
        let rate = self.config.critic_lr_scheduler_type.rate(
            self.config.critic_learning_rate,
            self.config.critic_warmup_ratio,
            self.step,
            self.config.steps,
        );
        if let Some(critic) = &mut self.critic {
            critic.optimizer.step(critic.decoder.trained_mut(), &gradients, rate);
        }
        totals.critic(sum, mini_batch.share(), norm, rate);
        Ok(())
    }

    /// The critic's values of all trained tokens, as constants.
    fn values(&self, critic: &Decoder, batch: &TrainBatch) -> Vec<f32> {
        let critic = critic.without_autodiff();
        self.over_tokens(batch, |micro| critic::values(&critic, &micro.scored()))
    }

    /// A value for each trained token, computed in micro-batches.
    fn over_tokens(&self, batch: &TrainBatch, of: impl Fn(&MicroBatch<'_>) -> Tensor<1>) -> Vec<f32> {
        let mut values = vec![0.0; batch.tokens()];
        for micro in batch.whole().micro_batches(self.config.micro_batch_tokens) {
            micro.scatter(&host(&of(&micro)), &mut values);
        }
        values
    }

    fn tensor(&self, values: Vec<f32>) -> Tensor<1> {
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), self.parts.device)
    }
}

fn host(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().without_autodiff().into_data().convert::<f32>().try_into_vec::<f32>().unwrap_or_default()
}
