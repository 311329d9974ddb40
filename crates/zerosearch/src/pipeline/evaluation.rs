//! The figures that a run ends with.

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zerosearch_data::Question;
use zerosearch_eval::{EvalConfig, Prediction, Scores, Strategy, evaluate, write_predictions};
use zerosearch_lm::{LanguageModel, LocalGenerator};
use zerosearch_metrics::ProgressBar;
use zerosearch_rollout::RolloutConfig;
use zerosearch_search::SearchEngine;
use zerosearch_simulator::Obedience;

use super::PipelineError;

/// Contents of `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// The algorithm's name.
    pub algorithm: String,
    /// Training steps.
    pub steps: u64,
    /// Queries that reached the real engine while the policy was trained, counted at the engine.
    pub real_search_calls_during_training: u64,
    /// How well the fine-tuned simulator obeys its keyword, on queries of held-out questions.
    pub simulator: Obedience,
    /// The same without asking it again where it disobeys.
    pub simulator_first_attempt: Obedience,
    /// The same, also at the first attempt, for the base model before fine-tuning.
    pub simulator_before_tuning: Obedience,
    /// The same for the base model with [`SimulatorPrompt::prompted`](zerosearch_simulator::SimulatorPrompt::prompted): prompt mode.
    #[serde(default)]
    pub simulator_prompt_mode: Option<Obedience>,
    /// How well the surface of the fine-tuned simulator's documents tells useful from noisy: see
    /// [`surface_auc`](zerosearch_simulator::surface_auc).
    #[serde(default)]
    pub simulator_surface_auc: Option<f64>,
    /// The base policy, answering at once.
    pub base_direct: SummaryScores,
    /// The base policy, searching.
    pub base_search: SummaryScores,
    /// The trained policy, searching.
    pub trained_search: SummaryScores,
}

/// Scores on held-out questions with the real engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryScores {
    /// Questions of one hop.
    pub single_hop: Scores,
    /// Questions of several hops.
    pub multi_hop: Scores,
}

/// Results of a finished pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The figures.
    pub summary: Summary,
    /// The trained policy's answers.
    pub predictions: Vec<Prediction>,
}

pub(crate) struct Examination<'a> {
    pub(crate) engine: &'a dyn SearchEngine,
    pub(crate) device: &'a Device,
    pub(crate) questions: &'a [Question],
    pub(crate) rollout: RolloutConfig,
    pub(crate) seed: u64,
}

impl Examination<'_> {
    /// Greedy answers to every question, written to `file` as JSONL as well.
    pub(crate) fn of(
        &self,
        label: &str,
        model: &LanguageModel,
        strategy: Strategy,
        file: &Path,
    ) -> Result<(SummaryScores, Vec<Prediction>), PipelineError> {
        let RolloutConfig { max_turns, max_new_tokens, max_observation_tokens, top_k, format, .. } = self.rollout;
        let greedy = EvalConfig::default().rollout;
        let rollout = RolloutConfig { max_turns, max_new_tokens, max_observation_tokens, top_k, format, ..greedy };
        let config = EvalConfig { strategy, rollout, seed: self.seed, chunk: 128 };
        let prompt = strategy.prompt(&model.codec, &format.into())?;
        let mut generator = LocalGenerator::for_model_on(model, self.device)?;
        let bar = ProgressBar::new(label, self.questions.len() as u64);
        let result = evaluate(&mut generator, Some(self.engine), &model.codec, &prompt, self.questions, &config, &bar)?;
        bar.finish();
        write_predictions(file, &result.predictions)?;
        Ok((
            SummaryScores { single_hop: result.scores.single_hop, multi_hop: result.scores.multi_hop },
            result.predictions,
        ))
    }
}
