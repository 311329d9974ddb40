//! Segments in the order in which the model saw them.

use serde::{Deserialize, Serialize};

use crate::TokenMask;

/// A token's index in the vocabulary.
pub type TokenId = u32;

/// Counts the updates of the policy: tokens sampled before an update carry a smaller number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WeightVersion(pub u64);

/// A token that the policy sampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledToken {
    /// The sampled token.
    pub id: TokenId,
    /// Natural logarithm of its probability under the model at temperature 1, untruncated.
    pub logprob: f32,
    /// The same under the distribution that it was drawn from, where temperature or truncation makes that another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_logprob: Option<f32>,
}

impl SampledToken {
    /// A token drawn from the model's own distribution.
    pub fn new(id: TokenId, logprob: f32) -> Self {
        Self { id, logprob, sampling_logprob: None }
    }
}

/// Why a policy turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// A stop string was completed.
    Stop,
    /// The model sampled an end-of-text token.
    EndOfText,
    /// The turn reached its limit of new tokens.
    Length,
    /// The sequence reached the model's context length.
    Context,
    /// The caller cancelled it.
    Cancelled,
    /// It ran out of time.
    TimedOut,
}

/// A run of tokens with one author.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// The model's input. Never trained on.
    Prompt(Vec<TokenId>),
    /// The tokens that the policy sampled in one turn. The only segment that is trained on.
    Policy {
        /// The sampled tokens, each with its log-probability.
        tokens: Vec<SampledToken>,
        /// Why the turn ended.
        finish: Finish,
        /// The weights it was sampled with.
        weights: WeightVersion,
    },
    /// A tool's answer. It has no log-probability, so it cannot be trained on, by type.
    Observation(Vec<TokenId>),
}

impl Segment {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Segment::Prompt(tokens) | Segment::Observation(tokens) => tokens.len(),
            Segment::Policy { tokens, .. } => tokens.len(),
        }
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = TokenId> + '_ {
        let (plain, sampled): (&[TokenId], &[SampledToken]) = match self {
            Segment::Prompt(tokens) | Segment::Observation(tokens) => (tokens, &[]),
            Segment::Policy { tokens, .. } => (&[], tokens),
        };
        plain.iter().copied().chain(sampled.iter().map(|token| token.id))
    }

    /// Whether the policy sampled it.
    pub fn is_trained(&self) -> bool {
        matches!(self, Segment::Policy { .. })
    }
}

/// One episode as the model saw it: the concatenation of its segments is exactly the token sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    segments: Vec<Segment>,
}

impl Trajectory {
    /// Starts with a prompt.
    pub fn new(prompt: Vec<TokenId>) -> Self {
        Self { segments: vec![Segment::Prompt(prompt)] }
    }

    /// Appends a segment.
    pub fn push(&mut self, segment: Segment) {
        self.segments.push(segment);
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Number of tokens in all segments.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Whether there are no tokens at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every token, in the order in which the model saw it.
    pub fn tokens(&self) -> Vec<TokenId> {
        self.segments.iter().flat_map(Segment::ids).collect()
    }

    /// Which of [`tokens`](Self::tokens) are trained on.
    pub fn mask(&self) -> TokenMask {
        TokenMask::from_segments(&self.segments)
    }

    /// The sampled tokens, in order: one for each trained position of the mask.
    pub fn sampled(&self) -> impl Iterator<Item = &SampledToken> {
        self.segments.iter().flat_map(|segment| match segment {
            Segment::Policy { tokens, .. } => tokens.as_slice(),
            _ => &[],
        })
    }

    /// The log-probabilities of the sampled tokens, in order, at temperature 1 and untruncated.
    pub fn logprobs(&self) -> Vec<f32> {
        self.sampled().map(|token| token.logprob).collect()
    }

    /// The weights that sampled each policy turn and its number of tokens, in order.
    pub fn versions(&self) -> impl Iterator<Item = (WeightVersion, usize)> + '_ {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Policy { tokens, weights, .. } => Some((*weights, tokens.len())),
            _ => None,
        })
    }

    /// Number of tokens before the first policy turn.
    pub fn prompt_len(&self) -> usize {
        self.segments.iter().take_while(|segment| matches!(segment, Segment::Prompt(_))).map(Segment::len).sum()
    }
}
