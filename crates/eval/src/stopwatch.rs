//! The time that each episode takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use zerosearch_generate::{
    Finished, GenerateError, Generator, Request, SequenceId, TokenId, Turn, Wake, WeightVersion,
};
use zerosearch_rollout::Task;

/// A generator that notes how long the sequence of each task lives. Tasks are started in their order; a sequence with another
/// prompt than that of the next task is a reading between two turns.
pub(crate) struct Stopwatch<'g> {
    generator: &'g mut dyn Generator,
    prompts: Vec<Vec<TokenId>>,
    next: usize,
    live: BTreeMap<SequenceId, (usize, Instant)>,
    times: Vec<Duration>,
}

impl<'g> Stopwatch<'g> {
    pub(crate) fn new(generator: &'g mut dyn Generator, tasks: &[Task]) -> Self {
        let prompts = tasks.iter().map(|task| task.prompt.clone()).collect();
        Self { generator, prompts, next: 0, live: BTreeMap::new(), times: vec![Duration::ZERO; tasks.len()] }
    }

    /// The times of the tasks, in their order; zero for one that was never started.
    pub(crate) fn into_times(self) -> Vec<Duration> {
        self.times
    }
}

impl Generator for Stopwatch<'_> {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        let task = self.prompts.get(self.next).filter(|prompt| *prompt == request.prompt).map(|_| self.next);
        self.next += usize::from(task.is_some());
        let id = self.generator.start(request)?;
        self.live.extend(task.map(|task| (id, (task, Instant::now()))));
        Ok(id)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
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
        if let Some((task, began)) = self.live.remove(&id) {
            self.times[task] = began.elapsed();
        }
        self.generator.release(id);
    }

    fn weight_version(&self) -> WeightVersion {
        self.generator.weight_version()
    }
}
