//! The base policy meets the real engine; what it asks and gets becomes the simulator's lesson.

use burn::tensor::Device;
use rand::seq::SliceRandom;
use zerosearch_curriculum::{Constant, Progress};
use zerosearch_data::Question;
use zerosearch_generate::Stream;
use zerosearch_lm::{LanguageModel, LocalGenerator};
use zerosearch_metrics::ProgressBar;
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutPlan, Task};
use zerosearch_search::SearchEngine;
use zerosearch_simulator::Interaction;
use zerosearch_text::PromptTemplate;

use super::PipelineError;

pub(super) struct Collector<'a> {
    pub(super) model: &'a LanguageModel,
    pub(super) prompt: &'a PromptTemplate,
    pub(super) engine: &'a dyn SearchEngine,
    pub(super) device: &'a Device,
    pub(super) rollout: RolloutConfig,
    pub(super) seed: u64,
}

impl Collector<'_> {
    /// One episode for each of `count` questions, spread over the set; every search in them is an interaction.
    pub(super) fn collect(
        &self,
        label: &str,
        questions: &[Question],
        count: usize,
        purpose: &'static str,
    ) -> Result<Vec<Interaction>, PipelineError> {
        let chosen = spread(questions, count, self.seed, purpose);
        let tasks = chosen
            .iter()
            .enumerate()
            .map(|(index, question)| self.task(index, question))
            .collect::<Result<Vec<_>, _>>()?;
        let silent = Constant::new(0.0).map_err(zerosearch_train::TrainError::from)?;
        let seed = Stream { seed: self.seed, purpose, ..Stream::default() }.value();
        // A real engine ignores the context.
        let noise = Noise::Curriculum { curriculum: &silent, progress: Progress::at(0, 1) };
        let rollouts = RolloutPlan { seed, ..RolloutPlan::search(self.engine, noise, &self.model.codec, self.rollout) };
        let mut generator = LocalGenerator::for_model_on(self.model, self.device)?;
        let bar = ProgressBar::new(label, tasks.len() as u64);
        let mut finished = 0;
        let rollouts = rollouts.run(&mut generator, tasks, &mut |now| {
            bar.advance((now.finished - finished) as u64);
            finished = now.finished;
        })?;
        bar.finish();
        Ok(rollouts.iter().flat_map(interactions).collect())
    }

    fn task(&self, index: usize, question: &Question) -> Result<Task, PipelineError> {
        let prompt = self.model.codec.encode(&self.prompt.render(&question.question)?);
        Ok(Task::new(index as u64, &question.question, &question.golden_answers, prompt))
    }
}

/// The searches of an episode, each with its documents; failed and empty ones teach nothing.
fn interactions(rollout: &Rollout) -> impl Iterator<Item = Interaction> {
    rollout.calls().filter(|call| !call.documents.is_empty()).map(|call| Interaction {
        question: rollout.question.clone(),
        golden_answers: rollout.golden_answers.clone(),
        query: call.input.clone(),
        documents: call.documents.clone(),
    })
}

/// `count` questions drawn without replacement, questions of several hops and of one in turn while both last.
fn spread<'a>(questions: &'a [Question], count: usize, seed: u64, purpose: &'static str) -> Vec<&'a Question> {
    let mut order: Vec<&Question> = questions.iter().collect();
    order.shuffle(&mut Stream { seed, purpose, ..Stream::default() }.rng());
    let (multi, single): (Vec<_>, Vec<_>) = order.into_iter().partition(|q| q.hops.unwrap_or(1) > 1);
    let longest = multi.len().max(single.len());
    (0..longest).flat_map(|i| [multi.get(i), single.get(i)]).flatten().copied().take(count).collect()
}
