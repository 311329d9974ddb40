//! Web search: Google's results through SerpAPI or Serper.

use serde::{Deserialize, Serialize};
use serde_json::json;
use zerosearch_http::{HttpError, JsonClient, RetryPolicy, in_parallel};

use crate::{Document, Query, SearchEngine, SearchError};

/// Requests under way at once, unless told otherwise: the services limit their rate.
const CONCURRENCY: usize = 8;

/// Web search through a service. A blank query has no results and costs no request.
///
/// A result's title, snippet and link become a document's title, contents and id.
pub struct WebSearch {
    provider: WebProvider,
    key: String,
    url: String,
    client: JsonClient,
    concurrency: usize,
}

/// A service that searches the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebProvider {
    /// SerpAPI: `GET https://serpapi.com/search`, results under `organic_results`.
    SerpApi,
    /// Serper: `POST https://google.serper.dev/search`, results under `organic`.
    Serper,
}

impl WebProvider {
    /// The environment variable in which its users keep their key.
    pub fn key_variable(self) -> &'static str {
        match self {
            Self::SerpApi => "SERPAPI_API_KEY",
            Self::Serper => "SERPER_API_KEY",
        }
    }

    fn url(self) -> &'static str {
        match self {
            Self::SerpApi => "https://serpapi.com/search",
            Self::Serper => "https://google.serper.dev/search",
        }
    }
}

/// Reads a service's key from an environment variable, so that it stands in no file and no command line.
///
/// # Errors
/// [`SearchError::NoKey`] when the variable is not set or empty.
pub fn key_from_env(variable: &str) -> Result<String, SearchError> {
    std::env::var(variable)
        .ok()
        .filter(|key| !key.is_empty())
        .ok_or_else(|| SearchError::NoKey { variable: variable.into() })
}

impl WebSearch {
    /// A service and the key to it.
    pub fn new(provider: WebProvider, key: impl Into<String>) -> Self {
        Self {
            provider,
            key: key.into(),
            url: provider.url().into(),
            client: JsonClient::new(RetryPolicy::default()),
            concurrency: CONCURRENCY,
        }
    }

    /// A service whose key is in its environment variable, see [`WebProvider::key_variable`].
    ///
    /// # Errors
    /// [`SearchError::NoKey`] when the variable is not set or empty.
    pub fn from_env(provider: WebProvider) -> Result<Self, SearchError> {
        Ok(Self::new(provider, key_from_env(provider.key_variable())?))
    }

    /// [`WebProvider::SerpApi`].
    pub fn serpapi(key: impl Into<String>) -> Self {
        Self::new(WebProvider::SerpApi, key)
    }

    /// [`WebProvider::Serper`].
    pub fn serper(key: impl Into<String>) -> Self {
        Self::new(WebProvider::Serper, key)
    }

    /// At another address: a proxy, or a server in a test.
    #[must_use]
    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// With other time-outs and retries than the default.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.client = JsonClient::new(retry);
        self
    }

    /// With at most this many requests under way at once (8 by default).
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    fn ask(&self, query: &Query<'_>) -> Result<Answer, HttpError> {
        match self.provider {
            WebProvider::SerpApi => {
                let num = query.top_k.to_string();
                self.client
                    .get(&self.url, &[("engine", "google"), ("q", query.text), ("num", &num), ("api_key", &self.key)])
            }
            WebProvider::Serper => {
                let client = self.client.clone().with_header("X-API-KEY", &self.key);
                client.post(&self.url, &json!({"q": query.text, "num": query.top_k}))
            }
        }
    }
}

impl SearchEngine for WebSearch {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        if query.text.trim().is_empty() || query.top_k == 0 {
            return Ok(Vec::new());
        }
        let answer = self.ask(query)?;
        match answer.error {
            // SerpAPI reports an empty page of results as an error with status 200.
            Some(message) if !message.contains("hasn't returned any results") => {
                Err(SearchError::Server { endpoint: self.url.clone(), message })
            }
            _ => Ok(answer.results.into_iter().filter_map(Found::document).take(query.top_k).collect()),
        }
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        in_parallel(queries, self.concurrency, |query| self.search(query))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, alias = "organic_results", alias = "organic")]
    results: Vec<Found>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Found {
    title: Option<String>,
    snippet: Option<String>,
    link: Option<String>,
}

impl Found {
    /// A result without a snippet still tells its title; one without either tells nothing.
    fn document(self) -> Option<Document> {
        if self.title.is_none() && self.snippet.is_none() {
            return None;
        }
        Some(Document { id: self.link, title: self.title, contents: self.snippet.unwrap_or_default(), score: None })
    }
}
