//! The decoder (Llama, Qwen2, Qwen3), Hugging Face folders, KV cache, and the local `Generator`.

#![forbid(unsafe_code)]

mod cache;
mod completer;
mod config;
mod decoder;
mod dtype;
mod engine;
mod error;
mod family;
mod folder;
mod forward;
mod generator;
mod keys;
mod learning_rate;
mod lora;
mod lora_file;
mod network;
mod optim;
mod packing;
mod pass;
mod prefix;
mod refit;
mod rope;
mod scheduling;
mod sequence;
mod sft;
mod shards;
mod stored;
mod weight;
mod weights;

pub use completer::LocalCompleter;
pub use config::ModelConfig;
pub use decoder::Decoder;
pub use dtype::{GpuProducts, WeightDtype};
pub use error::LmError;
pub use family::Family;
pub use folder::{LanguageModel, ModelFiles, SaveOptions};
pub use forward::ScoredSequence;
pub use generator::LocalGenerator;
pub use learning_rate::{LearningRate, LrSchedulerType, Warmup};
pub use lora::LoraConfig;
pub use optim::{AdamW, AdamWConfig, Gradients, WeightCopies};
pub use packing::micro_batches;
pub use pass::Pass;
pub use refit::{Refit, generator_for};
pub use rope::Llama3Scaling;
pub use sft::{SftConfig, SftExample, SftReport, SftTrainer};
pub use stored::StoredDtype;
pub use weight::Weight;
pub use weights::{HostTensor, HostWeights};
