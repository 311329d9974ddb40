//! Requests that are under way in threads of their own while the caller does other things.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zerosearch_generate::Wake;

/// Requests whose answers have not been taken yet. Dropping it forgets them; their threads end with their requests.
#[derive(Debug)]
pub(crate) struct UnderWay<A> {
    inbox: Arc<Mutex<Inbox<A>>>,
    count: usize,
}

#[derive(Debug)]
struct Inbox<A> {
    answers: Vec<A>,
    /// Raised when an answer has come.
    wake: Wake,
}

impl<A: Send + 'static> UnderWay<A> {
    pub(crate) fn new() -> Self {
        Self { inbox: Arc::new(Mutex::new(Inbox { answers: Vec::new(), wake: Wake::default() })), count: 0 }
    }

    /// How many requests there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Raises this signal, and no other, for answers that are not taken yet and for those to come.
    pub(crate) fn announce_to(&self, wake: &Wake) {
        let mut inbox = lock(&self.inbox);
        inbox.wake = wake.clone();
        if !inbox.answers.is_empty() {
            wake.raise();
        }
    }

    /// Lets a thread work on one more. `work` does not panic.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn send(&mut self, work: impl FnOnce() -> A + Send + 'static) -> std::io::Result<()> {
        let inbox = Arc::clone(&self.inbox);
        std::thread::Builder::new().name("request".into()).spawn(move || {
            let answer = work();
            let mut inbox = lock(&inbox);
            inbox.answers.push(answer);
            inbox.wake.raise();
        })?;
        self.count += 1;
        Ok(())
    }

    /// The answers that have come since.
    pub(crate) fn take(&mut self) -> Vec<A> {
        let answers = std::mem::take(&mut lock(&self.inbox).answers);
        self.count -= answers.len();
        answers
    }
}

/// The inbox is whole even if a thread panicked while it held it.
fn lock<A>(inbox: &Mutex<Inbox<A>>) -> MutexGuard<'_, Inbox<A>> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}
