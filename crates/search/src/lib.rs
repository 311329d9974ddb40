//! `SearchEngine`, the real engines (BM25 in memory and on disk, retriever servers, web APIs), and wrappers around any engine:
//! cache, record and replay, rate limit, budget, counts.
//!
//! ```
//! use zerosearch_search::{Bm25Index, Document, Query, SearchEngine};
//!
//! let corpus = ["Chad borders Niger.", "Niger borders Mali."].map(|text| Document { contents: text.into(), ..Default::default() });
//! let index = Bm25Index::new(corpus)?;
//! let found = index.search(&Query { text: "Mali border", top_k: 5, context: None })?;
//! assert_eq!(found[0].contents, "Niger borders Mali.");
//! # Ok::<(), zerosearch_search::SearchError>(())
//! ```

#![forbid(unsafe_code)]

mod bm25;
mod budget;
mod cached;
mod counted;
mod engine;
mod metered;
mod rate_limit;
mod replay;
mod results;
mod retriever;
mod tape;
mod web;
mod web_results;
mod words;

pub use bm25::{Bm25Folder, Bm25Index};
pub use budget::Budgeted;
pub use cached::Cached;
pub use counted::{CallCount, Counted};
pub use engine::{Document, Quality, Query, SearchEngine, SearchError, SimulationContext};
pub use metered::Metered;
pub use rate_limit::RateLimited;
pub use replay::Replay;
pub use retriever::{Dialect, RetrieverServer};
pub use web::{WebProvider, WebSearch, key_from_env};
pub use words::runs_words_together;
pub use zerosearch_http::{EndpointCounts, RetryPolicy};
