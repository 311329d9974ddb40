//! A language model that plays the search engine.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zerosearch_generate::{Completer, CompletionRequest, Sampling, stream_seed};
use zerosearch_lm::{LanguageModel, LocalCompleter};
use zerosearch_search::{Document, Quality, Query, SearchEngine, SearchError};

use crate::each::complete_each;
use crate::{SimulatorError, SimulatorPrompt, mentions, parse_documents};

/// How the simulator samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulationConfig {
    /// Temperature of the documents.
    pub temperature: f32,
    /// At most this many tokens for all documents of one call, and for the thoughts of a model that reasons first.
    pub max_new_tokens: usize,
    /// Documents that are not of the quality asked for, by the exact rule, are written anew, with another seed, until
    /// there were so many attempts; the last one stands. 1 takes what comes first.
    pub attempts: usize,
}

impl Default for SimulationConfig {
    fn default() -> Self {
        Self { temperature: 0.8, max_new_tokens: 600, attempts: 1 }
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

    /// Samples in another way than the default.
    #[must_use]
    pub fn with_config(self, config: SimulationConfig) -> Self {
        Self { config, ..self }
    }

    fn request(&self, query: &Query<'_>, attempt: u64) -> Result<CompletionRequest, SearchError> {
        let context = query.context.ok_or(SearchError::NoContext)?;
        let prompt = self
            .prompt
            .render(context.question, context.answers, query.text, context.quality, query.top_k)
            .map_err(|error| SearchError::Simulator(error.to_string()))?;
        let seed = if attempt == 0 { context.seed } else { stream_seed(&[context.seed, attempt]) };
        Ok(CompletionRequest {
            prompt,
            sampling: Sampling::temperature(self.config.temperature),
            max_new_tokens: self.config.max_new_tokens,
            seed,
            stop: Vec::new(),
        })
    }
}

impl SimulatedEngine<LocalCompleter> {
    /// Lets the model of a folder play the engine: its weights, its prompt ([`SimulatorPrompt::for_model`]), and the
    /// default sampling.
    ///
    /// # Errors
    /// When a file of the folder is missing or broken.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, SimulatorError> {
        let folder = folder.as_ref();
        let completer = LocalCompleter::new(&LanguageModel::read(folder)?)?;
        Ok(Self::new(completer, SimulatorPrompt::for_model(folder)?, SimulationConfig::default()))
    }
}

/// Whether the documents are of the quality that was asked for, by the exact rule.
fn obeys(query: &Query<'_>, documents: &[String]) -> bool {
    query.context.is_none_or(|context| {
        let found = documents.iter().any(|document| mentions(document, context.answers));
        found == (context.quality == Quality::Useful)
    })
}

impl<C: Completer> SearchEngine for SimulatedEngine<C> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        self.search_batch(std::slice::from_ref(query)).pop().unwrap_or(Ok(Vec::new()))
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let mut results: Vec<Result<Vec<String>, SearchError>> = queries.iter().map(|_| Ok(Vec::new())).collect();
        let mut open: Vec<usize> = (0..queries.len()).collect();
        for attempt in 0..self.config.attempts.max(1) as u64 {
            let mut requests = Vec::new();
            open.retain(|index| match self.request(&queries[*index], attempt) {
                Ok(request) => {
                    requests.push(request);
                    true
                }
                Err(error) => {
                    results[*index] = Err(error);
                    false
                }
            });
            if open.is_empty() {
                break;
            }
            for (index, completion) in open.iter().zip(complete_each(&self.completer, &requests)) {
                results[*index] = completion
                    .map(|completion| parse_documents(&completion.text, queries[*index].top_k))
                    .map_err(|error| SearchError::Simulator(error.to_string()));
            }
            open.retain(|index| results[*index].as_ref().is_ok_and(|documents| !obeys(&queries[*index], documents)));
        }
        let documents = |texts: Vec<String>| {
            texts.into_iter().map(|contents| Document { contents, ..Document::default() }).collect()
        };
        results.into_iter().map(|result| result.map(documents)).collect()
    }

    fn concurrency(&self) -> usize {
        self.completer.concurrency()
    }

    fn counters(&self) -> Vec<(String, f64)> {
        self.completer.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerosearch_generate::{Completion, GenerateError};
    use zerosearch_search::SimulationContext;

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
    fn a_folder_that_is_not_there_is_named() {
        let error = SimulatedEngine::read("no/such/simulator").err().unwrap().to_string();
        assert!(error.contains("no/such/simulator"), "{error}");
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

    #[test]
    fn a_search_that_is_refused_costs_no_other() {
        struct Narrow;

        impl Completer for Narrow {
            fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
                match requests.iter().map(|request| request.prompt.len()).max() {
                    Some(length @ 1000..) => Err(GenerateError::PromptTooLong { length, context: 1000 }),
                    _ => Echo.complete(requests),
                }
            }
        }
        let engine = SimulatedEngine::new(Narrow, SimulatorPrompt::sft().unwrap(), SimulationConfig::default());
        let context = SimulationContext { question: "?", answers: &[], quality: Quality::Useful, seed: 0 };
        let long = "long ".repeat(300);
        let queries = ["a", &long, "b"].map(|text| Query { text, top_k: 1, context: Some(context) });
        let results = engine.search_batch(&queries);
        assert!(results[0].is_ok() && results[2].is_ok());
        let error = results[1].as_ref().unwrap_err().to_string();
        assert!(error.contains("the context holds 1000"), "{error}");
    }

    /// Writes the answer at the third seed that it sees, and counts what it is asked.
    struct Slow(std::sync::Mutex<Vec<u64>>);

    impl Completer for Slow {
        fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
            let mut seen = self.0.lock().unwrap();
            Ok(requests
                .iter()
                .map(|request| {
                    seen.push(request.seed);
                    let text = if seen.len() < 3 { "Doc 1: nothing" } else { "Doc 1: It is Moundou." };
                    Completion { text: text.into(), tokens: 1 }
                })
                .collect())
        }
    }

    #[test]
    fn documents_that_disobey_are_written_anew_with_another_seed() {
        let answers = ["Moundou".to_string()];
        let query = |quality| Query {
            text: "q",
            top_k: 1,
            context: Some(SimulationContext { question: "?", answers: &answers, quality, seed: 7 }),
        };
        let engine = |attempts| {
            let config = SimulationConfig { attempts, ..SimulationConfig::default() };
            SimulatedEngine::new(Slow(Default::default()), SimulatorPrompt::sft().unwrap(), config)
        };
        let patient = engine(5);
        assert_eq!(patient.search(&query(Quality::Useful)).unwrap()[0].contents, "It is Moundou.");
        let seeds = patient.completer.0.lock().unwrap().clone();
        assert!(seeds.len() == 3 && seeds[0] == 7 && seeds[1] != seeds[2], "{seeds:?}");
        assert_eq!(engine(2).search(&query(Quality::Useful)).unwrap()[0].contents, "nothing", "the last one stands");
        let noisy = engine(5);
        assert_eq!(noisy.search(&query(Quality::Noisy)).unwrap()[0].contents, "nothing");
        assert_eq!(noisy.completer.0.lock().unwrap().len(), 1);
    }
}
