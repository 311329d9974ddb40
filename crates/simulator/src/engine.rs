//! A language model that plays the search engine.

use serde::{Deserialize, Serialize};
use zerosearch_generate::{Completer, CompletionRequest, Sampling};
use zerosearch_search::{Document, Query, SearchEngine, SearchError};

use crate::{SimulatorPrompt, parse_documents};

/// How the simulator samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulationConfig {
    /// Temperature of the documents.
    pub temperature: f32,
    /// At most this many tokens for all documents of one call.
    pub max_new_tokens: usize,
}

impl Default for SimulationConfig {
    fn default() -> Self {
        Self { temperature: 0.8, max_new_tokens: 600 }
    }
}

/// A [`SearchEngine`] whose documents a model writes, of the quality that [`Query::context`] asks for.
pub struct SimulatedEngine<C> {
    completer: C,
    prompt: SimulatorPrompt,
    config: SimulationConfig,
}

impl<C: Completer> SimulatedEngine<C> {
    /// Lets this model play the engine.
    pub fn new(completer: C, prompt: SimulatorPrompt, config: SimulationConfig) -> Self {
        Self { completer, prompt, config }
    }

    fn request(&self, query: &Query<'_>) -> Result<CompletionRequest, SearchError> {
        let context = query.context.ok_or(SearchError::NoContext)?;
        let prompt = self
            .prompt
            .render(context.question, context.answers, query.text, context.quality, query.top_k)
            .map_err(|error| SearchError::Simulator(error.to_string()))?;
        Ok(CompletionRequest {
            prompt,
            sampling: Sampling::temperature(self.config.temperature),
            max_new_tokens: self.config.max_new_tokens,
            seed: context.seed,
            stop: Vec::new(),
        })
    }
}

impl<C: Completer> SearchEngine for SimulatedEngine<C> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        self.search_batch(std::slice::from_ref(query)).pop().unwrap_or(Ok(Vec::new()))
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let requests: Vec<Result<CompletionRequest, SearchError>> =
            queries.iter().map(|query| self.request(query)).collect();
        let good: Vec<CompletionRequest> =
            requests.iter().filter_map(|request| request.as_ref().ok()).cloned().collect();
        let mut completions = match self.completer.complete(&good) {
            Ok(completions) => completions.into_iter(),
            Err(error) => {
                let message = error.to_string();
                return queries.iter().map(|_| Err(SearchError::Simulator(message.clone()))).collect();
            }
        };
        let answer = |(query, request): (&Query<'_>, Result<CompletionRequest, SearchError>)| {
            request?;
            let completion = completions.next().ok_or_else(|| SearchError::Simulator("an answer is missing".into()))?;
            let document = |contents| Document { contents, ..Document::default() };
            Ok(parse_documents(&completion.text, query.top_k).into_iter().map(document).collect())
        };
        queries.iter().zip(requests).map(answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerosearch_generate::{Completion, GenerateError};
    use zerosearch_search::{Quality, SimulationContext};

    /// Repeats its prompt's query line and keyword, so that a mix-up of rows shows.
    struct Echo;

    impl Completer for Echo {
        fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
            Ok(requests
                .iter()
                .map(|r| Completion {
                    text: format!("Doc 1: {}\nDoc 2: more\nDoc 3: most", r.prompt.replace('\n', " ")),
                    tokens: 1,
                })
                .collect())
        }
    }

    #[test]
    fn every_query_gets_its_own_context_also_when_another_has_none() {
        let engine = SimulatedEngine::new(Echo, SimulatorPrompt::sft().unwrap(), SimulationConfig::default());
        let (a, b) = (["first".to_string()], ["second".to_string()]);
        let context =
            |question, answers| Some(SimulationContext { question, answers, quality: Quality::Useful, seed: 0 });
        let queries = [
            Query { text: "qa", top_k: 2, context: context("A?", &a) },
            Query { text: "none", top_k: 2, context: None },
            Query { text: "qb", top_k: 1, context: context("B?", &b) },
        ];
        let results = engine.search_batch(&queries);
        let first = results[0].as_ref().unwrap();
        assert!(
            first.len() == 2
                && first[0].contents.contains("A? whose answer is first")
                && first[0].contents.contains("qa")
        );
        assert!(matches!(results[1], Err(SearchError::NoContext)));
        let last = results[2].as_ref().unwrap();
        assert!(
            last.len() == 1
                && last[0].contents.contains("B? whose answer is second")
                && last[0].contents.contains("qb")
        );
    }
}
