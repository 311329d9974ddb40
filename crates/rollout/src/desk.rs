//! Threads that answer calls while the policy decodes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use zerosearch_generate::{Stream, Wake};
use zerosearch_grammar::EpisodeFormat;

use crate::{Observation, Observations, Task, Tool, ToolCall, ToolOutput, ToolRecord};

/// A call that waits for a thread. It carries the index of its own rollout from here to the answer, so that no row can be
/// given another row's question.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) index: usize,
    pub(crate) input: String,
    pub(crate) stream: Stream,
}

/// The answer to a call.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) index: usize,
    pub(crate) observation: Observation,
    pub(crate) record: ToolRecord,
    /// The tool's text, for a condenser; absent where the call failed.
    pub(crate) output: Option<String>,
}

/// The answers that have come, from all desks.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    inbox: Mutex<(Vec<Reply>, Duration)>,
    pub(crate) wake: Wake,
}

impl Replies {
    /// Takes what has come, in the order of the rollouts. The signal is lowered first: what comes later raises it again.
    pub(crate) fn take(&self) -> Vec<Reply> {
        self.wake.lower();
        let mut replies = std::mem::take(&mut lock(&self.inbox).0);
        replies.sort_by_key(|reply| reply.index);
        replies
    }

    /// Time of all calls together.
    pub(crate) fn busy(&self) -> Duration {
        lock(&self.inbox).1
    }

    fn put(&self, replies: Vec<Reply>, took: Duration) {
        let mut inbox = lock(&self.inbox);
        inbox.0.extend(replies);
        inbox.1 += took;
        drop(inbox);
        self.wake.raise();
    }
}

/// Where the calls of one tool are answered.
pub(crate) struct Desk<'r> {
    pub(crate) tool: &'r dyn Tool,
    tasks: &'r [Task],
    format: &'r EpisodeFormat,
    observations: Observations<'r>,
    replies: &'r Replies,
    /// Threads, each with a call of its own; a single one takes calls together.
    limit: usize,
    /// Whether a single thread takes all that waits, and not only what was submitted together.
    gathers: bool,
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The calls that go to the tool together.
    batches: VecDeque<Vec<Job>>,
    threads: usize,
    /// Those of them that wait.
    idle: usize,
    closed: bool,
}

impl<'r> Desk<'r> {
    pub(crate) fn new(
        tool: &'r dyn Tool,
        limit: usize,
        gathers: bool,
        tasks: &'r [Task],
        format: &'r EpisodeFormat,
        observations: Observations<'r>,
        replies: &'r Replies,
    ) -> Self {
        let (queue, ready) = (Mutex::default(), Condvar::new());
        Self { tool, tasks, format, observations, replies, limit: limit.max(1), gathers, queue, ready }
    }

    /// Leaves calls to the threads, of which more are started while there are too few.
    pub(crate) fn submit<'s>(&'s self, jobs: Vec<Job>, scope: &'s Scope<'s, '_>) {
        let mut queue = lock(&self.queue);
        match self.limit {
            1 => queue.batches.push_back(jobs),
            _ => queue.batches.extend(jobs.into_iter().map(|job| vec![job])),
        }
        let missing = queue.batches.len().saturating_sub(queue.idle).min(self.limit - queue.threads);
        for _ in 0..missing {
            match Builder::new().name(self.tool.tag().into()).spawn_scoped(scope, || self.work()) {
                Ok(_) => queue.threads += 1,
                Err(error) if queue.threads == 0 => {
                    // Without any thread no call would ever be answered.
                    let failure = format!("no thread for the tool {}: {error}", self.tool.tag());
                    let jobs = std::mem::take(&mut queue.batches).into_iter().flatten();
                    let failed = |job| self.reply(job, ToolOutput::failure(failure.clone()));
                    self.replies.put(jobs.map(failed).collect(), Duration::ZERO);
                }
                Err(_) => break,
            }
        }
        drop(queue);
        self.ready.notify_all();
    }

    /// Begins no further call. Those under way are finished by their threads, which then end.
    fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.batches.clear();
        drop(queue);
        self.ready.notify_all();
    }

    fn work(&self) {
        while let Some(jobs) = self.next() {
            let began = Instant::now();
            let replies = self.answer(jobs);
            self.replies.put(replies, began.elapsed());
        }
    }

    /// The next calls for a thread; none when the desk is closed.
    fn next(&self) -> Option<Vec<Job>> {
        let mut queue = lock(&self.queue);
        while queue.batches.is_empty() && !queue.closed {
            queue.idle += 1;
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
        let mut jobs = queue.batches.pop_front()?;
        if self.limit == 1 && self.gathers {
            jobs.extend(queue.batches.drain(..).flatten());
        }
        Some(jobs)
    }

    fn answer(&self, jobs: Vec<Job>) -> Vec<Reply> {
        let outputs = self.outputs(&jobs);
        jobs.into_iter().zip(outputs).map(|(job, output)| self.reply(job, output)).collect()
    }

    /// One output for each call. A panic of the tool is the failure of the call that it happened in: calls of a batch are made
    /// again one by one, since no output depends on another call.
    fn outputs(&self, jobs: &[Job]) -> Vec<ToolOutput> {
        let calls: Vec<ToolCall<'_>> = jobs.iter().filter_map(|job| self.call(job)).collect();
        let outputs = catch_unwind(AssertUnwindSafe(|| self.tool.call_batch(&calls)));
        match outputs {
            Ok(outputs) if outputs.len() == jobs.len() => outputs,
            Ok(outputs) => {
                // If the counts differ, outputs cannot be matched to calls.
                let (tag, given) = (self.tool.tag(), outputs.len());
                let failure = format!("the tool {tag} gave {given} outputs for {} calls", jobs.len());
                vec![ToolOutput::failure(failure); jobs.len()]
            }
            Err(_) if jobs.len() > 1 => jobs.iter().flat_map(|job| self.outputs(std::slice::from_ref(job))).collect(),
            Err(panic) => {
                vec![ToolOutput::failure(format!("the tool {} panicked: {}", self.tool.tag(), said(&*panic)))]
            }
        }
    }

    fn call<'c>(&'c self, job: &'c Job) -> Option<ToolCall<'c>> {
        let task = self.tasks.get(job.index)?;
        Some(ToolCall { input: &job.input, task, stream: job.stream, format: self.format })
    }

    fn reply(&self, Job { index, input, .. }: Job, output: ToolOutput) -> Reply {
        let (observation, text) = (self.observations.of(&output), output.text.as_ref().ok().cloned());
        Reply { index, observation, record: output.into_record(&input), output: text }
    }
}

/// Closes the desks when a run ends in any way, so that their threads end too.
pub(crate) struct Closing<'d, 'r>(pub(crate) &'d [Desk<'r>]);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Desk::close);
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// The guarded value is whole even if a thread panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
