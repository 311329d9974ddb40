//! The engine on a GPU.

mod ahead;
mod blocks;
mod decoding;
mod forward;
mod weights;

use std::collections::BTreeMap;

use burn::tensor::Device;
use zerosearch_generate::{GenerateError, SampledToken, Sampling};
use zerosearch_kernels::WeightCopy;
use zerosearch_kernels::cube::{DrawRule, Drawn, Gpu, GpuError, GpuStream, PagedRows};

use self::blocks::Store;
use self::decoding::Decoding;
use self::forward::{Pass, RotaryTables, StepInputs, Workspace};
use self::weights::DeviceNetwork;
use super::{Draw, Engine, Rows, Source};
use crate::cache::BlockId;
use crate::network::Network;
use crate::{LmError, ModelConfig, WeightDtype};

/// Decodes on a GPU. Weights, caches and logits stay there; of a step, the drawn tokens come back.
pub(crate) struct GpuEngine {
    gpu: Gpu,
    device: Device,
    /// All of the engine's work, in one order whichever thread asks for it.
    stream: GpuStream,
    config: ModelConfig,
    dtype: WeightDtype,
    /// None while their memory is given away.
    weights: Option<DeviceNetwork>,
    store: Store,
    rotary: RotaryTables,
    decoding: Decoding,
}

impl GpuEngine {
    /// Without weights, until it is given [some](Engine::fill).
    pub(crate) fn new(gpu: Gpu, device: &Device, config: &ModelConfig, dtype: WeightDtype) -> Self {
        Self {
            gpu,
            device: device.clone().without_autodiff(),
            stream: GpuStream::new(),
            config: config.clone(),
            dtype,
            weights: None,
            store: Store::new(config),
            rotary: RotaryTables::default(),
            decoding: Decoding::default(),
        }
    }

    /// A token behind every row that asks for one: those that were computed ahead, and the others by a step of their own.
    fn draw(&mut self, rows: &[Rows<'_>]) -> Result<Vec<Drawn>, GenerateError> {
        let failed = |error: GpuError| GenerateError::Engine(error.to_string());
        let Self { gpu, config, weights, store, rotary, decoding, .. } = self;
        let weights = weights.as_ref().ok_or_else(|| GenerateError::Engine("there are no weights".into()))?;
        let moved = store.hold(gpu, rows);
        let end = rows.iter().map(|rows| rows.start + rows.tokens.len() + 1).max().unwrap_or(0);
        if rotary.reach(gpu, config, end) || moved {
            decoding.forget();
        }
        let pass = Pass { gpu, config, weights, store, rotary };
        let all: Vec<&Rows<'_>> = rows.iter().collect();
        let Some(computed) = decoding.computed(&all).map_err(failed)? else {
            return compute(pass, decoding, &all, true).map_err(failed);
        };
        if computed.is_whole() {
            return decoding.go_on(pass, &all, computed).map_err(failed);
        }
        let others: Vec<&Rows<'_>> = computed.missing(&all).collect();
        let drawn = compute(pass, decoding, &others, false).map_err(failed)?;
        computed.merged(&all, drawn).map_err(failed)
    }
}

/// The draws of a step. Only where these are all rows may the next one be computed ahead.
fn compute(
    pass: Pass<'_>,
    decoding: &mut Decoding,
    rows: &[&Rows<'_>],
    looks_ahead: bool,
) -> Result<Vec<Drawn>, GpuError> {
    if let Some(drawn) = decoding.step(pass, rows, looks_ahead)? {
        return Ok(drawn);
    }
    let rules: Vec<DrawRule> = rows.iter().filter_map(|rows| rows.draw.as_ref().map(rule)).collect();
    let inputs = inputs(pass.gpu, rows, &pass.sampler().encode(&rules));
    let (paged, draws) = (&inputs.paged, inputs.draws());
    let work = Workspace::new(pass.gpu, pass.config, pass.store.shape(), paged.rows, paged.last, draws);
    pass.launch(&inputs, &work);
    if draws == 0 {
        return Ok(Vec::new());
    }
    pass.sampler().read(pass.gpu, draws, &work.drawn)
}

impl Engine for GpuEngine {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn fill(&mut self, weights: &Network<Source<'_>>) -> Result<(), LmError> {
        // An optimizer changes its weights in place, on the stream of this thread: its last step is over before they are read, and
        // they are read before its next one.
        self.gpu.wait();
        self.stream.enter(|| {
            self.decoding.discard();
            let (gpu, config, dtype) = (&self.gpu, &self.config, self.dtype);
            self.weights.get_or_insert_with(|| DeviceNetwork::new(gpu, config, dtype)).fill(gpu, weights);
            gpu.wait();
        });
        Ok(())
    }

    fn lend(&mut self, device: &Device) -> Option<BTreeMap<String, WeightCopy>> {
        let weights = self.weights.as_ref().filter(|_| device.clone().without_autodiff() == self.device)?;
        // A step ahead may still read them.
        self.stream.enter(|| {
            self.decoding.discard();
            self.gpu.wait();
        });
        Some(weights.copies(&self.config.tensors()))
    }

    fn take_written(&mut self) {
        // They were written on the stream of this thread.
        self.gpu.wait();
    }

    fn clear(&mut self) {
        self.stream.enter(|| {
            self.decoding.clear();
            self.weights = None;
            self.store.clear_if_unused();
            self.gpu.give_memory_back();
        });
    }

    fn is_filled(&self) -> bool {
        self.weights.is_some()
    }

    fn block_bytes(&self) -> usize {
        self.store.block_bytes()
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        if self.stream.enter(|| self.store.copy(&self.gpu, from, to)) {
            self.decoding.forget();
        }
    }

    fn free_block(&mut self, block: BlockId) {
        self.store.free(block);
    }

    fn step(&mut self, rows: &[Rows<'_>]) -> Result<Vec<SampledToken>, GenerateError> {
        let stream = self.stream;
        let drawn = stream.enter(|| self.draw(rows))?;
        let draws = rows.iter().filter_map(|rows| rows.draw);
        Ok(draws.zip(drawn).map(|(draw, drawn)| token(&draw, drawn)).collect())
    }

    fn looks_ahead(&self) -> bool {
        true
    }
}

/// A step of any kind, in memory of its own.
fn inputs(gpu: &Gpu, rows: &[&Rows<'_>], rules: &[Vec<u32>; 2]) -> StepInputs {
    let (mut tokens, mut positions, mut sequences, mut drawing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let width = rows.iter().map(|rows| rows.blocks.len()).max().unwrap_or(0);
    let mut tables = vec![0; width * rows.len()];
    for (sequence, rows) in rows.iter().enumerate() {
        tokens.extend_from_slice(rows.tokens);
        positions.extend((rows.start..rows.start + rows.tokens.len()).map(|position| position as u32));
        sequences.resize(positions.len(), sequence as u32);
        let line = tables[sequence * width..].iter_mut();
        line.zip(rows.blocks).for_each(|(entry, block)| *entry = block.0);
        if rows.draw.is_some() {
            drawing.push(tokens.len() as u32 - 1);
        }
    }
    StepInputs {
        paged: PagedRows {
            rows: positions.len(),
            last: positions.iter().max().map_or(0, |last| *last as usize),
            positions: gpu.upload_words(&positions),
            sequences: gpu.upload_words(&sequences),
            tables: gpu.upload_words(&tables),
            width,
        },
        tokens: gpu.upload_words(&tokens),
        drawing: Some(gpu.upload_words(&drawing)),
        rules: rules.each_ref().map(|words| gpu.upload_words(words)),
    }
}

fn rule(draw: &Draw<'_>) -> DrawRule {
    let Draw { sampling, banned, uniform } = *draw;
    let Sampling { temperature, top_k, top_p, min_p, .. } = *sampling;
    let top_k = u32::try_from(top_k).unwrap_or(0);
    DrawRule { temperature, top_k, top_p, min_p, uniform: uniform as f32, banned: banned.to_vec() }
}

/// The drawn token as the host records it: the second log-probability only where it may differ from the first.
fn token(draw: &Draw<'_>, drawn: Drawn) -> SampledToken {
    let same = draw.banned.is_empty() && draw.sampling.is_untouched();
    let sampling_logprob = (!same).then_some(drawn.sampling_logprob);
    SampledToken { id: drawn.token, logprob: drawn.logprob, sampling_logprob }
}

#[cfg(all(test, any(feature = "cuda", feature = "webgpu")))]
mod tests {
    use super::*;
    use crate::HostWeights;

    fn engine(config: &ModelConfig, weights: &HostWeights) -> GpuEngine {
        let device = Device::default();
        let gpu = Gpu::of(&device).expect("a GPU");
        let mut engine = GpuEngine::new(gpu, &device, config, WeightDtype::F32);
        engine.fill(&weights.sources(config).unwrap()).unwrap();
        engine
    }

    /// A step with a token of each of the first sequences, which have twenty blocks each.
    fn step(engine: &mut GpuEngine, sequences: usize, position: usize) -> Vec<SampledToken> {
        let sampling = [Sampling::default(), Sampling { top_k: 5, ..Sampling::default() }];
        let blocks: Vec<Vec<BlockId>> = (0..5).map(|s| (0..20).map(|block| BlockId(block * 5 + s)).collect()).collect();
        let banned = [3, 4];
        let rows: Vec<Rows<'_>> = (0..sequences)
            .map(|sequence| Rows {
                tokens: if position == 0 { &[7, 8] } else { &[1, 2, 3, 4, 5][sequence..][..1] },
                start: position,
                blocks: &blocks[sequence],
                draw: Some(Draw { sampling: &sampling[sequence % 2], banned: &banned[sequence % 2..], uniform: 0.37 }),
                next: None,
            })
            .collect();
        engine.step(&rows).unwrap()
    }

    #[test]
    fn a_recorded_step_draws_what_a_launched_one_draws() {
        let config = ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80);
        let weights = [5, 6].map(|seed| HostWeights::init(&config, seed));
        let (mut recorded, mut launched) = (engine(&config, &weights[0]), engine(&config, &weights[0]));
        launched.decoding.refuse();
        let mut sizes = Vec::new();
        let both = |sequences, position, sizes: &mut Vec<usize>, engines: [&mut GpuEngine; 2]| {
            let [recorded, launched] = engines;
            assert_eq!(step(recorded, sequences, position), step(launched, sequences, position));
            assert_eq!(launched.decoding.sizes(), 0);
            sizes.push(recorded.decoding.sizes());
        };
        // A prompt of two tokens is no such step.
        both(5, 0, &mut sizes, [&mut recorded, &mut launched]);
        for sequences in [5, 4, 3, 1, 5] {
            both(sequences, 2, &mut sizes, [&mut recorded, &mut launched]);
        }
        // More memory for a longer cache: all are recorded again.
        for position in [255, 256] {
            both(3, position, &mut sizes, [&mut recorded, &mut launched]);
        }
        for engine in [&mut recorded, &mut launched] {
            engine.fill(&weights[1].sources(&config).unwrap()).unwrap();
        }
        both(3, 5, &mut sizes, [&mut recorded, &mut launched]);
        assert_eq!(sizes, [0, 1, 2, 2, 3, 3, 1, 1, 2]);
    }

    /// Every sequence's drawn tokens, by the sets of sequences that go on. With `ahead` the engine is told their next draws.
    fn continued(engine: &mut GpuEngine, sets: &[&[usize]], ahead: bool) -> Vec<Vec<SampledToken>> {
        let sampling = Sampling { top_k: 20, ..Sampling::default() };
        let draw = |sequence: usize, position: usize| {
            let uniform = (sequence * 37 + position * 11) as f64 % 100.0 / 100.0;
            Draw { sampling: &sampling, banned: &[], uniform }
        };
        let blocks: Vec<Vec<BlockId>> = (0..8).map(|s| (0..3).map(|block| BlockId(block * 8 + s)).collect()).collect();
        let (mut tokens, mut positions) = (vec![vec![3, 4]; 8], [0; 8]);
        sets.iter()
            .map(|set| {
                let of = |sequence: &usize| {
                    let (sequence, start) = (*sequence, positions[*sequence]);
                    let end = start + tokens[sequence].len();
                    Rows {
                        tokens: &tokens[sequence],
                        start,
                        blocks: &blocks[sequence],
                        draw: Some(draw(sequence, end)),
                        next: ahead.then(|| draw(sequence, end + 1)),
                    }
                };
                let drawn = engine.step(&set.iter().map(of).collect::<Vec<_>>()).unwrap();
                for (sequence, token) in set.iter().zip(&drawn) {
                    positions[*sequence] += tokens[*sequence].len();
                    tokens[*sequence] = vec![token.id];
                }
                drawn
            })
            .collect()
    }

    #[test]
    fn what_is_computed_ahead_is_what_a_step_draws() {
        let config = ModelConfig::tiny_llama(97, 48, 2, 4, 2, 80);
        let weights = HostWeights::init(&config, 7);
        let all: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7];
        let (fewer, others): (&[usize], &[usize]) = (&[0, 2, 3, 4, 5, 6, 7], &[0, 1, 3, 4, 5, 6, 7]);
        // Two tokens of a prompt, then one at a time: of all, of those that are left, and one comes back.
        let sets = [all, all, all, fewer, others, others, others];
        let mut looking = engine(&config, &weights);
        let found = continued(&mut looking, &sets, true);
        let mut plain = engine(&config, &weights);
        assert_eq!(found, continued(&mut plain, &sets, false));
        assert_eq!((looking.decoding.taken(), plain.decoding.taken()), (8 + 7 + 6 + 7, 0));
        // Other weights draw for themselves.
        let other_weights = HostWeights::init(&config, 8);
        let mut refilled = engine(&config, &weights);
        continued(&mut refilled, &[all, all], true);
        refilled.fill(&other_weights.sources(&config).unwrap()).unwrap();
        assert_eq!(
            continued(&mut refilled, &sets, true),
            continued(&mut engine(&config, &other_weights), &sets, false)
        );
    }
}
