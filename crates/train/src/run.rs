//! Steps until the end, with checkpoints on the way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use zerosearch_metrics::{Sink, Sinks};

use crate::{StepReport, TrainError, Trainer};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and left a checkpoint.
    Interrupted,
}

impl Trainer<'_> {
    /// Takes steps until all are done or `interrupted` becomes true. Checkpoints are written as configured, on
    /// interruption and at the end.
    ///
    /// # Errors
    /// When a step, a sink or a checkpoint fails.
    pub fn run(
        &mut self,
        checkpoints: &Path,
        sinks: &mut Sinks,
        interrupted: &AtomicBool,
        on_step: &mut dyn FnMut(&StepReport),
    ) -> Result<RunEnd, TrainError> {
        while self.steps_done() < self.config().steps {
            if interrupted.load(Ordering::Relaxed) {
                self.save(checkpoints)?;
                return Ok(RunEnd::Interrupted);
            }
            let report = self.step()?;
            sinks.log(report.step, &report.metrics)?;
            on_step(&report);
            let (done, every) = (self.steps_done(), self.config().checkpoint_every);
            if done == self.config().steps || (every > 0 && done.is_multiple_of(every)) {
                // Figures first: a checkpoint never knows of steps that the log does not.
                sinks.flush()?;
                self.save(checkpoints)?;
            }
        }
        Ok(RunEnd::Finished)
    }
}
