//! A generator whose sequences are decoded by vLLM servers.

use zerosearch_generate::{
    Finished, GenerateError, Generator, Request, SequenceId, TokenId, Turn, Wake, WeightVersion,
};
use zerosearch_http::{EndpointCounts, RetryPolicy};

use crate::turns::{TurnServer, Turns, generate_by_turns};
use crate::vllm_server::VllmServer;
use crate::wire::remote;

/// A policy behind vLLM's `POST /v1/completions`: token ids in, token ids and log-probabilities out (`return_token_ids`,
/// vLLM 0.10.2 and newer).
///
/// New weights reach it as LoRA adapters, by [`load_adapter`](Self::load_adapter): its HTTP server has no way to load whole ones. Each
/// version is an adapter with a name of its own, so that caches of older ones are never found. Before the first, the base model samples.
///
/// Turns, stops, deadlines, seeds and several servers are as [`SglangGenerator`](crate::SglangGenerator) has them; a server that was
/// started again does not know the newest adapter, and is made to load it first.
///
/// **Log-probabilities** are the model's own, before temperature and truncation (`--logprobs-mode raw_logprobs`, the
/// default), as [`SampledToken::logprob`](zerosearch_generate::SampledToken::logprob) promises.
pub struct VllmGenerator {
    turns: Turns<VllmServer>,
}

impl VllmGenerator {
    /// A server at this address whose model's context holds `context` tokens. Nothing is sent yet.
    pub fn new(url: &str, context: usize) -> Self {
        Self::at(&[url], context)
    }

    /// Several servers with the same model. Nothing is sent yet.
    ///
    /// ```
    /// use zerosearch_remote::VllmGenerator;
    ///
    /// let policy = VllmGenerator::at(&["http://node1:8000", "http://node2:8000"], 4096).with_seeds();
    /// assert_eq!(policy.endpoints()[1].endpoint, "http://node2:8000");
    /// ```
    pub fn at(urls: &[impl AsRef<str>], context: usize) -> Self {
        Self { turns: Turns::new(VllmServer::new(urls), context) }
    }

    /// Sends each turn's seed, shortened to 31 bits. The same turn is sampled again to the bit where the server's
    /// kernels do not depend on the batch: start it with `VLLM_BATCH_INVARIANT=1`.
    #[must_use]
    pub fn with_seeds(mut self) -> Self {
        self.turns.options.seeds = true;
        self
    }

    /// Makes every server load an adapter, a PEFT folder (a path on the server's machine), as `version`, and forget the one
    /// before: `/v1/load_lora_adapter`, `/v1/unload_lora_adapter`. The servers must have been started with `--enable-lora` and
    /// `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`.
    ///
    /// Turns that are sent from now on are sampled with the new weights. Of several servers some may fail: they sample
    /// nothing until they have loaded the folder, which must therefore stay until the next adapter is loaded.
    ///
    /// # Errors
    /// [`GenerateError::Remote`] names the call that failed; [`weight_version`](Generator::weight_version) is then unchanged.
    pub fn load_adapter(&mut self, folder: &str, version: WeightVersion) -> Result<(), GenerateError> {
        self.turns.server.load(folder, version.0).map_err(remote)?;
        self.turns.weights = version;
        Ok(())
    }
}

generate_by_turns!(VllmGenerator);
