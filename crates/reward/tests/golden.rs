//! Every metric against cases that the released reward code scored.
//!
//! `golden/gen_reward_fixtures.py` made the files. `ZEROSEARCH_REWARD_GOLDEN` names another file of
//! the same form, of either kind. A summary is printed (`cargo test -- --nocapture`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_reward::{contains, exact_match, f1, normalize_answer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Case {
    Score(ScoreCase),
    Extract(ExtractCase),
}

/// All but prediction and golden answers is optional, so that a file may leave a reference out.
#[derive(Deserialize)]
struct ScoreCase {
    prediction: String,
    golden_answers: Vec<String>,
    normalized_prediction: Option<String>,
    normalized_golden: Option<Vec<String>>,
    /// Called EM there, and is containment.
    zerosearch_em: Option<u8>,
    zerosearch_subem: Option<u8>,
    search_r1_subem: Option<u8>,
    search_r1_em: Option<u8>,
    squad_em: Option<u8>,
    zerosearch_f1: Option<f64>,
    squad_f1: Option<f64>,
}

#[derive(Deserialize)]
struct ExtractCase {
    text: String,
    zerosearch: Option<String>,
    search_r1: Option<String>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Tally {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, case: &str, what: &str, ours: &T, reference: Option<&T>) {
        match reference {
            Some(reference) if reference == ours => self.passed += 1,
            Some(reference) => {
                self.failed.push(format!("{case}: {what} is {ours:?}, the reference says {reference:?}"))
            }
            None => self.skipped.push(format!("{case}: the file has no {what}")),
        }
    }

    fn close(&mut self, case: &str, what: &str, ours: f64, reference: Option<f64>) {
        match reference {
            Some(reference) if (reference - ours).abs() < 1e-12 => self.passed += 1,
            Some(reference) => self.failed.push(format!("{case}: {what} is {ours}, the reference says {reference}")),
            None => self.skipped.push(format!("{case}: the file has no {what}")),
        }
    }

    /// How many were skipped.
    fn finish(self, path: &Path) -> usize {
        for reason in &self.skipped {
            println!("skipped {reason}");
        }
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        println!("{}: {} passed, {failed} failed, {skipped} skipped", path.display(), self.passed);
        assert!(self.failed.is_empty(), "{}", self.failed.join("\n"));
        assert!(self.passed > 0, "{}: nothing was compared", path.display());
        skipped
    }
}

fn read(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// How many cases there are, and how many comparisons were skipped.
fn run(path: &Path) -> (usize, usize) {
    let mut tally = Tally::default();
    let cases = read(path);
    for case in &cases {
        match case {
            Case::Score(case) => score(case, &mut tally),
            Case::Extract(case) => extract(case, &mut tally),
        }
    }
    (cases.len(), tally.finish(path))
}

fn score(case: &ScoreCase, tally: &mut Tally) {
    let ScoreCase { prediction, golden_answers: golden, .. } = case;
    let name = format!("{prediction:?} against {golden:?}");
    let normalized_golden = golden.iter().map(|golden| normalize_answer(golden)).collect();
    tally.check(&name, "normalized_prediction", &normalize_answer(prediction), case.normalized_prediction.as_ref());
    tally.check(&name, "normalized_golden", &normalized_golden, case.normalized_golden.as_ref());
    // The released code compares nothing with nothing there, and finds nothing in every prediction.
    if let Some(vanished) = golden.iter().find(|golden| normalize_answer(golden).is_empty() && !golden.is_empty()) {
        tally.skipped.push(format!("{name}: normalisation leaves nothing of {vanished:?}"));
        return;
    }
    let em = u8::from(exact_match(prediction, golden));
    tally.check(&name, "squad_em", &em, case.squad_em.as_ref());
    tally.check(&name, "search_r1_em", &em, case.search_r1_em.as_ref());
    let containment = u8::from(contains(prediction, golden));
    tally.check(&name, "zerosearch_em (containment)", &containment, case.zerosearch_em.as_ref());
    tally.check(&name, "zerosearch_subem", &containment, case.zerosearch_subem.as_ref());
    tally.check(&name, "search_r1_subem", &containment, case.search_r1_subem.as_ref());
    tally.close(&name, "squad_f1", f1(prediction, golden), case.squad_f1);
    tally.close(&name, "zerosearch_f1", f1(prediction, golden), case.zerosearch_f1);
}

/// The reference reads prompt and response as one text and takes its first answer for the prompt's
/// example: with fewer than two it finds none. Ours reads the policy's turns only, where one counts.
fn extract(case: &ExtractCase, tally: &mut Tally) {
    let ours = EpisodeFormat::default().extract_answer(&[&case.text]).map(str::to_owned);
    for (name, reference) in [("zerosearch", &case.zerosearch), ("search_r1", &case.search_r1)] {
        match (&ours, reference) {
            (Some(answer), None) => tally.skipped.push(format!(
                "{:?}: {name} has no answer because a lone one counts as the prompt's example; as a policy turn it answers {answer:?}",
                case.text
            )),
            _ => tally.check(&format!("{:?}", case.text), name, &ours, Some(reference)),
        }
    }
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

#[test]
fn scores_agree_with_the_released_code() {
    assert_eq!(run(&golden("qa_reward.json")), (620, 49));
}

#[test]
fn scores_agree_with_the_released_code_in_every_script() {
    assert_eq!(run(&golden("qa_unicode.json")), (120, 0));
}

#[test]
fn answers_agree_with_the_released_code_where_its_prompt_example_is_not_in_question() {
    assert_eq!(run(&golden("qa_extract.json")), (15, 6));
}

#[test]
fn each_lone_answer_that_the_released_code_drops_is_known() {
    let dropped: Vec<_> = read(&golden("qa_extract.json"))
        .into_iter()
        .filter_map(|case| match case {
            Case::Extract(case) if case.zerosearch.is_none() => {
                EpisodeFormat::default().extract_answer(&[case.text]).map(str::to_owned)
            }
            _ => None,
        })
        .collect();
    assert_eq!(dropped, ["one", "x", "a"]);
}

#[test]
fn a_golden_file_named_by_the_environment_agrees() {
    match std::env::var_os("ZEROSEARCH_REWARD_GOLDEN") {
        Some(path) => assert!(run(Path::new(&path)).0 > 0),
        None => println!("skipped: ZEROSEARCH_REWARD_GOLDEN names no further file"),
    }
}
