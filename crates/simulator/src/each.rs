//! Batches in which a request fails alone.

use zerosearch_generate::{Completer, Completion, CompletionRequest, GenerateError};

/// One result for each request, so that one that is refused (a prompt that is too long, say) costs none of the others: a batch
/// that fails is asked again in halves. Nothing changes for a request, since its completion does not depend on its batch.
///
/// An engine that fails and fails, without a success in between, is asked no more after a few attempts beyond those that it takes
/// to halve a batch down to one request.
pub(crate) fn complete_each(
    completer: &impl Completer,
    requests: &[CompletionRequest],
) -> Vec<Result<Completion, GenerateError>> {
    let patience = requests.len().checked_ilog2().unwrap_or(0) + 8;
    let mut asking = Asking { completer, patience, left: patience, failure: String::new(), results: Vec::new() };
    asking.ask(requests);
    asking.results
}

struct Asking<'c, C> {
    completer: &'c C,
    patience: u32,
    /// Failures in a row until no more is asked.
    left: u32,
    /// The error of the last one.
    failure: String,
    results: Vec<Result<Completion, GenerateError>>,
}

impl<C: Completer> Asking<'_, C> {
    fn ask(&mut self, requests: &[CompletionRequest]) {
        if requests.is_empty() {
            return;
        }
        if self.left == 0 {
            let given_up = |_| Err(GenerateError::Engine(self.failure.clone()));
            return self.results.extend(requests.iter().map(given_up));
        }
        let error = match self.completer.complete(requests) {
            Ok(completions) if completions.len() == requests.len() => {
                self.left = self.patience;
                return self.results.extend(completions.into_iter().map(Ok));
            }
            Ok(_) => GenerateError::Engine("an answer is missing".into()),
            Err(error) => error,
        };
        self.left -= 1;
        self.failure = error.to_string();
        if requests.len() == 1 {
            return self.results.push(Err(error));
        }
        let (first, second) = requests.split_at(requests.len() / 2);
        self.ask(first);
        self.ask(second);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use zerosearch_generate::Sampling;

    use super::*;

    /// Refuses batches with certain prompts, and counts how often it is asked.
    struct Refuses(fn(&str) -> bool, AtomicUsize);

    impl Completer for Refuses {
        fn complete(&self, requests: &[CompletionRequest]) -> Result<Vec<Completion>, GenerateError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            match requests.iter().any(|request| self.0(&request.prompt)) {
                true => Err(GenerateError::PromptTooLong { length: 9, context: 8 }),
                false => Ok(requests.iter().map(|r| Completion { text: r.prompt.clone(), tokens: 1 }).collect()),
            }
        }
    }

    fn ask(count: usize, refuses: fn(&str) -> bool) -> (Vec<Option<String>>, usize) {
        let request = |index: usize| CompletionRequest {
            prompt: index.to_string(),
            sampling: Sampling::greedy(),
            max_new_tokens: 1,
            seed: 0,
            stop: Vec::new(),
        };
        let completer = Refuses(refuses, AtomicUsize::new(0));
        let results = complete_each(&completer, &(0..count).map(request).collect::<Vec<_>>());
        (results.into_iter().map(|result| result.ok().map(|it| it.text)).collect(), completer.1.into_inner())
    }

    #[test]
    fn one_that_is_refused_costs_no_other() {
        for count in [1, 2, 7, 64] {
            let refuses: [fn(&str) -> bool; 3] = [|p| p == "0", |p| p == "5", |p| ["0", "1", "2", "6"].contains(&p)];
            for refuses in refuses {
                let expected: Vec<_> = (0..count).map(|i| i.to_string()).map(|p| (!refuses(&p)).then_some(p)).collect();
                assert_eq!(ask(count, refuses).0, expected);
            }
        }
        assert_eq!(ask(64, |_| false).1, 1);
        assert_eq!(ask(0, |_| false).0, []);
    }

    #[test]
    fn an_engine_that_is_down_is_asked_a_few_times() {
        let (results, asked) = ask(1000, |_| true);
        assert!(results.len() == 1000 && results.iter().all(Option::is_none));
        assert!(asked <= 17, "{asked}");
    }
}
