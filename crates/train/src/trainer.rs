//! One step after another: rollouts against the engine, an update from them, the generator's new weights.

use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use zerosearch_data::Question;
use zerosearch_generate::WeightVersion;
use zerosearch_lm::{LanguageModel, ModelFiles};
use zerosearch_metrics::{Metrics, Sink};
use zerosearch_search::SearchEngine;

use crate::collector::Collector;
use crate::identity::Identity;
use crate::outputs::Outputs;
use crate::updater::Updater;
use crate::validation::{Best, Validation};
use crate::{Sample, StepReport, TrainConfig, TrainError, TrainerBuilder};

/// A training run, driven from outside: it is built by [`Trainer::builder`], takes a step with every
/// [`next_step`](Self::next_step), and becomes a model in the end.
///
/// It owns or shares all its parts, so it can be kept in a struct, moved to a thread, or stopped between any two steps.
pub struct Trainer {
    pub(crate) config: Arc<TrainConfig>,
    /// The policy's folder without the weights, which the updater has.
    pub(crate) files: ModelFiles,
    pub(crate) collector: Collector,
    pub(crate) updater: Updater,
    /// Steps done.
    pub(crate) step: u64,
    /// Updates skipped in a row.
    pub(crate) skipped: u64,
    pub(crate) validation: Option<Validation>,
    pub(crate) best: Option<Best>,
    pub(crate) identity: Identity,
    pub(crate) outputs: Outputs,
    /// Whether a step failed after it had begun to change the weights.
    pub(crate) is_broken: bool,
}

/// 1 for a step whose update was skipped because a loss or gradient was not finite.
pub(crate) const SKIPPED: &str = "actor/skipped_update";

impl Trainer {
    /// A run of `policy` on `questions`, whose searches `engine` answers: a simulated one, if the run is to be free of real
    /// ones. The policy is also the reference of a KL term.
    ///
    /// No copy of the policy's weights is made on the CPU, unless somebody keeps a clone of the model.
    pub fn builder(
        policy: LanguageModel,
        questions: impl Into<Arc<[Question]>>,
        engine: impl SearchEngine + 'static,
    ) -> TrainerBuilder {
        TrainerBuilder::new(policy, questions.into(), Arc::new(engine))
    }

    /// Takes a step, unless all are done or validation has not become better for `early_stop_patience` times: then `None`.
    ///
    /// The step's figures go to the sinks, its samples to their folder, and a checkpoint is written where one is due: after
    /// every `checkpoint_every` steps, after the best validation so far, and after the last step. The samples of a step
    /// whose update was skipped are left in `not_finite/` beside the checkpoints.
    ///
    /// # Errors
    /// When the generator or a checkpoint fails, or the folder of the checkpoints holds one of a later step. When a loss or
    /// gradient is not finite, that update is not applied; more than `skipped_updates` in a row are an error. When a sink
    /// or a sample file cannot be written, a checkpoint is written that remembers what it lacks: the next call, here or
    /// after a resume, writes it again and returns that step.
    pub fn next_step(&mut self) -> Result<Option<StepReport>, TrainError> {
        self.refuse_broken()?;
        self.begin()?;
        let report = match self.outputs.unrecorded.take() {
            Some(report) => report,
            None if self.is_done() => return Ok(None),
            None => self.step()?,
        };
        let (done, every) = (self.step, self.config.checkpoint_every);
        let best = self.best.is_some_and(|best| best.step == done);
        let due = self.is_done() || best || (every > 0 && done.is_multiple_of(every));
        if let Err(error) = self.outputs.record(&report, due) {
            self.outputs.unrecorded = Some(report);
            if self.outputs.checkpoints.is_some()
                && let Err(also) = self.checkpoint()
            {
                tracing::warn!("no checkpoint of step {done} could be written either: {also}");
            }
            return Err(error);
        }
        if due && self.outputs.checkpoints.is_some() {
            self.checkpoint()?;
        }
        Ok(Some(report))
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The step with which a sink begins or goes on that is added now: the next one, or the last one if it could not be
    /// recorded.
    pub fn first_unrecorded_step(&self) -> u64 {
        self.outputs.unrecorded.as_ref().map_or(self.step + 1, |report| report.step)
    }

    /// Has the figures of all further steps go to this sink as well.
    pub fn add_sink(&mut self, sink: impl Sink + 'static) {
        self.outputs.sinks.push(sink);
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The policy as trained so far.
    ///
    /// # Errors
    /// When its weights cannot be copied from their device.
    pub fn model(&self) -> Result<LanguageModel, TrainError> {
        Ok(self.files.with_weights(self.updater.policy.decoder.to_host()))
    }

    /// The trained policy. The figures of all steps are safe on disk by then.
    ///
    /// # Errors
    /// When the weights cannot be copied from their device, or a sink fails.
    pub fn into_model(mut self) -> Result<LanguageModel, TrainError> {
        self.outputs.sinks.flush()?;
        self.model()
    }

    /// Whether no step is left to take or to be recorded.
    pub fn is_finished(&self) -> bool {
        self.is_done() && self.outputs.unrecorded.is_none()
    }

    /// Whether no step is left to take.
    fn is_done(&self) -> bool {
        self.step >= self.config.steps || self.is_exhausted()
    }

    pub(crate) fn refuse_broken(&self) -> Result<(), TrainError> {
        if self.is_broken { Err(TrainError::Broken) } else { Ok(()) }
    }

    /// One step: its rollouts, unless they were collected ahead, and the update from them. With a staleness the rollouts of a later
    /// step are collected beside the update, with the weights before it.
    fn step(&mut self) -> Result<StepReport, TrainError> {
        let mut metrics = Metrics::new();
        let began = Instant::now();
        let (staleness, steps, step) = (self.config.staleness, self.config.steps, self.step);
        // More than one only at the beginning of a run: all that is sampled before the first update.
        let sampled_before = steps.min(step.saturating_add(staleness.max(1)));
        while step + (self.collector.ahead.len() as u64) < sampled_before {
            self.refit()?;
            self.collector.collect(step + self.collector.ahead.len() as u64)?;
        }
        let next = step + self.collector.ahead.len() as u64;
        let overlaps = staleness > 0 && next < steps;
        if overlaps {
            self.refit()?;
        } else if self.config.sleep {
            // The generator's copy of the weights makes room for gradients and activations.
            self.collector.sleep()?;
        } else {
            let policy = &mut self.updater.policy;
            policy.optimizer.write_also(self.collector.lend_copies(&policy.decoder));
        }
        let collection = self.collector.ahead.pop_front().unwrap_or_default();
        self.is_broken = true;
        let Self { collector, updater, .. } = self;
        let (learnt, update_seconds, ahead) = thread::scope(|scope| {
            let ahead = overlaps.then(|| scope.spawn(|| collector.collect(next)));
            let began = Instant::now();
            let learnt = updater.learn(step, &collection.experiences, &mut metrics);
            (learnt, began.elapsed().as_secs_f64(), ahead.map(ScopedJoinHandle::join))
        });
        self.updater.policy.optimizer.write_also(None);
        let advantages = match learnt {
            Err(TrainError::NotFinite { .. }) if self.skipped < self.config.skipped_updates => {
                self.skipped += 1;
                vec![Vec::new(); collection.experiences.len()]
            }
            learnt => {
                let advantages = learnt?;
                self.skipped = 0;
                advantages
            }
        };
        if let Some(ahead) = ahead {
            ahead.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        metrics.insert(SKIPPED, f64::from(u8::from(self.skipped > 0)));
        collection.metrics(WeightVersion(step), &mut metrics);
        self.step += 1;
        self.collector.is_current = false;
        let began_refit = Instant::now();
        self.refit()?;
        metrics.insert("timing_s/refit", began_refit.elapsed().as_secs_f64());
        self.validate_if_due(&mut metrics)?;
        if self.collector.dynamic_sampling {
            collection.sampling_metrics(self.config.questions_per_step as u64, &mut metrics);
        }
        metrics.insert("timing_s/update", update_seconds);
        metrics.insert("timing_s/step", began.elapsed().as_secs_f64());
        self.is_broken = false;
        Ok(StepReport { step: self.step, metrics, samples: Sample::of_step(self.step, collection, advantages) })
    }

    /// Hands the policy to the generator, unless it has it.
    pub(crate) fn refit(&mut self) -> Result<(), TrainError> {
        self.collector.refit(&self.updater.policy.decoder, WeightVersion(self.step))
    }
}
