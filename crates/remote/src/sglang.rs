//! A generator whose sequences are decoded by SGLang servers.

use zerosearch_generate::{
    Finished, GenerateError, Generator, Request, SequenceId, TokenId, Turn, Wake, WeightVersion,
};
use zerosearch_http::{EndpointCounts, RetryPolicy};

use crate::sglang_server::SglangServer;
use crate::turns::{TurnServer, Turns, generate_by_turns};
use crate::wire::remote;

/// A policy behind SGLang's `POST /generate`: token ids in, token ids and log-probabilities out.
///
/// The server holds no sequence for us: a turn sends the whole sequence again, and the server's prefix
/// cache spares the work. All waiting turns are sent at once, within a bound, each in a thread of its own.
/// [`poll`](Generator::poll) returns when all are answered, [`poll_until`](Generator::poll_until) as soon as one is or the
/// signal is raised, while the others stay under way.
///
/// **Several servers** share the turns: each goes to the least busy one, and to another where that one fails. After a
/// [`refit`](Self::refit) no server samples with older weights: one that was unreachable then, or has been started again since,
/// is first made to load them. It is known by the version that it answers with (`meta_info.weight_version`, SGLang 0.5.1 and newer).
///
/// **Stops.** A [`Turn::stop`] cannot travel over the network: it is asked about the returned tokens,
/// and what was sampled after the stopping token is dropped, as if it had never been. To save that
/// work, name the strings that end a turn in [`with_stop_strings`](Self::with_stop_strings); the
/// closure still decides where the turn ends.
///
/// **Log-probabilities.** SGLang reports them after the temperature. They are what
/// [`SampledToken::logprob`](zerosearch_generate::SampledToken::logprob) promises at temperature 1 and when greedy; for any other temperature start
/// the server with `SGLANG_RETURN_ORIGINAL_LOGPROB=1`.
///
/// **Deadlines** are looked at before a turn is sent; a request under way runs into its own time-out.
///
/// **Seeds** reach the server only with [`with_seeds`](Self::with_seeds); without them a rollout does
/// not repeat.
pub struct SglangGenerator {
    turns: Turns<SglangServer>,
}

impl SglangGenerator {
    /// A server at this address whose model's context holds `context` tokens. Nothing is sent yet.
    pub fn new(url: &str, context: usize) -> Self {
        Self::at(&[url], context)
    }

    /// Several servers with the same model. Nothing is sent yet.
    ///
    /// ```
    /// use zerosearch_remote::SglangGenerator;
    ///
    /// let policy = SglangGenerator::at(&["http://node1:30000", "http://node2:30000"], 4096).with_seeds();
    /// assert_eq!(policy.endpoints().len(), 2);
    /// ```
    pub fn at(urls: &[impl AsRef<str>], context: usize) -> Self {
        Self { turns: Turns::new(SglangServer::new(urls), context) }
    }

    /// Sends each turn's seed (as `sampling_seed`, shortened to 31 bits). The server honours it when
    /// started with `--enable-deterministic-inference`; versions that do not know it refuse the request.
    #[must_use]
    pub fn with_seeds(mut self) -> Self {
        self.turns.options.seeds = true;
        self
    }

    /// Makes every server load a Hugging Face folder (a path on the server's machine) as `version`, and
    /// forget its prefix cache: `/pause_generation`, `/update_weights_from_disk`, `/continue_generation`.
    ///
    /// Turns that are sent from now on are sampled with the new weights. A server continues even
    /// when the update fails, with the weights it had. Of several servers some may fail: they sample nothing until they have
    /// loaded the folder, which must therefore stay until the next refit.
    ///
    /// # Errors
    /// [`GenerateError::Remote`] names the call that failed; [`weight_version`](Generator::weight_version) is then unchanged.
    pub fn refit(&mut self, folder: &str, version: WeightVersion) -> Result<(), GenerateError> {
        self.turns.server.refit(folder).map_err(remote)?;
        self.turns.weights = version;
        Ok(())
    }
}

generate_by_turns!(SglangGenerator);
