//! Does the keyword decide? Measured with the exact rule, whoever judged the training data.

use serde::{Deserialize, Serialize};
use zerosearch_generate::Stream;
use zerosearch_search::{Quality, Query, SearchEngine, SearchError, SimulationContext};

use crate::{Interaction, mentions};

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
    let answered = |quality: Quality| -> Result<f64, SearchError> {
        let query = |(index, interaction): (usize, &Interaction)| {
            let stream = Stream {
                seed,
                purpose: "obedience",
                question: index as u64,
                sample: quality as u64,
                ..Stream::default()
            };
            (interaction.clone(), stream.value())
        };
        let calls: Vec<(Interaction, u64)> = interactions.iter().enumerate().map(query).collect();
        let queries: Vec<Query<'_>> = calls
            .iter()
            .map(|(i, seed)| {
                let context =
                    SimulationContext { question: &i.question, answers: &i.golden_answers, quality, seed: *seed };
                Query { text: &i.query, top_k, context: Some(context) }
            })
            .collect();
        let mut hits = 0usize;
        for (result, (interaction, _)) in engine.search_batch(&queries).into_iter().zip(&calls) {
            hits +=
                usize::from(result?.iter().any(|document| mentions(&document.contents, &interaction.golden_answers)));
        }
        Ok(hits as f64 / interactions.len().max(1) as f64)
    };
    Ok(Obedience {
        useful_contains: answered(Quality::Useful)?,
        noisy_contains: answered(Quality::Noisy)?,
        n: interactions.len(),
    })
}
