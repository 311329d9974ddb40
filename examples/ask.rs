//! One episode, live on the terminal, coloured by who wrote it.
//!
//!     cargo run --release --example ask -- --model models/base --corpus corpus.jsonl "What is the capital of Chad?"

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::device::DeviceName;
use zerosearch::generate::{Generator, Request, Sampling, Turn};
use zerosearch::grammar::{Action, EpisodeFormat};
use zerosearch::lm::{LanguageModel, LocalGenerator};
use zerosearch::metrics::{Author, Transcript};
use zerosearch::search::{Bm25Index, Query, SearchEngine};
use zerosearch::text::{IncrementalDecoder, PromptTemplate, StopScanner, encode_information};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    model: PathBuf,
    /// JSONL or Parquet rows `id?, title?, contents`, searched with BM25.
    #[arg(long)]
    corpus: PathBuf,
    /// auto (the first GPU, else the CPU), cpu, cuda:N or webgpu.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[arg(long, default_value_t = 3)]
    top_k: usize,
    #[arg(long, default_value_t = 5)]
    max_turns: usize,
    question: String,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    let model = LanguageModel::read(&arguments.model)?;
    let (codec, format) = (&model.codec, EpisodeFormat::default());
    let engine = Bm25Index::read(&arguments.corpus)?;
    let text = PromptTemplate::for_model(codec)?.render(&arguments.question)?;
    let mut transcript = Transcript::stdout();
    transcript.write(Author::Prompt, &format!("{text}\n"));

    let mut generator = LocalGenerator::for_model_on(&model, &arguments.device.open()?)?;
    let prompt = codec.encode(&text);
    let id = generator.start(Request { prompt: &prompt, sampling: Sampling::greedy(), turn: turn(&model) })?;
    for number in 1..=arguments.max_turns {
        let Some(finished) = generator.poll()?.pop() else { break };
        let ids: Vec<u32> = finished.tokens.iter().map(|token| token.id).collect();
        let observation = match format.parse_action(&codec.decode(&ids)) {
            Action::Answer(answer) => {
                transcript.write(Author::Policy, &format!("\n\nanswer: {answer}\n"));
                return Ok(());
            }
            Action::Call { input: query, .. } => {
                let found = engine.search(&Query { text: &query, top_k: arguments.top_k, context: None })?;
                let documents: Vec<_> = found.iter().map(|document| document.text()).collect();
                let documents: Vec<_> = documents.iter().map(|document| ("", document.as_ref())).collect();
                encode_information(codec, &format, &format.documents(&documents))
            }
            Action::Invalid(_) => codec.encode(&format.corrective),
        };
        if number == arguments.max_turns {
            break;
        }
        transcript.write(Author::Observation, &codec.decode(&observation));
        generator.extend(id, &observation, turn(&model))?;
    }
    transcript.write(Author::Prompt, &format!("\n\nno answer within {} turns\n", arguments.max_turns));
    Ok(())
}

/// A turn that prints each token as it is sampled: the stop condition sees them all.
fn turn(model: &LanguageModel) -> Turn {
    let mut decoder = IncrementalDecoder::new(&model.codec);
    let mut transcript = Transcript::stdout();
    let mut stop = StopScanner::new(&model.codec, &EpisodeFormat::default().stop_tags()).into_stop();
    Turn {
        max_new_tokens: 200,
        seed: 0,
        stop: Box::new(move |token| {
            transcript.write(Author::Policy, &decoder.push(token));
            stop(token)
        }),
        deadline: None,
    }
}
