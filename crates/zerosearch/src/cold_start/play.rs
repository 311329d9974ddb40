//! Demonstrations become rollouts.

use std::collections::VecDeque;

use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, SequenceId, TokenId, Turn, WeightVersion,
};
use zerosearch_grammar::{EpisodeFormat, SEARCH_TAG};
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutEnd, RolloutPlan, Task};
use zerosearch_search::SearchEngine;
use zerosearch_text::{Codec, PromptTemplate};

use super::Demonstration;
use crate::pipeline::PipelineError;

/// The parts of an episode that a demonstration does not bring.
pub struct Stage<'a> {
    /// The real engine that answers the searches.
    pub engine: &'a dyn SearchEngine,
    /// The policy's tokenizer.
    pub codec: &'a Codec,
    /// The words in which the policy is asked a question.
    pub prompt: &'a PromptTemplate,
    /// Bounds and format of the episodes, those of the training that follows.
    pub rollout: RolloutConfig,
}

impl Stage<'_> {
    /// The rollouts that a policy would leave that writes the demonstrations' turns.
    ///
    /// # Errors
    /// Names the demonstration and the turn that is no action, is longer than the bounds, or comes after an answer.
    pub fn play(&self, demonstrations: &[Demonstration]) -> Result<Vec<Rollout>, PipelineError> {
        let search = RolloutPlan::search(self.engine, Noise::Off, self.codec, self.rollout);
        let plan = RolloutPlan { format: EpisodeFormat::from(self.rollout.format), ..search };
        (0..).zip(demonstrations).map(|(index, demonstration)| self.played(&plan, index, demonstration)).collect()
    }

    fn played(
        &self,
        plan: &RolloutPlan<'_>,
        index: u64,
        demonstration: &Demonstration,
    ) -> Result<Rollout, PipelineError> {
        let Demonstration { question, golden_answers, turns } = demonstration;
        let refused = |turn: Option<usize>, message: String| {
            let place = turn.map_or(String::new(), |turn| format!(", turn {}", turn + 1));
            PipelineError::Demonstration { place: format!("{}{place}", index + 1), message }
        };
        let prompt = self.codec.encode(&self.prompt.render(question)?);
        let mut script = Script { codec: self.codec, turns: turns.iter().map(String::as_str).collect(), turn: None };
        let task = Task::new(index, question, golden_answers, prompt);
        let rollout = plan.run(&mut script, vec![task], &mut |_| {})?.remove(0);
        for (number, (played, written)) in rollout.turns.iter().zip(turns).enumerate() {
            let message = match played.finish {
                Finish::Length => format!(
                    "it has more than {} tokens, the `max_new_tokens` of `train.rollout`: expected a shorter one, or a higher bound",
                    self.rollout.max_new_tokens
                ),
                Finish::Stop if played.text.trim_end() == written.trim_end() => continue,
                Finish::Stop => format!(
                    "{:?} stands behind its action, where an episode ends the turn: expected nothing there",
                    written.get(played.text.len()..).unwrap_or_default()
                ),
                _ => format!(
                    "it ends with no action: expected <{SEARCH_TAG}>…</{SEARCH_TAG}> or <{answer}>…</{answer}>",
                    answer = plan.format.answer
                ),
            };
            return Err(refused(Some(number), message));
        }
        match rollout.end {
            RolloutEnd::Answered if rollout.turns.len() == turns.len() => Ok(rollout),
            RolloutEnd::Answered => {
                let message = format!("{} of {} turns are played when it answers", rollout.turns.len(), turns.len());
                Err(refused(None, format!("{message}: expected one answer, at the end")))
            }
            RolloutEnd::Context => Err(refused(None, "it does not fit into the model's context".into())),
            _ if turns.len() > rollout.turns.len() => Err(refused(
                None,
                format!(
                    "it has {} turns, more than {}, the `max_turns` of `train.rollout`: expected fewer, or a higher bound",
                    turns.len(),
                    self.rollout.max_turns
                ),
            )),
            _ => {
                Err(refused(None, format!("it has no turn with an <{}>: expected one at the end", plan.format.answer)))
            }
        }
    }
}

/// A policy that knows its turns by heart.
struct Script<'a> {
    codec: &'a Codec,
    turns: VecDeque<&'a str>,
    turn: Option<Turn>,
}

impl Generator for Script<'_> {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        self.turn = Some(request.turn);
        Ok(SequenceId(0))
    }

    fn extend(&mut self, _: SequenceId, _: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        self.turn = Some(turn);
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let Some(mut turn) = self.turn.take() else { return Ok(Vec::new()) };
        let (mut tokens, mut finish) = (Vec::new(), Finish::EndOfText);
        for id in self.codec.encode(self.turns.pop_front().unwrap_or_default()) {
            if tokens.len() == turn.max_new_tokens {
                finish = Finish::Length;
                break;
            }
            tokens.push(SampledToken::new(id, 0.0));
            if (turn.stop)(id) {
                finish = Finish::Stop;
                break;
            }
        }
        Ok(vec![Finished { id: SequenceId(0), tokens, finish }])
    }

    fn release(&mut self, _: SequenceId) {}

    fn weight_version(&self) -> WeightVersion {
        WeightVersion(0)
    }
}
