//! The text that the shipped base model reads: scripted episodes, simulated engines, passages and plain copying,
//! all from invented worlds and from training entities with their facts shuffled.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use zerosearch_data::DataError;
use zerosearch_generate::Stream;
use zerosearch_grammar::{SEARCH_TAG, closing_tag, opening_tag};
use zerosearch_lm::SftExample;
use zerosearch_search::{Bm25Index, Document, Quality, SearchError};
use zerosearch_simulator::{
    Interaction, Judge, LabelledInteraction, RuleJudge, SimulatorError, SimulatorPrompt, contrast, mentions,
    sft_examples,
};
use zerosearch_text::{Codec, PromptTemplate, TextError};
use zerosearch_world::{NameClass, NameSource, Split, World, WorldQuestion};

use crate::demonstration::{Habits, ScriptedTurn, demonstrate, encode_demonstration};

/// The weight of a golden answer's tokens in examples of a simulator.
const ANSWER_WEIGHT: f32 = 6.0;

/// Errors in making a base model's text.
#[derive(Debug, thiserror::Error)]
pub enum PretrainingError {
    /// The facts cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A world's index failed.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A template or the tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The model's weights are not whole.
    #[error(transparent)]
    Lm(#[from] zerosearch_lm::LmError),
    /// The simulator's template failed.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
}

/// How the text is mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// The demonstrator's habits.
    pub habits: Habits,
    /// Documents per search.
    pub top_k: usize,
    /// Share of examples that are plain copying.
    pub copying: f64,
    /// Share of examples in which the model plays the engine.
    pub simulating: f64,
    /// Weight of a document's token in an episode, where one of the demonstrator's weighs 1.
    pub document_weight: f32,
    /// Examples drawn from a world before the next one is made.
    pub examples_per_world: usize,
}

/// An endless stream of examples; the same seed gives the same stream.
pub struct Pretraining {
    codec: Codec,
    prompt: PromptTemplate,
    simulator: SimulatorPrompt,
    mixture: Mixture,
    names: NameSource,
    training: World,
    seed: u64,
    worlds: u64,
    current: Option<Scene>,
}

struct Scene {
    questions: Vec<WorldQuestion>,
    engine: Bm25Index,
    rng: ChaCha8Rng,
    left: usize,
}

impl Pretraining {
    /// Text for this tokenizer and these templates.
    ///
    /// # Errors
    /// When the shipped facts cannot be read.
    pub fn new(
        codec: Codec,
        prompt: PromptTemplate,
        simulator: SimulatorPrompt,
        mixture: Mixture,
        seed: u64,
    ) -> Result<Self, PretrainingError> {
        let (names, training) = sources()?;
        Ok(Self { codec, prompt, simulator, mixture, names, training, seed, worlds: 0, current: None })
    }

    /// The next example.
    ///
    /// # Errors
    /// When a world's index or a template fails.
    pub fn next_example(&mut self) -> Result<SftExample, PretrainingError> {
        let mut scene = match self.current.take().filter(|scene| scene.left > 0) {
            Some(scene) => scene,
            None => self.next_scene()?,
        };
        scene.left -= 1;
        let example = self.example(&mut scene)?;
        self.current = Some(scene);
        Ok(example)
    }

    fn next_scene(&mut self) -> Result<Scene, PretrainingError> {
        let stream = Stream { seed: self.seed, purpose: "pretraining", step: self.worlds, ..Stream::default() };
        let world = world(self.worlds, stream.value(), &self.names, &self.training);
        self.worlds += 1;
        let engine = index(&world, stream.value())?;
        Ok(Scene { questions: world.questions(), engine, rng: stream.rng(), left: self.mixture.examples_per_world })
    }

    fn example(&self, scene: &mut Scene) -> Result<SftExample, PretrainingError> {
        let draw = uniform(&mut scene.rng);
        if draw < self.mixture.copying || scene.questions.is_empty() {
            return Ok(self.copy_task(&mut scene.rng));
        }
        // As many questions of several hops as of one.
        let multi = uniform(&mut scene.rng) < 0.6;
        let pick = |rng: &mut ChaCha8Rng| &scene.questions[(rng.next_u64() % scene.questions.len() as u64) as usize];
        let mut question = pick(&mut scene.rng);
        for _ in 0..20 {
            if (question.hops > 1) == multi {
                break;
            }
            question = pick(&mut scene.rng);
        }
        let other = pick(&mut scene.rng);
        let guess = &other.golden_answers[0];
        let parts =
            demonstrate(question, &scene.engine, &self.mixture.habits, guess, self.mixture.top_k, &mut scene.rng)?;
        if draw < self.mixture.copying + self.mixture.simulating {
            let labelled = labelled(question, &parts);
            if !labelled.is_empty() {
                let mut row = labelled[(scene.rng.next_u64() % labelled.len() as u64) as usize].clone();
                // As often the other quality of the same query, so that the keyword says what the query does not.
                if uniform(&mut scene.rng) < 0.5
                    && let Some(interaction) =
                        contrast(&[row.interaction.clone()], &scene.engine, self.mixture.top_k, 1)?.pop()
                {
                    let quality = RuleJudge.judge(std::slice::from_ref(&interaction))?.pop().unwrap_or(row.quality);
                    row = LabelledInteraction { interaction, quality };
                }
                if let Some(example) = sft_examples(&[row], &self.simulator, &self.codec, ANSWER_WEIGHT)?.pop() {
                    return Ok(example);
                }
            }
        }
        let prompt = self.prompt.render(&question.question)?;
        Ok(encode_demonstration(&self.codec, &prompt, &parts, self.mixture.document_weight))
    }

    /// Some names, and the same names again: the second half is learnt.
    fn copy_task(&self, rng: &mut ChaCha8Rng) -> SftExample {
        const CLASSES: [NameClass; 6] = [
            NameClass::Country,
            NameClass::Town,
            NameClass::Peak,
            NameClass::Title,
            NameClass::Person,
            NameClass::Thing,
        ];
        let count = 3 + rng.next_u64() % 6;
        let names: Vec<String> =
            (0..count).map(|_| self.names.draw(CLASSES[(rng.next_u64() % 6) as usize], rng)).collect();
        let list = format!(" {}", names.join(" ;"));
        let line = self.codec.encode_document(&format!("{list}\n"));
        SftExample::completion(&line, &line)
    }
}

/// Name source and world of the training entities.
///
/// # Errors
/// When the shipped facts cannot be read.
pub fn sources() -> Result<(NameSource, World), PretrainingError> {
    let real = World::real()?;
    let training = real.restricted(Split::Train);
    Ok((NameSource::learn(&training, &real), training))
}

/// Two invented worlds, then one of training entities with their facts shuffled, and so on.
pub fn world(index: u64, seed: u64, names: &NameSource, training: &World) -> World {
    if index % 3 == 2 { training.shuffled(seed) } else { World::invented(seed, 60, 25, names) }
}

/// A BM25 engine over a world's passages.
///
/// # Errors
/// When the world has no passages.
pub fn index(world: &World, seed: u64) -> Result<Bm25Index, SearchError> {
    let passages = world.passages(seed).into_iter();
    Bm25Index::new(passages.map(|p| Document { id: Some(p.id), contents: p.contents, ..Document::default() }))
}

/// The searches of an episode as a judge by the exact rule would label them.
fn labelled(question: &WorldQuestion, parts: &[ScriptedTurn]) -> Vec<LabelledInteraction> {
    let (open, close) = (opening_tag(SEARCH_TAG), closing_tag(SEARCH_TAG));
    let query = |text: &str| Some(text.split_once(&open)?.1.split_once(&close)?.0.trim().to_string());
    let row = |pair: &[ScriptedTurn]| match pair {
        [ScriptedTurn::Policy(text), ScriptedTurn::Documents(documents)] if !documents.is_empty() => {
            let useful = documents.iter().any(|document| mentions(document, &question.golden_answers));
            let interaction = Interaction {
                question: question.question.clone(),
                golden_answers: question.golden_answers.clone(),
                query: query(text)?,
                documents: documents.clone(),
            };
            Some(LabelledInteraction { interaction, quality: if useful { Quality::Useful } else { Quality::Noisy } })
        }
        _ => None,
    };
    parts.windows(2).filter_map(row).collect()
}

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}
