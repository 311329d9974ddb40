//! The base policy meets the real engine; what it asks and gets becomes the simulator's lesson.

use burn::tensor::Device;
use rand::seq::SliceRandom;
use zerosearch_curriculum::{Constant, Progress};
use zerosearch_data::Question;
use zerosearch_generate::{Generator, Stream};
use zerosearch_lm::{LanguageModel, LocalGenerator};
use zerosearch_metrics::ProgressBar;
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutPlan, RolloutProgress, Task};
use zerosearch_search::SearchEngine;
use zerosearch_simulator::Interaction;
use zerosearch_text::{Codec, PromptTemplate};

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
        let chosen: Vec<(u64, &Question)> = (0..).zip(chosen).collect();
        let episodes = Episodes {
            codec: &self.model.codec,
            prompt: self.prompt,
            engine: self.engine,
            rollout: self.rollout,
            seed: Stream { seed: self.seed, purpose, ..Stream::default() }.value(),
            noise: 0.0,
        };
        let mut generator = LocalGenerator::for_model_on(self.model, self.device)?;
        let bar = ProgressBar::new(label, chosen.len() as u64);
        let rollouts = episodes.run(&mut generator, &chosen, &bar)?;
        bar.finish();
        Ok(rollouts.iter().flat_map(interactions).collect())
    }
}

/// Episodes of a policy with an engine.
pub(crate) struct Episodes<'a> {
    pub(crate) codec: &'a Codec,
    pub(crate) prompt: &'a PromptTemplate,
    pub(crate) engine: &'a dyn SearchEngine,
    pub(crate) rollout: RolloutConfig,
    pub(crate) seed: u64,
    /// Share of noisy documents; a real engine ignores it.
    pub(crate) noise: f64,
}

impl Episodes<'_> {
    /// One for each question, which the number beside it names: an episode does not depend on the others. The bar advances by each.
    pub(crate) fn run(
        &self,
        generator: &mut dyn Generator,
        questions: &[(u64, &Question)],
        bar: &ProgressBar,
    ) -> Result<Vec<Rollout>, PipelineError> {
        let tasks = questions.iter().map(|(index, question)| {
            let prompt = self.codec.encode(&self.prompt.render(&question.question)?);
            Ok::<_, PipelineError>(Task::new(*index, &question.question, &question.golden_answers, prompt))
        });
        let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
        let constant = Constant::new(self.noise).map_err(zerosearch_train::TrainError::from)?;
        let noise = Noise::Curriculum { curriculum: &constant, progress: Progress::at(0, 1) };
        let plan = RolloutPlan { seed: self.seed, ..RolloutPlan::search(self.engine, noise, self.codec, self.rollout) };
        let mut finished = 0;
        let mut advance = |now: RolloutProgress| {
            bar.advance((now.finished - finished) as u64);
            finished = now.finished;
        };
        Ok(plan.run(generator, tasks, &mut advance)?)
    }
}

/// How many searches failed. That all do is no accident: going on would waste the questions, and there is nothing to compare.
pub(crate) fn failures(rollouts: &[Rollout]) -> Result<usize, PipelineError> {
    let calls: Vec<_> = rollouts.iter().flat_map(Rollout::calls).collect();
    let failed: Vec<&String> = calls.iter().filter_map(|call| call.failure.as_ref()).collect();
    match failed.first() {
        Some(failure) if failed.len() == calls.len() => {
            Err(PipelineError::Searches { searches: calls.len(), failure: (*failure).clone() })
        }
        _ => Ok(failed.len()),
    }
}

/// The searches of an episode, each with its documents; failed and empty ones teach nothing.
pub(crate) fn interactions(rollout: &Rollout) -> impl Iterator<Item = Interaction> {
    rollout.calls().filter(|call| !call.documents.is_empty()).map(|call| Interaction {
        question: rollout.question.clone(),
        golden_answers: rollout.golden_answers.clone(),
        query: call.input.clone(),
        documents: call.documents.clone(),
    })
}

/// `count` questions drawn without replacement, questions of several hops and of one in turn while both last.
pub(crate) fn spread<'a>(
    questions: &'a [Question],
    count: usize,
    seed: u64,
    purpose: &'static str,
) -> Vec<&'a Question> {
    let mut order: Vec<&Question> = questions.iter().collect();
    order.shuffle(&mut Stream { seed, purpose, ..Stream::default() }.rng());
    let (multi, single): (Vec<_>, Vec<_>) = order.into_iter().partition(|q| q.hops.unwrap_or(1) > 1);
    let longest = multi.len().max(single.len());
    (0..longest).flat_map(|i| [multi.get(i), single.get(i)]).flatten().copied().take(count).collect()
}
