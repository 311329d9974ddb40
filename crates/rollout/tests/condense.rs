//! The hook between a call and what the policy sees of it.

mod support;

use std::cell::RefCell;

use support::{Engine, Scripted, codec, tasks};
use zerosearch_generate::TokenId;
use zerosearch_rollout::{
    Condenser, Noise, Reading, Rollout, RolloutConfig, RolloutEnd, RolloutError, RolloutPlan, Task, Written,
};
use zerosearch_text::Codec;

/// Question, number of turns, query, and tokens of the prompt of a reading.
type Told = (u64, usize, String, usize);

/// Has every output read, and notes what it is told.
struct Note<'a> {
    codec: &'a Codec,
    told: RefCell<Vec<Told>>,
}

impl<'a> Note<'a> {
    fn new(codec: &'a Codec) -> Self {
        Self { codec, told: RefCell::default() }
    }
}

impl Condenser for Note<'_> {
    fn prompt(&self, reading: &Reading<'_>) -> Option<Vec<TokenId>> {
        let Reading { task, call, output, .. } = reading;
        Some(self.codec.encode(&format!("READ {} | {} | {output}", task.question, call.input)))
    }

    fn condensed(&self, reading: &Reading<'_>, written: &Written<'_>) -> String {
        let Reading { task, turns, call, .. } = reading;
        self.told.borrow_mut().push((task.question_index, turns.len(), call.input.clone(), written.prompt_tokens));
        format!("{} </information>", written.text)
    }
}

/// Searches twice and answers; a reading repeats its query.
fn policy(codec: &Codec) -> Scripted<'_> {
    Scripted::new(codec, |seen, turn, _| {
        let text = codec.decode(seen);
        match text.strip_prefix("READ ") {
            Some(text) => codec.encode(&format!("read {}", text.split(" | ").nth(1).unwrap())),
            None => codec.encode(["<search>a</search>", "<search>b</search>", "<answer>c</answer>"][turn.min(2)]),
        }
    })
}

fn run(
    codec: &Codec,
    generator: &mut Scripted<'_>,
    engine: &Engine<'_>,
    config: RolloutConfig,
    tasks: Vec<Task>,
) -> Result<(Vec<Rollout>, Vec<Told>), RolloutError> {
    let note = Note::new(codec);
    let plan = RolloutPlan::search(engine, Noise::Off, codec, config);
    let (rollouts, _) = plan.run_condensed(generator, tasks, &note, &mut |_| {})?;
    assert!(generator.live.is_empty(), "every reading is released");
    Ok((rollouts, note.told.into_inner()))
}

#[test]
fn the_policy_sees_what_the_model_condensed_and_only_that() {
    let codec = codec();
    let (mut generator, engine) = (policy(&codec), Engine::finding(&["fact"]));
    let (rollouts, told) = run(&codec, &mut generator, &engine, RolloutConfig::default(), tasks(&codec, 1, 1)).unwrap();
    let observations: Vec<&str> = rollouts[0].observations().collect();
    assert_eq!(
        observations,
        ["a", "b"].map(|query| { format!("\n\n<information>read {query} &lt;/information&gt;</information>\n\n") })
    );
    let documents: Vec<_> = rollouts[0].calls().map(|call| call.documents.clone()).collect();
    assert_eq!(documents, [["fact"], ["fact"]], "the record keeps the documents");
    assert_eq!(rollouts[0].end, RolloutEnd::Answered);
    let episode = codec.decode(&generator.seen[0]);
    assert!(episode.contains("read a") && !episode.contains("fact"), "{episode}");
    assert_eq!(codec.decode(&generator.seen[1]), "READ question 0 | a | Doc 1: factread a<|end|>");
    let length = codec.encode("READ question 0 | a | Doc 1: fact").len();
    assert_eq!(told, [(0, 1, "a".to_owned(), length), (0, 2, "b".to_owned(), length)]);
    let mut seeds = generator.seeds.clone();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 5, "every turn and every reading draws from a stream of its own");
}

#[test]
fn readings_change_nothing_with_the_order_of_events() {
    let codec = codec();
    let engine = Engine::echo();
    let with = |schedule, concurrency| {
        let mut generator = Scripted { schedule, ..policy(&codec) };
        let config = RolloutConfig { concurrency, ..RolloutConfig::default() };
        run(&codec, &mut generator, &engine, config, tasks(&codec, 3, 2)).unwrap().0
    };
    let turns = |rollouts: Vec<Rollout>| rollouts.into_iter().map(|rollout| rollout.turns).collect::<Vec<_>>();
    let expected = turns(with(0, 0));
    for (schedule, concurrency) in [(1, 0), (2, 1), (3, 2)] {
        assert_eq!(turns(with(schedule, concurrency)), expected, "{schedule} {concurrency}");
    }
}

#[test]
fn a_failed_search_is_not_read_and_a_reading_without_room_shows_the_output() {
    let codec = codec();
    let mut generator = policy(&codec);
    let (rollouts, told) =
        run(&codec, &mut generator, &Engine::failing(), RolloutConfig::default(), tasks(&codec, 1, 1)).unwrap();
    assert!(told.is_empty() && rollouts[0].observations().all(|text| text.contains("The search failed")));

    let long = "long ".repeat(60);
    let mut generator = Scripted { context: 400, ..policy(&codec) };
    let config = RolloutConfig { max_observation_tokens: 200, ..RolloutConfig::default() };
    let (rollouts, _) =
        run(&codec, &mut generator, &Engine::finding(&[&long, &long]), config, tasks(&codec, 1, 1)).unwrap();
    assert!(rollouts[0].observations().next().unwrap().contains("Doc 1: long long"));
}

#[test]
fn a_generator_that_fails_keeps_no_reading() {
    let codec = codec();
    let mut generator = Scripted { fail_at_poll: Some(2), ..policy(&codec) };
    let note = Note::new(&codec);
    let engine = Engine::echo();
    let plan = RolloutPlan::search(&engine, Noise::Off, &codec, RolloutConfig::default());
    assert!(plan.run_condensed(&mut generator, tasks(&codec, 1, 1), &note, &mut |_| {}).is_err());
    assert!(generator.live.is_empty());
}
