//! Web search: Google's results through SerpAPI, Serper or Google's own Custom Search.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zerosearch_http::{HttpError, JsonClient, RetryPolicy, address, excerpt, in_parallel, reported_error};

use crate::web_results::documents;
use crate::{Document, Query, SearchEngine, SearchError};

/// Requests under way at once, unless told otherwise: the services limit their rate.
const CONCURRENCY: usize = 8;

/// Web search through a service. A blank query has no results and costs no request.
///
/// A result's title, snippet and link become a document's title, contents and id. Where a page has no such results, what stands
/// above and beside them is taken: the answer box, the knowledge graph and the related questions.
pub struct WebSearch {
    provider: WebProvider,
    key: String,
    /// The `cx` of a Google Custom Search; empty for the others.
    engine_id: String,
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
    /// Google's Custom Search JSON API: `GET https://www.googleapis.com/customsearch/v1`, results under `items`, at most ten of them.
    /// Beside the key it takes the id of a search engine (`cx`), see [`WebSearch::google_cse`].
    #[serde(rename = "google_cse")]
    GoogleCse,
}

/// The environment variable in which users of Google's Custom Search keep the id of their engine.
const ENGINE_ID: &str = "GOOGLE_CSE_ID";

/// The most results that Google's Custom Search gives to one request.
const MOST_OF_GOOGLE: usize = 10;

impl WebProvider {
    /// The environment variable in which its users keep their key.
    pub fn key_variable(self) -> &'static str {
        match self {
            Self::SerpApi => "SERPAPI_API_KEY",
            Self::Serper => "SERPER_API_KEY",
            Self::GoogleCse => "GOOGLE_API_KEY",
        }
    }

    fn url(self) -> &'static str {
        match self {
            Self::SerpApi => "https://serpapi.com/search",
            Self::Serper => "https://google.serper.dev/search",
            Self::GoogleCse => "https://www.googleapis.com/customsearch/v1",
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
        .map(|key| key.trim().to_string())
        .filter(|key| !key.is_empty())
        .ok_or_else(|| SearchError::NoKey { variable: variable.into() })
}

impl WebSearch {
    /// A service and the key to it. Google's Custom Search needs an engine's id as well: [`google_cse`](Self::google_cse).
    pub fn new(provider: WebProvider, key: impl Into<String>) -> Self {
        Self {
            provider,
            key: key.into().trim().into(),
            engine_id: String::new(),
            url: provider.url().into(),
            client: JsonClient::new(RetryPolicy::default()),
            concurrency: CONCURRENCY,
        }
    }

    /// A service whose key is in its environment variable, see [`WebProvider::key_variable`]; the id of a Google Custom Search is
    /// read from `GOOGLE_CSE_ID`.
    ///
    /// # Errors
    /// [`SearchError::NoKey`] when a variable is not set or empty.
    pub fn from_env(provider: WebProvider) -> Result<Self, SearchError> {
        let key = key_from_env(provider.key_variable())?;
        match provider {
            WebProvider::GoogleCse => Ok(Self::google_cse(key, key_from_env(ENGINE_ID)?)),
            WebProvider::SerpApi | WebProvider::Serper => Ok(Self::new(provider, key)),
        }
    }

    /// [`WebProvider::SerpApi`].
    pub fn serpapi(key: impl Into<String>) -> Self {
        Self::new(WebProvider::SerpApi, key)
    }

    /// [`WebProvider::Serper`].
    pub fn serper(key: impl Into<String>) -> Self {
        Self::new(WebProvider::Serper, key)
    }

    /// [`WebProvider::GoogleCse`], with the id of the search engine (`cx`).
    pub fn google_cse(key: impl Into<String>, engine_id: impl Into<String>) -> Self {
        Self { engine_id: engine_id.into().trim().into(), ..Self::new(WebProvider::GoogleCse, key) }
    }

    /// At another address: a proxy, or a server in a test.
    #[must_use]
    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = address(&url.into(), str::to_string);
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

    fn ask(&self, query: &Query<'_>) -> Result<Map<String, Value>, HttpError> {
        let answer = match self.provider {
            WebProvider::SerpApi => {
                let num = query.top_k.to_string();
                self.client
                    .get(&self.url, &[("engine", "google"), ("q", query.text), ("num", &num), ("api_key", &self.key)])
            }
            WebProvider::Serper => {
                let client = self.client.clone().with_header("X-API-KEY", &self.key);
                client.post(&self.url, &json!({"q": query.text, "num": query.top_k}))
            }
            WebProvider::GoogleCse => {
                let num = query.top_k.min(MOST_OF_GOOGLE).to_string();
                let parameters =
                    [("q", query.text), ("num", num.as_str()), ("cx", &self.engine_id), ("key", self.key.as_str())];
                self.client.get(&self.url, &parameters)
            }
        };
        answer.map_err(|mut error| {
            // Google calls a wrong key a bad request.
            let refused_key = error.status() == Some(400) && error.message.contains("API key");
            if refused_key || matches!(error.status(), Some(401 | 403)) {
                error.message.push_str(&format!("; is the key right ({})?", self.provider.key_variable()));
            }
            error
        })
    }
}

impl SearchEngine for WebSearch {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        if query.text.trim().is_empty() || query.top_k == 0 {
            return Ok(Vec::new());
        }
        let answer = Value::Object(self.ask(query)?);
        let failed = |message: &str| {
            // The words may repeat the key.
            let message = if self.key.is_empty() { message.into() } else { message.replace(&self.key, "…") };
            Err(HttpError::new(&self.url, excerpt(&message)).into())
        };
        // SerpAPI reports an empty page of results as an error with status 200.
        match reported_error(&answer) {
            Some(error) if !error.message.contains("hasn't returned any results") => failed(&error.message),
            _ => match documents(&answer) {
                Some(found) => Ok(found.into_iter().take(query.top_k).collect()),
                None => failed(&format!("unexpected answer: no page of results: {answer}")),
            },
        }
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        in_parallel(queries, self.concurrency, |query| self.search(query))
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }
}
