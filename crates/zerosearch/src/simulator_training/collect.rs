//! Interactions of any policy with any real engine, judged and appended chunk by chunk.

use std::fs::{File, OpenOptions};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zerosearch_data::Question;
use zerosearch_files::{FileError, append, prepare_file};
use zerosearch_generate::{Generator, Stream};
use zerosearch_metrics::ProgressBar;
use zerosearch_search::SearchEngine;
use zerosearch_simulator::{Interaction, Judge, LabelledInteraction, TuningRow, contrast, write_interactions};
use zerosearch_text::{Codec, PromptTemplate};

use super::SimulatorTrainingConfig;
use crate::pipeline::PipelineError;
use crate::pipeline::collect::{Episodes, failures, interactions, spread};
use crate::pipeline::folder::Folder;

/// Where interactions come from: a policy that answers questions with a real engine.
pub struct Collection<'a> {
    /// The policy, in this process or on a server.
    pub policy: &'a mut dyn Generator,
    /// Its tokenizer.
    pub codec: &'a Codec,
    /// Its prompt.
    pub prompt: &'a PromptTemplate,
    /// The engine that is to be simulated.
    pub engine: &'a dyn SearchEngine,
    /// Questions to ask.
    pub questions: &'a [Question],
}

/// Every labelled interaction, one a line.
pub(super) const INTERACTIONS: &str = "interactions.jsonl";

/// Contents of `collected.json`: how much of `interactions.jsonl` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Collected {
    /// Questions that were answered.
    pub(super) questions: usize,
    /// Length of `interactions.jsonl` then. More than that a killed process wrote.
    bytes: u64,
    /// Searches that found something, or rows of a file.
    pub(super) interactions: usize,
    /// Searches that failed.
    pub(super) failed_searches: usize,
    /// Twins with documents of the other quality.
    pub(super) twins: usize,
    /// Interactions that the judge could not decide.
    pub(super) undecided: usize,
}

const COLLECTED: &str = "collected.json";
const PURPOSE: &str = "collect for a simulator";

impl Collection<'_> {
    /// Goes on where an earlier process stopped. Which chunks there are has no influence on the rows.
    pub(super) fn run(
        self,
        config: &SimulatorTrainingConfig,
        judge: &dyn Judge,
        folder: &Folder<'_>,
    ) -> Result<Collected, PipelineError> {
        let Self { policy, codec, prompt, engine, questions } = self;
        let count = if config.collect.questions == 0 { questions.len() } else { config.collect.questions };
        let chosen: Vec<(u64, &Question)> = (0..).zip(spread(questions, count, config.seed, PURPOSE)).collect();
        let seed = Stream { seed: config.seed, purpose: PURPOSE, ..Stream::default() }.value();
        let episodes = Episodes { codec, prompt, engine, rollout: config.rollout, seed, noise: 0.0 };
        let mut done: Collected = folder.read_if_there(COLLECTED)?.unwrap_or_default();
        let path = folder.path(INTERACTIONS);
        let mut file = open(&path, done.bytes)?;
        let bar = ProgressBar::resumed("collect with the real engine", chosen.len() as u64, done.questions as u64);
        for chunk in chosen[done.questions.min(chosen.len())..].chunks(config.collect.chunk.max(1)) {
            let rollouts = episodes.run(policy, chunk, &bar)?;
            done.failed_searches += failures(&rollouts)?;
            let mut found = Vec::new();
            // By question, so that the order of the rows does not depend on the chunks.
            for rollout in &rollouts {
                let searches: Vec<Interaction> = interactions(rollout).collect();
                done.interactions += searches.len();
                let is_contrasted = config.collect.contrast;
                let twins = if is_contrasted {
                    contrast(&searches, engine, config.rollout.top_k, config.tune.lessons.evidence)?
                } else {
                    Vec::new()
                };
                done.twins += twins.len();
                found.extend(searches.into_iter().chain(twins));
            }
            let before = judge.undecided();
            let labels = judge.judge(&found)?;
            done.undecided += judge.undecided() - before;
            let mut lines = Vec::new();
            for (interaction, quality) in found.into_iter().zip(labels) {
                serde_json::to_writer(&mut lines, &LabelledInteraction { interaction, quality })
                    .map_err(|error| PipelineError::file(&path, error))?;
                lines.push(b'\n');
            }
            append(&mut file, &path, &lines)?;
            file.sync_data().map_err(FileError::write(&path))?;
            done.bytes += lines.len() as u64;
            done.questions += chunk.len();
            folder.write(COLLECTED, &done)?;
        }
        bar.finish();
        Ok(done)
    }
}

/// The rows of a file, judged where they have no label.
pub(super) fn take(rows: &[TuningRow], judge: &dyn Judge, folder: &Folder<'_>) -> Result<Collected, PipelineError> {
    if let Some(done) = folder.read_if_there(COLLECTED)? {
        return Ok(done);
    }
    let unlabelled: Vec<Interaction> =
        rows.iter().filter(|row| row.quality.is_none()).map(|row| row.interaction.clone()).collect();
    let before = judge.undecided();
    let mut labels = if unlabelled.is_empty() { Vec::new() } else { judge.judge(&unlabelled)? }.into_iter();
    let labelled: Vec<LabelledInteraction> = rows
        .iter()
        .filter_map(|TuningRow { interaction, quality }| {
            let quality = quality.or_else(|| labels.next())?;
            Some(LabelledInteraction { interaction: interaction.clone(), quality })
        })
        .collect();
    write_interactions(folder.path(INTERACTIONS), &labelled)?;
    let undecided = judge.undecided() - before;
    let done = Collected { interactions: labelled.len(), undecided, ..Collected::default() };
    folder.write(COLLECTED, &done)?;
    Ok(done)
}

/// The file without what a killed process wrote after the last whole chunk.
fn open(path: &Path, bytes: u64) -> Result<File, PipelineError> {
    prepare_file(path, &[])?;
    let file = OpenOptions::new().append(true).create(true).open(path).map_err(FileError::write(path))?;
    let length = file.metadata().map_err(FileError::read(path))?.len();
    if length < bytes {
        let message = format!("has {length} bytes, {bytes} were written: it was changed; start in another folder");
        return Err(PipelineError::file(path, message));
    }
    file.set_len(bytes).map_err(FileError::write(path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use zerosearch_generate::{
        Finish, Finished, GenerateError, Request, SampledToken, SequenceId, TokenId, Turn, WeightVersion,
    };
    use zerosearch_rollout::RolloutConfig;
    use zerosearch_search::{Document, Quality, Query, SearchError};
    use zerosearch_simulator::{RuleJudge, SimulatorError, read_interactions};
    use zerosearch_text::{SpecialTokens, train_bpe};

    use super::*;

    /// Searches for the last word of its question and then answers.
    struct Policy {
        codec: Codec,
        live: BTreeMap<SequenceId, (String, usize, Option<Turn>)>,
    }

    impl Generator for Policy {
        fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
            let prompt = self.codec.decode(request.prompt);
            let word = prompt.rsplit_once("number ").map_or("none", |(_, rest)| rest.split('?').next().unwrap());
            let id = SequenceId(self.live.len() as u64);
            self.live.insert(id, (word.to_string(), 0, Some(request.turn)));
            Ok(id)
        }

        fn extend(&mut self, id: SequenceId, _: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
            self.live.get_mut(&id).ok_or(GenerateError::NotWaiting(id.0))?.2 = Some(turn);
            Ok(())
        }

        fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
            let mut finished = Vec::new();
            for (id, (word, turns, pending)) in &mut self.live {
                let Some(mut turn) = pending.take() else { continue };
                *turns += 1;
                let text = match turns {
                    1 => format!("<think>.</think><search>about {word}</search>"),
                    _ => "<answer>.</answer>".to_string(),
                };
                let (mut tokens, mut finish) = (Vec::new(), Finish::EndOfText);
                for token in self.codec.encode(&text) {
                    tokens.push(SampledToken::new(token, 0.0));
                    if (turn.stop)(token) {
                        finish = Finish::Stop;
                        break;
                    }
                }
                finished.push(Finished { id: *id, tokens, finish });
            }
            Ok(finished)
        }

        fn release(&mut self, _: SequenceId) {}

        fn weight_version(&self) -> WeightVersion {
            WeightVersion(0)
        }
    }

    /// Says the answer for even numbers, and breaks where it is told to.
    struct Engine {
        is_down: bool,
    }

    impl SearchEngine for Engine {
        fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
            let number =
                query.text.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse::<usize>().ok());
            let number = number.unwrap_or(1);
            if self.is_down || number == 5 && query.text.starts_with("about") {
                return Err(SearchError::Index("out of order".into()));
            }
            let document = |rank: usize| {
                let answer =
                    if (number + rank).is_multiple_of(2) { format!("value{number}") } else { "nothing".into() };
                Document { contents: format!("{rank} on {number}: {answer}"), ..Document::default() }
            };
            Ok((0..query.top_k).map(document).collect())
        }
    }

    /// The exact rule, killed after so many calls.
    struct Killed(Cell<usize>);

    impl Judge for Killed {
        fn judge(&self, interactions: &[Interaction]) -> Result<Vec<Quality>, SimulatorError> {
            self.0.set(self.0.get().checked_sub(1).ok_or(SimulatorError::Template("killed".into()))?);
            RuleJudge.judge(interactions)
        }
    }

    fn collect(folder: &Path, chunk: usize, engine: &Engine, judge: &dyn Judge) -> Result<Collected, PipelineError> {
        let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
        let texts = ["number about value".to_string()].into_iter();
        let codec = train_bpe(texts, 320, &["</search>", "</answer>"], &special).unwrap();
        let question = |number: usize| {
            Question::new(number.to_string(), format!("What is number {number}?"), vec![format!("value{number}")])
        };
        let questions: Vec<Question> = (0..9).map(question).collect();
        let prompt = PromptTemplate::new("{{ question }}").unwrap();
        let mut policy = Policy { codec: codec.clone(), live: BTreeMap::new() };
        let mut config = SimulatorTrainingConfig { rollout: RolloutConfig::default(), ..Default::default() };
        config.collect.chunk = chunk;
        config.rollout.top_k = 1;
        let collection =
            Collection { policy: &mut policy, codec: &codec, prompt: &prompt, engine, questions: &questions };
        collection.run(&config, judge, &Folder(folder))
    }

    #[test]
    fn killed_anywhere_and_resumed_it_leaves_the_file_of_a_run_that_never_was() {
        let whole = tempfile::tempdir().unwrap();
        let up = Engine { is_down: false };
        let expected = collect(whole.path(), 3, &up, &RuleJudge).unwrap();
        let text = std::fs::read(whole.path().join(INTERACTIONS)).unwrap();
        // One of nine searches fails, each of the others has a twin.
        assert_eq!((expected.questions, expected.interactions, expected.failed_searches, expected.twins), (9, 8, 1, 8));
        let rows = read_interactions(whole.path().join(INTERACTIONS)).unwrap();
        assert_eq!(rows.iter().filter(|row| row.quality == Quality::Useful).count(), 8);
        for calls in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            collect(folder.path(), 2, &up, &Killed(Cell::new(calls))).unwrap_err();
            // A row that was cut short, after the rows that count.
            append(&mut open_for_test(folder.path()), "", b"{\"question\": \"Wh").unwrap();
            assert_eq!(collect(folder.path(), 4, &up, &RuleJudge).unwrap(), expected, "{calls}");
            assert!(std::fs::read(folder.path().join(INTERACTIONS)).unwrap() == text, "{calls}");
            // Nothing is left to do.
            assert_eq!(collect(folder.path(), 4, &Engine { is_down: true }, &RuleJudge).unwrap(), expected);
        }
    }

    fn open_for_test(folder: &Path) -> File {
        OpenOptions::new().append(true).open(folder.join(INTERACTIONS)).unwrap()
    }

    #[test]
    fn an_engine_that_is_down_ends_the_collection_and_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        collect(folder.path(), 4, &Engine { is_down: false }, &Killed(Cell::new(1))).unwrap_err();
        let before = std::fs::read(folder.path().join(INTERACTIONS)).unwrap();
        let message = collect(folder.path(), 4, &Engine { is_down: true }, &RuleJudge).unwrap_err().to_string();
        assert!(message.contains("all of the last 4 searches failed") && message.contains("out of order"), "{message}");
        assert!(std::fs::read(folder.path().join(INTERACTIONS)).unwrap() == before);
        // A file that is shorter than what was written is not taken for the whole.
        std::fs::write(folder.path().join(INTERACTIONS), "").unwrap();
        let message = collect(folder.path(), 4, &Engine { is_down: false }, &RuleJudge).unwrap_err().to_string();
        assert!(message.contains("it was changed"), "{message}");
    }

    #[test]
    fn rows_of_a_file_keep_their_labels_and_the_others_are_judged() {
        let folder = tempfile::tempdir().unwrap();
        let row = |document: &str, quality| {
            let interaction = Interaction {
                question: "Q?".into(),
                golden_answers: vec!["Lima".into()],
                query: "q".into(),
                documents: vec![document.into()],
            };
            TuningRow { interaction, quality }
        };
        let rows = [row("Lima", Some(Quality::Noisy)), row("Lima", None), row("Rome", None)];
        let done = take(&rows, &RuleJudge, &Folder(folder.path())).unwrap();
        assert_eq!((done.interactions, done.questions), (3, 0));
        let labels: Vec<Quality> =
            read_interactions(folder.path().join(INTERACTIONS)).unwrap().iter().map(|row| row.quality).collect();
        assert_eq!(labels, [Quality::Noisy, Quality::Useful, Quality::Noisy]);
    }
}
