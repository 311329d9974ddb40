//! Does a model copy names it has never seen? Measured by itself, before any reinforcement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zerosearch_generate::{GenerateError, Generator, Request, Sampling, Stream, TokenId, Turn};
use zerosearch_grammar::{EpisodeFormat, SEARCH_TAG, closing_tag, opening_tag};
use zerosearch_lm::{LanguageModel, LocalGenerator};
use zerosearch_search::SearchEngine;
use zerosearch_text::{PromptTemplate, StopScanner};
use zerosearch_world::WorldQuestion;

use crate::demonstration::{Habits, ScriptedTurn, demonstrate, encode_demonstration};
use crate::pretraining::PretrainingError;

/// Shares of spans that the model writes exactly, greedily, after the right beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Copying {
    /// Queries whose names stand in the question or in a document; the question as it stands counts as well.
    pub queries: f64,
    /// Names read from a document into a thought.
    pub links: f64,
    /// Answers read from a document.
    pub answers: f64,
    /// Spans measured.
    pub n: usize,
}

/// Follows the gold chain of each question and lets the model write every query, link and answer.
///
/// # Errors
/// When the engine, a template or the generator fails.
pub fn measure_copying(
    model: &LanguageModel,
    prompt: &PromptTemplate,
    questions: &[WorldQuestion],
    engine: &dyn SearchEngine,
    top_k: usize,
) -> Result<Copying, PretrainingError> {
    const CHAIN: Habits = Habits { guess: 0.0, stop_early: 0.0, bare_question: 0.0 };
    let (codec, format) = (&model.codec, EpisodeFormat::default());
    let mut generator = LocalGenerator::for_model(model)?;
    let mut rng = Stream { purpose: "copying", ..Stream::default() }.rng();
    let mut spans = BTreeMap::new();
    for question in questions {
        let rendered = prompt.render(&question.question)?;
        let parts = demonstrate(question, engine, &CHAIN, "", top_k, &mut rng)?;
        for (index, part) in parts.iter().enumerate() {
            let ScriptedTurn::Policy(text) = part else { continue };
            let history = encode_demonstration(codec, &rendered, &parts[..index], 0.0).tokens;
            for (kind, tag, begins) in
                [("query", SEARCH_TAG, ""), ("link", format.think.as_str(), "It is"), ("answer", &format.answer, "")]
            {
                let (open, close) = (opening_tag(tag) + begins, closing_tag(tag));
                let Some((before, rest)) = text.split_once(&open) else { continue };
                let Some((span, _)) = rest.split_once(&close) else { continue };
                if span.trim() == "unknown" {
                    continue;
                }
                let tokens: Vec<TokenId> = [history.clone(), codec.encode(&format!("{before}{open}"))].concat();
                let stop = StopScanner::new(codec, &[&close]).into_stop();
                let turn = Turn { max_new_tokens: 48, seed: 0, stop, deadline: None };
                let id = generator
                    .start(Request { prompt: &tokens, sampling: Sampling::greedy(), turn })
                    .map_err(engine_error)?;
                spans.insert(id, (kind, format!("{span}{close}"), format!("{} {close}", question.question)));
            }
        }
    }
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    loop {
        let finished = generator.poll().map_err(engine_error)?;
        if finished.is_empty() {
            break;
        }
        for turn in finished {
            generator.release(turn.id);
            let Some((kind, expected, bare)) = spans.get(&turn.id) else { continue };
            let ids: Vec<TokenId> = turn.tokens.iter().map(|token| token.id).collect();
            let (right, all) = counts.entry(kind).or_default();
            let written = codec.decode(&ids);
            // The demonstrator also begins with the question as it stands; copying that is copying.
            *right += usize::from([expected, bare].iter().any(|span| span.trim() == written.trim()));
            *all += 1;
        }
    }
    let share = |kind: &str| counts.get(kind).map_or(0.0, |(right, all)| *right as f64 / (*all).max(1) as f64);
    Ok(Copying { queries: share("query"), links: share("link"), answers: share("answer"), n: spans.len() })
}

fn engine_error(error: GenerateError) -> PretrainingError {
    PretrainingError::Search(zerosearch_search::SearchError::Index(error.to_string()))
}
