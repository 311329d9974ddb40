//! All that a run writes beside its steps: figures, samples, checkpoints.

use std::path::PathBuf;

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
        self.sinks.log(report.step, &report.metrics)?;
        if flush {
            self.sinks.flush()?;
        }
        Ok(())
    }
}
