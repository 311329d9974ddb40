//! The decoder (Llama, Qwen2, Qwen3), Hugging Face folders, KV cache, and the local `Generator`.

#![forbid(unsafe_code)]

mod cache;
mod completer;
mod config;
mod decoder;
mod engine;
mod error;
mod folder;
mod forward;
mod generator;
mod induction;
mod learning_rate;
mod lora;
mod optim;
mod packing;
mod pass;
mod sampler;
mod schedule;
mod sft;
mod shards;
mod stored;
mod weights;

pub use completer::LocalCompleter;
pub use config::{Family, Llama3Scaling, ModelConfig};
pub use decoder::{Decoder, Weight, Weights};
pub use error::LmError;
pub use folder::{LanguageModel, SaveOptions};
pub use forward::ScoredSequence;
pub use generator::{LocalGenerator, Statistics};
pub use learning_rate::{LearningRate, LrSchedulerType, Warmup};
pub use lora::LoraConfig;
pub use optim::{AdamW, AdamWConfig, Gradients};
pub use packing::micro_batches;
pub use pass::Pass;
pub use sft::{SftConfig, SftExample, SftReport, SftTrainer};
pub use stored::StoredDtype;
pub use weights::{HostTensor, HostWeights};
