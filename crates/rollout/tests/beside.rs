//! Searches are answered beside decoding: no rollout waits for another's search.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use support::*;
use zerosearch_generate::{GenerateError, stream_seed};
use zerosearch_rollout::{
    Noise, Rollout, RolloutConfig, RolloutEnd, RolloutError, RolloutPlan, Tool, ToolCall, ToolOutput,
};
use zerosearch_search::SearchError;

/// Longer than any machine needs, so that a test that would wait for ever fails instead.
const LONG: Duration = Duration::from_secs(60);

/// An engine that answers, fails, finds nothing or panics, by the seed of the query, and takes any time for it.
fn hesitant(order: u64) -> Engine<'static> {
    let asked = AtomicUsize::new(0);
    Engine::new(move |query| {
        let seed = query.context.map_or(0, |context| context.seed);
        let arrival = asked.fetch_add(1, Ordering::SeqCst) as u64;
        if order > 0 {
            std::thread::sleep(Duration::from_micros(stream_seed(&[order, arrival]) % 1500));
        }
        match seed % 7 {
            0 => Err(SearchError::Index("moody".into())),
            1 => Ok(Vec::new()),
            2 => panic!("no documents for {seed}"),
            _ => Ok((0..query.top_k).map(|n| document(&format!("{} {n} {seed}", query.text))).collect()),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn neither_the_time_of_an_answer_nor_the_threads_change_a_rollout(
        order in 1..u64::MAX, schedule in any::<u64>(), threads in 0_usize..6, own_threads in 1_usize..6,
        search_batch in 0_usize..4, concurrency in 0_usize..5,
    ) {
        let codec = codec();
        let policy = |tokens: &[u32], turn: usize, seed: u64| {
            let pick = stream_seed(&[seed, tokens.len() as u64]) % 4;
            codec.encode(match (pick, turn) {
                (0, _) => "no tag at all",
                (1, 2..) => "<answer>gold 1</answer>",
                _ => "<search>about question</search>",
            })
        };
        let play = |engine: &Engine<'_>, config: RolloutConfig, schedule: u64| {
            let mut generator = Scripted { schedule, ..Scripted::new(&codec, policy) };
            let rollouts = run(&codec, &mut generator, engine, config, tasks(&codec, 4, 3)).unwrap();
            assert_eq!(generator.live.len(), 0);
            // All but the weights' version, which here counts the polls.
            rollouts.into_iter().map(|rollout| (rollout.trajectory.tokens(), rollout.trajectory.logprobs(), rollout.turns, rollout.end)).collect::<Vec<_>>()
        };
        let plain = RolloutConfig { search_batch: usize::MAX, ..RolloutConfig::default() };
        let expected = play(&hesitant(0), plain, 0);
        let config = RolloutConfig { search_batch, search_concurrency: threads, concurrency, ..RolloutConfig::default() };
        let engine = Engine { threads: own_threads, ..hesitant(order) };
        prop_assert_eq!(play(&engine, config, schedule), expected);
    }
}

#[test]
fn others_decode_while_one_searches() {
    let codec = codec();
    for schedule in 1..7 {
        let sampled = Arc::new((Mutex::new(0), Condvar::new()));
        let (writes, reads) = (sampled.clone(), sampled.clone());
        let policy = |_: &[u32], turn: usize, _: u64| {
            *writes.0.lock().unwrap() += usize::from(turn == 0);
            writes.1.notify_all();
            codec.encode(if turn == 0 { "<search>x</search>" } else { "<answer>y</answer>" })
        };
        // Nobody is answered before everybody has searched.
        let engine = Engine::new(move |_| {
            let guard = reads.0.lock().unwrap();
            let (guard, _) = reads.1.wait_timeout_while(guard, LONG, |sampled| *sampled < 5).unwrap();
            match *guard {
                5 => Ok(Vec::new()),
                _ => Err(SearchError::Index("the others waited".into())),
            }
        });
        let mut generator = Scripted { schedule, ..Scripted::new(&codec, policy) };
        let rollouts = run(&codec, &mut generator, &engine, RolloutConfig::default(), tasks(&codec, 5, 1)).unwrap();
        assert!(rollouts.iter().all(|rollout| rollout.search_failures() == 0 && rollout.end == RolloutEnd::Answered));
    }
}

#[test]
fn a_sequence_goes_on_while_others_wait_for_their_documents() {
    let codec = codec();
    let ended = Arc::new((Mutex::new(false), Condvar::new()));
    let (writes, reads) = (ended.clone(), ended.clone());
    let policy = |tokens: &[u32], turn: usize, _: u64| {
        let text = codec.decode(tokens);
        let turns = ["<search>quick</search>", "<answer>y</answer>"];
        if turn == 1 && text.contains("question 0?") {
            *writes.0.lock().unwrap() = true;
            writes.1.notify_all();
        }
        codec.encode(if turn == 0 && !text.contains("question 0?") { "<search>slow</search>" } else { turns[turn] })
    };
    // The slow ones are answered after the quick one's rollout has ended.
    let engine = Engine::new(move |query| {
        let guard = reads.0.lock().unwrap();
        if query.text == "quick" {
            return Ok(Vec::new());
        }
        match *reads.1.wait_timeout_while(guard, LONG, |ended| !*ended).unwrap().0 {
            true => Ok(Vec::new()),
            false => Err(SearchError::Index("the quick one waited for the slow ones".into())),
        }
    });
    let engine = Engine { threads: 4, ..engine };
    let rollouts =
        run(&codec, &mut Scripted::new(&codec, policy), &engine, RolloutConfig::default(), tasks(&codec, 4, 1))
            .unwrap();
    assert!(rollouts.iter().all(|rollout| rollout.search_failures() == 0 && rollout.end == RolloutEnd::Answered));
}

/// Counts its callers, and panics where it is told to.
#[derive(Default)]
struct Crowd {
    threads: usize,
    here: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicUsize,
    pause: Duration,
}

impl Tool for Crowd {
    fn tag(&self) -> &str {
        "crowd"
    }

    fn call_batch(&self, calls: &[ToolCall<'_>]) -> Vec<ToolOutput> {
        self.calls.fetch_add(calls.len(), Ordering::SeqCst);
        self.most.fetch_max(self.here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        self.here.fetch_sub(1, Ordering::SeqCst);
        assert!(calls.iter().all(|call| call.task.question_index != 2), "question 2 is too much");
        calls.iter().map(|call| ToolOutput::new(call.task.question.clone())).collect()
    }

    fn concurrency(&self) -> usize {
        self.threads
    }
}

fn with_crowd(
    crowd: &Arc<Crowd>,
    config: RolloutConfig,
    questions: u64,
    fail_at_poll: Option<u64>,
) -> Result<Vec<Rollout>, RolloutError> {
    let codec = codec();
    let engine = Engine::echo();
    let mut plan = RolloutPlan::search(&engine, Noise::Off, &codec, config);
    plan.tools.push(crowd.clone() as Arc<dyn Tool>);
    let script = ["<crowd>x</crowd>", "<answer>y</answer>"];
    let mut generator = Scripted { fail_at_poll, ..Scripted::writing(&codec, &script) };
    let rollouts = plan.run(&mut generator, tasks(&codec, questions, 1), &mut |_| {});
    assert_eq!(generator.live.len(), 0);
    rollouts
}

#[test]
fn a_panic_is_the_failure_of_its_call_alone() {
    for threads in [1, 3] {
        let crowd = Arc::new(Crowd { threads, ..Crowd::default() });
        for (index, rollout) in with_crowd(&crowd, RolloutConfig::default(), 5, None).unwrap().iter().enumerate() {
            assert_eq!(rollout.end, RolloutEnd::Answered);
            let expected = (index == 2).then_some("the tool crowd panicked: question 2 is too much");
            assert_eq!(rollout.calls().next().unwrap().failure.as_deref(), expected);
        }
    }
}

#[test]
fn as_many_calls_are_under_way_as_the_tool_or_the_configuration_says() {
    for (threads, search_concurrency, most) in [(1, 0, 1), (3, 0, 3), (1, 4, 4), (8, 2, 2), (8, 1, 1)] {
        let crowd = Arc::new(Crowd { threads, pause: Duration::from_millis(20), ..Crowd::default() });
        let config = RolloutConfig { search_concurrency, ..RolloutConfig::default() };
        with_crowd(&crowd, config, 24, None).unwrap();
        let seen = crowd.most.load(Ordering::SeqCst);
        assert!(seen <= most && (seen > 1 || most == 1), "{threads} {search_concurrency}: {seen}");
    }
}

#[test]
fn no_call_is_begun_after_the_run_has_failed() {
    let crowd = Arc::new(Crowd { threads: 2, pause: Duration::from_millis(20), ..Crowd::default() });
    let error = with_crowd(&crowd, RolloutConfig::default(), 200, Some(2)).unwrap_err();
    assert!(matches!(error, RolloutError::Generate(GenerateError::Engine(_))), "{error:?}");
    assert!(crowd.calls.load(Ordering::SeqCst) < 200);
}
