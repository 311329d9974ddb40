//! `SearchEngine` and the real engines: BM25 index, retriever servers, web APIs, cache, record and replay.
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
mod cached;
mod counted;
mod engine;
mod replay;
mod results;
mod retriever;
mod tape;
mod web;
mod web_results;
mod words;

pub use bm25::Bm25Index;
pub use cached::Cached;
pub use counted::{CallCount, Counted};
pub use engine::{Document, Quality, Query, SearchEngine, SearchError, SimulationContext};
pub use replay::Replay;
pub use retriever::{Dialect, RetrieverServer};
pub use web::{WebProvider, WebSearch, key_from_env};
pub use words::runs_words_together;
pub use zerosearch_http::{EndpointCounts, RetryPolicy};
