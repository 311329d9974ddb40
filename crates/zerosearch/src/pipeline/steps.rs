//! The steps of a training run, with progress and a graceful end.

use std::sync::atomic::{AtomicBool, Ordering};

use zerosearch_lm::LanguageModel;
use zerosearch_metrics::{ProgressBar, say};
use zerosearch_train::Trainer;

use super::PipelineError;

/// Takes all steps that are left. `None` when interrupted, after a checkpoint; so too when `after_step` fails.
pub(crate) fn take_steps(
    mut trainer: Trainer,
    label: &str,
    interrupted: &AtomicBool,
    after_step: &mut dyn FnMut() -> Result<(), PipelineError>,
) -> Result<Option<LanguageModel>, PipelineError> {
    let (done, steps) = (trainer.steps_done(), trainer.config().steps);
    if done > 0 {
        say(format!("resumed after step {done} of {steps}"));
    }
    let bar = ProgressBar::resumed(label, steps, done);
    loop {
        if interrupted.load(Ordering::Relaxed) && !trainer.is_finished() {
            bar.finish();
            trainer.checkpoint()?;
            return Ok(None);
        }
        if trainer.next_step()?.is_none() {
            bar.finish();
            return Ok(Some(trainer.into_model()?));
        }
        if let Err(error) = after_step() {
            trainer.checkpoint()?;
            return Err(error);
        }
        bar.advance(1);
    }
}

/// The figures of each step on the console.
pub(crate) const COLUMNS: [(&str, &str); 7] = [
    ("reward", "critic/score/mean"),
    ("noise", "curriculum/noise_probability"),
    ("searches", "env/number_of_valid_search"),
    ("finished", "env/finish_ratio"),
    ("kl", "actor/kl_loss"),
    ("entropy", "actor/entropy"),
    ("s", "timing_s/step"),
];
