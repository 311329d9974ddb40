//! All questions in, one prediction for each out.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use zerosearch_data::Question;
use zerosearch_generate::{Generator, Sampling};
use zerosearch_metrics::ProgressBar;
use zerosearch_rollout::{Noise, RolloutConfig, RolloutError, RolloutPlan, Task};
use zerosearch_search::{Document, Query, SearchEngine, SearchError};
use zerosearch_text::{Codec, PromptTemplate};

use crate::prediction::Opening;
use crate::retrieval::retrieve;
use crate::{EvalError, GroupedScores, Prediction, Strategy};

/// How questions are answered. The default searches greedily within the bounds of [`RolloutConfig::default`].
///
/// In a file the keys of `rollout` stand beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EvalConfig {
    /// How each question is answered.
    pub strategy: Strategy,
    /// The bounds of an episode; greedy by default. The strategies other than [`Strategy::Search`] have one turn, whatever its
    /// `max_turns` says.
    #[serde(flatten)]
    pub rollout: RolloutConfig,
    /// How many questions are answered at a time. Bounds memory and has no influence on any prediction.
    pub chunk: usize,
    /// The seed of all draws; without influence on a greedy policy.
    pub seed: u64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        let rollout = RolloutConfig { sampling: Sampling::greedy(), ..RolloutConfig::default() };
        Self { strategy: Strategy::default(), rollout, chunk: 64, seed: 0 }
    }
}

/// By hand, because a key of `rollout` that is left out has the default of an evaluation, and because unknown keys are refused.
impl<'de> Deserialize<'de> for EvalConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(default)]
        struct Own {
            strategy: Strategy,
            chunk: usize,
            seed: u64,
        }

        impl Default for Own {
            fn default() -> Self {
                let EvalConfig { strategy, chunk, seed, .. } = EvalConfig::default();
                Self { strategy, chunk, seed }
            }
        }

        let mut keys: Map<String, Value> = Map::deserialize(deserializer)?;
        let own = ["strategy", "chunk", "seed"].into_iter().filter_map(|key| keys.remove_entry(key)).collect();
        let Own { strategy, chunk, seed } = Own::deserialize(Value::Object(own)).map_err(D::Error::custom)?;
        if !keys.contains_key("sampling") {
            let sampling = serde_json::to_value(Self::default().rollout.sampling).map_err(D::Error::custom)?;
            keys.insert("sampling".into(), sampling);
        }
        let rollout = RolloutConfig::deserialize(Value::Object(keys)).map_err(D::Error::custom)?;
        Ok(Self { strategy, rollout, chunk, seed })
    }
}

/// Predictions and scores of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// One for each question, in their order.
    pub predictions: Vec<Prediction>,
    /// Their figures.
    pub scores: GroupedScores,
}

/// Answers every question and scores the answers. No question is dropped: one without an answer, with
/// failed searches or with a prompt beyond the context is scored as it is.
///
/// The engine is asked without a simulation context, so a simulated one refuses: evaluation is for real
/// engines. `engine` may be `None` for the strategies that do not search. A prompt for the
/// strategy comes from [`Strategy::prompt`].
///
/// # Errors
/// When there are no questions, the strategy needs an engine and there is none, a bound is out of range, the
/// prompt cannot be rendered, or the generator fails.
pub fn evaluate(
    generator: &mut dyn Generator,
    engine: Option<&dyn SearchEngine>,
    codec: &Codec,
    prompt: &PromptTemplate,
    questions: &[Question],
    config: &EvalConfig,
    progress: &ProgressBar,
) -> Result<Evaluation, EvalError> {
    if questions.is_empty() {
        return Err(EvalError::NoQuestions);
    }
    if config.chunk == 0 {
        return Err(RolloutError::Zero { key: "chunk" }.into());
    }
    let engine: &dyn SearchEngine = match engine {
        Some(engine) => engine,
        None if config.strategy.needs_engine() => return Err(EvalError::NoEngine(config.strategy)),
        None => &Never,
    };
    let max_turns = if config.strategy == Strategy::Search { config.rollout.max_turns } else { 1 };
    let bounds = RolloutConfig { max_turns, ..config.rollout };
    let plan = RolloutPlan { seed: config.seed, ..RolloutPlan::search(engine, Noise::Off, codec, bounds) };
    let mut predictions = Vec::with_capacity(questions.len());
    // The last chunk is as good as any other, however short.
    for chunk in questions.chunks(config.chunk) {
        let (mut tasks, mut openings) = (Vec::new(), Vec::new());
        for question in chunk {
            let text = prompt.render(&question.question)?;
            // The index in the whole set, so that random draws do not depend on the chunks.
            let index = (predictions.len() + tasks.len()) as u64;
            tasks.push(Task::new(index, &question.question, &question.golden_answers, codec.encode(&text)));
            openings.push(Opening::new(text));
        }
        if config.strategy == Strategy::Rag {
            retrieve(engine, &plan, &mut tasks, &mut openings)?;
        }
        let mut finished = 0;
        let answered = plan.run(generator, tasks, &mut |now| {
            progress.advance((now.finished - finished) as u64);
            finished = now.finished;
        })?;
        let rows = chunk.iter().zip(openings).zip(&answered);
        predictions.extend(
            rows.map(|((question, opening), rollout)| Prediction::new(question, opening, rollout, &plan.format)),
        );
    }
    let scores = GroupedScores::of(&predictions);
    Ok(Evaluation { predictions, scores })
}

/// Stands where no search can happen.
struct Never;

impl SearchEngine for Never {
    fn search(&self, _: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        Err(SearchError::Index("this strategy does not search".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_stand_beside_the_other_keys() {
        let text = r#"{"strategy": "rag", "top_k": 7, "max_turns": 3, "seed": 9}"#;
        let config: EvalConfig = serde_json::from_str(text).unwrap();
        let default = EvalConfig::default();
        let rollout = RolloutConfig { top_k: 7, max_turns: 3, ..default.rollout };
        assert_eq!(config, EvalConfig { strategy: Strategy::Rag, rollout, seed: 9, ..default });
        assert_eq!(config.rollout.sampling, Sampling::greedy());
        assert_eq!(serde_json::from_str::<EvalConfig>("{}").unwrap(), default);

        let saved = serde_json::to_value(config).unwrap();
        assert_eq!((&saved["top_k"], &saved["chunk"], saved.get("rollout")), (&7.into(), &64.into(), None));
        assert_eq!(serde_json::from_value::<EvalConfig>(saved).unwrap(), config);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = serde_json::from_str::<EvalConfig>(r#"{"max_turn": 3}"#).unwrap_err().to_string();
        assert!(error.contains("max_turn"), "{error}");
    }
}
