//! Which servers of a fleet have the newest weights.

use std::sync::{Mutex, MutexGuard, PoisonError};

use zerosearch_http::{AttemptError, Endpoint, Fleet, HttpError};

/// The newest weights, and what is known of each server's.
pub(crate) struct Current<W> {
    newest: Mutex<Option<W>>,
    /// The weights of each server; `None` where they may be any. Locked while it loads.
    loaded: Vec<Mutex<Option<W>>>,
}

impl<W: Clone + PartialEq + Send + Sync> Current<W> {
    pub(crate) fn of(fleet: &Fleet) -> Self {
        Self { newest: Mutex::new(None), loaded: fleet.addresses().iter().map(|_| Mutex::new(None)).collect() }
    }

    /// The weights that servers are to have; `None` before the first refit, when they have their own.
    pub(crate) fn newest(&self) -> Option<W> {
        lock(&self.newest).clone()
    }

    /// Has all servers load these weights. Those that fail are made to load them before they are asked for anything else.
    ///
    /// # Errors
    /// When all fail; the newest weights are then what they were.
    pub(crate) fn refit(
        &self,
        fleet: &Fleet,
        weights: W,
        load: impl Fn(&Endpoint<'_>, &W) -> Result<(), AttemptError> + Sync,
    ) -> Result<(), HttpError> {
        let before = lock(&self.newest).replace(weights.clone());
        // Whatever comes of it, a server's weights are in doubt until it has said so.
        self.loaded.iter().for_each(|loaded| *lock(loaded) = None);
        let loads = fleet.each(|server| {
            let Some(mut loaded) = self.loaded.get(server.index()).map(lock) else { return Ok(()) };
            load(server, &weights)?;
            *loaded = Some(weights.clone());
            Ok(())
        });
        let count = loads.len();
        let failures: Vec<HttpError> = loads.into_iter().filter_map(Result::err).map(HttpError::from).collect();
        if failures.len() < count {
            failures.iter().for_each(|error| tracing::warn!("{error}; it is given the weights later"));
            return Ok(());
        }
        *lock(&self.newest) = before;
        Err(HttpError::of_all(failures))
    }

    /// Sees to it that a server has the newest weights, which it is made to load where that is in doubt.
    pub(crate) fn ensure(
        &self,
        server: &Endpoint<'_>,
        load: impl Fn(&Endpoint<'_>, &W) -> Result<(), AttemptError>,
    ) -> Result<(), AttemptError> {
        let (Some(newest), Some(loaded)) = (self.newest(), self.loaded.get(server.index())) else { return Ok(()) };
        let mut loaded = lock(loaded);
        if *loaded != Some(newest.clone()) {
            load(server, &newest)?;
            *loaded = Some(newest);
        }
        Ok(())
    }

    /// The server may be another one than before.
    pub(crate) fn doubt(&self, server: &Endpoint<'_>) {
        if let Some(loaded) = self.loaded.get(server.index()) {
            *lock(loaded) = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
