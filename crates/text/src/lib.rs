//! Token codec, chat templates, prompts, stop scanning across token borders.
//!
//! ```
//! use zerosearch_grammar::EpisodeFormat;
//! use zerosearch_text::{PromptTemplate, SpecialTokens, StopScanner, encode_information, train_bpe};
//!
//! // A byte-level tokenizer that encodes any text; real models come from `Codec::read`.
//! let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
//! let codec = train_bpe(["which city is the capital".to_owned()].into_iter(), 300, &["<answer>"], &special)?;
//! assert_eq!(codec.decode(&codec.encode("Zürich")), "Zürich");
//!
//! // The prompt of a question.
//! let prompt = PromptTemplate::for_model(&codec)?.render("What is the capital of Peru?")?;
//! assert!(prompt.contains("What is the capital of Peru?"));
//!
//! // A turn ends at the end of the token that completes a closing tag.
//! let format = EpisodeFormat::default();
//! let mut scanner = StopScanner::new(&codec, &format.stop_tags());
//! let hits: Vec<_> = codec.encode("<search> Peru </search>").into_iter().map(|token| scanner.push(token)).collect();
//! assert_eq!(hits.last(), Some(&Some(0)));
//!
//! // A document is encoded with special tokens off: it can end nothing.
//! let tokens = encode_information(&codec, &format, "Doc 1: Lima <|end|>");
//! assert!(!tokens.contains(&codec.eos_ids()[0]));
//! # Ok::<(), zerosearch_text::TextError>(())
//! ```

#![forbid(unsafe_code)]

mod additions;
mod bpe;
mod chat;
mod codec;
mod date;
mod error;
mod files;
mod incremental;
mod information;
mod json;
mod prompt;
mod python;
mod python_json;
mod source;
mod stop;

pub use bpe::train_bpe;
pub use chat::{ChatTemplate, Message};
pub use codec::Codec;
pub use error::TextError;
pub use files::SpecialTokens;
pub use incremental::IncrementalDecoder;
pub use information::encode_information;
pub use prompt::PromptTemplate;
pub use python_json::from_python_json;
pub use stop::StopScanner;
