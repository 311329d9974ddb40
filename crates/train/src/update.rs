//! What a step's rollouts do to the weights: advantages, then updates of policy and critic.

use burn::tensor::{Tensor, TensorData};
use zerosearch_algorithms::{KlReward, LossInputs, LossMetrics, RewardBatch, ValueInputs};
use zerosearch_lm::{Decoder, Gradients};
use zerosearch_metrics::Metrics;
use zerosearch_rollout::Rollout;

use crate::batch::TrainBatch;
use crate::{TrainError, Trainer, critic};

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
        let penalties = self.kl_penalties(&batch, metrics);
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
        for _ in 0..self.config.epochs {
            self.update_policy(&batch, &advantages.advantages, metrics)?;
            if let Some(values) = &values {
                self.update_critic(&batch, values, &advantages.returns, metrics)?;
            }
        }
        Ok(advantages.advantages)
    }

    /// What each trained token pays for its distance to the reference; nothing where `kl_reward` is off.
    fn kl_penalties(&mut self, batch: &TrainBatch, metrics: &mut Metrics) -> Vec<f32> {
        let beta = self.kl_beta;
        if self.config.kl_reward.coefficient == 0.0 {
            return Vec::new();
        }
        let mut reference = vec![0.0; batch.generator_logprobs.len()];
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            micro.scatter(&host(&self.reference.score(&micro.scored()).0), &mut reference);
        }
        // The mean over each sequence's tokens, then over sequences, as verl takes it.
        let (mut kl, mut start) = (0.0, 0);
        for length in batch.lengths.iter().filter(|length| **length > 0) {
            let range = start..start + length;
            let tokens = batch.generator_logprobs[range.clone()].iter().zip(&reference[range.clone()]);
            kl += tokens.map(|(log, reference)| f64::from(log - reference)).sum::<f64>() / *length as f64;
            start = range.end;
        }
        kl /= batch.lengths.len().max(1) as f64;
        metrics.insert("actor/reward_kl_penalty", kl);
        metrics.insert("actor/reward_kl_penalty_coeff", beta);
        self.kl_beta = self.config.kl_reward.next(beta, kl, batch.lengths.len());
        KlReward::token_rewards(beta, &batch.generator_logprobs, &reference)
    }

    fn update_policy(
        &mut self,
        batch: &TrainBatch,
        advantages: &[f32],
        metrics: &mut Metrics,
    ) -> Result<(), TrainError> {
        let terms = self.algorithm.terms();
        let weights = terms.aggregation.weights(&batch.lengths);
        let reference_needed = terms.kl.coefficient != 0.0;
        let mut gradients = Gradients::default();
        let mut totals = LossMetrics::default();
        let mut gap = 0.0;
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            let scored = micro.scored();
            let (logprobs, entropy) = self.policy.decoder.score(&scored);
            let old = micro.gather(&batch.generator_logprobs);
            let now = host(&logprobs);
            gap += now.iter().zip(&old).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
            let output = self.algorithm.loss(LossInputs {
                logprobs,
                old_logprobs: self.tensor(old),
                ref_logprobs: reference_needed.then(|| self.reference.score(&scored).0),
                entropy: Some(entropy),
                advantages: self.tensor(micro.gather(advantages)),
                weights: self.tensor(micro.gather(&weights)),
                sequence_lengths: micro.lengths(),
            })?;
            totals += output.metrics;
            gradients.add(Gradients::of(output.loss, self.policy.decoder.trained()));
        }
        let norm = gradients.clip(self.config.gradient_norm);
        if !totals.loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite { step: self.step, loss: totals.loss, norm });
        }
        let rate = self.config.lr_scheduler_type.rate(
            self.config.learning_rate,
            self.config.warmup_ratio,
            self.step,
            self.config.steps,
        );
        self.policy.optimizer.step(self.policy.decoder.trained_mut(), &gradients, rate);
        totals.scalars().into_iter().for_each(|(name, value)| metrics.insert(name, value));
        metrics.insert("actor/grad_norm", norm);
        metrics.insert("actor/lr", rate);
        metrics.insert("rollout/logprob_gap", gap / totals.tokens.max(1) as f64);
        Ok(())
    }

    fn update_critic(
        &mut self,
        batch: &TrainBatch,
        old: &[f32],
        returns: &[f32],
        metrics: &mut Metrics,
    ) -> Result<(), TrainError> {
        let (Some(critic), Some(loss)) = (&self.critic, self.algorithm.value_loss()) else { return Ok(()) };
        let weights = loss.aggregation.weights(&batch.lengths);
        let mut gradients = Gradients::default();
        let mut total = 0.0;
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            let output = loss.loss(ValueInputs {
                values: critic::values(&critic.decoder, &micro.scored()),
                old_values: self.tensor(micro.gather(old)),
                returns: self.tensor(micro.gather(returns)),
                weights: self.tensor(micro.gather(&weights)),
            })?;
            total += output.vf_loss;
            gradients.add(Gradients::of(output.loss, critic.decoder.trained()));
        }
        let norm = gradients.clip(self.config.gradient_norm);
        if !total.is_finite() || !norm.is_finite() {
            return Err(TrainError::NotFinite { step: self.step, loss: total, norm });
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
        metrics.insert("critic/vf_loss", total);
        metrics.insert("critic/grad_norm", norm);
        metrics.insert("critic/lr", rate);
        Ok(())
    }

    /// The critic's values of all trained tokens, as constants.
    fn values(&self, critic: &Decoder, batch: &TrainBatch) -> Vec<f32> {
        let frozen = Decoder::frozen(critic.config(), &critic.to_host(), critic.device());
        let mut values = vec![0.0; batch.generator_logprobs.len()];
        for micro in batch.micro_batches(self.config.micro_batch_tokens) {
            micro.scatter(&host(&critic::values(&frozen, &micro.scored())), &mut values);
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
