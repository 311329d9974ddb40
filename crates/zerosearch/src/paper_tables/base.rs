//! The base models of the experiments.

use std::path::Path;

use zerosearch_data::Fingerprint;
use zerosearch_lm::LanguageModel;

use crate::pipeline::PipelineError;

/// The use of a base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BaseModel {
    /// Policy and simulator of most experiments.
    Shipped,
    /// Policy and simulator of the experiments without a wrong habit.
    Plain,
    /// The simulator of another size than the policy.
    Smaller,
}

/// A base model, and the folder that it was read from.
pub(super) struct Base<'a> {
    pub(super) folder: &'a Path,
    /// A short name for what is in it.
    pub(super) fingerprint: String,
    pub(super) model: LanguageModel,
}

impl<'a> Base<'a> {
    pub(super) fn read(folder: &'a Path) -> Result<Self, PipelineError> {
        Ok(Self { folder, fingerprint: of_folder(folder)?, model: LanguageModel::read(folder)? })
    }
}

/// Weights, tokenizer and prompts; not what is written about them.
fn of_folder(model: &Path) -> Result<String, PipelineError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error: std::io::Error| PipelineError::file(path, error)
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(model).map_err(failed(model))? {
        let path = entry.map_err(failed(model))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ["json", "jinja", "safetensors"].contains(&ending)) {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Fingerprint::default();
    for path in files {
        hash.text(&path.file_name().unwrap_or_default().to_string_lossy());
        let bytes = std::fs::read(&path).map_err(failed(&path))?;
        hash.number(bytes.len());
        hash.bytes(&bytes);
    }
    Ok(hash.to_string())
}
