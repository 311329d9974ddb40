//! All questions in, one prediction for each out.

use serde::{Deserialize, Serialize};
use zerosearch_data::Question;
use zerosearch_generate::{Generator, Sampling};
use zerosearch_metrics::ProgressBar;
use zerosearch_rollout::{Noise, RolloutConfig, RolloutPlan, Task};
use zerosearch_search::{Document, Query, SearchEngine, SearchError};
use zerosearch_text::{Codec, PromptTemplate};

use crate::prediction::Opening;
use crate::retrieval::retrieve;
use crate::{EvalError, GroupedScores, Prediction, Strategy};

/// How questions are answered. The default searches greedily within the paper's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// How each question is answered.
    pub strategy: Strategy,
    /// At most this many policy turns with [`Strategy::Search`]; the other strategies have one.
    pub max_turns: usize,
    /// At most this many tokens are sampled in one turn.
    pub max_new_tokens: usize,
    /// At most this many tokens in one observation.
    pub max_observation_tokens: usize,
    /// How many documents a search asks for.
    pub top_k: usize,
    /// How tokens are drawn; greedy by default.
    pub sampling: Sampling,
    /// How many questions are answered at a time. Bounds memory and has no influence on any prediction.
    pub chunk: usize,
    /// The seed of all draws; without influence on a greedy policy.
    pub seed: u64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        let RolloutConfig { max_turns, max_new_tokens, max_observation_tokens, top_k, .. } = RolloutConfig::default();
        let sampling = Sampling::greedy();
        Self {
            strategy: Strategy::default(),
            max_turns,
            max_new_tokens,
            max_observation_tokens,
            top_k,
            sampling,
            chunk: 64,
            seed: 0,
        }
    }
}

impl EvalConfig {
    fn rollouts(&self) -> RolloutConfig {
        let max_turns = if self.strategy == Strategy::Search { self.max_turns } else { 1 };
        let Self { max_new_tokens, max_observation_tokens, top_k, sampling, .. } = *self;
        RolloutConfig { max_turns, max_new_tokens, max_observation_tokens, top_k, sampling, ..RolloutConfig::default() }
    }
}

/// What came out.
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
        return Err(EvalError::EmptyChunk);
    }
    let engine: &dyn SearchEngine = match engine {
        Some(engine) => engine,
        None if config.strategy.needs_engine() => return Err(EvalError::NoEngine(config.strategy)),
        None => &Never,
    };
    let rollouts =
        RolloutPlan { engine, codec, config: config.rollouts(), noise: Noise::Off, seed: config.seed, step: 0 };
    let mut predictions = Vec::with_capacity(questions.len());
    // The last chunk is as good as any other, however short.
    for chunk in questions.chunks(config.chunk) {
        let (mut tasks, mut openings) = (Vec::new(), Vec::new());
        for question in chunk {
            let text = prompt.render(&question.question)?;
            tasks.push(Task {
                // The index in the whole set, so that random draws do not depend on the chunks.
                question_index: (predictions.len() + tasks.len()) as u64,
                sample: 0,
                question: question.question.clone(),
                golden_answers: question.golden_answers.clone(),
                prompt: codec.encode(&text),
            });
            openings.push(Opening::new(text));
        }
        if config.strategy == Strategy::Rag {
            retrieve(engine, codec, config, &mut tasks, &mut openings);
        }
        let mut finished = 0;
        let answered = rollouts.run(generator, tasks, &mut |now| {
            progress.advance((now.finished - finished) as u64);
            finished = now.finished;
        })?;
        let rows = chunk.iter().zip(openings).zip(&answered);
        predictions.extend(rows.map(|((question, opening), rollout)| Prediction::new(question, opening, rollout)));
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
