//! A search engine of your own, asked by the shipped base policy: everything but the policy is a literal.
//!
//!     cargo run --release --example custom_engine
//!
//! An engine turns a query into documents, best first. Whatever implements [`SearchEngine`] can be trained against, evaluated
//! with, cached and counted.

use std::path::Path;

use zerosearch::Failure;
use zerosearch::grammar::EpisodeFormat;
use zerosearch::lm::{LanguageModel, LocalGenerator};
use zerosearch::rollout::{Noise, RolloutConfig, RolloutEnd, RolloutPlan, Task};
use zerosearch::search::{Cached, Counted, Document, Query, SearchEngine, SearchError};
use zerosearch::text::PromptTemplate;

/// Finds the passages that share most words with a query.
struct Shelf(&'static [&'static str]);

impl SearchEngine for Shelf {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let words = |text: &str| -> Vec<String> {
            text.to_lowercase().split(|c: char| !c.is_alphanumeric()).map(str::to_string).collect()
        };
        let asked = words(query.text);
        let shared = |passage: &&&str| words(passage).iter().filter(|word| asked.contains(word)).count();
        let mut best: Vec<&&str> = self.0.iter().collect();
        // A stable sort: among equals, the order of the shelf.
        best.sort_by_key(|passage| std::cmp::Reverse(shared(passage)));
        let document = |passage: &&str| Document { contents: (*passage).into(), ..Document::default() };
        Ok(best.into_iter().take(query.top_k).map(document).collect())
    }
}

fn main() -> Result<(), Failure> {
    let shelf = Shelf(&[
        "Peru lies in South America. The capital of Peru is Lima.",
        "The main exports of Peru are copper and gold.",
        "The capital of Chad is N'Djamena.",
    ]);
    // Wrappers are engines too: this one asks the shelf once for each query, and the count tells.
    let engine = Counted::new(shelf);
    let calls = engine.calls();
    let engine = Cached::new(engine);

    let model = LanguageModel::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/base")))?;
    let prompt = PromptTemplate::for_model_or(&model.codec, &EpisodeFormat::default().prompt)?;
    let question = "What is the capital of Peru?";
    let config = RolloutConfig { top_k: 2, max_new_tokens: 100, ..RolloutConfig::default() };
    let plan = RolloutPlan::search(&engine, Noise::Off, &model.codec, config);
    // Four samples of one question: four episodes, whose prompt is computed once.
    let tasks = (0..4).map(|sample| {
        let prompt = model.codec.encode(&prompt.render(question)?);
        Ok(Task { sample, ..Task::new(0, question, &["Lima".into()], prompt) })
    });
    let tasks = tasks.collect::<Result<Vec<_>, Failure>>()?;
    let rollouts = plan.run(&mut LocalGenerator::for_model(&model)?, tasks, &mut |_| {})?;

    for rollout in &rollouts {
        println!("sample {}: answer {:?}", rollout.sample, rollout.answer(&plan.format));
        for call in rollout.calls() {
            println!("  searched {:?}, first of {} documents: {}", call.input, call.documents.len(), call.documents[0]);
        }
    }
    assert!(rollouts.iter().any(|rollout| rollout.end == RolloutEnd::Answered));
    let searches: usize = rollouts.iter().map(|rollout| rollout.calls().count()).sum();
    println!("{searches} searches, {} of them reached the shelf", calls.total());
    assert!(calls.total() <= searches as u64);
    Ok(())
}
