//! Steps until the end, with checkpoints on the way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use zerosearch_metrics::{Sink, Sinks};

use crate::trainer::SKIPPED;
use crate::{StepReport, TrainError, Trainer, latest_step, write_samples};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All steps are done, or validation has not become better for `early_stop_patience` times.
    Finished,
    /// It was asked to stop, and left a checkpoint.
    Interrupted,
}

impl Trainer<'_> {
    /// Takes steps until all are done or `interrupted` becomes true. Checkpoints are written as configured, after the
    /// best validation so far, on interruption and at the end. The rollouts of a step whose update was skipped are
    /// left in `not_finite/` beside the checkpoints.
    ///
    /// # Errors
    /// When a step, a sink or a checkpoint fails, or the folder holds a checkpoint of a later step: of another run, or
    /// of this one, which was then not resumed.
    pub fn run(
        &mut self,
        checkpoints: &Path,
        sinks: &mut Sinks,
        interrupted: &AtomicBool,
        on_step: &mut dyn FnMut(&StepReport),
    ) -> Result<RunEnd, TrainError> {
        match latest_step(checkpoints)? {
            Some(step) if step > self.steps_done() => {
                let message = format!("holds a checkpoint of step {step}: resume from it, or start in another folder");
                return Err(TrainError::Checkpoint { path: checkpoints.into(), message });
            }
            // A process that was killed right after this checkpoint has left older ones to be deleted.
            Some(step) if step == self.steps_done() => self.retain(checkpoints)?,
            _ => {}
        }
        while self.steps_done() < self.config().steps && !self.is_exhausted() {
            if interrupted.load(Ordering::Relaxed) {
                self.save(checkpoints)?;
                return Ok(RunEnd::Interrupted);
            }
            let report = self.step()?;
            if report.metrics.get(SKIPPED).is_some_and(|skipped| skipped > 0.0) {
                write_samples(&checkpoints.join("not_finite"), &report, report.rollouts.len())?;
            }
            sinks.log(report.step, &report.metrics)?;
            on_step(&report);
            let (done, every) = (self.steps_done(), self.config().checkpoint_every);
            let last = done == self.config().steps || self.is_exhausted();
            let best = self.best.is_some_and(|best| best.step == done);
            if last || best || (every > 0 && done.is_multiple_of(every)) {
                // Figures first: a checkpoint never knows of steps that the log does not.
                sinks.flush()?;
                self.save(checkpoints)?;
            }
        }
        Ok(RunEnd::Finished)
    }
}
