//! Makes the base policy that the quickstart starts from: a tokenizer and a small decoder, from invented worlds
//! and training entities only. Its result is shipped, so it need not be run.
//!
//!     cargo run --release --example pretrain -- --out models/base
//!     cargo run --release --example pretrain -- --out models/base-plain --from models/base --plain --steps 400
//!     cargo run --release --example pretrain -- --out models/base-small --layers 3 --intermediate-size 256
//!
//! The log beside the weights says, step by step, the loss and how well the model copies names that it has never
//! seen: test entities, whose questions and passages are used for nothing but this measurement.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::burn::tensor::Device;
use zerosearch::files::{prepare_folder, write_atomic};
use zerosearch::kernels::keep_freed_memory;
use zerosearch::lm::{AdamWConfig, LanguageModel, LearningRate, ModelConfig, SftConfig, SftTrainer, StoredDtype};
use zerosearch::nursery::{Habits, Mixture, Pretraining, index, init_induction, measure_copying, sources, world};
use zerosearch::simulator::SimulatorPrompt;
use zerosearch::text::{Codec, PromptTemplate, SpecialTokens, train_bpe};
use zerosearch::world::{Split, World};

const SEARCH_PROMPT: &str = "Question: {{ question }}";
const SIMULATOR_PROMPT: &str =
    "Engine. Question: {{ question }}\nAnswer: {{ answer }}\nQuery: {{ query }}\n{{ quality }}:\n";
const TAGS: [&str; 8] =
    ["<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "<information>", "</information>"];

#[derive(Parser)]
struct Arguments {
    /// The folder to write.
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Optimizer steps.
    #[arg(long, default_value_t = 1500)]
    steps: u64,
    /// Sequences in a step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Starts from this folder's weights instead of random ones.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Layers of a model that starts from random weights, at least 3.
    #[arg(long, default_value_t = 5, conflicts_with = "from")]
    layers: usize,
    /// Width of its feed-forward networks.
    #[arg(long, default_value_t = 512, conflicts_with = "from")]
    intermediate_size: usize,
    /// Demonstrations without a wrong habit: none guesses, none stops at the first name.
    #[arg(long)]
    plain: bool,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    keep_freed_memory();
    prepare_folder(&arguments.out)?;
    let start = match &arguments.from {
        Some(folder) => LanguageModel::read(folder)?,
        None => {
            let codec = tokenizer(arguments.seed)?;
            let Arguments { layers, intermediate_size, .. } = arguments;
            let mut config = ModelConfig::tiny_llama(codec.vocab_size(), 256, layers, 4, 2, intermediate_size);
            config.tie_word_embeddings = false;
            config.rope_theta = 1e6;
            LanguageModel::new(config.clone(), init_induction(&config, arguments.seed)?, codec)
        }
    };
    let prompt = PromptTemplate::new(SEARCH_PROMPT)?;
    let (guess, stop_early) = if arguments.plain { (0.0, 0.0) } else { (0.12, 0.55) };
    let mixture = Mixture {
        habits: Habits { guess, stop_early, bare_question: 0.4 },
        top_k: 3,
        copying: 0.06,
        simulating: 0.6,
        document_weight: 0.1,
        examples_per_world: 400,
    };
    let seed = arguments.seed + arguments.from.iter().count() as u64 * 1000;
    let mut data =
        Pretraining::new(start.codec.clone(), prompt.clone(), SimulatorPrompt::new(SIMULATOR_PROMPT)?, mixture, seed)?;
    let schedule = LearningRate::cosine(arguments.learning_rate, 60, arguments.steps, 0.03);
    let optimizer = AdamWConfig { beta2: 0.98, ..AdamWConfig::default() };
    let config = SftConfig {
        learning_rate: schedule,
        optimizer,
        gradient_norm: 1.0,
        micro_batch_tokens: 8192,
        gradient_checkpointing: false,
    };
    let mut trainer = SftTrainer::new(&start.config, &start.weights, config, &Device::flex())?;

    let test = World::real()?;
    let engine = index(&test, 0)?;
    let unseen: Vec<_> = test.questions().into_iter().filter(|q| q.split == Split::Test).step_by(12).collect();
    let mut log = String::new();
    let (began, mut tokens) = (Instant::now(), 0usize);
    for step in 1..=arguments.steps {
        let batch = (0..arguments.batch).map(|_| data.next_example()).collect::<Result<Vec<_>, _>>()?;
        tokens += batch.iter().map(|example| example.tokens.len()).sum::<usize>();
        let report = trainer.step(&batch)?;
        if step % 10 == 0 || step == arguments.steps {
            let seconds = began.elapsed().as_secs_f64();
            let mut row = serde_json::json!({"step": step, "loss": report.loss, "gradient_norm": report.gradient_norm,
                "learning_rate": report.learning_rate, "tokens": tokens, "seconds": seconds.round()});
            if step % 100 == 0 || step == arguments.steps {
                let model = start.with_weights(trainer.decoder().to_host());
                row["copying"] =
                    serde_json::to_value(measure_copying(&model, &prompt, &unseen, &engine, mixture.top_k)?)?;
                save(&model, &arguments.out)?;
            }
            log += &format!("{row}\n");
            println!("{row}");
            if row.get("copying").is_some() {
                // With the weights that it is about: until then the folder holds what it held before.
                write_atomic(arguments.out.join("training_log.jsonl"), log.as_bytes())?;
            }
        }
    }
    Ok(())
}

fn save(model: &LanguageModel, folder: &Path) -> Result<(), Failure> {
    model.save(folder, StoredDtype::Bf16)?;
    write_atomic(folder.join("search_prompt.jinja"), SEARCH_PROMPT.as_bytes())?;
    Ok(SimulatorPrompt::new(SIMULATOR_PROMPT)?.save(folder)?)
}

/// A byte-level BPE over passages and questions of invented and shuffled worlds.
fn tokenizer(seed: u64) -> Result<Codec, Failure> {
    let (names, training) = sources()?;
    let mut texts = Vec::new();
    for index in 0..12 {
        let world = world(index, seed + index, &names, &training);
        texts.extend(world.passages(index).into_iter().map(|passage| passage.contents));
        texts.extend(world.questions().into_iter().flat_map(|q| {
            let steps = q.steps.into_iter().flat_map(|step| [step.ask, step.query]);
            [q.question].into_iter().chain(steps).collect::<Vec<_>>()
        }));
    }
    let end = Some("<|end|>".to_string());
    let special = SpecialTokens { bos: end.clone(), eos: end.clone(), pad: end };
    Ok(train_bpe(texts.into_iter(), 2048, &TAGS, &special)?)
}
