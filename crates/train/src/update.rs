//! What a step's rollouts do to the weights: advantages, then updates of policy and critic.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use zerosearch_algorithms::{Algorithm, KlReward, LossInputs, LossMetrics, RewardBatch, ValueInputs};
use zerosearch_generate::Stream;
use zerosearch_lm::{Decoder, Gradients};
use zerosearch_metrics::Metrics;
use zerosearch_rollout::Rollout;

use crate::batch::{MicroBatch, MiniBatch, TrainBatch};
use crate::collection::Collected;
use crate::replicas::{self, Replica};
use crate::totals::{Gaps, Seconds, Totals};
use crate::trainer::Learner;
use crate::{OldLogprobs, TrainConfig, TrainError, critic};

/// Rollouts with what they earned and the questions they belong to.
pub(crate) struct Rewarded<'a> {
    pub(crate) rollouts: Vec<&'a Rollout>,
    rewards: Vec<f32>,
    groups: Vec<usize>,
    /// What the greedy rollout of each one's question earned; empty where the algorithm does not ask for it.
    baselines: Vec<f32>,
}

impl<'a> Rewarded<'a> {
    /// The rollouts that dynamic sampling has not left out.
    pub(crate) fn of(collected: &'a Collected) -> Self {
        fn only<T>(items: impl Iterator<Item = T>, kept: &[bool]) -> Vec<T> {
            items.zip(kept).filter(|(_, kept)| **kept).map(|(item, _)| item).collect()
        }
        let kept = &collected.kept;
        let rollouts = only(collected.rollouts.iter(), kept);
        Self {
            groups: rollouts.iter().map(|rollout| rollout.question_index as usize).collect(),
            rollouts,
            rewards: only(collected.rewards.iter().copied(), kept),
            baselines: only(collected.baselines.iter().copied(), kept),
        }
    }

    pub(crate) fn batch<'b>(&'b self, lengths: &'b [usize]) -> Result<RewardBatch<'b>, TrainError> {
        let batch = RewardBatch::new(&self.rewards, &self.groups, lengths)?;
        Ok(if self.baselines.is_empty() { batch } else { batch.with_baselines(&self.baselines)? })
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

/// What an update works on. It shares nothing with the generator, so that rollouts of a later step may go on beside it.
pub(crate) struct Update<'u> {
    pub(crate) config: &'u TrainConfig,
    pub(crate) device: &'u Device,
    pub(crate) step: u64,
    pub(crate) policy: &'u mut Learner,
    pub(crate) critic: Option<&'u mut Learner>,
    pub(crate) algorithm: &'u mut dyn Algorithm,
    /// There where the algorithm or the reward compares with it.
    pub(crate) reference: Option<&'u Decoder>,
    /// Further devices, which compute a share of each gradient.
    pub(crate) replicas: &'u mut [Replica],
    /// The coefficient of the KL penalty in the reward.
    pub(crate) kl_beta: &'u mut f64,
}

impl Update<'_> {
    /// Updates from the rollouts that were not left out or masked. Returns each rollout's advantages, none for the others.
    pub(crate) fn learn(&mut self, collected: &Collected, metrics: &mut Metrics) -> Result<Vec<Vec<f32>>, TrainError> {
        let rewarded = Rewarded::of(collected);
        if rewarded.rollouts.is_empty() {
            return Ok(vec![Vec::new(); collected.rollouts.len()]);
        }
        let batch = TrainBatch::new(rewarded.rollouts.iter().copied());
        let trained = self.unmasked(&rewarded.rollouts, metrics);
        let advantages = self.update(&rewarded, &batch, &trained, metrics)?;
        let mut tokens = advantages.into_iter();
        let rows = batch.lengths.iter().zip(trained);
        let mut rows = rows.map(|(length, trained)| {
            let row: Vec<f32> = tokens.by_ref().take(*length).collect();
            if trained { row } else { Vec::new() }
        });
        let of = |kept: &bool| kept.then(|| rows.next()).flatten().unwrap_or_default();
        Ok(collected.kept.iter().map(of).collect())
    }

    /// Which rollouts the loss is computed on. One that is masked still takes part in its group's comparison.
    fn unmasked(&self, rollouts: &[&Rollout], metrics: &mut Metrics) -> Vec<bool> {
        let mut trained = vec![true; rollouts.len()];
        let mut mask = |name: &str, applies: fn(&Rollout) -> bool| {
            let masked: Vec<bool> = rollouts.iter().map(|rollout| applies(rollout)).collect();
            metrics.insert(name, masked.iter().filter(|masked| **masked).count() as f64);
            trained.iter_mut().zip(masked).for_each(|(trained, masked)| *trained &= !masked);
        };
        if self.config.mask_truncated_completions {
            mask("rollout/masked_truncated", Rollout::is_truncated);
        }
        if self.config.mask_invalid_completions {
            mask("rollout/masked_invalid", Rollout::is_invalid);
        }
        trained
    }

    /// Returns one advantage for each trained token.
    fn update(
        &mut self,
        rewarded: &Rewarded<'_>,
        batch: &TrainBatch,
        trained: &[bool],
        metrics: &mut Metrics,
    ) -> Result<Vec<f32>, TrainError> {
        let rewards = rewarded.batch(&batch.lengths)?;
        let old = self.old_logprobs(batch);
        let penalties = self.kl_penalties(batch, &old, metrics);
        let rewards = if penalties.is_empty() { rewards } else { rewards.with_token_rewards(&penalties)? };
        metrics.summary("critic/rewards", &rewards.scores().iter().map(|score| *score as f32).collect::<Vec<_>>());
        let values = self.critic.as_ref().map(|critic| self.values(&critic.decoder, batch));
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
        let importance = self.importance(batch, &old, metrics)?;
        let targets = Targets {
            old: &old,
            advantages: &advantages.advantages,
            importance: importance.as_deref(),
            returns: &advantages.returns,
            values: values.as_deref(),
        };
        let mut totals = Totals::default();
        if self.config.old_logprobs == OldLogprobs::Recomputed {
            totals.gaps.add(&old, &batch.generator_logprobs);
        }
        let outcome = self.updates(batch, trained, &targets, &mut totals);
        totals.scalars().into_iter().for_each(|(name, value)| metrics.insert(name, value));
        outcome?;
        Ok(advantages.advantages)
    }

    /// The optimizer steps on one batch of rollouts.
    fn updates(
        &mut self,
        batch: &TrainBatch,
        trained: &[bool],
        targets: &Targets<'_>,
        totals: &mut Totals,
    ) -> Result<(), TrainError> {
        let size = self.config.mini_batch_size * self.config.samples_per_question;
        for epoch in 0..self.config.epochs as u64 {
            let (seed, step) = (self.config.seed, self.step);
            let stream = Stream { seed, purpose: "mini_batches", step, turn: epoch, ..Stream::default() };
            for mini_batch in batch.mini_batches(trained, size, stream) {
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
        let beta = *self.kl_beta;
        let Some(reference) = self.reference.filter(|_| self.config.kl_reward.coefficient != 0.0) else {
            return Vec::new();
        };
        let reference = self.over_tokens(batch, |micro| reference.score(&micro.scored()).0);
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
        *self.kl_beta = self.config.kl_reward.next(beta, kl, batch.lengths.len());
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
        let reference = self.reference.filter(|_| terms.kl.coefficient != 0.0);
        let compares = totals.updates == 0 && self.config.old_logprobs == OldLogprobs::Generator;
        let (algorithm, budget) = (&*self.algorithm, self.config.micro_batch_tokens);
        let checkpointing = self.config.gradient_checkpointing;
        let dropout = self.policy.dropout(self.config.seed);
        let mut decoders = vec![(dropout, self.policy.decoder.clone(), reference.cloned())];
        for replica in &mut *self.replicas {
            replica.policy.copy_trained(&self.policy.decoder);
            let dropout = Stream { question: decoders.len() as u64, ..dropout };
            let reference = replica.reference.clone().filter(|_| reference.is_some());
            decoders.push((dropout, replica.policy.clone(), reference));
        }
        let shares = replicas::compute(decoders, mini_batch, |(dropout, policy, reference), share| {
            let tensor = |values| tensor(values, policy.device());
            let (mut gradients, mut sums, mut gaps) = (Gradients::default(), LossMetrics::default(), Gaps::default());
            let mut seconds = Seconds::default();
            for (index, micro) in share.micro_batches(budget).into_iter().enumerate() {
                let scored = micro.scored();
                let dropout = Stream { sample: index as u64, ..dropout };
                let clock = Instant::now();
                let pass = policy.with_dropout(dropout).pass(&scored, checkpointing);
                let (logprobs, entropy) = pass.score(&scored);
                seconds.forward += clock.elapsed().as_secs_f64();
                let ref_logprobs = reference.as_ref().map(|reference| {
                    let clock = Instant::now();
                    let logprobs = reference.score(&scored).0;
                    seconds.reference += clock.elapsed().as_secs_f64();
                    logprobs
                });
                if compares {
                    gaps.add(&host(&logprobs), &micro.gather(&batch.generator_logprobs));
                }
                let output = algorithm.loss(LossInputs {
                    logprobs,
                    old_logprobs: tensor(micro.gather(targets.old)),
                    ref_logprobs,
                    entropy: Some(entropy),
                    advantages: tensor(micro.gather(targets.advantages)),
                    weights: tensor(micro.gather(&weights)),
                    importance: targets.importance.map(|values| tensor(micro.gather(values))),
                    sequence_lengths: micro.lengths(),
                })?;
                sums += output.metrics;
                let clock = Instant::now();
                pass.backward(output.loss, &mut gradients);
                seconds.backward += clock.elapsed().as_secs_f64();
            }
            Ok((gradients, sums, gaps, seconds))
        })?;
        let mut gradients = Gradients::default();
        let mut sums = LossMetrics::default();
        let mut seconds = Seconds::default();
        for (share, part, gaps, longest) in shares {
            gradients.add(share.on(self.device));
            sums += part;
            totals.gaps += gaps;
            // The devices work beside one another.
            seconds = seconds.max(longest);
        }
        let rate = self.config.lr_scheduler_type.rate(
            self.config.learning_rate,
            self.config.warmup_ratio,
            self.step,
            self.config.steps,
        );
        let clock = Instant::now();
        let norm = apply(self.policy, gradients, sums.loss, rate, self.config.gradient_norm, self.step)?;
        seconds.optimizer = clock.elapsed().as_secs_f64();
        totals.seconds += seconds;
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
        let (Some(critic), Some(loss), Some(values)) = (&mut self.critic, self.algorithm.value_loss(), targets.values)
        else {
            return Ok(());
        };
        let weights = mini_batch.weights(loss.aggregation, batch.tokens());
        let (budget, checkpointing) = (self.config.micro_batch_tokens, self.config.gradient_checkpointing);
        let mut decoders = vec![critic.decoder.clone()];
        for replica in self.replicas.iter_mut().filter_map(|replica| replica.critic.as_mut()) {
            replica.copy_trained(&critic.decoder);
            decoders.push(replica.clone());
        }
        let shares = replicas::compute(decoders, mini_batch, |critic, share| {
            let tensor = |values| tensor(values, critic.device());
            let (mut gradients, mut sum) = (Gradients::default(), 0.0);
            for micro in share.micro_batches(budget) {
                let pass = critic.pass(&micro.scored(), checkpointing);
                let output = loss.loss(ValueInputs {
                    values: critic::values(&critic, pass.features.clone()),
                    old_values: tensor(micro.gather(values)),
                    returns: tensor(micro.gather(targets.returns)),
                    weights: tensor(micro.gather(&weights)),
                })?;
                sum += output.vf_loss;
                pass.backward(output.loss, &mut gradients);
            }
            Ok((gradients, sum))
        })?;
        let mut gradients = Gradients::default();
        let mut sum = 0.0;
        for (share, part) in shares {
            gradients.add(share.on(self.device));
            sum += part;
        }
        let rate = self.config.critic_lr_scheduler_type.rate(
            self.config.critic_learning_rate,
            self.config.critic_warmup_ratio,
            self.step,
            self.config.steps,
        );
        let norm = apply(critic, gradients, sum, rate, self.config.gradient_norm, self.step)?;
        totals.critic(sum, mini_batch.share(), norm, rate);
        Ok(())
    }

    /// The critic's values of all trained tokens, as constants.
    fn values(&self, critic: &Decoder, batch: &TrainBatch) -> Vec<f32> {
        let critic = critic.without_autodiff();
        self.over_tokens(batch, |micro| critic::values(&critic, critic.features(&micro.scored())))
    }

    /// A value for each trained token, computed in micro-batches.
    fn over_tokens(&self, batch: &TrainBatch, of: impl Fn(&MicroBatch<'_>) -> Tensor<1>) -> Vec<f32> {
        let mut values = vec![0.0; batch.tokens()];
        for micro in batch.whole().micro_batches(self.config.micro_batch_tokens) {
            micro.scatter(&host(&of(&micro)), &mut values);
        }
        values
    }
}

/// One optimizer step with a gradient cut to a norm; a loss or norm that is not finite changes nothing. Returns the norm before.
fn apply(
    learner: &mut Learner,
    mut gradients: Gradients,
    loss: f64,
    rate: f64,
    limit: f64,
    step: u64,
) -> Result<f64, TrainError> {
    let norm = gradients.clip(limit);
    if !loss.is_finite() || !norm.is_finite() {
        return Err(TrainError::NotFinite { step, loss, norm });
    }
    learner.optimizer.step(learner.decoder.trained_mut(), gradients, rate);
    Ok(norm)
}

fn tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

fn host(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().without_autodiff().into_data().convert::<f32>().try_into_vec::<f32>().unwrap_or_default()
}
