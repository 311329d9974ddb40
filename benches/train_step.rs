//! One step of GRPO: 4 prompts × 4 samples × 64 new tokens, reward, reference, update with AdamW. And forward and backward
//! passes on their own: over every token of 4 × 256, and over samples with and without a prompt in common.
//!
//! With SmolLM2-135M where `crates/lm/tests/real/fetch.sh` has put it (the size at which TRL's GRPOTrainer was measured), else
//! with the shipped base policy: `cargo bench --bench train_step`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zerosearch::algorithms::{AlgorithmConfig, Grpo, Kl};
use zerosearch::burn::tensor::Device;
use zerosearch::data::Question;
use zerosearch::generate::Sampling;
use zerosearch::kernels::InstructionSet;
use zerosearch::lm::{Decoder, Gradients, LanguageModel, LoraConfig, ScoredSequence};
use zerosearch::reward::{Episode, RewardFn};
use zerosearch::rollout::RolloutConfig;
use zerosearch::search::{Bm25Index, Document};
use zerosearch::text::PromptTemplate;
use zerosearch::train::{TrainConfig, Trainer};

const PROMPTS: usize = 4;
const SAMPLES: usize = 4;
const NEW: usize = 64;

/// Something that differs between samples: no group may be constant.
struct Vowels;

impl RewardFn for Vowels {
    fn name(&self) -> &str {
        "vowels"
    }

    fn reward(&self, episode: &Episode<'_>) -> f32 {
        let text = episode.policy_turns.concat();
        text.chars().filter(|letter| "aeiou".contains(*letter)).count() as f32 / text.chars().count().max(1) as f32
    }
}

/// Tokens that differ from one another and from those of another seed.
fn tokens(count: u64, seed: u64, vocabulary: u64) -> Vec<u32> {
    (0..count).map(|i| ((i * 31 + seed * 977 + 7) % vocabulary) as u32).collect()
}

fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let real = root.join("target/models/smollm2-135m-instruct");
    if real.exists() { real } else { root.join("models/base") }
}

fn benches(criterion: &mut Criterion) {
    println!("instructions {}", InstructionSet::current());
    zerosearch::kernels::keep_freed_memory();
    let folder = folder();
    // Read anew for each: a model that somebody keeps is a copy of the weights.
    let read = || LanguageModel::read(&folder).expect("a model folder");
    let prompt = PromptTemplate::new("Tell me at length: {{ question }}").expect("a template");
    let topics = ["why the sky is blue", "what iron is used for", "how magnets work", "who lives in Uganda"];
    let questions: Vec<Question> =
        topics.iter().map(|topic| Question::new(*topic, *topic, vec!["nothing".into()])).collect();
    let engine = Arc::new(Bm25Index::new([Document::default()]).expect("an index"));
    let device = Device::flex();
    let builder = || {
        Trainer::builder(read(), questions.clone(), engine.clone())
            .prompt(prompt.clone())
            .reward(Vowels)
            .device(device.clone())
    };
    let mut group = criterion.benchmark_group(folder.file_name().map_or("model".into(), |name| name.to_string_lossy()));
    group.sample_size(10);
    // Every token of 4 sequences; and 16 sequences of which the last 64 tokens are trained on, as samples of 4 questions and as
    // samples of 16.
    let passes: [(&str, usize, usize, usize, usize); 3] = [
        ("forward and backward 4 x 256", 4, 1, 0, 256),
        ("forward and backward 16 x (200 + 64), 4 prompts", 4, 4, 200, 64),
        ("forward and backward 16 x (200 + 64), 16 prompts", 16, 1, 200, 64),
    ];
    for (name, prompts, samples, prompt, new) in passes {
        group.throughput(Throughput::Elements((prompts * samples * (prompt + new)) as u64));
        let mut decoder = None;
        group.bench_function(name, |b| {
            let decoder = decoder.get_or_insert_with(|| {
                let (files, weights) = read().into_parts();
                Decoder::trainable(&files.config, weights, &device).expect("whole weights")
            });
            let vocabulary = decoder.config().vocab_size as u64;
            let sequences: Vec<Vec<u32>> = (0..prompts * samples)
                .map(|index| {
                    let (question, sample) = ((index / samples) as u64, (100 + index) as u64);
                    [tokens(prompt as u64, question, vocabulary), tokens(new as u64, sample, vocabulary)].concat()
                })
                .collect();
            let positions: Vec<usize> = (prompt.max(1)..prompt + new).collect();
            let scored: Vec<ScoredSequence<'_>> =
                sequences.iter().map(|tokens| ScoredSequence { tokens, positions: &positions }).collect();
            let pass = || Gradients::of(decoder.score(&scored).0.mean().neg(), decoder.trained());
            // The first pass asks the system for its memory, page by page.
            drop(pass());
            b.iter(pass);
        });
    }
    group.throughput(Throughput::Elements((PROMPTS * SAMPLES * NEW) as u64));
    // TRL's default has no KL term and so no reference pass. Adapters need no second copy of anything.
    let lora = Some(LoraConfig::default());
    for (name, kl, lora, gradient_checkpointing) in [
        ("without KL", Kl::NONE, None, false),
        ("with KL", Kl::default(), None, false),
        ("with LoRA", Kl::NONE, lora.clone(), false),
        ("checkpointed", Kl::NONE, None, true),
        ("checkpointed with LoRA", Kl::NONE, lora, true),
    ] {
        let config = TrainConfig {
            steps: u64::MAX,
            questions_per_step: PROMPTS,
            samples_per_question: SAMPLES,
            rollout: RolloutConfig {
                max_turns: 1,
                max_new_tokens: NEW,
                sampling: Sampling { min_new_tokens: NEW, ..Sampling::default() },
                ..RolloutConfig::default()
            },
            algorithm: AlgorithmConfig::Grpo(Grpo { kl, ..Grpo::default() }),
            warmup_ratio: 0.0,
            lora,
            gradient_checkpointing,
            ..TrainConfig::default()
        };
        let mut trainer = None;
        let mut last = None;
        group.bench_function(format!("GRPO step {name}"), |b| {
            let trainer = trainer.get_or_insert_with(|| {
                let mut trainer = builder().config(config.clone()).build().expect("a valid configuration");
                // As above; and after the first step, the moments lie where activations were.
                (0..3).for_each(|_| drop(trainer.next_step().expect("a step")));
                trainer
            });
            b.iter(|| last = trainer.next_step().expect("a step"));
        });
        // Where the time of the last step went.
        for (name, seconds) in
            last.iter().flat_map(|report| report.metrics.iter()).filter(|m| m.0.starts_with("timing"))
        {
            println!("{name:<24}{seconds:>8.3}");
        }
    }
}

criterion_group!(group, benches);
criterion_main!(group);
