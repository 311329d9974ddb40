//! Destinations of a step's figures.

use crate::{Metrics, MetricsError};

/// Somewhere to put the figures of a step.
pub trait Sink: Send {
    /// Records the figures of one step.
    ///
    /// # Errors
    /// When they cannot be written; the message names the file.
    fn log(&mut self, step: u64, metrics: &Metrics) -> Result<(), MetricsError>;

    /// Makes everything logged so far survive a power failure.
    ///
    /// # Errors
    /// When the file cannot be synced.
    fn flush(&mut self) -> Result<(), MetricsError>;
}

/// Several sinks as one.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Entry>,
}

struct Entry {
    sink: Box<dyn Sink>,
    /// The last step that it has recorded.
    last: Option<u64>,
}

impl Sinks {
    /// No sinks yet: figures go nowhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, sink: impl Sink + 'static) {
        self.sinks.push(Entry { sink: Box::new(sink), last: None });
    }
}

impl Sink for Sinks {
    /// Every sink is tried, also after one has failed; the first error is returned. Logged again, the step goes to those that
    /// have failed alone.
    fn log(&mut self, step: u64, metrics: &Metrics) -> Result<(), MetricsError> {
        let missing = self.sinks.iter_mut().filter(|entry| entry.last != Some(step));
        let log = |entry: &mut Entry| {
            entry.sink.log(step, metrics)?;
            entry.last = Some(step);
            Ok(())
        };
        missing.map(log).fold(Ok(()), Result::and)
    }

    fn flush(&mut self) -> Result<(), MetricsError> {
        self.sinks.iter_mut().map(|entry| entry.sink.flush()).fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Recorder {
        seen: Arc<Mutex<Vec<u64>>>,
        fails: bool,
    }

    impl Sink for Recorder {
        fn log(&mut self, step: u64, _: &Metrics) -> Result<(), MetricsError> {
            self.seen.lock().unwrap().push(step);
            if self.fails { Err(MetricsError::ReservedName { name: format!("from {step}") }) } else { Ok(()) }
        }

        fn flush(&mut self) -> Result<(), MetricsError> {
            Ok(())
        }
    }

    #[test]
    fn one_failing_sink_does_not_starve_the_others() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut sinks = Sinks::new();
        sinks.push(Recorder { seen: seen.clone(), fails: true });
        sinks.push(Recorder { seen: seen.clone(), fails: false });
        assert!(sinks.log(7, &Metrics::new()).unwrap_err().to_string().contains("from 7"));
        assert_eq!(*seen.lock().unwrap(), [7, 7]);
        // Once more for the one that failed, and for no other.
        assert!(sinks.log(7, &Metrics::new()).is_err());
        assert_eq!(*seen.lock().unwrap(), [7, 7, 7]);
    }
}
