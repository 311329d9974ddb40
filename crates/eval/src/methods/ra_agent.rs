//! Search as the tool of an untrained agent, the agentic baseline of Search-o1 (Li et al. 2025) and of ZeroSearch.

use super::Method;
use crate::EvalError;
use crate::attempt::{Asked, Attempt};
use crate::session::Session;

/// The prompt that tells an agent how to work with its tool, and searches as it likes.
pub(crate) struct RaAgent;

impl Method for RaAgent {
    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError> {
        let openings = session.open(asked)?;
        session.episodes(openings, session.plan.config.max_turns)
    }
}
