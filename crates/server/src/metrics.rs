//! Counts and times, in Prometheus's text form.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use zerosearch_search::Quality;

/// Upper bounds of the histogram, in seconds.
const BOUNDS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0];

/// All that has been counted since the start.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    times: Mutex<BTreeMap<&'static str, Histogram>>,
    useful: AtomicU64,
    noisy: AtomicU64,
    documents: AtomicU64,
    failures: AtomicU64,
    completions: AtomicU64,
    completion_failures: AtomicU64,
    tokens: AtomicU64,
    batches: AtomicU64,
    under_way: AtomicU64,
}

#[derive(Clone, Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    pub(crate) fn request(&self, route: &'static str, status: u16, time: Duration) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((route, status)).or_default() += 1;
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = times.entry(route).or_default();
        let seconds = time.as_secs_f64();
        histogram.count += 1;
        histogram.seconds += seconds;
        BOUNDS.iter().zip(&mut histogram.buckets).filter(|(bound, _)| seconds <= **bound).for_each(|(_, n)| *n += 1);
    }

    pub(crate) fn search(&self, quality: Quality) {
        match quality {
            Quality::Useful => &self.useful,
            Quality::Noisy => &self.noisy,
        }
        .fetch_add(1, Relaxed);
    }

    /// The outcome of a search: documents, or none for a failure.
    pub(crate) fn searched(&self, documents: Option<usize>) {
        match documents {
            Some(documents) => self.documents.fetch_add(documents as u64, Relaxed),
            None => self.failures.fetch_add(1, Relaxed),
        };
    }

    /// The outcome of a completion: tokens, or none for a failure.
    pub(crate) fn completed(&self, tokens: Option<usize>) {
        self.completions.fetch_add(1, Relaxed);
        match tokens {
            Some(tokens) => self.tokens.fetch_add(tokens as u64, Relaxed),
            None => self.completion_failures.fetch_add(1, Relaxed),
        };
    }

    pub(crate) fn begin(&self, batch: usize) {
        self.batches.fetch_add(1, Relaxed);
        self.under_way.fetch_add(batch as u64, Relaxed);
    }

    pub(crate) fn end(&self, batch: usize) {
        self.under_way.fetch_sub(batch as u64, Relaxed);
    }

    /// The text of `GET /metrics`.
    pub(crate) fn text(&self, queue_length: usize, noise_probability: f64) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &[(String, f64)]| {
            // A `String` takes whatever is written to it.
            let _ = writeln!(text, "# HELP zerosearch_{name} {help}\n# TYPE zerosearch_{name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(text, "zerosearch_{name}{labels} {value}");
            }
        };
        let one = |value: f64| [(String::new(), value)];
        let of = |value: &AtomicU64| one(value.load(Relaxed) as f64);
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests: Vec<_> = requests
            .iter()
            .map(|((route, status), count)| (format!("{{route=\"{route}\",status=\"{status}\"}}"), *count as f64))
            .collect();
        family("requests_total", "counter", "Requests by route and status.", &requests);
        let searches = [("useful", &self.useful), ("noisy", &self.noisy)]
            .map(|(quality, count)| (format!("{{quality=\"{quality}\"}}"), count.load(Relaxed) as f64));
        family("searches_total", "counter", "Searches taken on, by the quality drawn for them.", &searches);
        family("documents_total", "counter", "Documents found or written.", &of(&self.documents));
        family("search_failures_total", "counter", "Searches that the engine could not answer.", &of(&self.failures));
        family("completions_total", "counter", "Texts completed for clients of OpenAI's API.", &of(&self.completions));
        let failures = of(&self.completion_failures);
        family("completion_failures_total", "counter", "Texts that the model could not complete.", &failures);
        family("completion_tokens_total", "counter", "Tokens of completed texts.", &of(&self.tokens));
        family("batches_total", "counter", "Batches given to the engine or its model.", &of(&self.batches));
        family("under_way", "gauge", "Searches and completions in batches now.", &of(&self.under_way));
        family("queue_length", "gauge", "Searches and completions that wait.", &one(queue_length as f64));
        family("noise_probability", "gauge", "The curriculum's probability of noise now.", &one(noise_probability));
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = "request_seconds";
        let _ = writeln!(
            text,
            "# HELP zerosearch_{name} Time from a request to its answer.\n# TYPE zerosearch_{name} histogram"
        );
        for (route, Histogram { buckets, count, seconds }) in &times {
            for (bound, below) in BOUNDS.iter().zip(buckets) {
                let _ = writeln!(text, "zerosearch_{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(text, "zerosearch_{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "zerosearch_{name}_sum{{route=\"{route}\"}} {seconds}");
            let _ = writeln!(text, "zerosearch_{name}_count{{route=\"{route}\"}} {count}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_below_them() {
        let metrics = Metrics::default();
        for milliseconds in [3, 7, 200_000] {
            metrics.request("/retrieve", 200, Duration::from_millis(milliseconds));
        }
        let text = metrics.text(4, 0.25);
        for line in [
            "zerosearch_requests_total{route=\"/retrieve\",status=\"200\"} 3",
            "zerosearch_request_seconds_bucket{route=\"/retrieve\",le=\"0.001\"} 0",
            "zerosearch_request_seconds_bucket{route=\"/retrieve\",le=\"0.005\"} 1",
            "zerosearch_request_seconds_bucket{route=\"/retrieve\",le=\"100\"} 2",
            "zerosearch_request_seconds_bucket{route=\"/retrieve\",le=\"+Inf\"} 3",
            "zerosearch_request_seconds_count{route=\"/retrieve\"} 3",
            "zerosearch_queue_length 4",
            "zerosearch_noise_probability 0.25",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
