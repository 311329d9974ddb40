//! The engine on a GPU.

mod blocks;
mod decoding;
mod forward;
mod weights;

use zerosearch_generate::{GenerateError, SampledToken, Sampling};
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
    pub(crate) fn new(gpu: Gpu, config: &ModelConfig, dtype: WeightDtype) -> Self {
        Self {
            gpu,
            stream: GpuStream::new(),
            config: config.clone(),
            dtype,
            weights: None,
            store: Store::new(config),
            rotary: RotaryTables::default(),
            decoding: Decoding::default(),
        }
    }

    fn draw(&mut self, rows: &[Rows<'_>], rules: &[DrawRule]) -> Result<Vec<Drawn>, GenerateError> {
        let failed = |error: GpuError| GenerateError::Engine(error.to_string());
        let Self { gpu, config, weights, store, rotary, decoding, .. } = self;
        let weights = weights.as_ref().ok_or_else(|| GenerateError::Engine("there are no weights".into()))?;
        let moved = store.hold(gpu, rows);
        let end = rows.iter().map(|rows| rows.start + rows.tokens.len()).max().unwrap_or(0);
        if rotary.reach(gpu, config, end) || moved {
            decoding.forget();
        }
        let pass = Pass { gpu, config, weights, store, rotary };
        let rules = pass.sampler().encode(rules);
        if let Some(drawn) = decoding.step(pass, rows, &rules).map_err(failed)? {
            return Ok(drawn);
        }
        let inputs = inputs(gpu, rows, &rules);
        let (paged, draws) = (&inputs.paged, inputs.draws());
        let work = Workspace::new(gpu, config, store.shape(), paged.rows, paged.last, draws);
        pass.launch(&inputs, &work);
        if draws == 0 {
            return Ok(Vec::new());
        }
        pass.sampler().read(gpu, draws, &work.drawn).map_err(failed)
    }
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
            let (gpu, config, dtype) = (&self.gpu, &self.config, self.dtype);
            self.weights.get_or_insert_with(|| DeviceNetwork::new(gpu, config, dtype)).fill(gpu, weights);
            gpu.wait();
        });
        Ok(())
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
        let draws: Vec<Draw<'_>> = rows.iter().filter_map(|rows| rows.draw).collect();
        let rules: Vec<DrawRule> = draws.iter().map(rule).collect();
        let stream = self.stream;
        let drawn = stream.enter(|| self.draw(rows, &rules))?;
        Ok(draws.iter().zip(drawn).map(|(draw, drawn)| token(draw, drawn)).collect())
    }
}

/// A step of any kind, in memory of its own.
fn inputs(gpu: &Gpu, rows: &[Rows<'_>], rules: &[Vec<u32>; 2]) -> StepInputs {
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
    use burn::tensor::Device;

    use super::*;
    use crate::HostWeights;

    fn engine(config: &ModelConfig, weights: &HostWeights) -> GpuEngine {
        let gpu = Gpu::of(&Device::default()).expect("a GPU");
        let mut engine = GpuEngine::new(gpu, config, WeightDtype::F32);
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
        assert_eq!(sizes, [0, 1, 2, 2, 3, 3, 3, 1, 2]);
    }
}
