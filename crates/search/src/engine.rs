//! The contract of a search engine, real or simulated.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zerosearch_data::{CorpusRow, DataError};
use zerosearch_http::HttpError;

/// A query to an engine.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The words to look for.
    pub text: &'a str,
    /// How many documents are wanted.
    pub top_k: usize,
    /// The context of a simulated engine. A real engine never looks at it.
    pub context: Option<SimulationContext<'a>>,
}

/// Context of a query for a simulated engine; the policy never sees it.
#[derive(Clone, Copy, Debug)]
pub struct SimulationContext<'a> {
    /// The question that the policy is answering.
    pub question: &'a str,
    /// Its golden answers.
    pub answers: &'a [String],
    /// The quality of documents to write.
    pub quality: Quality,
    /// Names the random stream of this call.
    pub seed: u64,
}

/// The control keyword of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Documents in which the answer can be found.
    Useful,
    /// Documents in which it cannot.
    Noisy,
}

impl Quality {
    /// The keyword as it stands in a prompt.
    pub fn keyword(self) -> &'static str {
        match self {
            Quality::Useful => "useful",
            Quality::Noisy => "noisy",
        }
    }
}

/// One search result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The engine's name for it, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its title, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its text.
    pub contents: String,
    /// The engine's score, higher is better; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

impl Document {
    /// The document as a model reads it: the contents, after the title where they do not have it already.
    pub fn text(&self) -> Cow<'_, str> {
        match self.title.as_deref() {
            Some(title) if !title.is_empty() && !self.contents.contains(title) => {
                Cow::Owned(format!("{title}: {}", self.contents))
            }
            _ => Cow::Borrowed(&self.contents),
        }
    }
}

impl From<CorpusRow> for Document {
    fn from(CorpusRow { id, title, contents }: CorpusRow) -> Self {
        Self { id, title, contents, score: None }
    }
}

/// Turns a query into documents, best first.
pub trait SearchEngine: Send + Sync {
    /// Answers one query, blocking. At most `top_k` documents; none is an answer, not an error.
    ///
    /// # Errors
    /// When the engine cannot answer. A rollout records the failure and goes on.
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError>;

    /// Answers several queries; results stand in the order of the queries.
    ///
    /// An engine that profits from seeing them together (one that decodes in batches, or waits
    /// on a network) overrides this; the answers must equal those of single calls.
    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        queries.iter().map(|query| self.search(query)).collect()
    }

    /// How many calls at a time it is good for, from as many threads.
    ///
    /// 1, the default, is an engine that computes in this process or answers many queries in one request: while it works, further
    /// queries gather, and go to [`search_batch`](Self::search_batch) together. More is a service that answers each
    /// query in its own time: so many queries are under way at once, each in a call of its own. A wrapper says what the
    /// engine inside says.
    fn concurrency(&self) -> usize {
        1
    }

    /// Figures that only grow, by name, such as the requests to each server behind a network. A step's metrics show by how much
    /// they grew. None by default; a wrapper says what the engine inside says.
    fn counters(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// The methods of a wrapper that say what the engine in its field `engine` says.
macro_rules! forward_to_the_engine_inside {
    () => {
        fn concurrency(&self) -> usize {
            self.engine.concurrency()
        }

        fn counters(&self) -> Vec<(String, f64)> {
            self.engine.counters()
        }
    };
}
pub(crate) use forward_to_the_engine_inside;

macro_rules! forward_to_the_engine_behind {
    ($($pointer:ty),+) => {$(
        impl<E: SearchEngine + ?Sized> SearchEngine for $pointer {
            fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
                (**self).search(query)
            }

            fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
                (**self).search_batch(queries)
            }

            fn concurrency(&self) -> usize {
                (**self).concurrency()
            }

            fn counters(&self) -> Vec<(String, f64)> {
                (**self).counters()
            }
        }
    )+};
}

forward_to_the_engine_behind!(&E, Box<E>, Arc<E>);

/// Why an engine could not answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A corpus that cannot be read.
    #[error(transparent)]
    Corpus(#[from] DataError),
    /// A recording that cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// The file, with the line where there is one.
        path: String,
        /// The problem and its remedy.
        message: String,
    },
    /// A server answered with an error or not at all.
    #[error("{endpoint}: {message}")]
    Server {
        /// The address.
        endpoint: String,
        /// The problem.
        message: String,
    },
    /// The index failed.
    #[error("the index failed: {0}")]
    Index(String),
    /// An index over nothing.
    #[error("the corpus has no documents: give at least one")]
    EmptyCorpus,
    /// No key for a web API.
    #[error("the environment variable {variable} is not set: put your key of the web search service there")]
    NoKey {
        /// The variable that was read.
        variable: String,
    },
    /// A setting of a wrapper out of its range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The given value.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// No more queries are paid for.
    #[error("the budget of {calls} calls is spent: raise it, or train against a simulator")]
    BudgetSpent {
        /// The budget.
        calls: u64,
    },
    /// A recording does not have the query.
    #[error(
        "{path} has no answer to the query {query:?} with top_k {top_k}: record it first, with the key `cache` or `Cached::with_file`"
    )]
    NotRecorded {
        /// The recording.
        path: String,
        /// The query.
        query: String,
        /// How many documents were wanted.
        top_k: usize,
    },
    /// A simulated engine was asked without the context that it needs.
    #[error("a simulated engine needs the question, its answers, a quality and a seed: set `Query::context`")]
    NoContext,
    /// The language model behind a simulated engine failed.
    #[error("the simulator failed: {0}")]
    Simulator(String),
}

impl From<HttpError> for SearchError {
    fn from(error: HttpError) -> Self {
        SearchError::Server { endpoint: error.endpoint, message: error.message }
    }
}
