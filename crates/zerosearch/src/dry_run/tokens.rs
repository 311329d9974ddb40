//! Tokens and searches of rollouts, of a step and of the whole run.

use std::path::Path;

use serde::Serialize;
use zerosearch_algorithms::Algorithm;
use zerosearch_data::Question;
use zerosearch_eval::{Prompts, Strategy};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::ModelConfig;
use zerosearch_search::Quality;
use zerosearch_simulator::{SimulationConfig, SimulatorPrompt};
use zerosearch_text::{Codec, PromptTemplate};
use zerosearch_train::TrainConfig;

use super::DryRunConfig;
use crate::config::EngineConfig;

/// Tokens and searches of a rollout, of a step or of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Rollouts.
    pub rollouts: f64,
    /// Tokens that the policy samples.
    pub policy_tokens: f64,
    /// Tokens of whole rollouts, prompts and documents included, that updates take.
    pub trained_tokens: f64,
    /// Searches.
    pub searches: f64,
    /// Tokens that a simulator samples.
    pub simulator_tokens: f64,
}

impl Usage {
    fn times(self, factor: f64) -> Self {
        Self {
            rollouts: factor * self.rollouts,
            policy_tokens: factor * self.policy_tokens,
            trained_tokens: factor * self.trained_tokens,
            searches: factor * self.searches,
            simulator_tokens: factor * self.simulator_tokens,
        }
    }
}

/// Usage of a step and of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tokens {
    /// A step's.
    pub step: Usage,
    /// The run's, without validations.
    pub run: Usage,
}

/// The longest prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptLength {
    /// Its tokens.
    pub tokens: u64,
    /// The way in which they were counted.
    pub counted: String,
}

/// The longest that a step's rollouts can be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// Rollouts of a step that are learnt from.
    pub rollouts: u64,
    /// The prompt.
    pub prompt: PromptLength,
    /// Tokens of the policy in a rollout.
    pub policy_tokens: u64,
    /// Searches of a rollout.
    pub searches: u64,
    /// Tokens of a rollout, prompt and documents included; the model's context at most.
    pub tokens: u64,
    /// Tokens of a simulator's prompt and documents; 0 without a simulator.
    pub simulator_tokens: u64,
    /// Tokens of the simulator for a search, all attempts included.
    #[serde(skip)]
    simulated_tokens: u64,
}

impl Lengths {
    pub(super) fn of(
        train: &TrainConfig,
        model: &Path,
        config: &ModelConfig,
        questions: &[Question],
        engine: &EngineConfig,
    ) -> Self {
        let codec = Codec::read(model).ok();
        let format = EpisodeFormat::from(train.rollout.format);
        let prompt = longest_prompt(codec.as_ref(), &format, questions, *engine == EngineConfig::None);
        let rollout = &train.rollout;
        let [turns, new, observation] =
            [rollout.max_turns, rollout.max_new_tokens, rollout.max_observation_tokens].map(|bound| bound as u64);
        let context = config.max_positions as u64;
        let searches = if *engine == EngineConfig::None { 0 } else { turns - 1 };
        let policy_tokens = (turns * new).min(context.saturating_sub(prompt.tokens).max(1));
        let simulator = simulation(engine).map(|(folder, simulation)| {
            let codec = folder.and_then(|folder| Codec::read(folder).ok());
            let text = simulator_prompt(engine, questions, rollout.top_k);
            // A query is at most a turn of the policy.
            let prompt = count(codec.as_ref(), &text) + new;
            let documents = simulation.max_new_tokens as u64;
            (prompt + documents, documents * simulation.attempts.max(1) as u64)
        });
        let (simulator_tokens, simulated_tokens) = simulator.unwrap_or_default();
        Self {
            rollouts: (train.questions_per_step * train.samples_per_question) as u64,
            policy_tokens,
            searches,
            tokens: (prompt.tokens + turns * new + (turns - 1) * observation).min(context),
            prompt,
            simulator_tokens,
            simulated_tokens,
        }
    }

    /// The most that the run can use.
    pub(super) fn bound(&self, train: &TrainConfig, algorithm: &dyn Algorithm) -> Tokens {
        let rollout = Usage {
            rollouts: 1.0,
            policy_tokens: self.policy_tokens as f64,
            trained_tokens: self.tokens as f64,
            searches: self.searches as f64,
            simulator_tokens: (self.searches * self.simulated_tokens) as f64,
        };
        let batches = if algorithm.dynamic_sampling() { train.max_num_gen_batches } else { 1 };
        of_run(rollout, train, algorithm, batches as f64)
    }

    /// The expectation, where the tokens and the searches of a rollout are given.
    pub(super) fn expected(
        &self,
        given: &DryRunConfig,
        simulated_tokens: Option<f64>,
        train: &TrainConfig,
        algorithm: &dyn Algorithm,
    ) -> Option<Tokens> {
        let policy_tokens = given.policy_tokens?;
        let searches = if self.searches == 0 { 0.0 } else { given.searches? };
        let prompt = given.prompt_tokens.unwrap_or(self.prompt.tokens as f64);
        let observation = given.observation_tokens.unwrap_or(train.rollout.max_observation_tokens as f64);
        let rollout = Usage {
            rollouts: 1.0,
            policy_tokens,
            trained_tokens: prompt + policy_tokens + searches * observation,
            searches,
            simulator_tokens: searches * simulated_tokens.unwrap_or(self.simulated_tokens as f64),
        };
        Some(of_run(rollout, train, algorithm, 1.0))
    }
}

/// Usage of a run of alike rollouts, each question of which is asked in so many batches.
fn of_run(rollout: Usage, train: &TrainConfig, algorithm: &dyn Algorithm, batches: f64) -> Tokens {
    let trained = (train.questions_per_step * train.samples_per_question) as f64;
    let greedy = if algorithm.greedy_baseline() { train.questions_per_step as f64 } else { 0.0 };
    let sampled = rollout.times(batches * (trained + greedy));
    let step = Usage { trained_tokens: trained * rollout.trained_tokens * train.epochs as f64, ..sampled };
    Tokens { step, run: step.times(train.steps as f64) }
}

/// The tokens of the longest question's prompt: counted by the model's tokenizer, or at most its bytes.
fn longest_prompt(
    codec: Option<&Codec>,
    format: &EpisodeFormat,
    questions: &[Question],
    without_search: bool,
) -> PromptLength {
    let strategy = if without_search { Strategy::Cot } else { Strategy::Search };
    let template = match codec {
        Some(codec) if without_search => strategy.prompt(codec, format),
        Some(codec) => PromptTemplate::for_model_or(codec, &format.prompt),
        None => PromptTemplate::new(&Prompts::default().text(strategy.name(), format)),
    };
    let render = |question: &str| match &template {
        Ok(template) => template.render(question).unwrap_or_default(),
        Err(_) => format!("{}{question}", format.prompt),
    };
    let prompts = questions.iter().map(|question| count(codec, &render(&question.question)));
    let tokens = prompts.max().unwrap_or_else(|| count(codec, &render("")));
    let of = match questions.len() {
        0 => "without a question, whose file cannot be read here".to_string(),
        questions => format!("the longest of {questions} questions"),
    };
    let counted = match codec {
        Some(_) => of,
        None => format!("{of}; a token a byte at most, without a tokenizer to count them"),
    };
    PromptLength { tokens, counted }
}

/// The longest prompt of a simulator, without a query.
fn simulator_prompt(engine: &EngineConfig, questions: &[Question], top_k: usize) -> String {
    let prompt = engine.simulator_prompt().ok().flatten().or_else(|| SimulatorPrompt::sft().ok());
    let length = |question: &&Question| question.question.len() + question.golden_answers.join(", ").len();
    let longest = questions.iter().max_by_key(length);
    let (question, answers) =
        longest.map_or(("", &[][..]), |question| (question.question.as_str(), &question.golden_answers[..]));
    let render = |prompt: SimulatorPrompt| prompt.render(question, answers, "", Quality::Useful, top_k).ok();
    prompt.and_then(render).unwrap_or_default()
}

fn count(codec: Option<&Codec>, text: &str) -> u64 {
    codec.map_or(text.len(), |codec| codec.encode(text).len()) as u64
}

/// The folder and the sampling of an engine that a model plays.
pub(super) fn simulation(engine: &EngineConfig) -> Option<(Option<&Path>, SimulationConfig)> {
    match engine {
        EngineConfig::Simulator { model, simulation } => Some((Some(model), *simulation)),
        EngineConfig::Simulated(simulator) => Some((simulator.model.as_deref(), simulator.simulation)),
        EngineConfig::Wrapped { engine, wrap } if wrap.replay.is_none() => simulation(engine),
        _ => None,
    }
}
