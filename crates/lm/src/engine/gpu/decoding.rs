//! Steps that draw a token for every row, recorded once for each size and launched by one call.

use std::collections::BTreeMap;

use zerosearch_kernels::cube::{DrawRule, Drawn, GpuBuffer, GpuError, PagedRows, Recording};

use super::forward::{Pass, StepInputs, Workspace};
use crate::cache::BLOCK;
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

impl Decoding {
    /// The drawn tokens of a step, by rules as [`Sampler::encode`](zerosearch_kernels::cube::Sampler::encode) writes them; `None` where it
    /// must be launched kernel by kernel.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn step(
        &mut self,
        pass: Pass<'_>,
        rows: &[Rows<'_>],
        [rules, banned]: &[Vec<u32>; 2],
    ) -> Result<Option<Vec<Drawn>>, GpuError> {
        let every_row_draws = rows.iter().all(|rows| rows.tokens.len() == 1 && rows.draw.is_some());
        if self.refused || !every_row_draws || rows.is_empty() || rows.len() > MOST || banned.len() > BANNED {
            return Ok(None);
        }
        let end = rows.iter().map(|rows| rows.start + 1).max().unwrap_or(0);
        let size = Size::of(rows.len(), end);
        let memory = self.memory(pass, size);
        let [_, positions, rules_at, banned_at, tables, words_in_all] = size.layout();
        // Rows beyond those of the step are computed as well: the first token, at the first position of a block of nobody's.
        let mut inputs = vec![0; words_in_all];
        inputs[tables..].fill(pass.store.spare());
        for (index, rows) in rows.iter().enumerate() {
            inputs[index] = rows.tokens[0];
            inputs[positions + index] = rows.start as u32;
            let line = &mut inputs[tables + index * size.blocks()..][..size.blocks()];
            line.iter_mut().zip(rows.blocks).for_each(|(entry, block)| *entry = block.0);
        }
        inputs[rules_at..][..rules.len()].copy_from_slice(rules);
        inputs[banned_at..][..banned.len()].copy_from_slice(banned);
        pass.gpu.write(&memory.inputs, &inputs);
        if !self.recorded.contains_key(&size) {
            let Some(recording) = self.record(pass, size) else { return Ok(None) };
            self.recorded.insert(size, recording);
        }
        let (Some(recording), Some(memory)) = (self.recorded.get(&size), &self.memory) else { return Ok(None) };
        recording.replay()?;
        pass.sampler().read(pass.gpu, rows.len(), &memory.work.drawn).map(Some)
    }

    /// Forgets what was recorded, after a buffer of the model or of its caches was replaced.
    pub(super) fn forget(&mut self) {
        self.recorded.clear();
    }

    /// Gives all memory back.
    pub(super) fn clear(&mut self) {
        self.forget();
        self.memory = None;
    }

    #[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    #[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
    pub(super) fn sizes(&self) -> usize {
        self.recorded.len()
    }

    /// Memory for steps of a size, and of all before.
    fn memory(&mut self, pass: Pass<'_>, size: Size) -> &Memory {
        let before = self.memory.take();
        let enough = before.as_ref().is_some_and(|m| m.size.rows >= size.rows && m.size.reach >= size.reach);
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
