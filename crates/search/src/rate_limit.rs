//! A limit on the rate of calls of an engine.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::engine::forward_to_the_engine_inside;
use crate::{Document, Query, SearchEngine, SearchError};

/// An engine with a limit of calls in any second; earlier calls wait, first come, first served.
///
/// Each query of a batch counts. A batch is handed on in parts, as large as the rate allows, and a part does not wait for the
/// answers of the one before.
///
/// ```
/// use zerosearch_search::{Bm25Index, Document, Query, RateLimited, SearchEngine};
///
/// let engine = Bm25Index::new([Document { contents: "a fox".into(), ..Default::default() }])?;
/// let engine = RateLimited::new(engine, 100.0)?;
/// let query = Query { text: "fox", top_k: 1, context: None };
/// assert!(engine.search_batch(&[query; 3]).iter().all(Result::is_ok));
/// # Ok::<(), zerosearch_search::SearchError>(())
/// ```
#[derive(Debug)]
pub struct RateLimited<E> {
    engine: E,
    window: Mutex<Window>,
}

impl<E> RateLimited<E> {
    /// Asks `engine` at most `per_second` times in any second; less than one is fine, 0.2 is once in five seconds.
    ///
    /// # Errors
    /// [`SearchError::Setting`] unless the rate is positive and finite.
    pub fn new(engine: E, per_second: f64) -> Result<Self, SearchError> {
        let window = Window::new(per_second).ok_or_else(|| SearchError::Setting {
            name: "rate_limit",
            value: per_second.to_string(),
            expected: "calls per second, from 0.00001 to 1000000",
        })?;
        Ok(Self { engine, window: Mutex::new(window) })
    }

    /// Waits for a place for up to `wanted` calls at once, and says for how many there is one.
    fn wait(&self, wanted: usize) -> usize {
        let (places, at) = self.window.lock().unwrap_or_else(PoisonError::into_inner).reserve(wanted, Instant::now());
        thread::sleep(at.saturating_duration_since(Instant::now()));
        places
    }
}

/// The times of the last calls, those included that are still to come.
#[derive(Debug)]
struct Window {
    calls: VecDeque<Instant>,
    /// At most `most` calls within `length`.
    most: usize,
    length: Duration,
}

impl Window {
    fn new(per_second: f64) -> Option<Self> {
        (1e-5..=1e6).contains(&per_second).then(|| {
            let most = per_second.floor().max(1.0);
            Self { calls: VecDeque::new(), most: most as usize, length: Duration::from_secs_f64(most / per_second) }
        })
    }

    /// Takes the earliest places, at least one and at most `wanted`, that have the same time.
    fn reserve(&mut self, wanted: usize, now: Instant) -> (usize, Instant) {
        let at = self.next(now);
        let mut places = 0;
        while places < wanted.max(1) && self.next(now) == at {
            if self.calls.len() == self.most {
                self.calls.pop_front();
            }
            self.calls.push_back(at);
            places += 1;
        }
        (places, at)
    }

    /// The earliest time of one more call.
    fn next(&self, now: Instant) -> Instant {
        let last = self.calls.back().map_or(now, |last| now.max(*last));
        if self.calls.len() < self.most {
            return last;
        }
        self.calls.front().map_or(last, |first| last.max(*first + self.length))
    }
}

impl<E: SearchEngine> SearchEngine for RateLimited<E> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        self.wait(1);
        self.engine.search(query)
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let mut left = queries;
        thread::scope(|scope| {
            let mut parts: Vec<Part<'_>> = Vec::new();
            while !left.is_empty() {
                let (part, rest) = left.split_at(self.wait(left.len()));
                left = rest;
                let ask = move || self.engine.search_batch(part);
                // The last part needs no thread, and where there is none to be had a part is asked here.
                let asked = if left.is_empty() { None } else { thread::Builder::new().spawn_scoped(scope, ask).ok() };
                parts.push(asked.map_or_else(|| Part::Answered(ask()), Part::Asked));
            }
            parts.into_iter().flat_map(Part::answers).collect()
        })
    }

    forward_to_the_engine_inside!();
}

type Answers = Vec<Result<Vec<Document>, SearchError>>;

/// A part of a batch.
enum Part<'scope> {
    Answered(Answers),
    Asked(ScopedJoinHandle<'scope, Answers>),
}

impl Part<'_> {
    fn answers(self) -> Answers {
        match self {
            Self::Answered(answers) => answers,
            Self::Asked(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_window_has_more_calls_than_the_rate_and_nobody_overtakes(
            rate in prop_oneof![0.2..3.0_f64, 3.0..50.0_f64],
            asked in prop::collection::vec((0_u64..400, 1_usize..20), 1..60),
        ) {
            let mut window = Window::new(rate).unwrap();
            let (most, length) = (window.most, window.length);
            prop_assert!((most as f64 / length.as_secs_f64() - rate).abs() < 1e-6 * rate);
            let began = Instant::now();
            let (mut now, mut calls) = (began, Vec::new());
            for (pause, wanted) in asked {
                now += Duration::from_millis(pause);
                let (places, at) = window.reserve(wanted, now);
                prop_assert!((1..=wanted.min(most)).contains(&places) && at >= now);
                // As early as it may be.
                let crowded = calls.len() >= most && at == calls[calls.len() - most] + length;
                prop_assert!(at == now || crowded || calls.last() == Some(&at));
                calls.extend(std::iter::repeat_n(at, places));
            }
            prop_assert!(calls.is_sorted());
            prop_assert!(calls.windows(most + 1).all(|calls| calls[most] - calls[0] >= length));
        }
    }

    #[test]
    fn a_batch_is_answered_in_its_order_and_other_rates_are_refused() {
        struct Echo;

        impl SearchEngine for Echo {
            fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
                Ok(vec![Document { contents: query.text.into(), ..Document::default() }])
            }
        }
        let texts: Vec<String> = (0..2500).map(|n| n.to_string()).collect();
        let queries: Vec<_> = texts.iter().map(|text| Query { text, top_k: 1, context: None }).collect();
        // Parts of a thousand, of which the later ones wait a fiftieth of a second.
        let engine = RateLimited::new(Echo, 50_000.0).unwrap();
        engine.window.lock().unwrap().most = 1000;
        engine.window.lock().unwrap().length = Duration::from_millis(20);
        let found: Vec<_> =
            engine.search_batch(&queries).into_iter().map(|found| found.unwrap()[0].contents.clone()).collect();
        assert_eq!(found, texts);
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = RateLimited::new(Echo, rate).err().unwrap().to_string();
            assert!(error.contains("rate_limit") && error.contains("per second"), "{error}");
        }
    }
}
