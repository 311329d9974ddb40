//! A model that plays the engine.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zerosearch_files::{FileError, read_text};
use zerosearch_generate::{GenerateError, Ledger, Role, Sampling};
use zerosearch_lm::{LanguageModel, LocalCompleter};
use zerosearch_search::SearchEngine;
use zerosearch_simulator::{SimulatedEngine, SimulationConfig, SimulatorError, SimulatorPrompt};

use super::{EngineError, ServedModel};
use crate::device::DeviceName;

/// A simulator in any mode, here or on a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimulatorConfig {
    /// Its folder. With a server only the folder's prompt is read, and it may be left out.
    pub model: Option<PathBuf>,
    /// Whether the model was fine-tuned to play the engine.
    pub mode: SimulatorMode,
    /// A prompt template in the place of the mode's.
    pub template: Option<PathBuf>,
    /// The device that decodes it; that of the policy if it is left out.
    pub device: Option<DeviceName>,
    /// How it samples.
    pub simulation: SimulationConfig,
    /// The server that decodes it; this process if it is left out.
    pub server: Option<ServedModel>,
}

/// How a model is told to play the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimulatorMode {
    /// It was fine-tuned: the prompt of its folder, or [`SimulatorPrompt::sft`].
    #[default]
    Sft,
    /// It was not: [`SimulatorPrompt::prompted`].
    Prompt,
}

impl SimulatorConfig {
    /// The prompt of every call.
    ///
    /// # Errors
    /// When the template or the folder is missing or broken.
    pub fn prompt(&self) -> Result<SimulatorPrompt, EngineError> {
        if let Some(template) = &self.template {
            return Ok(SimulatorPrompt::new(&read_text(template).map_err(SimulatorError::from)?)?);
        }
        match (&self.model, self.mode) {
            (_, SimulatorMode::Prompt) => Ok(SimulatorPrompt::prompted()?),
            (Some(folder), SimulatorMode::Sft) => {
                // A folder that is not there has no prompt either, and would be taken for one without.
                std::fs::read_dir(folder).map_err(FileError::read(folder)).map_err(SimulatorError::from)?;
                Ok(SimulatorPrompt::for_model(folder)?)
            }
            (None, SimulatorMode::Sft) => Ok(SimulatorPrompt::sft()?),
        }
    }

    /// Reads the model, or addresses the server.
    pub(super) fn read_with(&self, device: &Device, ledger: &Ledger) -> Result<Box<dyn SearchEngine>, EngineError> {
        let SimulationConfig { temperature, max_new_tokens, .. } = self.simulation;
        Sampling::temperature(temperature).validate().map_err(SimulatorError::from)?;
        if max_new_tokens == 0 {
            let (name, value) = ("max_new_tokens", "0".into());
            let error = GenerateError::Parameter { name, value, expected: "at least 1" };
            return Err(SimulatorError::from(error).into());
        }
        let (prompt, account) = (self.prompt()?, ledger.account(Role::Simulator));
        match &self.server {
            Some(server) => {
                let completer = server.completer()?.with_account(account);
                Ok(Box::new(SimulatedEngine::new(completer, prompt, self.simulation)))
            }
            None => {
                let own = self.device.map(DeviceName::open).transpose()?;
                let folder = self.model.as_deref().unwrap_or(Path::new(""));
                let completer = local(folder, own.as_ref().unwrap_or(device))?.with_account(account);
                Ok(Box::new(SimulatedEngine::new(completer, prompt, self.simulation)))
            }
        }
    }
}

/// A model of this process that completes texts.
pub(super) fn local(folder: &Path, device: &Device) -> Result<LocalCompleter, EngineError> {
    let model = LanguageModel::read(folder).map_err(SimulatorError::from)?;
    Ok(LocalCompleter::on(&model, device).map_err(SimulatorError::from)?)
}
