//! Steps that draw a token for every row, recorded once for each size and launched by one call, the next one before the host has seen
//! what the last one drew.
//!
//! A step ahead takes its tokens from the draws on the device. Once the host has seen them, some sequences have ended and others have
//! come; the others' draws are what any step would have drawn, whoever else is in it. What was computed for an ended sequence is a
//! position of a block behind its end, which nobody reads before it is written again.

use std::collections::BTreeMap;

use zerosearch_generate::TokenId;
use zerosearch_kernels::cube::{DrawRule, Drawing, Drawn, GpuBuffer, GpuError, PagedRows, Recording};

use super::ahead::{Ahead, Computed, Expected};
use super::forward::{Pass, StepInputs, Workspace};
use super::rule;
use crate::cache::{BLOCK, BlockId};
use crate::engine::Rows;

/// Rows at most; a step of more is launched kernel by kernel, which such a step is long enough to hide.
const MOST: usize = 256;
/// Tokens that all draws of a step may ban.
const BANNED: usize = 256;
/// Positions by which a recording's reach grows: as many as one cube of the attention kernel takes.
const REACH: usize = 256;
/// Words at whose multiples a buffer's parts begin.
const ALIGNED: usize = 64;

/// The recorded steps, and the memory that they share.
#[derive(Default)]
pub(super) struct Decoding {
    memory: Option<Memory>,
    /// By rows and reach.
    recorded: BTreeMap<Size, Recording>,
    /// Whether this device cannot record: steps are launched kernel by kernel.
    refused: bool,
    /// The step after the last one.
    ahead: Option<Ahead>,
    /// Draws that were computed ahead and asked for.
    taken: usize,
}

/// A row of a recorded step.
struct Line<'a> {
    /// The token, or the place of its draw.
    word: u32,
    position: usize,
    blocks: &'a [BlockId],
}

/// Rows of a step, and the end of its longest cache, both rounded up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Size {
    rows: usize,
    reach: usize,
}

/// Inputs and activations of all recordings.
struct Memory {
    size: Size,
    /// Tokens, positions, rules, banned tokens and block tables, one after another.
    inputs: GpuBuffer,
    /// Each row is a sequence of its own.
    sequences: GpuBuffer,
    work: Workspace,
}

impl Size {
    /// The least recorded size for a step.
    fn of(rows: usize, end: usize) -> Self {
        let rows = match rows {
            0..=4 => rows.next_power_of_two(),
            5..=64 => rows.next_multiple_of(8),
            _ => rows.next_multiple_of(32),
        };
        Self { rows, reach: end.next_power_of_two().max(REACH) }
    }

    fn blocks(self) -> usize {
        self.reach / BLOCK
    }

    /// A step of these rows as it is written to the device; `None` where its draws ban too many tokens.
    fn inputs(self, pass: Pass<'_>, lines: &[Line<'_>], rules: &[DrawRule]) -> Option<Vec<u32>> {
        let [rules, banned] = pass.sampler().encode(rules);
        let [_, positions, rules_at, banned_at, tables, words_in_all] = self.layout();
        // Rows beyond those of the step are computed as well: the first token, at the first position of a block of nobody's.
        let mut inputs = vec![0; words_in_all];
        inputs[tables..].fill(pass.store.spare());
        for (index, Line { word, position, blocks }) in lines.iter().enumerate() {
            inputs[index] = *word;
            inputs[positions + index] = *position as u32;
            let line = &mut inputs[tables + index * self.blocks()..][..self.blocks()];
            line.iter_mut().zip(*blocks).for_each(|(entry, block)| *entry = block.0);
        }
        inputs[rules_at..][..rules.len()].copy_from_slice(&rules);
        (banned.len() <= BANNED).then(|| {
            inputs[banned_at..][..banned.len()].copy_from_slice(&banned);
            inputs
        })
    }

    /// First words of tokens, positions, rules, banned tokens and tables, and the end of the tables.
    fn layout(self) -> [usize; 6] {
        let mut at = [0; 6];
        let lengths = [self.rows, self.rows, self.rows * DrawRule::WORDS, BANNED, self.rows * self.blocks()];
        for (index, length) in lengths.into_iter().enumerate() {
            at[index + 1] = at[index] + length.next_multiple_of(ALIGNED);
        }
        at
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        self.discard();
    }
}

impl Decoding {
    /// The drawn tokens of a step; `None` where it must be launched kernel by kernel. With `looks_ahead` the step after it is under way
    /// when they are there.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn step(
        &mut self,
        pass: Pass<'_>,
        rows: &[&Rows<'_>],
        looks_ahead: bool,
    ) -> Result<Option<Vec<Drawn>>, GpuError> {
        let every_row_draws = rows.iter().all(|rows| rows.tokens.len() == 1 && rows.draw.is_some());
        if self.refused || !every_row_draws || rows.is_empty() || rows.len() > MOST {
            return Ok(None);
        }
        let rules: Vec<DrawRule> = rows.iter().filter_map(|rows| rows.draw.as_ref().map(rule)).collect();
        let lines: Vec<Line<'_>> =
            rows.iter().map(|rows| Line { word: rows.tokens[0], position: rows.start, blocks: rows.blocks }).collect();
        let size = Size::of(rows.len(), lines.iter().map(|line| line.position + 1).max().unwrap_or(0));
        let Some(inputs) = size.inputs(pass, &lines, &rules) else { return Ok(None) };
        pass.gpu.write(&self.memory(pass, size).inputs, &inputs);
        if !self.recorded.contains_key(&size) {
            let Some(recording) = self.record(pass, size) else { return Ok(None) };
            self.recorded.insert(size, recording);
        }
        let Some(drawing) = self.replay(pass, size, rows.len())? else { return Ok(None) };
        let ahead = if looks_ahead { self.launch_ahead(pass, rows.iter().copied().enumerate())? } else { None };
        let drawn = drawing.wait()?;
        self.ahead = ahead.map(|ahead| ahead.with_tokens(&drawn));
        Ok(Some(drawn))
    }

    /// Of a step's rows those that were computed ahead; `None` where there are none.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn computed(&mut self, rows: &[&Rows<'_>]) -> Result<Option<Computed>, GpuError> {
        let Some(ahead) = self.ahead.take() else { return Ok(None) };
        let computed = ahead.find(rows);
        if computed.places.iter().all(Option::is_none) {
            computed.drawing.wait()?;
            return Ok(None);
        }
        self.taken += computed.places.iter().flatten().count();
        Ok(Some(computed))
    }

    /// The draws of a step that was computed ahead as a whole, with the one after it under way.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn go_on(
        &mut self,
        pass: Pass<'_>,
        rows: &[&Rows<'_>],
        Computed { places, drawing }: Computed,
    ) -> Result<Vec<Drawn>, GpuError> {
        let places: Vec<usize> = places.into_iter().flatten().collect();
        let ahead = self.launch_ahead(pass, places.iter().copied().zip(rows.iter().copied()))?;
        let drawn = drawing.wait()?;
        self.ahead = ahead.map(|ahead| ahead.with_tokens(&drawn));
        Ok(places.into_iter().map(|place| drawn[place]).collect())
    }

    /// Launches the step after one whose draws are on the device, each row with the place of its draw there: of the sequences whose next
    /// draw is known, where such a step is recorded.
    fn launch_ahead<'r>(
        &mut self,
        pass: Pass<'_>,
        rows: impl Iterator<Item = (usize, &'r Rows<'r>)>,
    ) -> Result<Option<Ahead>, GpuError> {
        let going: Vec<(usize, &Rows<'_>, DrawRule)> =
            rows.filter_map(|(place, rows)| Some((place, rows, rule(rows.next.as_ref()?)))).collect();
        let lines: Vec<Line<'_>> = going
            .iter()
            .map(|(place, rows, _)| Line { word: *place as u32, position: rows.start + 1, blocks: rows.blocks })
            .collect();
        let end = lines.iter().map(|line| line.position + 1).max().unwrap_or(0);
        let size = Size::of(going.len(), end);
        let rules: Vec<DrawRule> = going.iter().map(|(.., rule)| rule.clone()).collect();
        let (Some(memory), Some(inputs)) = (&self.memory, size.inputs(pass, &lines, &rules)) else { return Ok(None) };
        if going.is_empty() || !memory.holds(size) || !self.recorded.contains_key(&size) {
            return Ok(None);
        }
        pass.gpu.write(&memory.inputs, &inputs);
        pass.sampler().pass_on(pass.gpu, going.len(), &memory.work.drawn, &memory.step(size).tokens);
        let Some(drawing) = self.replay(pass, size, going.len())? else { return Ok(None) };
        let expected = going.into_iter().map(|(place, rows, rule)| Expected {
            blocks: rows.blocks[..=(rows.start + 1) / BLOCK].to_vec(),
            position: rows.start + 1,
            token: place as TokenId,
            rule,
        });
        Ok(Some(Ahead { expected: expected.collect(), drawing }))
    }

    /// Launches a recorded step and begins to copy its draws.
    fn replay(&self, pass: Pass<'_>, size: Size, rows: usize) -> Result<Option<Drawing>, GpuError> {
        let (Some(recording), Some(memory)) = (self.recorded.get(&size), &self.memory) else { return Ok(None) };
        recording.replay()?;
        Ok(Some(pass.sampler().begin_read(pass.gpu, rows, &memory.work.drawn)))
    }

    /// Drops the step that was computed ahead, with weights that are no longer the model's.
    pub(super) fn discard(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            // The copy has its memory until it is done. What failed shows at the next step.
            let _ = ahead.drawing.wait();
        }
    }

    /// Forgets what was recorded, after a buffer of the model or of its caches was replaced.
    pub(super) fn forget(&mut self) {
        self.recorded.clear();
    }

    /// Gives all memory back.
    pub(super) fn clear(&mut self) {
        self.discard();
        self.forget();
        self.memory = None;
    }

    #[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    /// Draws that were computed ahead and asked for.
    #[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    #[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
    pub(super) fn sizes(&self) -> usize {
        self.recorded.len()
    }

    /// Memory for steps of a size, and of all before.
    fn memory(&mut self, pass: Pass<'_>, size: Size) -> &Memory {
        let before = self.memory.take();
        let enough = before.as_ref().is_some_and(|memory| memory.holds(size));
        let memory = match before {
            Some(memory) if enough => memory,
            before => {
                self.forget();
                let least = before.map_or(Size { rows: 1, reach: REACH }, |memory| memory.size);
                let size =
                    Size { rows: size.rows.max(least.rows).next_power_of_two(), reach: size.reach.max(least.reach) };
                Memory::new(pass, size)
            }
        };
        self.memory.insert(memory)
    }

    fn record(&mut self, pass: Pass<'_>, size: Size) -> Option<Recording> {
        let memory = self.memory.as_ref()?;
        let inputs = memory.step(size);
        let recorded = pass.gpu.record(|| pass.launch(&inputs, &memory.work));
        self.refused = recorded.is_err();
        recorded.ok()
    }
}

impl Memory {
    fn new(pass: Pass<'_>, size: Size) -> Self {
        let sequences: Vec<u32> = (0..size.rows as u32).collect();
        let Pass { gpu, config, store, .. } = pass;
        Self {
            size,
            inputs: gpu.empty(size.layout()[5]),
            sequences: gpu.upload_words(&sequences),
            work: Workspace::new(gpu, config, store.shape(), size.rows, size.reach - 1, size.rows),
        }
    }

    /// Whether there is room for steps of a size.
    fn holds(&self, size: Size) -> bool {
        self.size.rows >= size.rows && self.size.reach >= size.reach
    }

    /// The inputs of a step of a size, in the common memory.
    fn step(&self, size: Size) -> StepInputs {
        let [tokens, positions, rules, banned, tables, _] = size.layout();
        let part = |first, words| self.inputs.part(first, words);
        StepInputs {
            tokens: part(tokens, size.rows),
            paged: PagedRows {
                rows: size.rows,
                positions: part(positions, size.rows),
                sequences: self.sequences.part(0, size.rows),
                tables: part(tables, size.rows * size.blocks()),
                width: size.blocks(),
                last: size.reach - 1,
            },
            drawing: None,
            rules: [part(rules, size.rows * DrawRule::WORDS), part(banned, BANNED)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_few_and_never_too_small() {
        let sizes: Vec<usize> = (1..=MOST).map(|rows| Size::of(rows, 1).rows).collect();
        assert!(sizes.iter().zip(1..).all(|(size, rows)| *size >= rows && *size <= MOST && *size < 2 * rows.max(4)));
        let mut different = sizes;
        different.dedup();
        assert!(different.len() < 20, "{different:?}");
        for (end, reach) in [(1, 256), (256, 256), (257, 512), (1025, 2048)] {
            assert_eq!(Size::of(3, end).reach, reach);
        }
        // The common memory holds every smaller layout.
        let most = Size { rows: 64, reach: 1024 }.layout()[5];
        assert!((1..=64).all(|rows| Size::of(rows, 700).layout()[5] <= most));
    }
}
