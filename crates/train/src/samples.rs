//! Rollouts of a step with what the update made of them, for people to read: `step_000012.jsonl`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerosearch_files::write_atomic;
use zerosearch_rollout::Rollout;

use crate::{StepReport, TrainError};

/// One rollout, its reward, and the advantage of each of its trained tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The step, counted from 1.
    pub step: u64,
    /// What it earned.
    pub reward: f32,
    /// One for each trained token; none when the update left the rollout out.
    pub advantages: Vec<f32>,
    /// The rollout.
    pub rollout: Rollout,
}

/// Where the samples of a step lie.
pub fn samples_path(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step_{step:06}.jsonl"))
}

/// Writes the first `count` rollouts of a step, one JSON object a line.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_samples(folder: &Path, report: &StepReport, count: usize) -> Result<(), TrainError> {
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let path = samples_path(folder, report.step);
    let mut text = String::new();
    let rows = report.rollouts.iter().zip(&report.rewards).zip(&report.advantages).take(count);
    for ((rollout, reward), advantages) in rows {
        let (rollout, advantages) = (rollout.clone(), advantages.clone());
        let sample = Sample { step: report.step, reward: *reward, advantages, rollout };
        text += &serde_json::to_string(&sample).map_err(|error| failed(&path, error))?;
        text.push('\n');
    }
    Ok(write_atomic(&path, text.as_bytes())?)
}

/// Reads what [`write_samples`] wrote.
///
/// # Errors
/// Names the file and the line.
pub fn read_samples(path: &Path) -> Result<Vec<Sample>, TrainError> {
    let text = fs::read_to_string(path).map_err(|error| failed(path, error))?;
    let row = |(index, line)| {
        serde_json::from_str(line).map_err(|error| failed(path, format!("line {}: {error}", index + 1)))
    };
    text.lines().enumerate().map(row).collect()
}

fn failed(path: &Path, message: impl std::fmt::Display) -> TrainError {
    TrainError::Samples { path: path.into(), message: message.to_string() }
}
