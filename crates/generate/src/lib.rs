//! The token-in token-out contract: `Generator`, `Completer`, sampling parameters, weight versions, and a ledger of what a run uses.
//!
//! A generator knows token ids and nothing of text. One that counts upward from the last token
//! shows the whole contract: a sequence is started, decodes until its turn stops, is extended
//! with what a tool answered, and goes on with the next turn.
//!
//! ```
//! use std::collections::BTreeMap;
//! use zerosearch_generate::*;
//!
//! #[derive(Default)]
//! struct Counting {
//!     last: BTreeMap<SequenceId, TokenId>,
//!     decoding: BTreeMap<SequenceId, Turn>,
//! }
//!
//! impl Generator for Counting {
//!     fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
//!         let id = SequenceId(self.last.len() as u64);
//!         self.last.insert(id, *request.prompt.last().ok_or(GenerateError::EmptyPrompt)?);
//!         self.decoding.insert(id, request.turn);
//!         Ok(id)
//!     }
//!
//!     fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
//!         let last = self.last.get_mut(&id).ok_or(GenerateError::NotWaiting(id.0))?;
//!         *last = observation.last().copied().unwrap_or(*last);
//!         self.decoding.insert(id, turn);
//!         Ok(())
//!     }
//!
//!     fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
//!         let Some((id, mut turn)) = self.decoding.pop_first() else { return Ok(Vec::new()) };
//!         let (mut tokens, mut finish) = (Vec::new(), Finish::Length);
//!         let last = self.last.entry(id).or_default();
//!         while tokens.len() < turn.max_new_tokens {
//!             *last += 1;
//!             tokens.push(SampledToken::new(*last, 0.0));
//!             if (turn.stop)(*last) {
//!                 finish = Finish::Stop;
//!                 break;
//!             }
//!         }
//!         Ok(vec![Finished { id, tokens, finish }])
//!     }
//!
//!     fn release(&mut self, id: SequenceId) {
//!         self.last.remove(&id);
//!     }
//!
//!     fn weight_version(&self) -> WeightVersion {
//!         WeightVersion(0)
//!     }
//! }
//!
//! let turn = |turn, stop| {
//!     let seed = Stream { purpose: "policy", turn, ..Stream::default() }.value();
//!     Turn { max_new_tokens: 3, seed, stop, deadline: None }
//! };
//! let ids = |finished: &Finished| finished.tokens.iter().map(|token| token.id).collect::<Vec<_>>();
//!
//! let mut generator = Counting::default();
//! let sampling = Sampling::default();
//! sampling.validate()?;
//! let id = generator.start(Request { prompt: &[1, 2], sampling, turn: turn(0, Box::new(|token| token == 4)) })?;
//! let first = generator.poll()?.remove(0);
//! assert_eq!((ids(&first), first.finish), (vec![3, 4], Finish::Stop));
//!
//! generator.extend(id, &[10], turn(1, never()))?;
//! let second = generator.poll()?.remove(0);
//! assert_eq!((ids(&second), second.finish), (vec![11, 12, 13], Finish::Length));
//!
//! assert!(generator.poll()?.is_empty(), "nothing is decoding");
//! generator.release(id);
//! # Ok::<(), GenerateError>(())
//! ```

#![forbid(unsafe_code)]

mod completer;
mod epochs;
mod error;
mod generator;
mod ledger;
mod rollout;
mod sampling;
mod stream;
mod wake;
mod watched;

pub use completer::{Completer, Completion, CompletionRequest};
pub use epochs::Epochs;
pub use error::GenerateError;
pub use generator::{Finished, Generator, Request, SequenceId, Stop, Turn, never};
pub use ledger::{Account, Ledger, Role, Usage, Working};
pub use rollout::{RolloutGenerator, Statistics};
pub use sampling::Sampling;
pub use stream::{Stream, stream_seed};
pub use wake::Wake;
pub use watched::{Growth, Watched};
pub use zerosearch_trajectory::{Finish, SampledToken, TokenId, WeightVersion};
