//! A run as a whole: schedule, errors, progress, records.

mod support;

use std::cell::RefCell;

use support::*;
use zerosearch_curriculum::{Curriculum, Progress};
use zerosearch_generate::{Finished, GenerateError, Generator, Request, SampledToken, SequenceId, Turn, WeightVersion};
use zerosearch_grammar::Action;
use zerosearch_rollout::{
    Noise, Rollout, RolloutConfig, RolloutEnd, RolloutError, RolloutPlan, RolloutProgress, RolloutStats, Task,
    TurnRecord,
};
use zerosearch_search::SearchError;
use zerosearch_trajectory::{Finish, Segment, Trajectory};

fn config(max_turns: usize) -> RolloutConfig {
    RolloutConfig { max_turns, ..RolloutConfig::default() }
}

#[test]
fn searches_that_wait_for_all_go_out_in_one_batch_in_the_order_of_the_tasks() {
    let codec = codec();
    let engine = Engine::echo();
    let mut generator = Scripted {
        schedule: 5,
        ..Scripted::writing(&codec, &["<search>a</search>", "<search>b</search>", "<answer>y</answer>"])
    };
    let config = RolloutConfig { search_batch: usize::MAX, ..config(5) };
    run(&codec, &mut generator, &engine, config, tasks(&codec, 6, 1)).unwrap();
    assert_eq!(*engine.batches.lock().unwrap(), [6, 6], "turns that ended wait for the others");
    let questions: Vec<String> = engine.asked().into_iter().map(|asked| asked.context.unwrap().0).collect();
    assert_eq!(questions[..6], std::array::from_fn::<_, 6, _>(|n| format!("question {n}")));
}

#[test]
fn a_smaller_batch_does_not_wait_for_the_slowest() {
    let codec = codec();
    let engine = Engine::echo();
    let mut generator =
        Scripted { schedule: 5, ..Scripted::writing(&codec, &["<search>a</search>", "<answer>y</answer>"]) };
    run(&codec, &mut generator, &engine, RolloutConfig { search_batch: 2, ..config(5) }, tasks(&codec, 12, 1)).unwrap();
    let batches = engine.batches.lock().unwrap();
    assert_eq!(batches.iter().sum::<usize>(), 12);
    assert!(batches.len() > 1 && batches.iter().rev().skip(1).all(|&size| size >= 2), "{batches:?}");
}

#[test]
fn without_noise_an_engine_is_told_the_query_alone() {
    let codec = codec();
    let engine = Engine::echo();
    let plan = RolloutPlan::search(&engine, Noise::Off, &codec, config(2));
    let mut generator = Scripted::writing(&codec, &["<search>x</search>", "<answer>y</answer>"]);
    let rollouts = plan.run(&mut generator, tasks(&codec, 2, 1), &mut |_| {}).unwrap();
    assert!(engine.asked().iter().all(|asked| asked.context.is_none()));
    assert!(
        rollouts.iter().all(|rollout| rollout.calls().all(|call| call.quality.is_none()) && rollout.searches() == 1)
    );
}

#[test]
fn the_curriculum_is_told_the_turn() {
    struct ByTurn;
    impl Curriculum for ByTurn {
        fn noise_probability(&self, progress: Progress) -> f64 {
            assert_eq!((progress.step, progress.total), (4, 9));
            f64::from(progress.turn % 2)
        }
    }
    let codec = codec();
    let engine = Engine::echo();
    let noise = Noise::Curriculum { curriculum: &ByTurn, progress: Progress::at(4, 9) };
    let plan = RolloutPlan { step: 4, ..RolloutPlan::search(&engine, noise, &codec, config(5)) };
    let mut generator = Scripted::writing(&codec, &["<search>x</search>"]);
    let rollouts = plan.run(&mut generator, tasks(&codec, 3, 1), &mut |_| {}).unwrap();
    use zerosearch_search::Quality::{Noisy, Useful};
    for rollout in rollouts {
        let drawn: Vec<_> = rollout.turns.iter().map(|turn| turn.call.as_ref().and_then(|call| call.quality)).collect();
        assert_eq!(drawn, [Some(Useful), Some(Noisy), Some(Useful), Some(Noisy), None]);
    }
}

#[test]
fn seed_and_step_name_the_draws() {
    let codec = codec();
    let seeds = |seed, step| {
        let engine = Engine::echo();
        let plan = RolloutPlan { seed, step, ..RolloutPlan::search(&engine, HALF, &codec, config(2)) };
        let mut generator = Scripted::writing(&codec, &["<search>x</search>"]);
        plan.run(&mut generator, tasks(&codec, 1, 1), &mut |_| {}).unwrap();
        (generator.seeds, engine.asked())
    };
    assert_eq!(seeds(1, 2), seeds(1, 2));
    assert_ne!(seeds(1, 2), seeds(1, 3));
    assert_ne!(seeds(1, 2), seeds(2, 2));
}

#[test]
fn progress_ends_at_the_total() {
    let codec = codec();
    let mut generator =
        Scripted { schedule: 3, ..Scripted::writing(&codec, &["<search>x</search>", "<answer>y</answer>"]) };
    let seen = RefCell::new(Vec::new());
    let engine = Engine::echo();
    let plan = RolloutPlan::search(&engine, HALF, &codec, config(2));
    let rollouts =
        plan.run(&mut generator, tasks(&codec, 4, 1), &mut |progress| seen.borrow_mut().push(progress)).unwrap();
    let seen = seen.into_inner();
    assert_eq!(seen[0], RolloutProgress { total: 4, ..RolloutProgress::default() });
    assert!(seen.is_sorted_by_key(|progress| (progress.finished, progress.tokens)));
    let tokens = rollouts.iter().map(|rollout| rollout.trajectory.mask().trained()).sum();
    assert_eq!(seen.last(), Some(&RolloutProgress { finished: 4, total: 4, tokens, searches: 4 }));
}

#[test]
fn no_tasks_no_rollouts() {
    let codec = codec();
    let rollouts = run(&codec, &mut Scripted::writing(&codec, &["x"]), &Engine::echo(), config(2), Vec::new()).unwrap();
    assert!(rollouts.is_empty());
    assert_eq!(RolloutStats::of(&rollouts).metrics(), []);
}

#[test]
fn a_full_context_ends_an_episode_without_the_observation_that_did_not_fit() {
    let codec = codec();
    let mut generator = Scripted { context: 60, ..Scripted::writing(&codec, &["<search>x</search>"]) };
    let engine = Engine::finding(&["a document that is much too long for a context of only so many tokens"]);
    let rollouts = run(&codec, &mut generator, &engine, config(5), tasks(&codec, 1, 1)).unwrap();
    let rollout = &rollouts[0];
    assert_eq!((rollout.end, rollout.turns.len(), rollout.searches()), (RolloutEnd::Context, 1, 1));
    assert!(rollout.trajectory.len() <= 60);
    assert!(rollout.trajectory.segments().last().unwrap().is_trained());
    assert_eq!(rollout.observations().count(), 0);
    assert_eq!(rollout.calls().next().unwrap().documents.len(), 1, "what was found stays on record");
}

#[test]
fn an_answer_in_the_last_token_of_the_context_counts() {
    let codec = codec();
    let answer = codec.encode("<answer>y</answer>");
    let task = task(&codec, 0, 0);
    let context = task.prompt.len() + answer.len();
    let mut generator = Scripted { context, ..Scripted::sampling(&codec, vec![answer]) };
    let rollouts = run(&codec, &mut generator, &Engine::echo(), config(2), vec![task]).unwrap();
    assert_eq!((rollouts[0].answer(&format()), rollouts[0].end), (Some("y"), RolloutEnd::Answered));
}

#[test]
fn a_prompt_that_is_too_long_is_a_rollout_without_turns() {
    let codec = codec();
    let mut tasks = tasks(&codec, 3, 1);
    tasks[1].prompt = vec![tasks[1].prompt[0]; 100];
    let mut generator = Scripted { context: 80, ..Scripted::writing(&codec, &["<answer>y</answer>"]) };
    let rollouts = run(&codec, &mut generator, &Engine::echo(), config(2), tasks).unwrap();
    let ends: Vec<RolloutEnd> = rollouts.iter().map(|rollout| rollout.end).collect();
    assert_eq!(ends, [RolloutEnd::Answered, RolloutEnd::Context, RolloutEnd::Answered]);
    assert_eq!((rollouts[1].turns.len(), rollouts[1].trajectory.mask().trained()), (0, 0));
    let stats = RolloutStats::of(&rollouts);
    assert!((stats.context_ratio - 1.0 / 3.0).abs() < 1e-12 && (stats.ratio_of_valid_action - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn what_the_generator_cannot_work_with_is_an_error_that_names_the_task() {
    let codec = codec();
    let mut tasks = tasks(&codec, 3, 2);
    tasks[3].prompt.clear();
    let mut generator = Scripted::writing(&codec, &["<answer>y</answer>"]);
    let error = run(&codec, &mut generator, &Engine::echo(), config(2), tasks).unwrap_err();
    assert!(error.to_string().starts_with("question 1, sample 1: the prompt is empty"), "{error}");
    assert_eq!(generator.live.len(), 0, "nothing is left behind");
}

#[test]
fn a_generator_that_fails_leaves_nothing_behind() {
    let codec = codec();
    let mut generator = Scripted {
        schedule: 1,
        fail_at_poll: Some(4),
        ..Scripted::writing(&codec, &["<search>x</search>", "<answer>y</answer>"])
    };
    let error = run(&codec, &mut generator, &Engine::echo(), config(5), tasks(&codec, 8, 1)).unwrap_err();
    assert!(matches!(error, RolloutError::Generate(GenerateError::Engine(_))), "{error:?}");
    assert_eq!(generator.live.len(), 0);
}

#[test]
fn two_tasks_of_one_name_are_refused() {
    let codec = codec();
    let twice = vec![task(&codec, 3, 1), task(&codec, 3, 0), task(&codec, 3, 1)];
    let error = run(&codec, &mut Scripted::writing(&codec, &["x"]), &Engine::echo(), config(2), twice).unwrap_err();
    assert!(matches!(error, RolloutError::DuplicateTask { question_index: 3, sample: 1 }), "{error:?}");
}

#[test]
fn a_bound_too_small_for_the_fixed_observations_is_refused_with_the_least_that_works() {
    let codec = codec();
    let with = |max_observation_tokens| {
        let config = RolloutConfig { max_observation_tokens, ..config(2) };
        let mut generator = Scripted::writing(&codec, &["no tag", "<search>x</search>"]);
        run(&codec, &mut generator, &Engine::failing(), config, tasks(&codec, 1, 1))
    };
    let Err(RolloutError::ObservationBound { max: 8, needed }) = with(8) else { panic!("expected a refusal") };
    assert!(with(needed - 1).is_err());
    assert!(
        with(needed).unwrap()[0]
            .trajectory
            .segments()
            .iter()
            .all(|segment| segment.is_trained() || segment.len() <= needed)
    );
}

/// Ends turns that it was never asked for, or none at all.
struct Broken(Option<SequenceId>);

impl Generator for Broken {
    fn start(&mut self, _: Request<'_>) -> Result<SequenceId, GenerateError> {
        Ok(SequenceId(0))
    }

    fn extend(&mut self, id: SequenceId, _: &[u32], _: Turn) -> Result<(), GenerateError> {
        Err(GenerateError::NotWaiting(id.0))
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let tokens = vec![SampledToken::new(0, 0.0)];
        Ok(self.0.iter().map(|&id| Finished { id, tokens: tokens.clone(), finish: Finish::Length }).collect())
    }

    fn release(&mut self, _: SequenceId) {}

    fn weight_version(&self) -> WeightVersion {
        WeightVersion(0)
    }
}

#[test]
fn a_broken_generator_is_an_error_and_no_endless_loop() {
    let codec = codec();
    let engine = Engine::echo();
    let plan = RolloutPlan::search(&engine, HALF, &codec, config(2));
    let run = |generator: &mut Broken| plan.run(generator, tasks(&codec, 1, 1), &mut |_| {}).unwrap_err();
    assert!(matches!(run(&mut Broken(None)), RolloutError::Stalled(1)));
    assert!(matches!(run(&mut Broken(Some(SequenceId(9)))), RolloutError::UnknownSequence(9)));
    assert!(matches!(run(&mut Broken(Some(SequenceId(0)))), RolloutError::Generate(GenerateError::NotWaiting(0))));
}

#[test]
fn every_turn_carries_the_weights_that_sampled_it() {
    let codec = codec();
    let mut generator = Scripted::writing(&codec, &["<search>x</search>", "<answer>y</answer>"]);
    let rollouts = run(&codec, &mut generator, &Engine::echo(), config(2), tasks(&codec, 1, 1)).unwrap();
    let weights: Vec<WeightVersion> = rollouts[0]
        .trajectory
        .segments()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Policy { weights, .. } => Some(*weights),
            _ => None,
        })
        .collect();
    assert_eq!(weights, [WeightVersion(1), WeightVersion(2)], "the fake counts its polls");
}

#[test]
fn a_rollout_survives_json() {
    let codec = codec();
    let script = ["no tag", "<search>x</search>", "<answer>y</answer>"];
    let mut generator = Scripted::writing(&codec, &script);
    let rollouts = run(&codec, &mut generator, &Engine::echo(), config(5), tasks(&codec, 2, 1)).unwrap();
    let json = serde_json::to_string(&rollouts).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Rollout>>(&json).unwrap(), rollouts);
    assert_eq!(rollouts[0].policy_turns(), script);
}

/// DeepSeek-R1-Distill and Qwen3-Thinking end the prompt with `<think>`.
#[test]
fn a_first_turn_may_begin_inside_the_thought_that_the_prompt_opened() {
    let codec = codec();
    let script = ["I look it up.\n</think>\n<search>x</search>", "<think>found</think><answer>y</answer>"];
    let mut generator = Scripted::writing(&codec, &script);
    let prompt = codec.encode("question 0?<think>\n");
    let task = Task { prompt: prompt.clone(), ..task(&codec, 0, 0) };
    let rollout = run(&codec, &mut generator, &Engine::echo(), config(5), vec![task]).unwrap().remove(0);
    assert_eq!(rollout.policy_turns(), script);
    assert_eq!(rollout.turns[0].action, Action::Call { tool: "search".into(), input: "x".into() });
    assert_eq!(rollout.answer(&format()), Some("y"));
    assert_eq!(rollout.end, RolloutEnd::Answered);
    assert_eq!(rollout.trajectory.segments().first(), Some(&Segment::Prompt(prompt)));
}

/// Lines of a run from before there were tools other than search.
#[test]
fn a_turn_in_json_is_what_it_has_always_been() {
    let lines = [
        r#"{"text":"no tag","action":{"invalid":"no_tag"},"finish":"end_of_text","query":null,"quality":null,"documents":[],"search_failure":null,"observation":"\n\nThat was neither a search nor an answer. To search, I write the query between <search> and </search>. To answer, I write the answer between <answer> and </answer>. I try again.\n\n","cut_tokens":0}"#,
        r#"{"text":"<search>x</search>","action":{"search":"x"},"finish":"stop","query":"x","quality":"useful","documents":["<b> \"Lima\""],"search_failure":null,"observation":"\n\n<information>Doc 1: <b> \"Lima\"</information>\n\n","cut_tokens":0}"#,
        r#"{"text":"<search>y</search>","action":{"search":"y"},"finish":"stop","query":"y","quality":"useful","documents":[],"search_failure":"the index failed: broken","observation":"\n\n<information>The search failed. Search again, or answer with what is known.</information>\n\n","cut_tokens":0}"#,
        r#"{"text":"<answer>y</answer>","action":{"answer":"y"},"finish":"stop","query":null,"quality":null,"documents":[],"search_failure":null,"observation":null,"cut_tokens":0}"#,
    ];
    let codec = codec();
    let script = ["no tag", "<search>x</search>", "<search>y</search>", "<answer>y</answer>"];
    let engine = Engine::new(|query| match query.text {
        "x" => Ok(vec![document("<b> \"Lima\"")]),
        _ => Err(SearchError::Index("broken".into())),
    });
    let mut generator = Scripted::writing(&codec, &script);
    let rollouts = run(&codec, &mut generator, &engine, config(5), tasks(&codec, 1, 1)).unwrap();
    for (turn, line) in rollouts[0].turns.iter().zip(lines) {
        assert_eq!(serde_json::to_string(turn).unwrap(), line);
        assert_eq!(serde_json::from_str::<TurnRecord>(line).unwrap(), *turn);
    }
    assert_eq!(rollouts[0].turns.len(), lines.len());
}

#[test]
fn stats_are_what_they_say() {
    let codec = codec();
    let policy = |tokens: &[u32], turn: usize, _| {
        let script: &[&str] = match codec.decode(tokens).contains("question 0?") {
            true => &["no tag", "<search>x</search>", "<answer>y</answer>"],
            false => &["<search>x</search>"],
        };
        codec.encode(script[turn.min(script.len() - 1)])
    };
    let mut generator = Scripted::new(&codec, policy);
    let rollouts = run(&codec, &mut generator, &Engine::echo(), config(3), tasks(&codec, 2, 1)).unwrap();
    let stats = RolloutStats::of(&rollouts);
    // Question 0: three turns, two of them valid, one search. Question 1: three searches, two executed.
    assert_eq!((stats.rollouts, stats.number_of_actions, stats.finish_ratio), (2, 3.0, 0.5));
    assert!((stats.ratio_of_valid_action - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
    assert_eq!((stats.number_of_valid_search, stats.search_failures), (1.5, 0));
    let after_prompt = |trajectory: &Trajectory| (trajectory.len() - trajectory.prompt_len()) as f64;
    let lengths = [after_prompt(&rollouts[0].trajectory), after_prompt(&rollouts[1].trajectory)];
    assert_eq!(stats.response_length.max, lengths[0].max(lengths[1]));
    assert_eq!(stats.response_length.mean, (lengths[0] + lengths[1]) / 2.0);
    let names: Vec<&str> = stats.metrics().into_iter().map(|(name, _)| name).collect();
    for name in
        ["number_of_actions", "finish_ratio", "ratio_of_valid_action", "number_of_valid_search", "search_failures"]
    {
        assert!(names.contains(&format!("env/{name}").as_str()), "{name}");
    }
}
