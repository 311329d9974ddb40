//! Searches and completions that wait for a worker.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use zerosearch_generate::{Completion, CompletionRequest};
use zerosearch_search::{Document, Quality};

/// One search, with all that a simulated engine is told.
pub(crate) struct SearchJob {
    pub(crate) query: String,
    pub(crate) top_k: usize,
    pub(crate) question: String,
    pub(crate) answers: Vec<String>,
    pub(crate) quality: Quality,
    pub(crate) seed: u64,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, String>>;

/// Work for the engine or for its model.
pub(crate) enum Job {
    Search(SearchJob, Reply<Vec<Document>>),
    Complete(CompletionRequest, Reply<Completion>),
}

impl Job {
    /// Whether its client has gone away or its time is up.
    fn is_abandoned(&self) -> bool {
        match self {
            Job::Search(_, reply) => reply.is_closed(),
            Job::Complete(_, reply) => reply.is_closed(),
        }
    }
}

/// A bounded queue from which workers take batches.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

struct State {
    jobs: VecDeque<Job>,
    open: bool,
    /// Workers without a batch.
    free: usize,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State { jobs: VecDeque::new(), open: true, free: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Puts all of a request's jobs at the end.
    ///
    /// # Errors
    /// How many wait, where these would be too many beside them, or the queue is closed.
    pub(crate) fn offer(&self, jobs: Vec<Job>) -> Result<(), usize> {
        let mut state = self.lock();
        if state.jobs.len() + jobs.len() > self.capacity {
            state.jobs.retain(|job| !job.is_abandoned());
        }
        let waiting = state.jobs.len();
        if !state.open || waiting > 0 && waiting + jobs.len() > self.capacity {
            return Err(waiting);
        }
        state.jobs.extend(jobs);
        self.changed.notify_all();
        Ok(())
    }

    /// The next batch, all of one kind: the worker's share of the jobs that wait, at most `batch`. Waits for the first job, and then
    /// at most `linger` for a full batch. Nothing once the queue is closed and empty.
    pub(crate) fn take(&self, batch: usize, linger: Duration) -> Option<Vec<Job>> {
        let mut state = self.lock();
        state.free += 1;
        loop {
            state = self
                .changed
                .wait_while(state, |state| state.jobs.is_empty() && state.open)
                .unwrap_or_else(PoisonError::into_inner);
            if state.jobs.is_empty() {
                state.free -= 1;
                return None;
            }
            if state.jobs.len() < batch && !linger.is_zero() {
                let waited =
                    self.changed.wait_timeout_while(state, linger, |state| state.jobs.len() < batch && state.open);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.jobs.retain(|job| !job.is_abandoned());
            let share = state.jobs.len().div_ceil(state.free.max(1)).min(batch);
            let Some(first) = state.jobs.front() else { continue };
            let kind = discriminant(first);
            let same = state.jobs.iter().take(share).take_while(|job| discriminant(*job) == kind).count();
            state.free -= 1;
            return Some(state.jobs.drain(..same).collect());
        }
    }

    /// Lets the workers end once nothing waits.
    pub(crate) fn close(&self) {
        self.lock().open = false;
        self.changed.notify_all();
    }

    /// Throws away whatever waits.
    pub(crate) fn clear(&self) {
        self.lock().jobs.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Waiting = oneshot::Receiver<Result<Vec<Document>, String>>;

    fn searches(count: usize) -> (Vec<Job>, Vec<Waiting>) {
        let search = |_| {
            let (reply, waiting) = oneshot::channel();
            let (query, question) = (String::new(), String::new());
            let job = SearchJob { query, question, top_k: 1, answers: Vec::new(), quality: Quality::Useful, seed: 0 };
            (Job::Search(job, reply), waiting)
        };
        (0..count).map(search).unzip()
    }

    #[test]
    fn the_queue_is_bounded_but_one_large_request_fits() {
        let queue = Queue::new(3);
        let (jobs, waiting) = searches(5);
        assert!(queue.offer(jobs).is_ok(), "nothing else waits");
        let (jobs, _more) = searches(1);
        assert_eq!(queue.offer(jobs), Err(5));
        drop(waiting);
        let (jobs, _more) = searches(3);
        assert!(queue.offer(jobs).is_ok(), "those that nobody waits for make room");
        assert_eq!(queue.len(), 3);
        queue.close();
        queue.clear();
        assert_eq!(queue.offer(searches(1).0), Err(0));
        assert!(queue.take(1, Duration::ZERO).is_none());
    }

    #[test]
    fn a_batch_is_of_one_kind_and_nobody_s_job_is_left_out() {
        let queue = Queue::new(100);
        let (jobs, waiting) = searches(5);
        let request = CompletionRequest {
            prompt: String::new(),
            sampling: Default::default(),
            max_new_tokens: 1,
            seed: 0,
            stop: Vec::new(),
        };
        let (reply, _completion) = oneshot::channel();
        queue.offer(jobs).unwrap();
        queue.offer(vec![Job::Complete(request, reply)]).unwrap();
        let (jobs, _others) = searches(2);
        queue.offer(jobs).unwrap();
        let mut waiting = waiting.into_iter();
        drop(waiting.next());
        let _kept: Vec<Waiting> = waiting.collect();
        let sizes: Vec<usize> = (0..4).map(|_| queue.take(3, Duration::ZERO).unwrap().len()).collect();
        assert_eq!(sizes, [3, 1, 1, 2]);
        assert_eq!(queue.len(), 0);
    }
}
