//! The methods: ways to answer questions with one model, one engine and one budget of turns and tokens.

mod cot;
mod direct;
mod ircot;
mod ra_agent;
mod rag;
mod search;
mod search_o1;

pub(crate) use cot::Cot;
pub(crate) use direct::Direct;
pub(crate) use ircot::Ircot;
pub(crate) use ra_agent::RaAgent;
pub(crate) use rag::Rag;
pub(crate) use search::Search;
pub(crate) use search_o1::SearchO1;

use crate::EvalError;
use crate::attempt::{Asked, Attempt};
use crate::session::Session;

/// A way to answer questions.
pub(crate) trait Method: Sync {
    /// Whether it searches.
    fn needs_engine(&self) -> bool {
        true
    }

    /// Answers questions; attempts stand in their order. An attempt depends on nothing but the model, the engine, the seed, and
    /// the question's and the sample's numbers.
    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError>;
}
