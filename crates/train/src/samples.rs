//! Rollouts of a step with their advantages, for people to read: `step_000012.jsonl`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_files::{parse_rows, write_atomic};
use zerosearch_metrics::Metrics;
use zerosearch_rollout::Rollout;

use crate::TrainError;
use crate::collection::Collection;

/// One rollout, its reward, and the advantage of each of its trained tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The step, counted from 1.
    pub step: u64,
    /// The reward.
    pub reward: f32,
    /// One for each trained token; none when the update left the rollout out.
    pub advantages: Vec<f32>,
    /// The rollout.
    pub rollout: Rollout,
}

impl Sample {
    /// The experiences of a step with their advantages.
    pub(crate) fn of_step(step: u64, collection: Collection, advantages: Vec<Vec<f32>>) -> Vec<Self> {
        let experiences = collection.experiences.into_iter().zip(advantages);
        let sample = |(experience, advantages): (crate::Experience, _)| {
            let crate::Experience { rollout, reward, .. } = experience;
            Self { step, reward, advantages, rollout }
        };
        experiences.map(sample).collect()
    }
}

/// A step's figures and all its rollouts.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Its number, counted from 1.
    pub step: u64,
    /// Every figure.
    pub metrics: Metrics,
    /// Its rollouts, those that the update left out included.
    pub samples: Vec<Sample>,
}

/// The file with the samples of a step.
pub fn samples_path(folder: impl AsRef<Path>, step: u64) -> PathBuf {
    folder.as_ref().join(format!("step_{step:06}.jsonl"))
}

/// Writes samples of one step, one JSON object a line. Nothing where there are none.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_samples(folder: impl AsRef<Path>, samples: &[Sample]) -> Result<(), TrainError> {
    let (folder, Some(first)) = (folder.as_ref(), samples.first()) else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let path = samples_path(folder, first.step);
    let mut text = String::new();
    for sample in samples {
        text += &serde_json::to_string(sample).map_err(|error| failed(&path, error))?;
        text.push('\n');
    }
    Ok(write_atomic(&path, text.as_bytes())?)
}

/// Reads a file of [`write_samples`]. A last line that was cut short is left out with a warning.
///
/// # Errors
/// Names the file and the line.
pub fn read_samples(path: impl AsRef<Path>) -> Result<Vec<Sample>, TrainError> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| failed(path, error))?;
    parse_rows(path, &bytes, serde_json::from_slice).map_err(|error| failed(path, error))
}

fn failed(path: &Path, message: impl std::fmt::Display) -> TrainError {
    TrainError::file(path, message)
}
