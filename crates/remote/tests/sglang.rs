//! A generator over SGLang's protocol, against a server in this process.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fake::{impatient, server};
use proptest::prelude::*;
use serde_json::{Value, json};
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, Sampling, SequenceId, TokenId, Turn, Wake,
    WeightVersion, never,
};
use zerosearch_remote::{RetryPolicy, SglangGenerator};

/// An answer in SGLang's form: these tokens, each with a log-probability made from its id.
fn answer(tokens: &[TokenId], finish: Value) -> Value {
    let rows: Vec<Value> = tokens.iter().map(|id| json!([-(*id as f32) / 4.0, id, null])).collect();
    json!({"text": "", "output_ids": tokens, "meta_info": {"id": "x", "prompt_tokens": 1, "completion_tokens": tokens.len(), "finish_reason": finish, "output_token_logprobs": rows}})
}

/// A model that counts on from the last token, for as long as it may.
fn count_on(body: &Value) -> (u16, Value) {
    let last = body["input_ids"].as_array().unwrap().last().unwrap().as_u64().unwrap() as TokenId;
    let count = body["sampling_params"]["max_new_tokens"].as_u64().unwrap() as TokenId;
    let tokens: Vec<TokenId> = (last + 1..=last + count).collect();
    (200, answer(&tokens, json!({"type": "length", "length": count})))
}

fn turn(max_new_tokens: usize, stop_at: Option<TokenId>) -> Turn {
    let stop = stop_at.map_or_else(never, |stop| Box::new(move |id| id == stop));
    Turn { max_new_tokens, seed: 3, stop, deadline: None }
}

fn start(generator: &mut SglangGenerator, prompt: &[TokenId], turn: Turn) -> Result<SequenceId, GenerateError> {
    generator.start(Request { prompt, sampling: Sampling::default(), turn })
}

fn ids(finished: &Finished) -> Vec<TokenId> {
    finished.tokens.iter().map(|token| token.id).collect()
}

#[test]
fn tokens_and_logprobs_come_back_and_the_sequence_grows() {
    let (url, log) = server(|_, _, body| count_on(body));
    let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient());
    let id = start(&mut generator, &[5, 6], turn(2, None)).unwrap();
    let finished = generator.poll().unwrap();
    let tokens = vec![SampledToken::new(7, -1.75), SampledToken::new(8, -2.0)];
    assert_eq!(finished, [Finished { id, tokens, finish: Finish::Length }]);
    assert!(generator.poll().unwrap().is_empty());

    generator.extend(id, &[20], turn(1, None)).unwrap();
    assert_eq!(ids(&generator.poll().unwrap()[0]), [21]);
    let log = log.lock().unwrap();
    let parameters = json!({"max_new_tokens": 2, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0});
    assert_eq!(
        log[0],
        ("/generate".into(), json!({"input_ids": [5, 6], "sampling_params": parameters, "return_logprob": true}))
    );
    assert_eq!(log[1].1["input_ids"], json!([5, 6, 7, 8, 20]));
}

#[test]
fn the_stopping_token_is_kept_and_the_rest_never_was() {
    let (url, log) = server(|_, _, body| count_on(body));
    let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient());
    let id = start(&mut generator, &[1], turn(9, Some(4))).unwrap();
    let finished = generator.poll().unwrap();
    assert_eq!((ids(&finished[0]), finished[0].finish), (vec![2, 3, 4], Finish::Stop));
    generator.extend(id, &[], turn(1, None)).unwrap();
    generator.poll().unwrap();
    assert_eq!(log.lock().unwrap()[1].1["input_ids"], json!([1, 2, 3, 4]));
}

#[test]
fn why_a_turn_ended() {
    for (reason, expected) in [
        (json!({"type": "stop", "matched": 151645}), Finish::EndOfText),
        (json!({"type": "stop", "matched": "</search>"}), Finish::Stop),
        (json!({"type": "stop", "matched": null}), Finish::EndOfText),
        (json!({"type": "length", "length": 2}), Finish::Length),
        (json!("length"), Finish::Length),
    ] {
        let (url, log) = server(move |_, _, _| (200, answer(&[2, 3], reason.clone())));
        let mut generator =
            SglangGenerator::new(&url, 100).with_retry(impatient()).with_stop_strings(["</search>"]).with_seeds();
        start(&mut generator, &[1], turn(2, None)).unwrap();
        assert_eq!(generator.poll().unwrap()[0].finish, expected);
        let parameters = &log.lock().unwrap()[0].1["sampling_params"];
        assert_eq!((&parameters["stop"], &parameters["no_stop_trim"]), (&json!(["</search>"]), &json!(true)));
        assert_eq!(parameters["sampling_seed"], 3);
    }
}

#[test]
fn the_context_is_a_limit() {
    let (url, log) = server(|_, _, body| count_on(body));
    let mut generator = SglangGenerator::new(&url, 6).with_retry(impatient());
    assert!(matches!(start(&mut generator, &[], turn(1, None)), Err(GenerateError::EmptyPrompt)));
    assert!(matches!(
        start(&mut generator, &[1; 6], turn(1, None)),
        Err(GenerateError::PromptTooLong { length: 6, context: 6 })
    ));
    let id = start(&mut generator, &[1, 2], turn(50, None)).unwrap();
    let finished = generator.poll().unwrap();
    assert_eq!((ids(&finished[0]), finished[0].finish), (vec![3, 4, 5, 6], Finish::Context));
    // No room for one token: data, not an error, and nothing is sent.
    generator.extend(id, &[9, 9], turn(5, None)).unwrap();
    assert_eq!(generator.poll().unwrap(), [Finished { id, tokens: vec![], finish: Finish::Context }]);
    assert_eq!(log.lock().unwrap().len(), 1);
    let id = start(&mut generator, &[1], turn(0, None)).unwrap();
    assert_eq!(generator.poll().unwrap(), [Finished { id, tokens: vec![], finish: Finish::Length }]);
}

#[test]
fn only_waiting_sequences_are_extended() {
    let (url, _) = server(|_, _, body| count_on(body));
    let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient());
    let id = start(&mut generator, &[1], turn(1, None)).unwrap();
    assert!(matches!(generator.extend(id, &[2], turn(1, None)), Err(GenerateError::NotWaiting(0))));
    generator.poll().unwrap();
    generator.release(id);
    generator.release(id);
    assert!(matches!(generator.extend(id, &[2], turn(1, None)), Err(GenerateError::NotWaiting(0))));
    assert!(generator.poll().unwrap().is_empty());
}

#[test]
fn many_sequences_finish_in_the_order_of_their_ids() {
    let (url, _) = server(|number, _, body| {
        std::thread::sleep(Duration::from_millis(30 - 10 * (number as u64 % 4).min(3)));
        count_on(body)
    });
    let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient()).with_concurrency(4);
    let started: Vec<_> = (0..12).map(|first| start(&mut generator, &[first], turn(1, None)).unwrap()).collect();
    let finished = generator.poll().unwrap();
    assert_eq!(finished.iter().map(|finished| finished.id).collect::<Vec<_>>(), started);
    assert_eq!(finished.iter().flat_map(ids).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
}

#[test]
fn whoever_is_answered_goes_on_while_others_are_under_way() {
    let open = Arc::new(AtomicBool::new(false));
    let state = open.clone();
    let (url, log) = server(move |_, _, body| {
        while body["input_ids"][0] == 1 && !state.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        count_on(body)
    });
    let patient = RetryPolicy { timeout: Duration::from_secs(60), ..impatient() };
    let mut generator = SglangGenerator::new(&url, 100).with_retry(patient);
    let slow = start(&mut generator, &[1], turn(1, None)).unwrap();
    let quick = start(&mut generator, &[2], turn(1, None)).unwrap();
    let wake = Wake::default();
    let poll = |generator: &mut SglangGenerator| loop {
        wake.lower();
        let finished = generator.poll_until(&wake).unwrap();
        if !finished.is_empty() {
            return finished;
        }
    };
    for round in 0..3 {
        let finished = poll(&mut generator);
        assert_eq!(finished.iter().map(|finished| finished.id).collect::<Vec<_>>(), [quick], "round {round}");
        generator.extend(quick, &[7], turn(1, None)).unwrap();
    }
    // The signal alone ends a poll, and nothing is sent twice.
    poll(&mut generator);
    wake.raise();
    assert!(generator.poll_until(&wake).unwrap().is_empty());
    assert!(matches!(generator.extend(slow, &[7], turn(1, None)), Err(GenerateError::NotWaiting(0))));
    // A turn that was cancelled under way gets no answer, and neither does the next one get its.
    generator.cancel(slow);
    assert_eq!(generator.poll().unwrap(), [Finished { id: slow, tokens: vec![], finish: Finish::Cancelled }]);
    generator.extend(slow, &[50], turn(1, None)).unwrap();
    open.store(true, Ordering::SeqCst);
    assert_eq!(ids(&generator.poll().unwrap()[0]), [51]);
    assert_eq!(log.lock().unwrap().len(), 6);
}

#[test]
fn a_server_that_dies_half_way_is_an_error_and_nothing_is_lost() {
    let ill = Arc::new(AtomicBool::new(true));
    let state = ill.clone();
    let (url, _) = server(move |_, _, body| {
        let second = body["input_ids"][0] == 2;
        if second && state.load(Ordering::SeqCst) { (500, json!("CUDA error")) } else { count_on(body) }
    });
    let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient());
    let all: Vec<_> =
        [1, 2, 3].into_iter().map(|first| start(&mut generator, &[first], turn(1, None)).unwrap()).collect();
    let error = generator.poll().unwrap_err();
    let GenerateError::Remote { endpoint, message } = &error else { panic!("{error}") };
    assert_eq!(*endpoint, format!("{url}/generate"));
    assert!(message.contains("CUDA error") && message.contains("(2 attempts)"), "{message}");
    assert!(generator.extend(all[0], &[], turn(1, None)).is_err());

    ill.store(false, Ordering::SeqCst);
    let finished = generator.poll().unwrap();
    assert_eq!(finished.iter().map(|finished| finished.id).collect::<Vec<_>>(), all);
    assert_eq!(finished.iter().flat_map(ids).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn answers_that_cannot_be_trained_on_are_refused() {
    let no_logprob =
        json!({"meta_info": {"finish_reason": {"type": "length"}, "output_token_logprobs": [[null, 7, null]]}});
    let aborted = answer(&[2], json!({"type": "abort", "message": "out of memory"}));
    let mut unasked = answer(&[2], json!({"type": "stop", "matched": 2}));
    unasked["meta_info"]["output_token_logprobs"] = json!(null);
    let mut unended = answer(&[2], json!(null));
    unended["meta_info"]["output_token_logprobs"] = json!(null);
    for (body, expected) in [
        (unasked, "`output_token_logprobs` is missing"),
        (unended, "no finish reason"),
        (
            json!({"meta_info": {"finish_reason": {"type": "abort", "message": null}}}),
            "ended with `abort`: no reason given",
        ),
        (json!({"error": {"message": "input is too long"}}), "the server reports an error: input is too long"),
        (json!({"meta_info": null}), "unexpected answer"),
        (json!([]), "unexpected answer"),
        (no_logprob, "token 7 has no finite log-probability"),
        (aborted, "out of memory"),
        (json!({"text": "x"}), "meta_info"),
    ] {
        let (url, _) = server(move |_, _, _| (200, body.clone()));
        let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient());
        start(&mut generator, &[1], turn(1, None)).unwrap();
        let error = generator.poll().unwrap_err().to_string();
        assert!(error.starts_with(&url) && error.contains(expected), "{error}");
    }
}

#[test]
fn addresses_of_other_endpoints_mean_the_server() {
    for base in ["", "/", "/v1", "/v1/", "/generate", "/proxy/7/v1"] {
        let (url, log) = server(|_, _, body| count_on(body));
        let mut generator = SglangGenerator::new(&format!("{url}{base}"), 100).with_retry(impatient());
        start(&mut generator, &[1], turn(1, None)).unwrap();
        generator.poll().unwrap();
        let expected = if base.starts_with("/proxy") { "/proxy/7/generate" } else { "/generate" };
        assert_eq!(log.lock().unwrap()[0].0, expected, "{base}");
    }
}

#[test]
fn refit_pauses_loads_and_continues() {
    let (url, log) = server(|_, path, _| match path {
        "/update_weights_from_disk" => (200, json!({"success": true, "message": "ok"})),
        _ => (200, json!({"status": "ok"})),
    });
    let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient());
    generator.refit("/weights/7", WeightVersion(7)).unwrap();
    assert_eq!(generator.weight_version(), WeightVersion(7));
    let log = log.lock().unwrap();
    let paths: Vec<&str> = log.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/pause_generation", "/update_weights_from_disk", "/continue_generation"]);
    assert_eq!(log[1].1, json!({"model_path": "/weights/7", "flush_cache": true, "weight_version": "/weights/7"}));
}

#[test]
fn a_failed_refit_keeps_the_version_and_never_leaves_the_server_paused() {
    for (status, body) in
        [(200, json!({"success": false, "message": "shape mismatch"})), (400, json!({"message": "shape mismatch"}))]
    {
        let (url, log) =
            server(
                move |_, path, _| {
                    if path == "/update_weights_from_disk" { (status, body.clone()) } else { (200, json!({})) }
                },
            );
        let mut generator = SglangGenerator::new(&url, 100).with_retry(impatient());
        let error = generator.refit("/weights/7", WeightVersion(7)).unwrap_err().to_string();
        assert!(error.contains("update_weights_from_disk") && error.contains("shape mismatch"), "{error}");
        assert_eq!(generator.weight_version(), WeightVersion(0));
        assert_eq!(log.lock().unwrap().last().unwrap().0, "/continue_generation");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Every request holds the prompt, the kept tokens and the observations, in order, and nothing else.
    #[test]
    fn the_server_sees_the_concatenation_of_what_was_kept(
        prompt in prop::collection::vec(0_u32..50, 1..5),
        turns in prop::collection::vec((prop::collection::vec(0_u32..50, 0..4), 1_usize..6, prop::option::of(0_u32..60)), 1..4),
    ) {
        let (url, log) = server(|_, _, body| count_on(body));
        let mut generator = SglangGenerator::new(&url, 1000).with_retry(impatient());
        let mut expected = prompt.clone();
        let id = start(&mut generator, &prompt, turn(1, None)).unwrap();
        for (observation, length, stop) in turns {
            expected.extend(ids(&generator.poll().unwrap()[0]));
            expected.extend(&observation);
            generator.extend(id, &observation, turn(length, stop)).unwrap();
            let finished = generator.poll().unwrap();
            let sent = log.lock().unwrap().last().unwrap().1["input_ids"].clone();
            prop_assert_eq!(sent, json!(expected));
            prop_assert!(finished[0].tokens.len() <= length);
            if let Some(stop) = stop {
                prop_assert!(!ids(&finished[0]).iter().rev().skip(1).any(|token| *token == stop));
            }
            expected.extend(ids(&finished[0]));
            generator.extend(id, &[], turn(1, None)).unwrap();
        }
    }
}
