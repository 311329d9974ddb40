//! The multi-turn event loop over a `Generator` and the tools that a policy calls, of which search is one.
//!
//! ```
//! use zerosearch_generate::*;
//! use zerosearch_rollout::{Noise, RolloutConfig, RolloutEnd, RolloutPlan, Task};
//! use zerosearch_search::{Document, Query, SearchEngine, SearchError};
//! use zerosearch_text::{Codec, SpecialTokens, train_bpe};
//!
//! /// An engine that knows one thing.
//! struct Lima;
//! impl SearchEngine for Lima {
//!     fn search(&self, _: &Query<'_>) -> Result<Vec<Document>, SearchError> {
//!         Ok(vec![Document { contents: "Lima is the capital of Peru.".into(), ..Document::default() }])
//!     }
//! }
//!
//! /// A policy that knows two turns by heart. Real ones live in `zerosearch-lm`.
//! struct ByHeart<'a>(&'a Codec, Vec<&'a str>, Option<Turn>);
//! impl Generator for ByHeart<'_> {
//!     fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
//!         self.2 = Some(request.turn);
//!         Ok(SequenceId(0))
//!     }
//!     fn extend(&mut self, _: SequenceId, _: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
//!         self.2 = Some(turn);
//!         Ok(())
//!     }
//!     fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
//!         let Some(mut turn) = self.2.take() else { return Ok(Vec::new()) };
//!         let mut tokens = Vec::new();
//!         for id in self.0.encode(self.1.remove(0)) {
//!             tokens.push(SampledToken::new(id, -0.5));
//!             if (turn.stop)(id) {
//!                 break;
//!             }
//!         }
//!         Ok(vec![Finished { id: SequenceId(0), tokens, finish: Finish::Stop }])
//!     }
//!     fn release(&mut self, _: SequenceId) {}
//!     fn weight_version(&self) -> WeightVersion {
//!         WeightVersion(0)
//!     }
//! }
//!
//! let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
//! let codec = train_bpe(["the capital of Peru".to_owned()].into_iter(), 300, &[], &special)?;
//! let mut policy = ByHeart(&codec, vec!["<search>capital of Peru</search>", "<answer>Lima</answer> never sampled"], None);
//!
//! let question = "What is the capital of Peru?";
//! let task = Task::new(0, question, &["Lima".into()], codec.encode(question));
//! let plan = RolloutPlan::search(&Lima, Noise::Off, &codec, RolloutConfig::default());
//! let rollout = plan.run(&mut policy, vec![task], &mut |_| {})?.remove(0);
//!
//! assert_eq!(rollout.end, RolloutEnd::Answered);
//! assert_eq!(rollout.answer(&plan.format), Some("Lima"));
//! assert_eq!(rollout.calls().next().unwrap().input, "capital of Peru");
//! assert_eq!(
//!     rollout.observations().collect::<Vec<_>>(),
//!     ["\n\n<information>Doc 1: Lima is the capital of Peru.</information>\n\n"]
//! );
//! assert!(rollout.policy_turns()[1].ends_with("</answer>"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod config;
mod desk;
mod error;
mod live;
mod noise;
mod observation;
mod record;
mod run;
mod search_tool;
mod stats;
mod times;
mod tool;

pub use config::RolloutConfig;
pub use error::RolloutError;
pub use noise::Noise;
pub use observation::{Observation, Observations};
pub use record::{Rollout, RolloutEnd, Task, ToolRecord, TurnRecord};
pub use run::{RolloutPlan, RolloutProgress};
pub use search_tool::SearchTool;
pub use stats::{RolloutStats, Spread};
pub use times::RolloutTimes;
pub use tool::{Tool, ToolCall, ToolOutput};
