//! The figures of all optimizer steps on one batch of rollouts.

use std::ops::AddAssign;

use zerosearch_algorithms::LossMetrics;

/// Sums over the updates of policy and critic; what is logged are means.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Optimizer steps of the policy.
    pub(crate) updates: usize,
    /// The same, a ragged mini-batch counted for the part of a full one that it is.
    fractions: f64,
    sums: LossMetrics,
    norms: f64,
    rate: f64,
    /// How far trainer and generator are apart before the weights change.
    pub(crate) gaps: Gaps,
    /// Time of the policy's updates, by part.
    pub(crate) seconds: Seconds,
    critic: Option<CriticTotals>,
}

/// Differences between two lists of log-probabilities of the same tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    sum: f64,
    largest: f64,
    tokens: usize,
}

impl Gaps {
    /// Takes in the log-probabilities of the same tokens under trainer and generator.
    pub(crate) fn add(&mut self, trainer: &[f32], generator: &[f32]) {
        for (a, b) in trainer.iter().zip(generator) {
            let gap = f64::from((a - b).abs());
            self.sum += gap;
            self.largest = self.largest.max(gap);
        }
        self.tokens += trainer.len();
    }
}

/// Wall time of the policy's updates. A GPU computes behind the calls that are timed here: its work shows where it is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seconds {
    pub(crate) forward: f64,
    pub(crate) reference: f64,
    pub(crate) backward: f64,
    /// The gradient's norm and the optimizer's step.
    pub(crate) optimizer: f64,
}

impl Seconds {
    /// The longer time of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            forward: self.forward.max(other.forward),
            reference: self.reference.max(other.reference),
            backward: self.backward.max(other.backward),
            optimizer: self.optimizer.max(other.optimizer),
        }
    }
}

impl AddAssign for Seconds {
    fn add_assign(&mut self, other: Self) {
        self.forward += other.forward;
        self.reference += other.reference;
        self.backward += other.backward;
        self.optimizer += other.optimizer;
    }
}

#[derive(Debug, Default)]
struct CriticTotals {
    updates: usize,
    fractions: f64,
    loss: f64,
    norms: f64,
    rate: f64,
}

impl Totals {
    /// Takes in an update of the policy on a `fraction` of a full mini-batch.
    pub(crate) fn policy(&mut self, sums: LossMetrics, fraction: f64, norm: f64, rate: f64) {
        self.updates += 1;
        self.fractions += fraction;
        self.sums += sums;
        self.norms += norm;
        self.rate = rate;
    }

    /// Takes in an update of the critic, likewise.
    pub(crate) fn critic(&mut self, loss: f64, fraction: f64, norm: f64, rate: f64) {
        let critic = self.critic.get_or_insert_default();
        critic.updates += 1;
        critic.fractions += fraction;
        critic.loss += loss;
        critic.norms += norm;
        critic.rate = rate;
    }

    /// Means over what was updated. A loss is that of a full mini-batch; entropy, clip fraction and KL are means over tokens, the
    /// norm is one over updates. What was not measured is absent.
    pub(crate) fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = Vec::new();
        if self.gaps.tokens > 0 {
            scalars.push(("rollout/logprob_gap", self.gaps.sum / self.gaps.tokens as f64));
            scalars.push(("rollout/logprob_gap_max", self.gaps.largest));
        }
        scalars.push(("actor/updates", self.updates as f64));
        if self.updates > 0 {
            let mean = LossMetrics {
                loss: self.sums.loss / self.fractions,
                pg_loss: self.sums.pg_loss / self.fractions,
                kl_loss: self.sums.kl_loss / self.fractions,
                ..self.sums
            };
            scalars.extend(mean.scalars());
            scalars.push(("actor/grad_norm", self.norms / self.updates as f64));
            scalars.push(("actor/lr", self.rate));
            let Seconds { forward, reference, backward, optimizer } = self.seconds;
            scalars.extend([("timing_s/forward", forward), ("timing_s/backward", backward)]);
            scalars.extend((reference > 0.0).then_some(("timing_s/reference", reference)));
            scalars.push(("timing_s/optimizer", optimizer));
        }
        if let Some(critic) = &self.critic {
            scalars.push(("critic/vf_loss", critic.loss / critic.fractions));
            scalars.push(("critic/grad_norm", critic.norms / critic.updates as f64));
            scalars.push(("critic/lr", critic.rate));
        }
        scalars
    }
}
