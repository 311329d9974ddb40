//! From a step's rollouts to new weights: advantages, then updates of policy and critic.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use zerosearch_algorithms::{Algorithm, KlReward, LossInputs, LossMetrics, LossSums, ValueInputs, ValueSums};
use zerosearch_generate::Stream;
use zerosearch_lm::Decoder;
use zerosearch_metrics::Metrics;
use zerosearch_rollout::Rollout;

use crate::batch::{MicroBatch, MiniBatch, TrainBatch};
use crate::learner::Learner;
use crate::replicas::{self, Replica};
use crate::totals::{Seconds, Totals};
use crate::{Experience, OldLogprobs, TrainConfig, TrainError, critic};

/// The targets of an update, one value for each trained token of the batch.
struct Targets<'t> {
    /// The log-probabilities that ratios start from.
    old: &'t [f32],
    advantages: &'t [f32],
    importance: Option<&'t [f32]>,
    returns: &'t [f32],
    /// The critic's predictions before the update, where there is one.
    values: Option<&'t [f32]>,
}

/// The weights that are trained and all that changes them.
pub(crate) struct Updater {
    pub(crate) config: Arc<TrainConfig>,
    pub(crate) device: Device,
    pub(crate) policy: Learner,
    pub(crate) critic: Option<Learner>,
    pub(crate) algorithm: Box<dyn Algorithm>,
    /// The frozen reference policy; `None` unless a KL term or a KL penalty needs it.
    pub(crate) reference: Option<Decoder>,
    /// Copies on further devices, each of which computes a part of every gradient.
    pub(crate) replicas: Vec<Replica>,
    /// The coefficient of the KL penalty in the reward.
    pub(crate) kl_beta: f64,
}

impl Updater {
    /// The updates of a step, from the experiences that were not left out or masked. Returns the advantages of each experience's
    /// trained tokens, none for the others.
    pub(crate) fn learn(
        &mut self,
        step: u64,
        experiences: &[Experience],
        metrics: &mut Metrics,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let kept: Vec<&Experience> = experiences.iter().filter(|experience| experience.kept).collect();
        if kept.is_empty() {
            return Ok(vec![Vec::new(); experiences.len()]);
        }
        let batch = TrainBatch::new(&kept);
        let trained = self.unmasked(&kept, metrics);
        let advantages = self.update(step, &batch, &trained, metrics)?;
        let mut rows = batch.rows(&advantages).zip(trained);
        let of = |experience: &Experience| {
            let row = experience.kept.then(|| rows.next()).flatten();
            row.filter(|(_, trained)| *trained).map(|(row, _)| row.to_vec()).unwrap_or_default()
        };
        Ok(experiences.iter().map(of).collect())
    }

    /// Whether the loss is computed on each rollout. One that is masked still takes part in its group's comparison.
    fn unmasked(&self, experiences: &[&Experience], metrics: &mut Metrics) -> Vec<bool> {
        let mut trained = vec![true; experiences.len()];
        let mut mask = |name: &str, applies: fn(&Rollout) -> bool| {
            let masked: Vec<bool> = experiences.iter().map(|experience| applies(&experience.rollout)).collect();
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
        step: u64,
        batch: &TrainBatch,
        trained: &[bool],
        metrics: &mut Metrics,
    ) -> Result<Vec<f32>, TrainError> {
        let mut rewards = batch.rewards()?;
        let old = self.old_logprobs(batch);
        let penalties = self.kl_penalties(batch, &old, metrics);
        if !penalties.is_empty() {
            rewards = rewards.with_token_rewards(&penalties)?;
        }
        metrics.summary("critic/rewards", &rewards.scores().iter().map(|score| *score as f32).collect::<Vec<_>>());
        let values = self.critic.as_ref().map(|critic| self.values(&critic.decoder, batch));
        if let Some(values) = &values {
            metrics.summary("critic/values", values);
            rewards = rewards.with_values(values)?;
        }
        let advantages = self.algorithm.advantages(&rewards)?;
        metrics.summary("critic/advantages", &advantages.advantages);
        metrics.summary("critic/returns", &advantages.returns);
        metrics.insert("rollout/groups", advantages.groups as f64);
        metrics.insert("rollout/constant_groups", advantages.constant_groups as f64);
        if self.config.skip_zero_advantages {
            let skipped = batch.without_signal(trained, &advantages.advantages);
            metrics.insert("rollout/zero_advantages", skipped as f64);
        }
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
        let outcome = self.updates(step, batch, trained, &targets, &mut totals);
        totals.scalars().into_iter().for_each(|(name, value)| metrics.insert(name, value));
        outcome?;
        Ok(advantages.advantages)
    }

    /// The optimizer steps on one batch of rollouts.
    fn updates(
        &mut self,
        step: u64,
        batch: &TrainBatch,
        trained: &[bool],
        targets: &Targets<'_>,
        totals: &mut Totals,
    ) -> Result<(), TrainError> {
        let size = self.config.mini_batch_size * self.config.samples_per_question;
        for epoch in 0..self.config.epochs as u64 {
            let seed = self.config.seed;
            let stream = Stream { seed, purpose: "mini_batches", step, turn: epoch, ..Stream::default() };
            for mini_batch in batch.mini_batches(trained, size, stream) {
                self.update_policy(step, batch, &mini_batch, targets, totals)?;
                self.update_critic(step, batch, &mini_batch, targets, totals)?;
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

    /// The weights that correct for what the generator sampled with, its temperature and truncation included; `None` where that
    /// is off.
    fn importance(
        &self,
        batch: &TrainBatch,
        old: &[f32],
        metrics: &mut Metrics,
    ) -> Result<Option<Vec<f32>>, TrainError> {
        let Some(correction) = &self.config.importance_sampling else { return Ok(None) };
        let sampling = &self.config.rollout.sampling;
        let recorded = batch.sampling_logprobs.iter().zip(&batch.generator_logprobs);
        let drawn: Option<Vec<f32>> =
            recorded.map(|(drawn, model)| drawn.or(sampling.is_untouched().then_some(*model))).collect();
        let drawn = drawn.ok_or(TrainError::NoSamplingLogprobs { sampling: *sampling })?;
        let found = correction.weights(old, &drawn, &batch.lengths)?;
        let tokens = batch.tokens() as f64;
        metrics.summary("rollout/is_weight", &found.weights);
        metrics.insert("rollout/is_truncated", found.truncated as f64 / tokens);
        metrics.insert("rollout/is_masked", found.masked as f64 / tokens);
        Ok(Some(found.weights))
    }

    /// The penalty of each trained token for its distance to the reference; none where `kl_reward` is off.
    fn kl_penalties(&mut self, batch: &TrainBatch, old: &[f32], metrics: &mut Metrics) -> Vec<f32> {
        let beta = self.kl_beta;
        let Some(reference) = self.reference.as_ref().filter(|_| self.config.kl_reward.coefficient != 0.0) else {
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
        self.kl_beta = self.config.kl_reward.next(beta, kl, batch.lengths.len());
        KlReward::token_rewards(beta, old, &reference)
    }

    fn update_policy(
        &mut self,
        step: u64,
        batch: &TrainBatch,
        mini_batch: &MiniBatch<'_>,
        targets: &Targets<'_>,
        totals: &mut Totals,
    ) -> Result<(), TrainError> {
        let terms = self.algorithm.terms();
        let weights = mini_batch.weights(terms.aggregation, batch.tokens());
        let reference = self.reference.as_ref().filter(|_| terms.kl.coefficient != 0.0);
        let compares = totals.updates == 0 && self.config.old_logprobs == OldLogprobs::Generator;
        let (algorithm, checkpointing) = (&*self.algorithm, self.config.gradient_checkpointing);
        let dropout = self.policy.dropout(self.config.seed);
        let synchronize = self.config.synchronize_timings;
        let mut decoders = vec![(dropout, self.policy.decoder.clone(), reference.cloned())];
        for replica in &mut self.replicas {
            replica.policy.copy_trained(&self.policy.decoder);
            let dropout = Stream { question: decoders.len() as u64, ..dropout };
            let reference = replica.reference.clone().filter(|_| reference.is_some());
            decoders.push((dropout, replica.policy.clone(), reference));
        }
        let micro_batch = |(dropout, policy, reference): &(Stream, Decoder, Option<Decoder>),
                           index: usize,
                           micro: &MicroBatch<'_>,
                           sums: &mut PolicySums| {
            let tensor = |values| tensor(values, policy.device());
            let scored = micro.scored();
            let dropout = Stream { sample: index as u64, ..*dropout };
            let clock = Instant::now();
            let pass = policy.with_dropout(dropout).pass(&scored, checkpointing);
            let (logprobs, entropy) = pass.score(&scored);
            sums.seconds.forward += seconds_since(clock, policy.device(), synchronize);
            let ref_logprobs = reference.as_ref().map(|reference| {
                let clock = Instant::now();
                let logprobs = reference.score(&scored).0;
                sums.seconds.reference += seconds_since(clock, reference.device(), synchronize);
                logprobs
            });
            if compares {
                let logprobs = logprobs.clone().without_autodiff();
                sums.gaps.push((logprobs, micro.gather(&batch.generator_logprobs)));
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
            sums.loss.push(output.sums);
            Ok((pass, output.loss))
        };
        let budget = self.config.micro_batch_tokens;
        let learnt = self.config.skip_zero_advantages.then(|| mini_batch.with_signal(targets.advantages));
        let learnt = learnt.as_ref().unwrap_or(mini_batch);
        let backward = |(_, policy, _): &(Stream, Decoder, Option<Decoder>), sums: &mut PolicySums, clock| {
            sums.seconds.backward += seconds_since(clock, policy.device(), synchronize);
        };
        let (gradients, parts) = replicas::gradients(decoders, &self.device, learnt, budget, micro_batch, backward)?;
        let mut sums = LossMetrics::default();
        let mut seconds = Seconds::default();
        // All passes are under way: a GPU is waited for here, and not after each of them.
        for part in parts {
            sums += LossSums::read_all(part.loss)?;
            let (trainer, generator): (Vec<_>, Vec<_>) = part.gaps.into_iter().unzip();
            if !trainer.is_empty() {
                totals.gaps.add(&host(&Tensor::cat(trainer, 0)), &generator.concat());
            }
            // The devices work beside one another.
            seconds = seconds.max(part.seconds);
        }
        let rate = self.config.learning_rate_at(step);
        let clock = Instant::now();
        let norm = self.policy.step(gradients, sums.loss, rate, self.config.gradient_norm, step)?;
        seconds.optimizer = seconds_since(clock, &self.device, synchronize);
        totals.seconds += seconds;
        totals.policy(sums, mini_batch.fraction(), norm, rate);
        Ok(())
    }

    fn update_critic(
        &mut self,
        step: u64,
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
        let checkpointing = self.config.gradient_checkpointing;
        let mut decoders = vec![critic.decoder.clone()];
        for replica in self.replicas.iter_mut().filter_map(|replica| replica.critic.as_mut()) {
            replica.copy_trained(&critic.decoder);
            decoders.push(replica.clone());
        }
        let micro_batch = |critic: &Decoder, _: usize, micro: &MicroBatch<'_>, sums: &mut Vec<ValueSums>| {
            let tensor = |values| tensor(values, critic.device());
            let pass = critic.pass(&micro.scored(), checkpointing);
            let output = loss.loss(ValueInputs {
                values: critic::values(critic, pass.features.clone()),
                old_values: tensor(micro.gather(values)),
                returns: tensor(micro.gather(targets.returns)),
                weights: tensor(micro.gather(&weights)),
            })?;
            sums.push(output.sums);
            Ok((pass, output.loss))
        };
        let budget = self.config.micro_batch_tokens;
        let (gradients, sums) =
            replicas::gradients(decoders, &self.device, mini_batch, budget, micro_batch, |_, _, _| {})?;
        let mut sum = 0.0;
        for sums in sums {
            sum += ValueSums::read_all(sums)?.vf_loss;
        }
        let rate = self.config.critic_learning_rate_at(step);
        let norm = critic.step(gradients, sum, rate, self.config.gradient_norm, step)?;
        totals.critic(sum, mini_batch.fraction(), norm, rate);
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

/// The figures of one device's part of an update of the policy.
#[derive(Default)]
struct PolicySums {
    loss: Vec<LossSums>,
    /// Log-probabilities of the same tokens under trainer and generator.
    gaps: Vec<(Tensor<1>, Vec<f32>)>,
    seconds: Seconds,
}

/// Seconds since then, with `synchronize` until a device has done what it was given.
fn seconds_since(then: Instant, device: &Device, synchronize: bool) -> f64 {
    if synchronize {
        // A failure shows when its results are read.
        let _ = device.sync();
    }
    then.elapsed().as_secs_f64()
}

fn tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

fn host(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().without_autodiff().into_data().convert::<f32>().try_into_vec::<f32>().unwrap_or_default()
}
