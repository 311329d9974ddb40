//! Promises of an evaluation: every question counts, and each figure is what its name says.

mod scripted;

use proptest::prelude::*;
use scripted::{Engine, Scripted, codec, question};
use zerosearch_data::Question;
use zerosearch_eval::{EvalConfig, EvalError, Evaluation, Prediction, Strategy, evaluate, write_predictions};
use zerosearch_metrics::{Author, ProgressBar};
use zerosearch_rollout::RolloutConfig;
use zerosearch_search::SearchEngine;

fn with(strategy: Strategy) -> EvalConfig {
    let default = EvalConfig::default();
    EvalConfig { strategy, rollout: RolloutConfig { top_k: 2, ..default.rollout }, ..default }
}

fn run(
    generator: &mut Scripted,
    engine: Option<&dyn SearchEngine>,
    questions: &[Question],
    config: EvalConfig,
) -> Result<Evaluation, EvalError> {
    let codec = codec();
    let prompt = config.strategy.prompt(&codec, &config.rollout.format.into())?;
    evaluate(generator, engine, &codec, &prompt, questions, &config, &ProgressBar::hidden())
}

/// One direct answer to one question.
fn answer(text: &str, golden: &[&str]) -> Prediction {
    let mut generator = Scripted::new(&codec(), &[("Which city?", &[text])]);
    let evaluation =
        run(&mut generator, None, &[question("1", "Which city?", golden)], with(Strategy::Direct)).unwrap();
    evaluation.predictions.into_iter().next().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Released evaluation loops drop the last partial batch; here the chunk size changes nothing at all.
    #[test]
    fn no_question_is_dropped_whatever_the_chunk(n in 1_usize..12, chunk in 1_usize..14) {
        let texts: Vec<String> = (0..n).map(|index| format!("[{index}] Which city?")).collect();
        let replies: Vec<String> = (0..n).map(|index| format!("<answer> city {} </answer>", index % 3)).collect();
        let turns: Vec<[&str; 1]> = replies.iter().map(|reply| [reply.as_str()]).collect();
        let scripts: Vec<(&str, &[&str])> = texts.iter().zip(&turns).map(|(text, turns)| (text.as_str(), turns.as_slice())).collect();
        let questions: Vec<Question> = texts.iter().enumerate().map(|(index, text)| question(&index.to_string(), text, &["city 1"])).collect();
        let evaluation = |chunk| {
            run(&mut Scripted::new(&codec(), &scripts), None, &questions, EvalConfig { chunk, ..with(Strategy::Direct) }).unwrap()
        };
        let chunked = evaluation(chunk);
        prop_assert_eq!(chunked.scores.overall.n, n);
        let ids: Vec<usize> = chunked.predictions.iter().map(|prediction| prediction.id.parse().unwrap()).collect();
        prop_assert_eq!(ids, (0..n).collect::<Vec<_>>());
        let right = (0..n).filter(|index| index % 3 == 1).count();
        prop_assert!((chunked.scores.overall.em - right as f64 / n as f64).abs() < 1e-12);
        prop_assert_eq!(chunked, evaluation(n));
    }
}

#[test]
fn em_is_equality_and_contains_is_containment() {
    let longer = answer("<answer> The city of Lima </answer>", &["Lima"]);
    assert!(!longer.em, "EM must not be containment");
    assert!(longer.contains);
    // {city, of, lima} and {lima} share one word.
    assert!((longer.f1 - 0.5).abs() < 1e-6, "{}", longer.f1);

    let exact = answer("<answer> the LIMA. </answer>", &["Lima"]);
    assert!(exact.em && exact.contains && (exact.f1 - 1.0).abs() < 1e-6);
    assert_eq!(exact.prediction.as_deref(), Some("the LIMA."));
}

#[test]
fn every_golden_alias_counts() {
    let prediction = answer("<answer> Ciudad de los Reyes </answer>", &["Lima", "Ciudad de los Reyes"]);
    assert!(prediction.em && prediction.f1 == 1.0);
}

#[test]
fn the_example_answer_of_the_prompt_is_nobodys_prediction() {
    let prediction = answer("I do not know.", &["Beijing"]);
    assert!(prediction.transcript[0].text.contains("<answer> Beijing </answer>"));
    assert_eq!((prediction.prediction, prediction.em, prediction.contains, prediction.f1), (None, false, false, 0.0));
}

#[test]
fn direct_and_cot_never_search() {
    for strategy in [Strategy::Direct, Strategy::Cot] {
        let engine = Engine::default();
        let mut generator =
            Scripted::new(&codec(), &[("Which city?", &["<search> x </search>", "<answer> Lima </answer>"])]);
        let evaluation =
            run(&mut generator, Some(&engine), &[question("1", "Which city?", &["Lima"])], with(strategy)).unwrap();
        assert_eq!(engine.asked.lock().unwrap().len(), 0, "{strategy}");
        assert_eq!((evaluation.predictions[0].searches, evaluation.predictions[0].prediction.as_deref()), (0, None));
        assert_eq!(generator.shown.len(), 1, "one turn only");
    }
}

#[test]
fn rag_searches_once_with_the_bare_question() {
    let engine = Engine::default();
    let mut generator = Scripted::new(
        &codec(),
        &[("Which city?", &["<answer> Lima </answer>"]), ("broken", &["<answer> Quito </answer>"])],
    );
    let questions = [question("1", "Which city?", &["Lima"]), question("2", "Which broken city?", &["Quito"])];
    let evaluation = run(&mut generator, Some(&engine), &questions, with(Strategy::Rag)).unwrap();

    assert_eq!(
        *engine.asked.lock().unwrap(),
        [("Which city?".to_owned(), false), ("Which broken city?".to_owned(), false)]
    );
    let [first, second] = evaluation.predictions.as_slice() else { panic!() };
    assert!(first.em && (first.searches, first.search_failures) == (1, 0));
    // A failed search is a fact about the row, and the row still counts.
    assert!(second.em && (second.searches, second.search_failures) == (1, 1));

    let authors: Vec<Author> = first.transcript.iter().map(|utterance| utterance.author).collect();
    assert_eq!(authors, [Author::Prompt, Author::Observation, Author::Policy]);
    let observation = &first.transcript[1].text;
    assert!(observation.contains("Doc 2: About Which city?") && !observation.contains("Doc 3"), "{observation}");
    assert!(!observation.contains("<answer>"), "documents are data: {observation}");
    assert!(generator.shown[0].ends_with(observation.as_str()), "the policy reads it before it answers");
}

#[test]
fn rag_documents_keep_to_the_bound() {
    let (engine, codec) = (Engine::default(), codec());
    let mut generator = Scripted::new(&codec, &[]);
    let mut config = with(Strategy::Rag);
    (config.rollout.max_observation_tokens, config.rollout.top_k) = (400, 40);
    run(&mut generator, Some(&engine), &[question("1", "Which city?", &["Lima"])], config).unwrap();
    let start = generator.shown[0].rfind("\n\n<information>").unwrap();
    let observation = &generator.shown[0][start..];
    assert!(observation.ends_with("</information>\n\n"), "{observation}");
    // Cut between two tokens, which need not be how the text would be encoded again.
    assert!((395..=405).contains(&codec.encode(observation).len()), "{}", codec.encode(observation).len());
}

#[test]
fn search_runs_whole_episodes_without_simulation_context() {
    let engine = Engine::default();
    let mut generator = Scripted::new(
        &codec(),
        &[(
            "Which city?",
            &["<search> capital of Peru </search>", "<search> broken </search>", "<answer> Lima </answer>"],
        )],
    );
    let evaluation =
        run(&mut generator, Some(&engine), &[question("1", "Which city?", &["Lima"])], with(Strategy::Search)).unwrap();
    let prediction = &evaluation.predictions[0];
    assert!(prediction.em && (prediction.searches, prediction.search_failures) == (2, 1));
    assert_eq!(*engine.asked.lock().unwrap(), [("capital of Peru".to_owned(), false), ("broken".to_owned(), false)]);
    assert_eq!((evaluation.scores.overall.searches_per_question, evaluation.scores.overall.search_failures), (2.0, 1));
    assert_eq!(prediction.transcript.len(), 6);
}

#[test]
fn what_cannot_be_evaluated_says_what_to_do() {
    let questions = [question("1", "Which city?", &["Lima"])];
    let refuse = |questions: &[Question], config| {
        run(&mut Scripted::new(&codec(), &[]), None, questions, config).unwrap_err().to_string()
    };
    assert!(refuse(&questions, with(Strategy::Rag)).contains("rag needs a search engine"));
    assert!(refuse(&questions, with(Strategy::Search)).contains("give a corpus or a retriever"));
    assert!(refuse(&[], with(Strategy::Direct)).contains("no questions"));
    assert!(refuse(&questions, EvalConfig { chunk: 0, ..with(Strategy::Direct) }).contains("chunk is 0"));
    let mut config = with(Strategy::Direct);
    config.rollout.max_new_tokens = 0;
    assert!(refuse(&questions, config).contains("max_new_tokens"));
}

#[test]
fn predictions_are_one_json_object_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("predictions.jsonl");
    let predictions = [answer("<answer> Lima\n\"x\" </answer>", &["Lima"]), answer("nothing", &["Lima"])];
    write_predictions(&path, &predictions).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let read: Vec<Prediction> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, predictions);

    let absent = dir.path().join("absent").join("p.jsonl");
    write_predictions(&absent, &predictions).unwrap();
    assert_eq!(std::fs::read_to_string(absent).unwrap(), text);
    let message = write_predictions(path.join("p.jsonl"), &predictions).unwrap_err().to_string();
    assert!(message.contains("predictions.jsonl"), "{message}");
}
