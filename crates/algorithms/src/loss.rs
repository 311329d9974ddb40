//! From a loss per trained token to one differentiable number and the metrics that explain it.

use std::ops::AddAssign;

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::batch::same_length;
use crate::{Aggregation, AlgorithmError, Kl, TokenLoss};

/// The largest `|log π_θ − log π_old|` that is exponentiated.
const LARGEST_LOG_RATIO: f64 = 20.0;

/// Results of the trainer's forward pass over one micro-batch.
///
/// Every tensor is `[tokens]`: the trained tokens of whole sequences, laid end to end. Prompt and
/// observation tokens have no place in it. Only `logprobs` and `entropy` carry gradients; the
/// others are taken as constants whatever they are attached to.
#[derive(Clone, Debug)]
pub struct LossInputs {
    /// Log-probabilities under the policy being trained, differentiable.
    pub logprobs: Tensor<1>,
    /// Log-probabilities under the policy that the samples are corrected to: the one before the first update of this batch.
    pub old_logprobs: Tensor<1>,
    /// Log-probabilities under the frozen reference; needed where the KL coefficient is not 0.
    pub ref_logprobs: Option<Tensor<1>>,
    /// Entropy of the policy's distribution at each token in nats, differentiable; needed where its coefficient is not 0.
    pub entropy: Option<Tensor<1>>,
    /// The tokens' part of [`Advantages::advantages`](crate::Advantages::advantages).
    pub advantages: Tensor<1>,
    /// The tokens' part of [`Aggregation::weights`], computed for all that an optimizer step takes.
    pub weights: Tensor<1>,
    /// The tokens' part of [`ImportanceWeights::weights`](crate::ImportanceWeights::weights): what each policy-gradient loss is
    /// multiplied by, beside its weight. The KL term and the entropy are not.
    pub importance: Option<Tensor<1>>,
    /// Trained tokens of each sequence in this micro-batch; they sum to the number of tokens.
    pub sequence_lengths: Vec<usize>,
}

/// Terms beside the policy gradient in every algorithm's loss: `Σ weight·(pg + β·kl − c·entropy)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossTerms {
    /// Aggregation of the token losses.
    pub aggregation: Aggregation,
    /// The KL term.
    pub kl: Kl,
    /// c, at least 0: how much entropy is rewarded.
    pub entropy_coefficient: f64,
}

/// The loss of one micro-batch.
#[derive(Clone, Debug)]
pub struct LossOutput {
    /// `[1]`: its `backward` gives the micro-batch's part of the full batch's gradient.
    pub loss: Tensor<1>,
    /// Its part of the full batch's metrics.
    pub sums: LossSums,
}

/// The sums behind [`LossMetrics`], on the loss's device until they are read.
#[derive(Clone, Debug)]
pub struct LossSums {
    /// `[6]`, in the order of the metrics.
    values: Tensor<1>,
    tokens: usize,
}

impl LossSums {
    /// The metrics of one micro-batch.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(self) -> Result<LossMetrics, AlgorithmError> {
        Self::read_all(vec![self])
    }

    /// The metrics of all micro-batches of one device, which is waited for once.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read_all(sums: Vec<Self>) -> Result<LossMetrics, AlgorithmError> {
        let tokens: Vec<usize> = sums.iter().map(|sums| sums.tokens).collect();
        let mut total = LossMetrics::default();
        for (tokens, values) in tokens.into_iter().zip(read(sums.into_iter().map(|sums| sums.values).collect())?) {
            let [loss, pg_loss, kl_loss, entropy_sum, clipped, ppo_kl_sum] = values;
            total += LossMetrics { tokens, loss, pg_loss, kl_loss, entropy_sum, clipped, ppo_kl_sum };
        }
        Ok(total)
    }
}

/// Tensors of `N` numbers, copied to the host together.
pub(crate) fn read<const N: usize>(tensors: Vec<Tensor<1>>) -> Result<Vec<[f64; N]>, AlgorithmError> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let values = Tensor::cat(tensors, 0)
        .try_into_vec_as::<f32>()
        .map_err(|error| AlgorithmError::Device { message: error.to_string() })?;
    Ok(values.as_chunks().0.iter().map(|values: &[f32; N]| values.map(f64::from)).collect())
}

/// Sums that add up over micro-batches.
///
/// [`pg_loss`](Self::pg_loss) and [`kl_loss`](Self::kl_loss) are parts of the loss and carry its
/// weights. The others are plain sums over tokens; [`scalars`](Self::scalars) divides them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossMetrics {
    /// Number of trained tokens.
    pub tokens: usize,
    /// The whole loss.
    pub loss: f64,
    /// The policy-gradient part of the loss.
    pub pg_loss: f64,
    /// The KL estimate, weighted like the loss, before its coefficient; 0 without a reference.
    pub kl_loss: f64,
    /// Sum of the entropies; 0 when none were given.
    pub entropy_sum: f64,
    /// Number of tokens at which clipping took effect.
    pub clipped: f64,
    /// Sum of `log π_old − log π_θ`.
    pub ppo_kl_sum: f64,
}

impl LossMetrics {
    /// The metrics under their usual names; entropy, clip fraction and KL are means over tokens.
    pub fn scalars(&self) -> [(&'static str, f64); 5] {
        let tokens = self.tokens.max(1) as f64;
        [
            ("actor/pg_loss", self.pg_loss),
            ("actor/kl_loss", self.kl_loss),
            ("actor/entropy", self.entropy_sum / tokens),
            ("actor/pg_clipfrac", self.clipped / tokens),
            ("actor/ppo_kl", self.ppo_kl_sum / tokens),
        ]
    }
}

impl AddAssign for LossMetrics {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.loss += other.loss;
        self.pg_loss += other.pg_loss;
        self.kl_loss += other.kl_loss;
        self.entropy_sum += other.entropy_sum;
        self.clipped += other.clipped;
        self.ppo_kl_sum += other.ppo_kl_sum;
    }
}

impl LossInputs {
    /// Number of trained tokens.
    pub fn tokens(&self) -> usize {
        self.logprobs.dims()[0]
    }

    /// The advantages as constants.
    pub fn advantages(&self) -> Tensor<1> {
        self.advantages.clone().without_autodiff()
    }

    /// `log π_θ − log π_old`, differentiable, unclamped.
    pub fn log_ratio(&self) -> Tensor<1> {
        self.logprobs.clone() - self.old_logprobs.clone().without_autodiff()
    }

    /// `π_θ / π_old`, differentiable; the logarithm is clamped to ±20.
    pub fn ratio(&self) -> Tensor<1> {
        self.log_ratio().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    }

    /// Replaces each token's value by the mean over its sequence. Values must be constants: no gradient flows.
    pub fn sequence_mean(&self, values: Tensor<1>) -> Tensor<1> {
        let values = values.without_autodiff();
        let device = values.device();
        let owner: Vec<i32> = self
            .sequence_lengths
            .iter()
            .enumerate()
            .flat_map(|(sequence, length)| std::iter::repeat_n(sequence as i32, *length))
            .collect();
        let owner = Tensor::<1, Int>::from_data(owner.as_slice(), &device);
        let lengths: Vec<f32> = self.sequence_lengths.iter().map(|length| *length.max(&1) as f32).collect();
        let sums =
            Tensor::<1>::zeros([lengths.len()], &device).select_assign(0, owner.clone(), values, IndexingUpdateOp::Add);
        (sums / Tensor::<1>::from_floats(lengths.as_slice(), &device)).select(0, owner)
    }

    /// Refuses tensors of different lengths, and terms whose inputs are missing.
    pub(crate) fn validate(&self, algorithm: &'static str, terms: &LossTerms) -> Result<(), AlgorithmError> {
        let tokens = self.tokens();
        if tokens == 0 {
            return Err(AlgorithmError::NoTrainedTokens);
        }
        let length = |what, tensor: &Tensor<1>| same_length(what, "trained token", tensor.dims()[0], tokens);
        length("old_logprobs", &self.old_logprobs)?;
        length("advantages", &self.advantages)?;
        length("weights", &self.weights)?;
        self.importance.iter().try_for_each(|tensor| length("importance", tensor))?;
        same_length("sequence_lengths (summed)", "trained token", self.sequence_lengths.iter().sum(), tokens)?;
        match &self.ref_logprobs {
            Some(tensor) => length("ref_logprobs", tensor)?,
            None if terms.kl.coefficient == 0.0 => {}
            None => {
                let remedy = "run the reference model on the batch, or set `kl.coefficient` to 0";
                return Err(AlgorithmError::Missing { algorithm, what: "ref_logprobs", remedy });
            }
        }
        match &self.entropy {
            Some(tensor) => length("entropy", tensor),
            None if terms.entropy_coefficient == 0.0 => Ok(()),
            None => {
                let remedy = "compute the entropy with the log-probabilities, or set `entropy_coefficient` to 0";
                Err(AlgorithmError::Missing { algorithm, what: "entropy", remedy })
            }
        }
    }

    /// Adds the terms to the policy gradient's token losses and sums up.
    ///
    /// # Errors
    /// When the device fails to hand back the metrics.
    pub(crate) fn reduce(self, token: TokenLoss, terms: &LossTerms) -> Result<LossOutput, AlgorithmError> {
        let tokens = self.tokens();
        let weights = self.weights.clone().without_autodiff();
        let old_minus_new = -self.log_ratio().without_autodiff();
        let constant = |tensor: &Tensor<1>| tensor.clone().without_autodiff();

        let token_loss = match self.importance {
            Some(importance) => token.loss * importance.without_autodiff(),
            None => token.loss,
        };
        let pg_loss = (token_loss * weights.clone()).sum();
        let nothing = constant(&pg_loss).zeros_like();
        let mut loss = pg_loss.clone();
        let mut kl_loss = nothing.clone();
        if let Some(ref_logprobs) = self.ref_logprobs {
            let kl = (terms.kl.estimator.per_token(self.logprobs, ref_logprobs) * weights.clone()).sum();
            kl_loss = constant(&kl);
            if terms.kl.coefficient != 0.0 {
                loss = loss + kl * terms.kl.coefficient;
            }
        }
        let mut entropy_sum = nothing;
        if let Some(entropy) = self.entropy {
            entropy_sum = constant(&entropy).sum();
            if terms.entropy_coefficient != 0.0 {
                loss = loss - (entropy * weights).sum() * terms.entropy_coefficient;
            }
        }

        let sums =
            vec![constant(&loss), constant(&pg_loss), kl_loss, entropy_sum, token.clipped.sum(), old_minus_new.sum()];
        let sums = LossSums { values: Tensor::cat(sums, 0), tokens };
        Ok(LossOutput { loss, sums })
    }
}
