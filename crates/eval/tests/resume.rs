//! An evaluation that is killed and gone on with ends as one that was not; and what such runs are compared by.

mod scripted;

use std::path::Path;

use scripted::{Engine, Exchange, Scripted, codec, question};
use zerosearch_data::Question;
use zerosearch_eval::{
    Comparison, EvalConfig, EvalError, Evaluated, Evaluator, GroupedFigures, Journal, Prediction, Report, Setting,
    Strategy, predictions_path, read_predictions, write_predictions,
};
use zerosearch_generate::{Ledger, Role, Sampling};
use zerosearch_metrics::ProgressBar;
use zerosearch_rollout::RolloutConfig;

fn questions() -> Vec<Question> {
    let question = |index: usize| {
        let mut question = question(&index.to_string(), &format!("[{index}] Which city?"), &["Lima"]);
        question.data_source = Some(if index < 4 { "nq" } else { "hotpotqa" }.into());
        question
    };
    (0..7).map(question).collect()
}

fn config() -> EvalConfig {
    let default = EvalConfig::default();
    let rollout = RolloutConfig { sampling: Sampling::temperature(1.0), ..default.rollout };
    EvalConfig { rollout, chunk: 2, ..default }
}

/// Answers right where the question's number is even, after a search.
fn policy() -> Scripted {
    let texts: Vec<String> = (0..7).map(|index| format!("[{index}]")).collect();
    let turns = |index: usize| {
        let city = if index.is_multiple_of(2) { "<answer> Lima </answer>" } else { "<answer> Quito </answer>" };
        ["<search> Lima </search>", city]
    };
    let turns: Vec<[&str; 2]> = (0..7).map(turns).collect();
    let scripts: Vec<(&str, &[&str])> =
        texts.iter().zip(&turns).map(|(text, turns)| (text.as_str(), turns.as_slice())).collect();
    Scripted::new(&codec(), &scripts)
}

/// Evaluates into a folder, or fails as the generator does.
fn run(folder: &Path, resume: bool, dies_after: Option<u64>) -> Result<usize, EvalError> {
    let (codec, engine, scores) = (codec(), Engine::default(), folder.join("scores.json"));
    let evaluator = Evaluator::new(&codec, config()).engine(Some(&engine)).samples(3);
    let setting = Setting { model: "models/base".into(), ..evaluator.setting(&questions())? };
    let mut journal = Journal::open(&scores, &setting, resume)?;
    let mut generator = policy();
    generator.dies_after = dies_after;
    let resumed = journal.resumed();
    let Evaluated { evaluation, seconds } =
        evaluator.run(&mut generator, &questions(), Some(&mut journal), &ProgressBar::hidden())?;
    assert_eq!(seconds.len(), 21);
    write_predictions(predictions_path(&scores), &evaluation.predictions)?;
    let report = serde_json::to_string_pretty(&Report::new(&evaluation, setting)).unwrap();
    std::fs::write(&scores, report).unwrap();
    journal.finish()?;
    Ok(resumed)
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn an_evaluation_that_was_killed_anywhere_ends_with_the_same_files() {
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(run(whole.path(), false, None).unwrap(), 0);
    let expected = files(whole.path());
    assert_eq!(expected.len(), 2, "the journal is gone");

    for (dies_after, kept) in [(0, 0), (5, 4), (20, 20)] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), false, Some(dies_after)).unwrap_err();
        let message = run(folder.path(), false, None).unwrap_err().to_string();
        assert!(message.contains("scores.partial.jsonl") && message.contains("--resume"), "{message}");
        // The power fails in the middle of the next row.
        let path = Journal::path_of(folder.path().join("scores.json"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"prediction\": {\"id\": \"Z\xc3");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(run(folder.path(), true, None).unwrap(), kept, "{dies_after}");
        assert_eq!(files(folder.path()), expected, "{dies_after}");
    }
}

#[test]
fn a_journal_of_another_evaluation_is_refused_by_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), false, Some(5)).unwrap_err();
    let codec = codec();
    let refused = |evaluator: Evaluator<'_>, questions: &[Question], model: &str| {
        let setting = Setting { model: model.into(), ..evaluator.setting(questions).unwrap() };
        Journal::open(folder.path().join("scores.json"), &setting, true).unwrap_err().to_string()
    };
    let sampled = |config| Evaluator::new(&codec, config).samples(3);
    let model = "models/base";
    for (message, key) in [
        (refused(sampled(config()).samples(2), &questions(), model), "samples"),
        (refused(sampled(EvalConfig { seed: 1, ..config() }), &questions(), model), "seed"),
        (refused(sampled(EvalConfig { strategy: Strategy::RaAgent, ..config() }), &questions(), model), "strategy"),
        (refused(sampled(config()), &questions()[1..], model), "questions"),
        (refused(sampled(config()), &questions(), "models/other"), "model"),
    ] {
        assert!(message.contains("scores.partial.jsonl") && message.contains(&format!("another {key}")), "{message}");
    }
}

fn evaluate(strategy: Strategy, samples: usize, text: &str, questions: &[Question]) -> Vec<Prediction> {
    let (codec, engine) = (codec(), Engine { names: true, ..Engine::default() });
    let evaluator = Evaluator::new(&codec, EvalConfig { strategy, ..config() }).engine(Some(&engine)).samples(samples);
    let mut generator = Exchange::repeating(&codec, text);
    evaluator.run(&mut generator, questions, None, &ProgressBar::hidden()).unwrap().evaluation.predictions
}

#[test]
fn samples_draw_from_streams_of_their_own_and_greedy_ones_are_refused() {
    let (codec, ledger) = (codec(), Ledger::new());
    let mut generator = policy();
    let evaluator = Evaluator::new(&codec, EvalConfig { strategy: Strategy::Direct, ..config() });
    let evaluator = evaluator.samples(3).ledger(ledger.clone());
    let run = evaluator.run(&mut generator, &questions(), None, &ProgressBar::hidden()).unwrap();
    let mut seeds = generator.seeds.clone();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 21);
    let names: Vec<(&str, u64)> =
        run.evaluation.predictions[2..5].iter().map(|it| (it.id.as_str(), it.sample)).collect();
    assert_eq!(names, [("0", 2), ("1", 0), ("1", 1)]);
    let usage = ledger.usage(Role::Policy);
    let out: u64 = run.evaluation.predictions.iter().map(|prediction| prediction.tokens_out).sum();
    assert_eq!((usage.calls, usage.tokens_out), (21, out));

    let greedy = EvalConfig { rollout: EvalConfig::default().rollout, ..config() };
    let message = Evaluator::new(&codec, greedy)
        .samples(2)
        .run(&mut policy(), &questions(), None, &ProgressBar::hidden())
        .unwrap_err()
        .to_string();
    assert!(message.contains("2 samples") && message.contains("temperature"), "{message}");
}

#[test]
fn figures_count_each_question_once_and_each_source_once() {
    let mut predictions = evaluate(Strategy::Direct, 4, "<answer> Lima </answer>", &questions());
    for prediction in &mut predictions {
        // Of nq one of four samples is right, of hotpotqa all.
        let right = prediction.data_source.as_deref() == Some("hotpotqa") || prediction.sample == 0;
        (prediction.em, prediction.f1) = (right, f64::from(u8::from(right)));
    }
    let figures = GroupedFigures::of(&predictions);
    assert_eq!((figures.overall.questions, figures.overall.answers), (7, 28));
    assert!((figures.overall.em.mean - 4.0 / 7.0).abs() < 1e-12);
    assert_eq!(figures.macro_average.em.mean, 0.625);
    let nq = &figures.by_data_source["nq"];
    let passed: Vec<f64> = nq.pass_at.values().map(|estimate| estimate.mean).collect();
    assert!(passed.iter().zip([0.25, 0.5, 0.75, 1.0]).all(|(pass, expected)| (pass - expected).abs() < 1e-12));
    assert_eq!(nq.em.ci95, [0.25, 0.25], "every question is the same");
    assert_eq!(figures.by_hops.keys().collect::<Vec<_>>(), ["1", "2"], "known of the sets");
    let [low, high] = figures.overall.em.ci95;
    assert!(low < 4.0 / 7.0 && 4.0 / 7.0 < high && low >= 0.25 && high <= 1.0, "{low} {high}");
}

#[test]
fn evidence_that_was_found_is_counted() {
    let mut questions = questions()[..2].to_vec();
    for (question, evidence) in questions.iter_mut().zip([r#"["d1", "Nowhere"]"#, r#"["The title"]"#]) {
        question.extra.insert("evidence".into(), serde_json::from_str(evidence).unwrap());
    }
    let predictions = evaluate(Strategy::Search, 1, "<search> Lima </search>", &questions);
    let found: Vec<_> = predictions.iter().map(|it| it.evidence.map(|it| (it.found, it.of))).collect();
    assert_eq!(found, [Some((1, 2)), Some((1, 1))]);
    assert_eq!(GroupedFigures::of(&predictions).overall.retrieval_recall.unwrap().mean, 0.75);
    let direct = evaluate(Strategy::Direct, 1, "<search> Lima </search>", &questions);
    assert!(direct.iter().all(|prediction| prediction.evidence.is_none()), "it does not search");
}

#[test]
fn methods_are_compared_question_by_question() {
    let right = evaluate(Strategy::Direct, 1, "<answer> Lima </answer>", &questions());
    let mut other = evaluate(Strategy::Search, 1, "<answer> Quito </answer>", &questions());
    (other[6].em, other[6].f1) = (true, 1.0);
    other.reverse();

    let folder = tempfile::tempdir().unwrap();
    let scores = folder.path().join("a.json");
    write_predictions(predictions_path(&scores), &right).unwrap();
    assert_eq!(read_predictions(&scores).unwrap(), right);
    let comparison = Comparison::of(&read_predictions(predictions_path(&scores)).unwrap(), &other).unwrap();
    let Comparison { overall, by_data_source, .. } = &comparison;
    assert_eq!((overall.questions, overall.em.a), (7, 1.0));
    assert!((overall.em.difference + 6.0 / 7.0).abs() < 1e-12 && overall.em.ci95[1] <= 0.0);
    let mcnemar = overall.mcnemar.unwrap();
    assert_eq!((mcnemar.only_a, mcnemar.only_b), (6, 0));
    assert!((mcnemar.p - 0.03125).abs() < 1e-12, "{}", mcnemar.p);
    assert_eq!(overall.em.p, 0.03125, "six pairs differ, all in one direction");
    assert_eq!(by_data_source["hotpotqa"].questions, 3);
    let table = comparison.to_string();
    assert!(table.contains("right by A alone 6, by B alone 0") && table.contains("hotpotqa, n = 3"), "{table}");

    let sampled = evaluate(Strategy::Direct, 2, "<answer> Lima </answer>", &questions());
    assert!(Comparison::of(&right, &sampled).unwrap().overall.mcnemar.is_none());
    for (a, b, expected) in
        [(&right[..], &other[1..], "\"6\" of hotpotqa is in the first"), (&right[1..], &other[..], "in the second")]
    {
        let message = Comparison::of(a, b).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    other[0].question = "Another?".into();
    assert!(Comparison::of(&right, &other).unwrap_err().to_string().contains("another question"));
    assert!(read_predictions(folder.path().join("b.json")).unwrap_err().to_string().contains("b.predictions.jsonl"));
}

#[test]
fn every_method_has_a_setting_that_tells_it_apart() {
    let codec = codec();
    let prompts = |strategy| {
        let config = EvalConfig { strategy, ..EvalConfig::default() };
        Evaluator::new(&codec, config).setting(&questions()).unwrap().prompts
    };
    let all: std::collections::BTreeSet<String> = Strategy::ALL.into_iter().map(prompts).collect();
    assert_eq!(all.len(), Strategy::ALL.len());
}
