//! Bounds of an episode.

use serde::{Deserialize, Serialize};
use zerosearch_generate::Sampling;
use zerosearch_grammar::FormatPreset;

use crate::RolloutError;

/// The bounds of every episode of a run. The default is the paper's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// At most this many policy turns. A search that is asked for in the last one is not executed,
    /// because no turn is left that could read its documents: 6 turns have at most 5 searches, as the
    /// `MAX_TURNS=5` of the released ZeroSearch allows.
    pub max_turns: usize,
    /// At most this many tokens are sampled in one turn.
    pub max_new_tokens: usize,
    /// At most this many tokens in one observation, its tags included. Longer documents are cut;
    /// the closing tag never is.
    pub max_observation_tokens: usize,
    /// How many documents a search asks for, and at most shows.
    pub top_k: usize,
    /// The tags and words of an episode; a checkpoint of another program needs that program's.
    #[serde(skip_serializing_if = "FormatPreset::is_default")]
    pub format: FormatPreset,
    /// How the policy's tokens are drawn.
    pub sampling: Sampling,
    /// Searches wait until this many wait, or nothing is decoding, before they go to the engine. 0, the default, lets
    /// each go at once, so that the engine works beside decoding. Has no influence on any rollout, only on speed.
    pub search_batch: usize,
    /// At most this many searches are under way at a time, each in a thread of its own; with 1, a single thread takes all that
    /// wait in one batch. 0, the default, is as many as the engine is good for
    /// ([`SearchEngine::concurrency`](zerosearch_search::SearchEngine::concurrency)). The same holds for other tools. Has no influence on any rollout, only on speed.
    #[serde(skip_serializing_if = "is_zero")]
    pub search_concurrency: usize,
    /// At most this many sequences live in the generator at a time; 0 admits all at once.
    /// Has no influence on any rollout, only on memory and speed.
    pub concurrency: usize,
    /// A turn that decodes longer than this many seconds, waiting for its place included, is cut off and ends its
    /// episode. Off by default: what it cuts off depends on the machine, so such a run does not repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_timeout_s: Option<f64>,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            max_turns: 6,
            max_new_tokens: 500,
            max_observation_tokens: 500,
            top_k: 5,
            format: FormatPreset::default(),
            sampling: Sampling::default(),
            search_batch: 0,
            search_concurrency: 0,
            concurrency: 0,
            turn_timeout_s: None,
        }
    }
}

impl RolloutConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), RolloutError> {
        for (key, value) in [
            ("max_turns", self.max_turns),
            ("max_new_tokens", self.max_new_tokens),
            ("max_observation_tokens", self.max_observation_tokens),
            ("top_k", self.top_k),
        ] {
            if value == 0 {
                return Err(RolloutError::Zero { key });
            }
        }
        if let Some(seconds) = self.turn_timeout_s.filter(|seconds| !(*seconds > 0.0 && *seconds < 1e9)) {
            return Err(RolloutError::Timeout { seconds });
        }
        Ok(self.sampling.validate()?)
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_papers() {
        let config = RolloutConfig::default();
        config.validate().unwrap();
        assert_eq!((config.max_turns, config.max_new_tokens, config.top_k), (6, 500, 5));
        assert_eq!(config.sampling.temperature, 1.0);
    }

    #[test]
    fn a_bound_of_zero_is_refused_by_name() {
        let valid = RolloutConfig::default();
        let broken = [
            ("max_turns", RolloutConfig { max_turns: 0, ..valid }),
            ("max_new_tokens", RolloutConfig { max_new_tokens: 0, ..valid }),
            ("max_observation_tokens", RolloutConfig { max_observation_tokens: 0, ..valid }),
            ("top_k", RolloutConfig { top_k: 0, ..valid }),
        ];
        let broken = broken.into_iter().chain(
            [0.0, -1.0, f64::NAN, f64::INFINITY]
                .map(|seconds| ("turn_timeout_s", RolloutConfig { turn_timeout_s: Some(seconds), ..valid })),
        );
        for (key, config) in broken {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn sampling_is_checked_too() {
        let config = RolloutConfig { sampling: Sampling::temperature(-1.0), ..RolloutConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("temperature"));
    }

    #[test]
    fn missing_keys_take_the_default_and_unknown_keys_are_refused() {
        let config: RolloutConfig =
            serde_json::from_str(r#"{"max_turns": 3, "sampling": {"temperature": 0.5}}"#).unwrap();
        let expected = RolloutConfig { max_turns: 3, sampling: Sampling::temperature(0.5), ..RolloutConfig::default() };
        assert_eq!(config, expected);
        let error = serde_json::from_str::<RolloutConfig>(r#"{"max_turn": 3}"#).unwrap_err().to_string();
        assert!(error.contains("max_turn"), "{error}");
    }

    #[test]
    fn a_format_is_named_and_the_default_is_left_out() {
        let config = RolloutConfig { format: FormatPreset::SearchR1, ..RolloutConfig::default() };
        assert_eq!(serde_json::from_str::<RolloutConfig>(r#"{"format": "search_r1"}"#).unwrap(), config);
        assert!(serde_json::to_string(&config).unwrap().contains(r#""format":"search_r1""#));
        let saved = serde_json::to_string(&RolloutConfig::default()).unwrap();
        assert!(!saved.contains("format"), "{saved}");
    }
}
