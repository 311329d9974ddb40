//! How well a simulator obeys its keyword, by the exact rule, whichever judge labelled the training data.

use serde::{Deserialize, Serialize};
use zerosearch_generate::Stream;
use zerosearch_search::{Quality, Query, SearchEngine, SearchError, SimulationContext};

use crate::{Interaction, LabelledInteraction, mentions};

/// How well a simulator obeys its keyword.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Obedience {
    /// Share of `useful` results in which some document [`mentions`] a golden answer.
    pub useful_contains: f64,
    /// The same share of `noisy` results.
    pub noisy_contains: f64,
    /// Queries asked, each with both keywords.
    pub n: usize,
}

impl Obedience {
    /// How well results obey the keyword that they were asked with, their label.
    pub fn of(results: &[LabelledInteraction]) -> Self {
        let contains = |quality: Quality| {
            let asked: Vec<_> =
                results.iter().filter(|row| row.quality == quality).map(|row| &row.interaction).collect();
            let hits =
                asked.iter().filter(|i| i.documents.iter().any(|document| mentions(document, &i.golden_answers)));
            (hits.count() as f64 / asked.len().max(1) as f64, asked.len())
        };
        let ((useful_contains, n), (noisy_contains, _)) = (contains(Quality::Useful), contains(Quality::Noisy));
        Self { useful_contains, noisy_contains, n }
    }
}

/// Asks the simulator every interaction's query with both keywords.
///
/// # Errors
/// When a call fails.
pub fn measure_obedience(
    engine: &dyn SearchEngine,
    interactions: &[Interaction],
    top_k: usize,
    seed: u64,
) -> Result<Obedience, SearchError> {
    Ok(Obedience::of(&simulate(engine, interactions, top_k, seed)?))
}

/// The simulator's documents for every interaction's query, labelled with the keyword that it was asked with: first all of
/// `useful`, then all of `noisy`.
///
/// # Errors
/// When a call fails.
pub fn simulate(
    engine: &dyn SearchEngine,
    interactions: &[Interaction],
    top_k: usize,
    seed: u64,
) -> Result<Vec<LabelledInteraction>, SearchError> {
    let mut results = Vec::with_capacity(2 * interactions.len());
    for quality in [Quality::Useful, Quality::Noisy] {
        let queries: Vec<Query<'_>> = interactions
            .iter()
            .zip(0..)
            .map(|(i, question)| {
                let (purpose, sample) = ("obedience", quality as u64);
                let seed = Stream { seed, purpose, question, sample, ..Stream::default() }.value();
                let context = SimulationContext { question: &i.question, answers: &i.golden_answers, quality, seed };
                Query { text: &i.query, top_k, context: Some(context) }
            })
            .collect();
        for (found, asked) in engine.search_batch(&queries).into_iter().zip(interactions) {
            let documents = found?.into_iter().map(|document| document.contents).collect();
            results.push(LabelledInteraction { interaction: Interaction { documents, ..asked.clone() }, quality });
        }
    }
    Ok(results)
}
