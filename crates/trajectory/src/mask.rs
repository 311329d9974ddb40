//! The mask of trained tokens, derived from who wrote a token and from nothing else.

use crate::Segment;

/// Which tokens of a trajectory are trained on: true exactly where the policy sampled the token.
///
/// There is no setter and no sentinel id: the mask follows from the segments alone, so a policy
/// that samples the pad token is still trained on it, and an observation never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    bits: Vec<bool>,
}

impl TokenMask {
    pub(crate) fn from_segments(segments: &[Segment]) -> Self {
        let bits =
            segments.iter().flat_map(|segment| std::iter::repeat_n(segment.is_trained(), segment.len())).collect();
        Self { bits }
    }

    /// One value per token, true where it is trained on.
    pub fn as_slice(&self) -> &[bool] {
        &self.bits
    }

    /// Number of trained tokens.
    pub fn trained(&self) -> usize {
        self.bits.iter().filter(|bit| **bit).count()
    }

    /// Indices of the trained tokens, ascending.
    pub fn trained_positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.bits.iter().enumerate().filter_map(|(index, bit)| bit.then_some(index))
    }
}
