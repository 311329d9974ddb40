//! A generator that is watched as it samples.

use std::sync::{Arc, Mutex, PoisonError};

use zerosearch_trajectory::{TokenId, WeightVersion};

use crate::{Finished, GenerateError, Generator, Request, SequenceId, Turn, Wake};

/// The growth of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth<'a> {
    /// The prompt of a new sequence.
    Prompt(&'a [TokenId]),
    /// A token that was sampled. In a generator that decodes elsewhere it comes when its turn has ended.
    Sampled(TokenId),
    /// An observation.
    Observation(&'a [TokenId]),
}

type Watcher = Arc<Mutex<dyn FnMut(Growth<'_>) + Send>>;

/// A generator that tells a function of every prompt, sampled token and observation, as it comes: for one episode live on a
/// terminal, or in a user interface. The tokens are those of the generator inside.
///
/// Sequences are not told apart: watch one at a time.
pub struct Watched<G> {
    generator: G,
    watcher: Watcher,
}

impl<G: Generator> Watched<G> {
    /// Tells `watcher` of everything that goes into the sequences of `generator`.
    pub fn new(generator: G, watcher: impl FnMut(Growth<'_>) + Send + 'static) -> Self {
        Self { generator, watcher: Arc::new(Mutex::new(watcher)) }
    }

    /// The turn, whose stop condition sees every token and now passes it on.
    fn watched(&self, turn: Turn) -> Turn {
        let (watcher, mut stop) = (Arc::clone(&self.watcher), turn.stop);
        let stop = Box::new(move |token| {
            tell(&watcher, Growth::Sampled(token));
            stop(token)
        });
        Turn { stop, ..turn }
    }
}

fn tell(watcher: &Watcher, growth: Growth<'_>) {
    (watcher.lock().unwrap_or_else(PoisonError::into_inner))(growth);
}

impl<G: Generator> Generator for Watched<G> {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        tell(&self.watcher, Growth::Prompt(request.prompt));
        let turn = self.watched(request.turn);
        self.generator.start(Request { turn, ..request })
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        tell(&self.watcher, Growth::Observation(observation));
        let turn = self.watched(turn);
        self.generator.extend(id, observation, turn)
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        self.generator.poll()
    }

    fn poll_until(&mut self, wake: &Wake) -> Result<Vec<Finished>, GenerateError> {
        self.generator.poll_until(wake)
    }

    fn cancel(&mut self, id: SequenceId) {
        self.generator.cancel(id);
    }

    fn release(&mut self, id: SequenceId) {
        self.generator.release(id);
    }

    fn weight_version(&self) -> WeightVersion {
        self.generator.weight_version()
    }
}

#[cfg(test)]
mod tests {
    use zerosearch_trajectory::{Finish, SampledToken};

    use super::*;
    use crate::Sampling;

    /// Samples 1, 2, 3, … until a turn stops.
    #[derive(Default)]
    struct Counting(Option<Turn>);

    impl Generator for Counting {
        fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
            self.0 = Some(request.turn);
            Ok(SequenceId(0))
        }

        fn extend(&mut self, _: SequenceId, _: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
            self.0 = Some(turn);
            Ok(())
        }

        fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
            let Some(mut turn) = self.0.take() else { return Ok(Vec::new()) };
            let mut ids = Vec::new();
            for id in 1..=turn.max_new_tokens as TokenId {
                ids.push(SampledToken::new(id, 0.0));
                if (turn.stop)(id) {
                    break;
                }
            }
            Ok(vec![Finished { id: SequenceId(0), tokens: ids, finish: Finish::Stop }])
        }

        fn release(&mut self, _: SequenceId) {}

        fn weight_version(&self) -> WeightVersion {
            WeightVersion(0)
        }
    }

    #[test]
    fn everything_is_told_in_order_and_nothing_changes() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let mut generator =
            Watched::new(Counting::default(), move |growth| log.lock().unwrap().push(format!("{growth:?}")));
        let turn = |last| Turn { max_new_tokens: 5, seed: 0, stop: Box::new(move |id| id == last), deadline: None };
        let id = generator.start(Request { prompt: &[7], sampling: Sampling::greedy(), turn: turn(2) }).unwrap();
        assert_eq!(generator.poll().unwrap()[0].tokens.len(), 2);
        generator.extend(id, &[8, 9], turn(1)).unwrap();
        assert_eq!(generator.poll().unwrap()[0].tokens.len(), 1);
        assert!(generator.poll().unwrap().is_empty());
        let expected = ["Prompt([7])", "Sampled(1)", "Sampled(2)", "Observation([8, 9])", "Sampled(1)"];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
