//! Clients of external generation engines: SGLang, vLLM, llama.cpp, any OpenAI-compatible server.
//!
//! [`OpenAiServer`] is text in, text out: a judge, a simulator, or a policy that is only evaluated.
//! [`SglangGenerator`] and [`VllmGenerator`] are token ids in, token ids and log-probabilities out: a policy that is trained.
//! Each takes the addresses of several servers.
//!
//! ```
//! use std::time::Duration;
//! use zerosearch_generate::{Completer, CompletionRequest, GenerateError, Sampling};
//! use zerosearch_remote::{OpenAiServer, RetryPolicy};
//!
//! // No server listens on this port: the error names it, after one attempt.
//! let retry = RetryPolicy { attempts: 1, timeout: Duration::from_secs(1), ..RetryPolicy::default() };
//! let judge = OpenAiServer::completions("http://127.0.0.1:9", "qwen").with_retry(retry);
//! let request = CompletionRequest {
//!     prompt: "2 + 2 =".into(),
//!     sampling: Sampling::greedy(),
//!     max_new_tokens: 4,
//!     seed: 0,
//!     stop: vec!["\n".into()],
//! };
//! let error = judge.complete(&[request]).unwrap_err();
//! assert!(error.to_string().starts_with("http://127.0.0.1:9/v1/completions: "));
//! ```

#![forbid(unsafe_code)]

mod current;
mod models;
mod openai;
mod openai_answer;
mod sglang;
mod sglang_server;
mod turns;
mod under_way;
mod vllm;
mod vllm_server;
mod wire;

pub use models::served_models;
pub use openai::OpenAiServer;
pub use sglang::SglangGenerator;
pub use vllm::VllmGenerator;
pub use zerosearch_http::{EndpointCounts, RetryPolicy};
