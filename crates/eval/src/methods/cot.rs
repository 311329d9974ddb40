//! An answer from memory, after reasoning.

use super::Method;
use crate::EvalError;
use crate::attempt::{Asked, Attempt};
use crate::session::Session;

/// One turn, in which a search is not executed.
pub(crate) struct Cot;

impl Method for Cot {
    fn needs_engine(&self) -> bool {
        false
    }

    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError> {
        let openings = session.open(asked)?;
        session.episodes(openings, 1)
    }
}
