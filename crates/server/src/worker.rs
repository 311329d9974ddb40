//! The threads in which the engine works.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use zerosearch_generate::{Completer, Completion, CompletionRequest};
use zerosearch_search::{Document, Query, SearchEngine, SimulationContext};

use crate::queue::{Job, Reply, SearchJob};
use crate::routes::Shared;

/// Answers batches until the queue is closed and empty.
pub(crate) fn work(shared: &Shared) {
    let config = &shared.config;
    while let Some(jobs) = shared.queue.take(config.batch(), Duration::from_millis(config.linger_ms)) {
        let (mut searches, mut completions) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Search(search, reply) => searches.push((search, reply)),
                Job::Complete(request, reply) => completions.push((request, reply)),
            }
        }
        let count = searches.len() + completions.len();
        shared.metrics.begin(count);
        if !searches.is_empty() {
            thread::sleep(config.delay().saturating_mul(searches.len() as u32));
            let (searches, replies): (Vec<_>, Vec<_>) = searches.into_iter().unzip();
            answer(replies, search(shared.service.engine.as_ref(), &searches));
        }
        if let Some((_, model)) = &shared.service.model
            && !completions.is_empty()
        {
            let (requests, replies): (Vec<_>, Vec<_>) = completions.into_iter().unzip();
            answer(replies, complete(model.as_ref(), &requests));
        }
        shared.metrics.end(count);
    }
}

/// Whoever has gone away does not hear it.
fn answer<T>(replies: Vec<Reply<T>>, results: Vec<Result<T, String>>) {
    for (reply, result) in replies.into_iter().zip(results) {
        let _ = reply.send(result);
    }
}

fn search(engine: &dyn SearchEngine, jobs: &[SearchJob]) -> Vec<Result<Vec<Document>, String>> {
    let queries: Vec<Query<'_>> = jobs
        .iter()
        .map(|SearchJob { query, top_k, question, answers, quality, seed }| {
            let context = SimulationContext { question, answers, quality: *quality, seed: *seed };
            Query { text: query, top_k: *top_k, context: Some(context) }
        })
        .collect();
    let results = unharmed("engine", || engine.search_batch(&queries));
    let mut results = match results {
        Ok(results) => results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect(),
        Err(panic) => vec![Err(panic); jobs.len()],
    };
    results.resize_with(jobs.len(), || Err("the engine left this search out".into()));
    results
}

/// A batch fails as a whole; its requests are then asked one by one, so that one that is refused costs no other.
fn complete(model: &dyn Completer, requests: &[CompletionRequest]) -> Vec<Result<Completion, String>> {
    let together = |requests: &[CompletionRequest]| {
        unharmed("model", || model.complete(requests).map_err(|error| error.to_string())).flatten()
    };
    match together(requests) {
        Ok(completions) if completions.len() == requests.len() => completions.into_iter().map(Ok).collect(),
        Err(error) if requests.len() == 1 => vec![Err(error)],
        _ => {
            let alone = |request| together(std::slice::from_ref(request))?.pop().ok_or("no completion".to_string());
            requests.iter().map(alone).collect()
        }
    }
}

/// A panic ends the batch, not the server.
fn unharmed<T>(whose: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| format!("the {whose} panicked; the server's log has more"))
}
