//! One episode, live on the terminal, coloured by who wrote it.
//!
//!     cargo run --release --example ask -- --model models/base --corpus corpus.jsonl "What is the capital of Chad?"

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::generate::{Generator, Request, Sampling, Turn};
use zerosearch::lm::{LanguageModel, LocalGenerator};
use zerosearch::search::{Bm25Index, Query, SearchEngine};
use zerosearch::text::{
    Action, IncrementalDecoder, PromptTemplate, STOP_TAGS, StopScanner, corrective, encode_information, parse_action,
};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    model: PathBuf,
    /// JSONL or Parquet rows `id?, title?, contents`, searched with BM25.
    #[arg(long)]
    corpus: PathBuf,
    #[arg(long, default_value_t = 3)]
    top_k: usize,
    #[arg(long, default_value_t = 5)]
    max_turns: usize,
    question: String,
}

const PROMPT: &str = "90";
const POLICY: &str = "32";
const DOCUMENTS: &str = "36";

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    let model = LanguageModel::read(&arguments.model)?;
    let codec = &model.codec;
    let engine = Bm25Index::read(&arguments.corpus)?;
    let text = PromptTemplate::for_model(codec)?.render(&arguments.question)?;
    paint(PROMPT, &format!("{text}\n"));

    let mut generator = LocalGenerator::for_model(&model);
    let prompt = codec.encode(&text);
    let id = generator.start(Request { prompt: &prompt, sampling: Sampling::greedy(), turn: turn(&model) })?;
    for number in 1..=arguments.max_turns {
        let Some(finished) = generator.poll()?.pop() else { break };
        let ids: Vec<u32> = finished.tokens.iter().map(|token| token.id).collect();
        let observation = match parse_action(&codec.decode(&ids)) {
            Action::Answer(answer) => {
                paint(POLICY, &format!("\n\nanswer: {answer}\n"));
                return Ok(());
            }
            Action::Search(query) => {
                let found = engine.search(&Query { text: &query, top_k: arguments.top_k, context: None })?;
                let documents: Vec<_> = found.iter().map(|document| document.text()).collect();
                let documents: Vec<&str> = documents.iter().map(|document| document.as_ref()).collect();
                encode_information(codec, &documents)
            }
            Action::Invalid(_) => codec.encode(corrective()),
        };
        if number == arguments.max_turns {
            break;
        }
        paint(DOCUMENTS, &codec.decode(&observation));
        generator.extend(id, &observation, turn(&model))?;
    }
    paint(PROMPT, &format!("\n\nno answer within {} turns\n", arguments.max_turns));
    Ok(())
}

/// A turn that prints each token as it is sampled: the stop condition sees them all.
fn turn(model: &LanguageModel) -> Turn {
    let mut decoder = IncrementalDecoder::new(&model.codec);
    let mut stop = StopScanner::new(&model.codec, &STOP_TAGS).into_stop();
    Turn {
        max_new_tokens: 200,
        seed: 0,
        stop: Box::new(move |token| {
            paint(POLICY, &decoder.push(token));
            stop(token)
        }),
        deadline: None,
    }
}

fn paint(colour: &str, text: &str) {
    let mut out = std::io::stdout();
    // A reader that closed the pipe has seen enough.
    let _ = if out.is_terminal() { write!(out, "\x1b[{colour}m{text}\x1b[0m") } else { write!(out, "{text}") };
    let _ = out.flush();
}
