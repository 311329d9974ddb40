//! The default material: the world of facts, its passages and its questions, split by entity.

use serde_json::Value;
use zerosearch_data::Question;
use zerosearch_search::Document;
use zerosearch_world::{Split, World};

use super::PipelineError;

/// Corpus and questions of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// Every passage that the real engine can find.
    pub corpus: Vec<Document>,
    /// Questions to learn from.
    pub train: Vec<Question>,
    /// Questions that nothing learns from.
    pub held_out: Vec<Question>,
    /// Others that nothing learns from, for validations while the policy trains; none where it is empty.
    pub validation: Vec<Question>,
}

impl Material {
    /// The same with 40 of the held-out questions and 8 of the validation's, spread over all of them; see [`PipelineConfig::shortened`](super::PipelineConfig::shortened).
    #[must_use]
    pub fn shortened(mut self) -> Self {
        for (questions, wanted) in [(&mut self.held_out, 40), (&mut self.validation, 8)] {
            let every = (questions.len() / wanted).max(1);
            *questions = std::mem::take(questions).into_iter().step_by(every).take(wanted).collect();
        }
        self
    }
}

/// The key of a question's searches with their answers, for readers of a report.
pub(super) const GOLD_CHAIN: &str = "gold_chain";

/// Held-out questions of one hop, and of several, that are asked in the end: enough for an interval of ±6 points.
const HELD_OUT: usize = 250;

/// Questions of each kind in a validation: enough for a curve.
const VALIDATION: usize = 25;

/// The shipped world. No entity of a held-out question occurs in a training question.
///
/// # Errors
/// When the shipped facts cannot be read.
pub fn world_material() -> Result<Material, PipelineError> {
    let world = World::real()?;
    let mut material = Material::default();
    for passage in world.passages(0) {
        material.corpus.push(Document { id: Some(passage.id), contents: passage.contents, ..Document::default() });
    }
    for asked in world.questions() {
        let mut question = Question::new(asked.id, asked.question, asked.golden_answers);
        question.hops = Some(asked.hops);
        question.data_source = Some("world".into());
        let chain = asked.steps.iter().map(|step| format!("{} → {}", step.query, step.answer).into());
        question.extra.insert(GOLD_CHAIN.into(), chain.collect::<Vec<Value>>().into());
        match asked.split {
            Split::Train => material.train.push(question),
            Split::Test => material.held_out.push(question),
        }
    }
    let (held_out, others) = evenly(material.held_out, HELD_OUT);
    material.held_out = held_out;
    material.validation = evenly(others, VALIDATION).0;
    Ok(material)
}

/// `wanted` questions of each kind, spread evenly over the entities they are about, and the others.
fn evenly(questions: Vec<Question>, wanted: usize) -> (Vec<Question>, Vec<Question>) {
    let (multi, single): (Vec<_>, Vec<_>) = questions.into_iter().partition(|question| question.hops.unwrap_or(1) > 1);
    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for kind in [single, multi] {
        let (all, wanted) = (kind.len(), wanted.min(kind.len()));
        for (i, question) in kind.into_iter().enumerate() {
            let is_chosen = (i + 1) * wanted / all > i * wanted / all;
            if is_chosen { &mut chosen } else { &mut others }.push(question);
        }
    }
    (chosen, others)
}
