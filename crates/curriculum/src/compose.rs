//! Curricula made of other curricula.

use crate::{Curriculum, CurriculumError, Progress};

/// Another curriculum run backwards in time: the ablation that starts with the hardest documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reversed<C>(pub C);

impl<C: Curriculum> Curriculum for Reversed<C> {
    fn noise_probability(&self, progress: Progress) -> f64 {
        // A run of no steps counts as finished, so its reversal stands at the start of a run of one.
        let total = progress.total.max(1);
        let step = total - if progress.total == 0 { 1 } else { progress.step.min(total) };
        self.0.noise_probability(Progress { step, total, ..progress })
    }
}

/// One curriculum for each turn of an episode; the last one also serves every later turn.
#[derive(Clone, Debug, PartialEq)]
pub struct PerTurn<C> {
    first: Vec<C>,
    last: C,
}

impl<C: Curriculum> PerTurn<C> {
    /// The first curriculum serves the first turn, and so on.
    ///
    /// # Errors
    /// An empty list.
    pub fn new(mut turns: Vec<C>) -> Result<Self, CurriculumError> {
        let last = turns.pop().ok_or(CurriculumError::Empty { key: "turns" })?;
        Ok(Self { first: turns, last })
    }
}

impl<C: Curriculum> Curriculum for PerTurn<C> {
    fn noise_probability(&self, progress: Progress) -> f64 {
        let turn = usize::try_from(progress.turn).unwrap_or(usize::MAX);
        self.first.get(turn).unwrap_or(&self.last).noise_probability(progress)
    }
}
