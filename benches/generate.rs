//! The local generator: prefill, decode, prompts that begin alike, and group rollouts of several turns, with kept caches and
//! without.
//!
//! With SmolLM2-135M where `crates/lm/tests/real/fetch.sh` has put it, else with the shipped base policy's shape and
//! random weights: `cargo bench --bench generate`.

mod turns;

use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use zerosearch::burn::tensor::Device;
use zerosearch::generate::{Generator, SequenceId};
use zerosearch::kernels::InstructionSet;
use zerosearch::lm::{HostWeights, LanguageModel, LocalGenerator, ModelConfig, WeightDtype};
use zerosearch::text::PromptTemplate;

use self::turns::{GroupRollouts, turn};

const NEW: usize = 32;
const ROLLOUTS: GroupRollouts =
    GroupRollouts { questions: 4, samples: 5, turns: 3, prompt: 64, new: NEW, observation: 250 };

/// Asked with the default prompt, `PROMPT_SAMPLES` times each.
const ASKED: [&str; 8] = [
    "Who wrote the novel that the film Blade Runner is based on?",
    "In which year was the university of Uppsala founded?",
    "Which river flows through the capital of Austria?",
    "What is the highest mountain of the country where Ceviche comes from?",
    "When did the composer of The Planets die?",
    "Which element has the symbol W?",
    "Who was the first woman to win a Nobel Prize twice?",
    "How many moons does the planet next to Jupiter have?",
];
const PROMPT_SAMPLES: u64 = 4;

/// A way to play all rollouts.
type Mode = fn(&Model, LocalGenerator);

struct Model {
    name: &'static str,
    config: ModelConfig,
    weights: Arc<HostWeights>,
    /// A prompt for each question of `ASKED`.
    prompts: Vec<Vec<u32>>,
}

impl Model {
    fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models/smollm2-135m-instruct");
        if folder.exists() {
            let LanguageModel { config, weights, codec, .. } = LanguageModel::read(&folder).expect("a model");
            let template = PromptTemplate::for_model(&codec).expect("a prompt");
            let prompt = |question: &&str| codec.encode(&template.render(question).expect("a question"));
            return Self { name: "smollm2-135m", config, weights, prompts: ASKED.iter().map(prompt).collect() };
        }
        let config = ModelConfig::tiny_llama(2048, 256, 5, 4, 2, 512);
        let weights = HostWeights::init(&config, 0).into();
        let prompts = (0..ASKED.len() as u32).map(|question| (0..200).chain([300 + question; 15]).collect());
        Self { name: "base-shape", config, weights, prompts: prompts.collect() }
    }

    fn generator(&self) -> LocalGenerator {
        self.generator_in(WeightDtype::F32)
    }

    fn generator_in(&self, dtype: WeightDtype) -> LocalGenerator {
        LocalGenerator::on(&Device::flex(), dtype, &self.config, &self.weights, &[]).expect("whole weights")
    }

    fn tokens(&self, count: usize, seed: u64) -> Vec<u32> {
        turns::tokens(self.config.vocab_size, count, seed)
    }
}

fn start(generator: &mut LocalGenerator, prompt: &[u32], seed: u64, new: usize) -> SequenceId {
    turns::start(generator, prompt, seed, new).expect("a valid prompt")
}

fn run(generator: &mut LocalGenerator) {
    turns::run(generator).expect("a working engine");
}

fn kept_caches(model: &Model, mut generator: LocalGenerator) {
    ROLLOUTS.play(&mut generator, model.config.vocab_size).expect("a working engine");
}

/// As the released implementations do it: every turn is a new batch that computes its whole context again.
fn whole_contexts(model: &Model, mut generator: LocalGenerator) {
    let GroupRollouts { questions, samples, turns, prompt, new, observation } = ROLLOUTS;
    let rollouts = questions * samples;
    let mut contexts: Vec<Vec<u32>> = (0..rollouts).map(|row| model.tokens(prompt, row / samples)).collect();
    for at in 0..turns {
        let ids: Vec<SequenceId> = contexts
            .iter()
            .zip(0..)
            .map(|(context, row)| start(&mut generator, context, row * 10 + at as u64, new))
            .collect();
        let mut waiting = ids.len();
        while waiting > 0 {
            for finished in generator.poll().expect("a working engine") {
                let row = ids.iter().position(|id| *id == finished.id).expect("one of these");
                contexts[row].extend(finished.tokens.iter().map(|token| token.id));
                contexts[row].extend(model.tokens(observation, row as u64 * 10 + at as u64));
                generator.release(finished.id);
                waiting -= 1;
            }
        }
    }
}

fn benches(criterion: &mut Criterion) {
    println!("instructions {}", InstructionSet::current());
    let model = Model::load();
    let mut group = criterion.benchmark_group(model.name);
    group.sample_size(10);
    for (batch, length) in [(1u64, 512usize), (8, 256)] {
        group.throughput(Throughput::Elements(batch * length as u64));
        group.bench_function(format!("prefill {batch} x {length}"), |b| {
            let ready = || {
                let mut generator = model.generator();
                (0..batch).for_each(|seed| _ = start(&mut generator, &model.tokens(length, seed), seed, 1));
                generator
            };
            b.iter_batched(ready, |mut generator| run(&mut generator), BatchSize::PerIteration);
        });
    }
    let asked = |generator: &mut LocalGenerator| {
        for (prompt, question) in model.prompts.iter().zip(0..) {
            (0..PROMPT_SAMPLES).for_each(|sample| _ = start(generator, prompt, question * PROMPT_SAMPLES + sample, 1));
        }
        run(generator);
    };
    let tokens = model.prompts.iter().map(Vec::len).sum::<usize>() as u64 * PROMPT_SAMPLES;
    group.throughput(Throughput::Elements(tokens));
    group.bench_function(format!("prefill {} questions x {PROMPT_SAMPLES}, default prompt", ASKED.len()), |b| {
        let mut counts = None;
        let counted = |mut generator: LocalGenerator| {
            asked(&mut generator);
            counts = Some(generator.statistics());
        };
        b.iter_batched(|| model.generator(), counted, BatchSize::PerIteration);
        println!("{} questions x {PROMPT_SAMPLES}, {tokens} prompt tokens: {counts:?}", ASKED.len());
    });
    let batches =
        [1u64, 8, 32].map(|batch| [("", WeightDtype::F32), (", bf16", WeightDtype::Bf16)].map(|of| (batch, of)));
    for (batch, (name, dtype)) in batches.into_iter().flatten() {
        group.throughput(Throughput::Elements(batch * NEW as u64));
        group.bench_function(format!("decode batch {batch}{name}"), |b| {
            // The prompt is computed before the clock starts.
            let ready = || {
                let mut generator = model.generator_in(dtype);
                let ids: Vec<SequenceId> =
                    (0..batch).map(|seed| start(&mut generator, &model.tokens(37, seed), seed, 1)).collect();
                run(&mut generator);
                ids.iter().for_each(|id| generator.extend(*id, &[5], turn(id.0, NEW)).expect("a waiting sequence"));
                generator
            };
            b.iter_batched(ready, |mut generator| run(&mut generator), BatchSize::PerIteration);
        });
    }
    group.throughput(Throughput::Elements(ROLLOUTS.sampled()));
    let modes: [(&str, Mode); 2] = [("kept caches", kept_caches), ("whole context every turn", whole_contexts)];
    for (mode, rollouts) in modes {
        group.bench_function(format!("rollouts of {} turns, {mode}", ROLLOUTS.turns), |b| {
            b.iter_batched(|| model.generator(), |generator| rollouts(&model, generator), BatchSize::PerIteration);
        });
    }
}

criterion_group!(group, benches);
criterion_main!(group);
