//! All that a run writes beside its steps: figures, samples, checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zerosearch_files::write_atomic;
use zerosearch_generate::{Ledger, Role, Usage};
use zerosearch_metrics::{Sink, Sinks};

use crate::trainer::SKIPPED;
use crate::{StepReport, TrainError, write_samples};

#[derive(Default)]
pub(crate) struct Outputs {
    pub(crate) sinks: Sinks,
    /// The folder of the checkpoints.
    pub(crate) checkpoints: Option<PathBuf>,
    /// A folder for the first samples of every step, and their number.
    pub(crate) samples: Option<(PathBuf, usize)>,
    /// A file for what the run has used.
    pub(crate) ledger: Option<(PathBuf, Ledger)>,
    /// The last step, if its figures or samples could not be written.
    pub(crate) unrecorded: Option<StepReport>,
    /// Whether the folder of the checkpoints has been looked at.
    pub(crate) has_begun: bool,
}

impl Outputs {
    /// Writes figures and samples of a step. With `flush`, the figures are safe on disk afterwards: a checkpoint never knows
    /// of steps that the log does not.
    pub(crate) fn record(&mut self, report: &StepReport, flush: bool) -> Result<(), TrainError> {
        if let Some(checkpoints) = &self.checkpoints
            && report.metrics.get(SKIPPED).is_some_and(|skipped| skipped > 0.0)
        {
            write_samples(checkpoints.join("not_finite"), &report.samples)?;
        }
        if let Some((folder, count)) = &self.samples {
            write_samples(folder, &report.samples[..report.samples.len().min(*count)])?;
        }
        if let Some((path, ledger)) = &self.ledger {
            write_ledger(path, ledger)?;
        }
        self.sinks.log(report.step, &report.metrics)?;
        if flush {
            self.sinks.flush()?;
        }
        Ok(())
    }
}

/// Usage of the runs in a folder, by role: empty where there is no such file.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn read_ledger(path: impl AsRef<Path>) -> Result<BTreeMap<Role, Usage>, TrainError> {
    let path = path.as_ref();
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text =
        std::fs::read(path).and_then(zerosearch_files::decode_text).map_err(|error| TrainError::file(path, error))?;
    serde_json::from_str(&text).map_err(|error| {
        let expected = "expected what each of policy, simulator, judge and engine used; delete it to count from zero";
        TrainError::file(path, format!("{error}; {expected}"))
    })
}

/// Writes what a run has used to a file, as [`read_ledger`] reads it.
///
/// # Errors
/// When the file cannot be written.
pub fn write_ledger(path: impl AsRef<Path>, ledger: &Ledger) -> Result<(), TrainError> {
    let path = path.as_ref();
    let text = serde_json::to_string_pretty(&ledger.usages()).map_err(|error| TrainError::file(path, error))?;
    Ok(write_atomic(path, format!("{text}\n").as_bytes())?)
}
