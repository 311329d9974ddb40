//! Scripted episodes for the cold start: what a base model reads before it has any idea which of them are good.
//!
//! A demonstrator talks to a search engine in the format of an episode. Its habits are mixed on purpose:
//! some episodes guess, some stop at the first name they meet, some follow the chain to its end. A model
//! trained on them knows the form and every behaviour, and prefers none because it pays; that is left to
//! reinforcement learning.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use zerosearch_grammar::{EpisodeFormat, SEARCH_TAG, closing_tag, opening_tag};
use zerosearch_lm::SftExample;
use zerosearch_search::{Query, SearchEngine, SearchError};
use zerosearch_simulator::mentions;
use zerosearch_text::{Codec, encode_information};
use zerosearch_world::WorldQuestion;

/// One part of a scripted episode.
#[derive(Clone, Debug, PartialEq)]
pub enum ScriptedTurn {
    /// Written by the demonstrator.
    Policy(String),
    /// Documents that the engine returned, best first.
    Documents(Vec<String>),
}

impl ScriptedTurn {
    /// A thought, and an action by its tag.
    fn policy(format: &EpisodeFormat, thought: &str, tag: &str, content: &str) -> Self {
        let (think, thought_ends) = (opening_tag(&format.think), closing_tag(&format.think));
        Self::Policy(format!("{think}{thought}{thought_ends}{} {content} {}", opening_tag(tag), closing_tag(tag)))
    }
}

/// How often an episode takes which course; what is left of 1 follows the chain of searches to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Habits {
    /// Answers at once with another question's answer.
    pub guess: f64,
    /// Searches once and answers with what the first step yields, although the question asks for more.
    pub stop_early: f64,
    /// Of the episodes that search: begins with the question as it stands.
    pub bare_question: f64,
}

/// Plays one episode. `guess` is what it answers when it guesses.
///
/// # Errors
/// When the engine fails.
pub fn demonstrate(
    question: &WorldQuestion,
    engine: &dyn SearchEngine,
    habits: &Habits,
    guess: &str,
    top_k: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<ScriptedTurn>, SearchError> {
    let format = EpisodeFormat::default();
    let mut chance = |probability: f64| f64::from(rng.next_u32()) / 4_294_967_296.0 < probability;
    if chance(habits.guess) {
        return Ok(vec![ScriptedTurn::policy(&format, "I know it.", &format.answer, guess)]);
    }
    let stop_early = question.hops > 1 && chance(habits.stop_early / (1.0 - habits.guess));
    let mut parts = Vec::new();
    let mut bare = chance(habits.bare_question);
    let mut thought = "I look it up.".to_string();
    let last = question.steps.len().saturating_sub(1);
    let mut step = 0;
    let mut tries = 0;
    while let Some(current) = question.steps.get(step) {
        let query = if bare {
            question.question.as_str()
        } else if tries == 0 {
            current.query.as_str()
        } else {
            current.ask.as_str()
        };
        parts.push(ScriptedTurn::policy(&format, &thought, SEARCH_TAG, query));
        let found = engine.search(&Query { text: query, top_k, context: None })?;
        let documents: Vec<String> = found.into_iter().map(|document| document.contents).collect();
        // The end of the chain may come into sight early: a document that states the link and the answer.
        let final_in_sight = documents.iter().any(|document| {
            question.steps[step..].iter().all(|step| mentions(document, std::slice::from_ref(&step.answer)))
        });
        let step_in_sight = documents.iter().any(|document| mentions(document, std::slice::from_ref(&current.answer)));
        parts.push(ScriptedTurn::Documents(documents));
        if step == last || final_in_sight || (stop_early && step_in_sight) {
            let answer = if final_in_sight { &question.steps[last].answer } else { &current.answer };
            if step_in_sight || final_in_sight {
                parts.push(ScriptedTurn::policy(&format, "Found it.", &format.answer, answer));
                return Ok(parts);
            }
        }
        if step_in_sight {
            thought = format!("It is {}.", current.answer);
            step += 1;
            tries = 0;
        } else if tries < 2 {
            thought = "Not there.".into();
            tries += if bare { 0 } else { 1 };
        } else {
            break;
        }
        bare = false;
    }
    parts.push(ScriptedTurn::policy(&format, "Not there.", &format.answer, "unknown"));
    Ok(parts)
}

/// Turns an episode into tokens. The demonstrator's tokens weigh 1, the documents' `document_weight`,
/// the prompt's nothing.
pub fn encode_demonstration(codec: &Codec, prompt: &str, parts: &[ScriptedTurn], document_weight: f32) -> SftExample {
    let format = EpisodeFormat::default();
    let mut tokens = codec.encode(prompt);
    let mut positions = Vec::new();
    let mut weights = Vec::new();
    for part in parts {
        let (ids, weight) = match part {
            ScriptedTurn::Policy(text) => (codec.encode(text), 1.0),
            ScriptedTurn::Documents(documents) => {
                let documents: Vec<(&str, &str)> = documents.iter().map(|text| ("", text.as_str())).collect();
                (encode_information(codec, &format, &format.documents(&documents)), document_weight)
            }
        };
        if weight > 0.0 {
            positions.extend(tokens.len().max(1)..tokens.len() + ids.len());
            weights.resize(positions.len(), weight);
        }
        tokens.extend(ids);
    }
    SftExample { tokens, positions, weights }
}
