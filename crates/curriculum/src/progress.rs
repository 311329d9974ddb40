//! Progress of training.

/// Progress of training at a search call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Finished training steps, `i` in the paper.
    pub step: u64,
    /// Training steps of the whole run, `m` in the paper.
    pub total: u64,
    /// Turns that the episode has already taken: 0 for its first search.
    pub turn: u32,
    /// The policy's recent share of successful episodes, in `[0, 1]`; `None` before the first one.
    pub success_rate: Option<f64>,
}

impl Progress {
    /// Step `step` of `total`, in the first turn, with no success rate known.
    pub fn at(step: u64, total: u64) -> Self {
        Self { step, total, turn: 0, success_rate: None }
    }

    /// The share of training that is done, in `[0, 1]`; 1 from the last step on, and for a run of no steps.
    pub fn fraction(self) -> f64 {
        if self.step >= self.total { 1.0 } else { self.step as f64 / self.total as f64 }
    }
}
