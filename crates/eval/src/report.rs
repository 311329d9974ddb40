//! The file of an evaluation's scores, and that of its times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_generate::{Role, Usage};

use crate::prediction::beside;
use crate::{Evaluation, GroupedFigures, GroupedScores, Setting};

/// The contents of a file of scores: those of [`GroupedScores`] at the top, then the setting and the figures with intervals.
/// Nothing in it depends on the machine or the time, so an evaluation that is repeated, or gone on with, writes the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scores.
    #[serde(flatten)]
    pub scores: GroupedScores,
    /// Everything that they depend on.
    pub setting: Setting,
    /// The figures with intervals.
    pub figures: GroupedFigures,
}

impl Report {
    /// The report of an evaluation.
    pub fn new(evaluation: &Evaluation, setting: Setting) -> Self {
        let figures = GroupedFigures::of(&evaluation.predictions);
        Self { scores: evaluation.scores.clone(), setting, figures }
    }
}

/// The time that an evaluation took, in a file of its own, because it is another at every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Seconds from the first token of a question's prompt to its answer, beside the others that are answered at the same time.
    pub latency: Latency,
    /// Usage of the model and the engine, by role; of a resumed evaluation, in its last process.
    pub ledger: BTreeMap<Role, Usage>,
    /// The cost of a question, by what is paid for: searches at a web API, or the model's time on a rented device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cost_per_question: BTreeMap<String, f64>,
}

impl Times {
    /// The file of the times beside one of scores: of `scores.json` it is `scores.times.json`.
    pub fn path_of(scores: impl AsRef<Path>) -> PathBuf {
        beside(scores.as_ref(), "times.json")
    }
}

/// The distribution of a latency, in seconds; zeros without values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Sums up seconds.
    pub fn of(seconds: &[f64]) -> Self {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let Some(max) = sorted.last().copied() else { return Self::default() };
        // The least value that at least this share does not exceed.
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)];
        Self { mean: sorted.iter().sum::<f64>() / sorted.len() as f64, p50: at(50), p95: at(95), max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let seconds: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(Latency::of(&seconds), Latency { mean: 10.5, p50: 10.0, p95: 19.0, max: 20.0 });
        assert_eq!(Latency::of(&[3.0]), Latency { mean: 3.0, p50: 3.0, p95: 3.0, max: 3.0 });
        assert_eq!(Latency::of(&[]), Latency::default());
    }
}
