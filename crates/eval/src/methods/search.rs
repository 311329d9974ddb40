//! Whole episodes, as in training.

use super::Method;
use crate::EvalError;
use crate::attempt::{Asked, Attempt};
use crate::session::Session;

/// The prompt of the format, and searches as the policy likes.
pub(crate) struct Search;

impl Method for Search {
    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError> {
        let openings = session.open(asked)?;
        session.episodes(openings, session.plan.config.max_turns)
    }
}
