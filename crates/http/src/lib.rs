//! JSON over HTTP with time-outs, bounded retries and bounded concurrency.
//!
//! The client of every server that ZeroSearch talks to. A server that is slow, ill or gone costs a
//! known amount of time and then gives an error that names it; it never hangs a rollout.
//!
//! ```
//! use std::time::Duration;
//! use zerosearch_http::{JsonClient, RetryPolicy};
//!
//! let retry = RetryPolicy { attempts: 2, first_pause: Duration::from_millis(1), ..RetryPolicy::default() };
//! // Nobody listens on port 9 here: two attempts, then an error with the address.
//! let answer = JsonClient::new(retry).post::<serde_json::Value>("http://127.0.0.1:9/retrieve", &["a query"]);
//! let error = answer.unwrap_err();
//! assert_eq!(error.endpoint, "http://127.0.0.1:9/retrieve");
//! assert!(error.message.ends_with("(2 attempts)"), "{error}");
//! ```

#![forbid(unsafe_code)]

mod address;
mod attempt;
mod client;
mod endpoint;
mod excerpt;
mod fleet;
mod json;
mod parallel;
mod redirect;
mod retry_after;

pub use address::address;
pub use client::{HttpError, JsonClient, RetryPolicy};
pub use endpoint::EndpointCounts;
pub use excerpt::excerpt;
pub use fleet::{AttemptError, Endpoint, Fleet};
pub use json::{Reported, parse_json, reported_error};
pub use parallel::in_parallel;
