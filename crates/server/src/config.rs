//! The address of a server, its bounds and its noise.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zerosearch_curriculum::CurriculumConfig;

use crate::ServerError;

/// The address of a server, its bounds and its noise, as a `[server]` table of TOML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The name or address to listen on; `127.0.0.1`, which only this machine reaches. There is no authentication.
    pub host: String,
    /// The port; 8000. 0 takes a free one.
    pub port: u16,
    /// Documents for a request that does not say how many; 3, as in Search-R1.
    pub top_k: usize,
    /// The most documents that a request may ask for; 100.
    pub max_top_k: usize,
    /// The most bytes in a request's body; 8 MiB.
    pub max_body_bytes: usize,
    /// Searches and completions that may wait; 4,096. Beyond it the answer is 503 with `Retry-After`. One request with more searches
    /// than that is taken on when nothing else waits. Requests, too, are no more at a time than could wait or be in batches.
    pub queue: usize,
    /// Batches under way at once; 1, which suits a model that decodes in batches. Engines behind a network want more.
    pub concurrency: usize,
    /// The most searches in one batch; 64.
    pub batch: usize,
    /// Milliseconds that a free worker waits for more searches before it begins with fewer than a batch; 2.
    pub linger_ms: u64,
    /// Seconds until a request that has no answer gets 504; 300.
    pub timeout_s: u64,
    /// Seconds that requests under way have left once the server is told to stop; 30.
    pub drain_s: u64,
    /// The seed of requests that bring none.
    pub seed: u64,
    /// Milliseconds that every search takes in addition, for load tests; batches then have one search each. 0.
    pub delay_ms: u64,
    /// The number of searches after which the curriculum is at its end.
    pub calls: u64,
    /// The share of noisy documents, where the engine is a simulator; its steps are searches. None are noisy if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<CurriculumConfig>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8000,
            top_k: 3,
            max_top_k: 100,
            max_body_bytes: 8 << 20,
            queue: 4096,
            concurrency: 1,
            batch: 64,
            linger_ms: 2,
            timeout_s: 300,
            drain_s: 30,
            seed: 0,
            delay_ms: 0,
            calls: 0,
            curriculum: None,
        }
    }
}

impl ServerConfig {
    /// Checks the bounds.
    ///
    /// # Errors
    /// Names the key that is 0, or a default number of documents above the greatest.
    pub fn validate(&self) -> Result<(), ServerError> {
        let counts = [
            ("top_k", self.top_k),
            ("max_top_k", self.max_top_k),
            ("max_body_bytes", self.max_body_bytes),
            ("queue", self.queue),
            ("concurrency", self.concurrency),
            ("batch", self.batch),
            ("timeout_s", usize::from(self.timeout_s > 0)),
        ];
        let failed = |key, expected: String| Err(ServerError::Config { key, expected });
        match counts.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => failed(*key, "at least 1".into()),
            None if self.top_k > self.max_top_k => failed("top_k", format!("at most max_top_k, {}", self.max_top_k)),
            None => Ok(()),
        }
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// Searches in one batch. With a delay each worker has one, so that so many are delayed at once as there are workers.
    pub(crate) fn batch(&self) -> usize {
        if self.delay_ms > 0 { 1 } else { self.batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_let_nothing_through_are_refused() {
        let default = ServerConfig::default;
        assert!(default().validate().is_ok());
        for (config, key) in [
            (ServerConfig { queue: 0, ..default() }, "queue"),
            (ServerConfig { concurrency: 0, ..default() }, "concurrency"),
            (ServerConfig { timeout_s: 0, ..default() }, "timeout_s"),
            (ServerConfig { top_k: 7, max_top_k: 5, ..default() }, "at most max_top_k, 5"),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
