//! The one search of [`Strategy::Rag`](crate::Strategy::Rag): the bare question, before the policy says anything.

use zerosearch_metrics::Author;
use zerosearch_rollout::Task;
use zerosearch_search::{Document, Query, SearchEngine};
use zerosearch_text::{Codec, INFORMATION_CLOSE, INFORMATION_OPEN, encode_information, search_failed};
use zerosearch_trajectory::TokenId;

use crate::prediction::Opening;
use crate::{EvalConfig, Utterance};

/// Searches for every question of a chunk at once and puts the documents behind the prompts.
pub(crate) fn retrieve(
    engine: &dyn SearchEngine,
    codec: &Codec,
    config: &EvalConfig,
    tasks: &mut [Task],
    openings: &mut [Opening],
) {
    let queries: Vec<Query<'_>> =
        tasks.iter().map(|task| Query { text: &task.question, top_k: config.top_k, context: None }).collect();
    let results = engine.search_batch(&queries);
    // With a result missing or to spare nobody knows whose is whose.
    let complete = results.len() == queries.len();
    let mut results = results.into_iter();
    for (task, opening) in tasks.iter_mut().zip(openings) {
        let found = results.next().filter(|_| complete).and_then(Result::ok);
        opening.searches += 1;
        opening.search_failures += usize::from(found.is_none());
        let tokens = observation(codec, config, found);
        opening.transcript.push(Utterance { author: Author::Observation, text: codec.decode(&tokens) });
        task.prompt.extend(tokens);
    }
}

/// The documents as a rollout words them, cut inside where they are too long, or word of a failure.
fn observation(codec: &Codec, config: &EvalConfig, found: Option<Vec<Document>>) -> Vec<TokenId> {
    let Some(found) = found else { return codec.encode(&search_failed()) };
    let documents: Vec<_> = found.iter().take(config.top_k).map(Document::text).collect();
    let documents: Vec<&str> = documents.iter().map(AsRef::as_ref).collect();
    let mut tokens = encode_information(codec, &documents);
    let open = codec.encode(INFORMATION_OPEN).len();
    let end = tokens.len() - codec.encode(INFORMATION_CLOSE).len();
    let excess = tokens.len().saturating_sub(config.max_observation_tokens);
    tokens.drain(end.saturating_sub(excess).max(open)..end);
    tokens
}
