//! The policy's scores on questions that it is not trained on, every few steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zerosearch_curriculum::{Constant, Progress};
use zerosearch_data::Question;
use zerosearch_metrics::Metrics;
use zerosearch_reward::{contains, exact_match, f1};
use zerosearch_rollout::Noise;
use zerosearch_search::SearchEngine;

use crate::{TrainError, Trainer};

/// A fixed set of questions, and the engine for their searches.
#[derive(Clone)]
pub struct Validation {
    /// Asked every `validate_every` steps, greedily, once each.
    pub questions: Arc<[Question]>,
    /// A real engine, or a simulated one.
    pub engine: Arc<dyn SearchEngine>,
    /// The probability of noisy documents of a simulated engine; `None` for a real engine, which is told nothing.
    pub noise: Option<f64>,
}

impl Validation {
    /// Questions for a real engine.
    pub fn new(questions: impl Into<Arc<[Question]>>, engine: impl SearchEngine + 'static) -> Self {
        Self { questions: questions.into(), engine: Arc::new(engine), noise: None }
    }
}

/// The best validation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// After how many steps it was.
    pub(crate) step: u64,
    /// Its mean F1.
    pub(crate) f1: f64,
    /// Validations since then.
    pub(crate) since: u64,
}

impl Trainer {
    /// Validates if it is due, and keeps the best. Metrics: `val/{em,f1,contains}/<data_source>`, and over all questions
    /// `val/{em,f1,contains}`.
    pub(crate) fn validate_if_due(&mut self, metrics: &mut Metrics) -> Result<(), TrainError> {
        let every = self.config.validate_every;
        let Some(validation) = self.validation.clone().filter(|v| !v.questions.is_empty()) else { return Ok(()) };
        if every == 0 || !(self.step.is_multiple_of(every) || self.step == self.config.steps) {
            return Ok(());
        }
        let found = self.validate(&validation)?;
        let mean = found.get("val/f1").unwrap_or(0.0);
        found.iter().for_each(|(name, value)| metrics.insert(name, value));
        self.best = Some(match self.best {
            Some(best) if mean <= best.f1 => Best { since: best.since + 1, ..best },
            _ => Best { step: self.step, f1: mean, since: 0 },
        });
        Ok(())
    }

    /// Whether `early_stop_patience` validations in a row brought nothing better.
    pub(crate) fn is_exhausted(&self) -> bool {
        let patience = self.config.early_stop_patience;
        patience > 0 && self.best.is_some_and(|best| best.since >= patience)
    }

    fn validate(&mut self, validation: &Validation) -> Result<Metrics, TrainError> {
        let told = Constant::new(validation.noise.unwrap_or(0.0))?;
        let noise = match validation.noise {
            Some(_) => Noise::Curriculum { curriculum: &told, progress: Progress::at(0, 1) },
            None => Noise::Off,
        };
        let rollouts = self.collector.answer(&validation.questions, validation.engine.as_ref(), noise)?;
        let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for (rollout, question) in rollouts.iter().zip(&*validation.questions) {
            let answer = rollout.answer(&self.collector.format).unwrap_or_default();
            let golden = &question.golden_answers;
            for (name, score) in [
                ("em", f64::from(u8::from(exact_match(answer, golden)))),
                ("f1", f1(answer, golden)),
                ("contains", f64::from(u8::from(contains(answer, golden)))),
            ] {
                let of_source = question.data_source.iter().map(|source| format!("val/{name}/{source}"));
                for key in of_source.chain([format!("val/{name}")]) {
                    let (sum, count) = sums.entry(key).or_default();
                    *sum += score;
                    *count += 1.0;
                }
            }
        }
        let mut metrics = Metrics::new();
        sums.into_iter().for_each(|(name, (sum, count))| metrics.insert(name, sum / count));
        Ok(metrics)
    }
}
