//! An answer from memory, at once.

use super::Method;
use crate::EvalError;
use crate::attempt::{Asked, Attempt};
use crate::session::Session;

/// One turn, in which a search is not executed.
pub(crate) struct Direct;

impl Method for Direct {
    fn needs_engine(&self) -> bool {
        false
    }

    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError> {
        let openings = session.open(asked)?;
        session.episodes(openings, 1)
    }
}
