//! The gap between a simulator and a real engine whose answers are known in advance.

use std::collections::BTreeMap;
use std::fs::read_to_string;

use zerosearch::config::Tables;
use zerosearch::data::Question;
use zerosearch::generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, SequenceId, TokenId, Turn, WeightVersion,
};
use zerosearch::reward::ExactMatchReward;
use zerosearch::rollout::RolloutConfig;
use zerosearch::search::{Document, Quality, Query, SearchEngine, SearchError};
use zerosearch::sim_to_real::{GapReport, SimToReal};
use zerosearch::text::{Codec, PromptTemplate, SpecialTokens, train_bpe};

/// Searches once, and answers with the last word of what came.
struct Reader {
    codec: Codec,
    live: BTreeMap<SequenceId, (String, Option<Turn>)>,
}

impl Generator for Reader {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        let id = SequenceId(self.live.len() as u64);
        let number = self.codec.decode(request.prompt);
        self.live.insert(id, (format!("<search>{number}</search>"), Some(request.turn)));
        Ok(id)
    }

    fn extend(&mut self, id: SequenceId, tokens: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        let read = self.codec.decode(tokens);
        let documents = read.split("</information>").next().unwrap_or_default();
        let word = documents.split_whitespace().next_back().unwrap_or_default();
        self.live.insert(id, (format!("<answer>{word}</answer>"), Some(turn)));
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let mut finished = Vec::new();
        for (id, (text, pending)) in &mut self.live {
            let Some(mut turn) = pending.take() else { continue };
            let mut tokens = Vec::new();
            for token in self.codec.encode(text) {
                tokens.push(SampledToken::new(token, 0.0));
                if (turn.stop)(token) {
                    break;
                }
            }
            finished.push(Finished { id: *id, tokens, finish: Finish::Stop });
        }
        Ok(finished)
    }

    fn release(&mut self, _: SequenceId) {}

    fn weight_version(&self) -> WeightVersion {
        WeightVersion(0)
    }
}

fn said(number: &str, knows: bool) -> Result<Vec<Document>, SearchError> {
    let contents = if knows { format!("It is value{number}") } else { "It is nothing".into() };
    Ok(vec![Document { contents, ..Document::default() }])
}

/// Knows every answer but those of numbers that end in 0.
struct Real {
    is_down: bool,
}

impl SearchEngine for Real {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        if self.is_down {
            Err(SearchError::Index("out of order".into()))
        } else {
            said(query.text, !query.text.ends_with('0'))
        }
    }
}

/// Obeys its keyword.
struct Simulated;

impl SearchEngine for Simulated {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        said(query.text, query.context.is_some_and(|context| context.quality == Quality::Useful))
    }
}

fn compare(real: &Real, noise: &[f64], out: &std::path::Path) -> Result<GapReport, String> {
    let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
    let codec = train_bpe(["It is value nothing".to_string()].into_iter(), 300, &[], &special).unwrap();
    let question =
        |number: usize| Question::new(number.to_string(), number.to_string(), vec![format!("value{number}")]);
    let questions: Vec<Question> = (0..40).map(question).collect();
    let prompt = PromptTemplate::new("{{ question }}").unwrap();
    let mut policy = Reader { codec: codec.clone(), live: BTreeMap::new() };
    let comparison = SimToReal {
        policy: &mut policy,
        codec: &codec,
        prompt: &prompt,
        simulator: &Simulated,
        real,
        questions: &questions,
        reward: &ExactMatchReward,
        rollout: RolloutConfig { top_k: 1, ..RolloutConfig::default() },
        noise,
        seed: 0,
    };
    comparison.run(out).map_err(|error| error.to_string())
}

#[test]
fn a_known_gap_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("gap");
    let report = compare(&Real { is_down: false }, &[0.0, 0.5, 1.0], &out).unwrap();
    assert_eq!((report.questions, report.queries, report.real.reward.mean), (40, 40, 0.9));
    let rewards: Vec<f64> = report.levels.iter().map(|level| level.episodes.reward.mean).collect();
    assert!(rewards[0] == 1.0 && (0.25..0.75).contains(&rewards[1]) && rewards[2] == 0.0, "{rewards:?}");
    assert!((report.levels[0].reward_gap.mean - 0.1).abs() < 1e-12);
    assert!(report.levels[0].reward_gap.ci95[0] >= 0.0 && report.levels[2].reward_gap.ci95[1] < -0.7);
    let documents = &report.documents;
    assert_eq!((documents.useful.contains.mean, documents.noisy.contains.mean), (1.0, 0.0));
    assert!((documents.real.contains.mean - 0.9).abs() < 1e-12);
    assert!((report.matching_noise.unwrap() - 0.1).abs() < 1e-9);
    assert!(documents.real.contains.ci95[1] <= 1.0 && report.real.contains.ci95[1] <= 1.0, "no share is above 1");
    assert!(documents.noisy.style_distance.mean > documents.useful.style_distance.mean);
    assert_eq!(documents.real.documents_per_result.ci95, [1.0, 1.0]);

    let read: GapReport = serde_json::from_str(&read_to_string(out.join("gap.json")).unwrap()).unwrap();
    assert_eq!(read.levels.len(), 3);
    let page = read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("at 10 % noisy documents") && page.contains("% noisy 50: "), "{page}");
    // The same again, to the bit.
    assert_eq!(compare(&Real { is_down: false }, &[0.0, 0.5, 1.0], &out).unwrap(), report);
}

#[test]
fn nothing_is_compared_with_an_engine_that_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let error = compare(&Real { is_down: true }, &[0.5], folder.path()).unwrap_err();
    assert!(error.contains("all of the last 40 searches failed") && error.contains("out of order"), "{error}");
    let error = compare(&Real { is_down: false }, &[1.5], folder.path()).unwrap_err();
    assert!(error.contains("`noise` is 1.5, expected 0 to 1"), "{error}");
}

#[test]
fn a_simulator_and_a_real_engine_are_needed() {
    let (simulator, bm25) = ("{ kind = \"simulator\", model = \"m\" }", "{ kind = \"bm25\", corpus = \"c\" }");
    for (engine, validation, expected) in [
        (simulator, bm25, None),
        (bm25, bm25, Some("`engine` is no simulator")),
        (simulator, simulator, Some("`validation.engine` is a simulator")),
        (simulator, "{ kind = \"none\" }", Some("no real engine to compare")),
    ] {
        let text = format!("engine = {engine}\n[validation]\nquestions = \"q\"\nengine = {validation}");
        let tables = Tables::parse("file.toml", &text, &[]).unwrap();
        let message = tables.engines_of_comparison().err().map(|error| error.to_string());
        assert_eq!(message.is_some(), expected.is_some(), "{text}");
        assert!(message.is_none_or(|message| message.contains(expected.unwrap_or_default())), "{text}");
    }
    let alone = Tables::parse("file.toml", &format!("engine = {simulator}"), &[]).unwrap();
    assert!(alone.engines_of_comparison().unwrap_err().to_string().contains("[validation]"));
}
