//! The default material: the world of facts, its passages and its questions, split by entity.

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
}

impl Material {
    /// The same with 40 of the held-out questions, spread over all of them; see [`PipelineConfig::shortened`](super::PipelineConfig::shortened).
    #[must_use]
    pub fn shortened(mut self) -> Self {
        let every = (self.held_out.len() / 40).max(1);
        self.held_out = self.held_out.into_iter().step_by(every).take(40).collect();
        self
    }
}

/// Held-out questions of one hop, and of several, that are asked in the end: enough for an interval of ±6 points.
const HELD_OUT: usize = 250;

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
        match asked.split {
            Split::Train => material.train.push(question),
            Split::Test => material.held_out.push(question),
        }
    }
    material.held_out = evenly(material.held_out);
    Ok(material)
}

/// [`HELD_OUT`] questions of each kind, spread evenly over the entities they are about.
fn evenly(questions: Vec<Question>) -> Vec<Question> {
    let (multi, single): (Vec<_>, Vec<_>) = questions.into_iter().partition(|question| question.hops.unwrap_or(1) > 1);
    [single, multi]
        .into_iter()
        .flat_map(|kind| {
            let (all, wanted) = (kind.len(), HELD_OUT.min(kind.len()));
            kind.into_iter()
                .enumerate()
                .filter(move |(i, _)| (i + 1) * wanted / all > i * wanted / all)
                .map(|(_, question)| question)
        })
        .collect()
}
