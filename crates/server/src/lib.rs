//! Any search engine behind HTTP: Search-R1's `/retrieve`, ZeroSearch's wiki form, OpenAI's chat completions.
//!
//! ```
//! use std::sync::Arc;
//! use std::thread;
//! use zerosearch_search::{Bm25Index, Document, Query, RetrieverServer, SearchEngine};
//! use zerosearch_server::{Server, ServerConfig, Service};
//!
//! let corpus = ["Chad borders Niger.", "Niger borders Mali."].map(|text| Document { contents: text.into(), ..Default::default() });
//! let server = Server::bind(ServerConfig { port: 0, ..ServerConfig::default() })?;
//! let (address, stop) = (server.address(), server.handle());
//! let service = Service::new(Arc::new(Bm25Index::new(corpus)?));
//! let running = thread::spawn(move || server.run(service));
//!
//! let client = RetrieverServer::search_r1(format!("http://{address}"));
//! let found = client.search(&Query { text: "Mali border", top_k: 1, context: None })?;
//! assert_eq!(found[0].contents, "Niger borders Mali.");
//!
//! stop.stop();
//! running.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The forms of requests and answers are described in `docs/src/serving.md`.

#![forbid(unsafe_code)]

mod config;
mod metrics;
mod noise;
mod openai;
mod queue;
mod refusal;
mod retrieve;
mod routes;
mod server;
mod service;
mod worker;

pub use config::ServerConfig;
pub use noise::{NoiseError, parse_noise};
pub use server::{Server, ServerError, StopHandle};
pub use service::Service;
