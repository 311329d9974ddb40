//! A step that was computed ahead, and a later one's rows among its own.

use std::collections::BTreeMap;

use zerosearch_generate::TokenId;
use zerosearch_kernels::cube::{DrawRule, Drawing, Drawn, GpuError};

use super::rule;
use crate::cache::{BLOCK, BlockId};
use crate::engine::Rows;

/// A step that was launched before the host saw what the step before drew.
pub(super) struct Ahead {
    pub(super) expected: Vec<Expected>,
    pub(super) drawing: Drawing,
}

/// A row as it was computed ahead.
pub(super) struct Expected {
    /// The sequence's blocks up to the position.
    pub(super) blocks: Vec<BlockId>,
    pub(super) position: usize,
    /// The token; until it is known, the place of its draw.
    pub(super) token: TokenId,
    pub(super) rule: DrawRule,
}

/// Draws that were computed ahead, and the place among them of every row of a step.
pub(super) struct Computed {
    pub(super) places: Vec<Option<usize>>,
    pub(super) drawing: Drawing,
}

impl Ahead {
    /// The same step, now that its tokens are known.
    pub(super) fn with_tokens(mut self, drawn: &[Drawn]) -> Self {
        self.expected.iter_mut().for_each(|row| row.token = drawn[row.token as usize].token);
        self
    }

    /// The places of a later step's rows.
    pub(super) fn find(self, rows: &[&Rows<'_>]) -> Computed {
        // A sequence shares the block that it writes to with no other.
        let written = |blocks: &[BlockId], position: usize| blocks.get(position / BLOCK).copied();
        let expected = self.expected.iter().enumerate();
        let by_block: BTreeMap<Option<BlockId>, usize> =
            expected.map(|(place, row)| (written(&row.blocks, row.position), place)).collect();
        let place = |rows: &&Rows<'_>| {
            let place = *by_block.get(&written(rows.blocks, rows.start))?;
            self.expected[place].is(rows).then_some(place)
        };
        Computed { places: rows.iter().map(place).collect(), drawing: self.drawing }
    }
}

impl Expected {
    /// Whether a step asks for this row.
    fn is(&self, rows: &Rows<'_>) -> bool {
        let same_place = rows.start == self.position && rows.blocks.starts_with(&self.blocks);
        same_place && rows.tokens == [self.token] && rows.draw.as_ref().map(rule).as_ref() == Some(&self.rule)
    }
}

impl Computed {
    /// Whether nothing is missing of a step.
    pub(super) fn is_whole(&self) -> bool {
        self.places.iter().all(Option::is_some)
    }

    /// The rows that are missing.
    pub(super) fn missing<'r, 'a>(&'r self, rows: &'r [&'a Rows<'a>]) -> impl Iterator<Item = &'a Rows<'a>> + 'r {
        rows.iter().zip(&self.places).filter(|(_, place)| place.is_none()).map(|(rows, _)| *rows)
    }

    /// The draws of all rows, with those of the missing ones.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn merged(self, rows: &[&Rows<'_>], missing: Vec<Drawn>) -> Result<Vec<Drawn>, GpuError> {
        let (drawn, mut missing) = (self.drawing.wait()?, missing.into_iter());
        let drawing = rows.iter().zip(self.places).filter(|(rows, _)| rows.draw.is_some());
        Ok(drawing.filter_map(|(_, place)| place.map_or_else(|| missing.next(), |place| Some(drawn[place]))).collect())
    }
}
