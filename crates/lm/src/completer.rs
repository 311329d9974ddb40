//! A local model as a function of text.

use std::collections::BTreeMap;
use std::sync::Mutex;

use burn::tensor::Device;
use zerosearch_generate::{
    Account, Completer, Completion, CompletionRequest, Finished, GenerateError, Generator, Request, TokenId, Turn,
    Usage, never,
};
use zerosearch_text::{Codec, StopScanner};

use crate::{LanguageModel, LmError, LocalGenerator};

/// Completes texts with a local model, many at a time.
pub struct LocalCompleter {
    codec: Codec,
    generator: Mutex<LocalGenerator>,
    account: Account,
}

impl LocalCompleter {
    /// Completes with this model on the CPU.
    ///
    /// # Errors
    /// When its weights lack a tensor.
    pub fn new(model: &LanguageModel) -> Result<Self, LmError> {
        Self::on(model, &Device::flex())
    }

    /// Completes with this model on a device.
    ///
    /// # Errors
    /// When its weights lack a tensor.
    pub fn on(model: &LanguageModel, device: &Device) -> Result<Self, LmError> {
        let generator = LocalGenerator::for_model_on(model, device)?;
        Ok(Self { codec: model.codec.clone(), generator: Mutex::new(generator), account: Account::default() })
    }

    /// Reports calls, tokens and time to this account of a ledger.
    #[must_use]
    pub fn with_account(self, account: Account) -> Self {
        Self { account, ..self }
    }

    fn finish(&self, request: &CompletionRequest, turn: Finished) -> Completion {
        let eos = self.codec.eos_ids();
        let ids: Vec<TokenId> = turn.tokens.iter().map(|token| token.id).filter(|id| !eos.contains(id)).collect();
        let mut text = self.codec.decode(&ids);
        if let Some(end) = request.stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            text.truncate(end);
        }
        Completion { text, tokens: turn.tokens.len() }
    }
}

impl Completer for LocalCompleter {
    fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
        let mut generator =
            self.generator.lock().map_err(|_| GenerateError::Engine("a completion panicked before".into()))?;
        let _working = self.account.begin();
        let mut usage = Usage { calls: requests.len() as u64, ..Usage::default() };
        let mut owners = BTreeMap::new();
        let mut failure = None;
        for (index, request) in requests.iter().enumerate() {
            let prompt = self.codec.encode(&request.prompt);
            let stop = if request.stop.is_empty() {
                never()
            } else {
                let stops: Vec<&str> = request.stop.iter().map(String::as_str).collect();
                StopScanner::new(&self.codec, &stops).into_stop()
            };
            let turn = Turn { max_new_tokens: request.max_new_tokens, seed: request.seed, stop, deadline: None };
            match generator.start(Request { prompt: &prompt, sampling: request.sampling, turn }) {
                Ok(id) => {
                    usage.tokens_in += prompt.len() as u64;
                    owners.insert(id, index);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let mut completions: Vec<Option<Completion>> = requests.iter().map(|_| None).collect();
        while failure.is_none() && completions.iter().any(Option::is_none) {
            match generator.poll() {
                Ok(finished) if finished.is_empty() => {
                    failure = Some(GenerateError::Engine("decoding ended early".into()))
                }
                Ok(finished) => {
                    for turn in finished {
                        let id = turn.id;
                        usage.tokens_out += turn.tokens.len() as u64;
                        if let Some(index) = owners.get(&id) {
                            completions[*index] = Some(self.finish(&requests[*index], turn));
                        }
                        generator.release(id);
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        usage.failures = if failure.is_some() { usage.calls } else { 0 };
        self.account.add(usage);
        match failure {
            None => Ok(completions.into_iter().flatten().collect()),
            Some(error) => {
                owners.keys().for_each(|id| generator.release(*id));
                Err(error)
            }
        }
    }
}
