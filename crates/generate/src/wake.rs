//! A signal between threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Tells a thread that decodes or waits that something has happened elsewhere. Clones are one signal.
///
/// It stays raised until it is lowered. Who lowers it looks afterwards for what has happened, so that nothing is missed.
///
/// ```
/// use zerosearch_generate::Wake;
///
/// let wake = Wake::default();
/// let other = wake.clone();
/// let thread = std::thread::spawn(move || other.raise());
/// wake.wait();
/// assert!(wake.is_raised());
/// wake.lower();
/// assert!(!wake.is_raised());
/// # thread.join().unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<(Mutex<bool>, Condvar)>);

impl Wake {
    /// Wakes the waiting thread.
    pub fn raise(&self) {
        *self.raised() = true;
        self.0.1.notify_all();
    }

    /// Makes the signal ready for the next event.
    pub fn lower(&self) {
        *self.raised() = false;
    }

    /// Whether it was raised and has not been lowered since.
    pub fn is_raised(&self) -> bool {
        *self.raised()
    }

    /// Blocks until it is raised; at once if it is already.
    pub fn wait(&self) {
        let mut raised = self.raised();
        while !*raised {
            raised = self.0.1.wait(raised).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn raised(&self) -> MutexGuard<'_, bool> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
