//! The stages in their order.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zerosearch_data::{Fingerprint, fingerprint};
use zerosearch_generate::Ledger;
use zerosearch_lm::{LanguageModel, StoredDtype};
use zerosearch_metrics::say;
use zerosearch_simulator::{
    DocumentStatistics, Interaction, Judge, LabelledInteraction, Obedience, RuleJudge, SimulatorError, SimulatorPrompt,
    Split, TrainingText, TuningRow, balance, read_interactions, sft_examples, simulate, split_by_question,
    style_distance, surface_auc,
};

use super::collect::{Collected, Collection, INTERACTIONS, take};
use super::report::{
    Agreement, DocumentsReport, PartReport, PerplexityReport, RowsReport, Share, SimulatorReport, StagesReport,
    SurfaceReport, TuningReport,
};
use super::{SimulatorTrainingConfig, TuneConfig};
use crate::pipeline::PipelineError;
use crate::pipeline::fine_tuning::FineTuning;
use crate::pipeline::folder::Folder;
use crate::pipeline::tune::{engine, tune};

/// The making of one simulator.
pub struct SimulatorTraining<'a> {
    /// How it is made.
    pub config: SimulatorTrainingConfig,
    /// The model that becomes the simulator.
    pub base: &'a LanguageModel,
    /// The prompt that it is tuned with.
    pub template: SimulatorPrompt,
    /// Labels the interactions.
    pub judge: &'a dyn Judge,
    /// The run's folder.
    pub out: &'a Path,
    /// Whether to go on with what is in it.
    pub resume: bool,
    /// Names of models, engine and judge: a run is resumed with the same ones only. They are written into the run's folder.
    pub settings: Value,
    /// The device that the simulator is tuned and decoded on.
    pub device: Device,
}

/// Origin of the interactions.
pub enum Source<'a> {
    /// They are collected.
    Collect(Collection<'a>),
    /// They were collected before, see [`read_tuning_data`](zerosearch_simulator::read_tuning_data). Rows that have a label keep it.
    Rows(&'a [TuningRow]),
}

/// Contents of `tuned.json`: with it, `simulator/` is complete.
#[derive(Serialize, Deserialize)]
struct Losses {
    first: f64,
    last: f64,
}

const REPORT: &str = "report.json";
const TUNED: &str = "tuned.json";
const SIMULATOR: &str = "simulator";

impl SimulatorTraining<'_> {
    /// Runs every stage that is not done yet.
    ///
    /// # Errors
    /// When the folder holds another run, the interactions leave nothing to learn from or to measure on, or a stage fails. What was
    /// collected is kept, and `resume` goes on with it.
    pub fn run(&self, source: Source<'_>) -> Result<SimulatorReport, PipelineError> {
        self.config.validate()?;
        let folder = Folder(self.out);
        folder.claim(&self.identity(&source), self.resume)?;
        if let Some(report) = folder.read_if_there(REPORT)? {
            return Ok(report);
        }
        let collected = match source {
            Source::Collect(collection) => collection.run(&self.config, self.judge, &folder)?,
            Source::Rows(rows) => take(rows, self.judge, &folder)?,
        };
        let rows = read_interactions(folder.path(INTERACTIONS))?;
        say(format!("{} interactions are judged", rows.len()));
        let judge = agreement(&rows, collected.undecided)?;
        let parts = self.parts(rows, &collected)?;
        let (simulator, losses) = self.tuned(&folder, &parts.train)?;
        let report = self.measured(&parts, &simulator, judge, &losses)?;
        folder.write(REPORT, &report)?;
        Ok(report)
    }

    fn identity(&self, source: &Source<'_>) -> Value {
        let data = match source {
            Source::Collect(collection) => fingerprint(collection.questions),
            Source::Rows(rows) => {
                let mut data = Fingerprint::default();
                for TuningRow { interaction: i, quality } in *rows {
                    let texts = [&i.question, &i.query].into_iter().chain(&i.golden_answers).chain(&i.documents);
                    texts.for_each(|text| data.text(text));
                    data.text(quality.map_or("", |quality| quality.keyword()));
                }
                data.to_string()
            }
        };
        json!({"config": self.config, "settings": self.settings, "template": self.template.source(), "data": data})
    }

    /// Cleaned, parted, balanced.
    fn parts(&self, rows: Vec<LabelledInteraction>, collected: &Collected) -> Result<Parts, PipelineError> {
        let Split { train, held_out, removed } = split_by_question(rows, self.config.tune.held_out, self.config.seed)?;
        let before = train.len() + held_out.len();
        let (train, held_out) = (self.fitting(train)?, self.fitting(held_out)?);
        let too_long = before - train.len() - held_out.len();
        if held_out.is_empty() {
            let message = format!(
                "no held-out interaction fits into the context of the model, {} tokens: take a model with a longer one",
                self.base.config.max_positions
            );
            return Err(SimulatorError::Split(message).into());
        }
        let train = balance(train, self.config.seed)?;
        let counts = RowsReport {
            collected: collected.interactions,
            twins: collected.twins,
            failed_searches: collected.failed_searches,
            removed,
            too_long,
            train: PartReport::of(&train),
            held_out: PartReport::of(&held_out),
        };
        Ok(Parts { train, held_out, counts })
    }

    /// The rows whose example, and whose prompt in every mode, the model can read.
    fn fitting(&self, rows: Vec<LabelledInteraction>) -> Result<Vec<LabelledInteraction>, PipelineError> {
        let (context, codec, prompted) =
            (self.base.config.max_positions, &self.base.codec, SimulatorPrompt::prompted()?);
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            let i = &row.interaction;
            let example = sft_examples(std::slice::from_ref(&row), &self.template, codec, 1.0)?;
            let prompt = prompted.render(&i.question, &i.golden_answers, &i.query, row.quality, i.documents.len())?;
            if example.iter().all(|example| example.tokens.len() <= context) && codec.encode(&prompt).len() < context {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// The fine-tuned model, which a resumed run may find in the folder.
    fn tuned(
        &self,
        folder: &Folder<'_>,
        train: &[LabelledInteraction],
    ) -> Result<(LanguageModel, Losses), PipelineError> {
        let path = folder.path(SIMULATOR);
        if let Some(losses) = folder.read_if_there(TUNED)? {
            return Ok((LanguageModel::read(&path)?, losses));
        }
        let (simulator, losses) =
            tune(&self.tuning(), self.config.tune.lessons, self.base, &self.template, train, &self.device)?;
        simulator.save(&path, StoredDtype::F32)?;
        self.template.save(&path)?;
        let tenth = losses.len().div_ceil(10);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let losses = Losses { first: mean(&losses[..tenth]), last: mean(&losses[losses.len() - tenth..]) };
        folder.write(TUNED, &losses)?;
        Ok((simulator, losses))
    }

    fn tuning(&self) -> FineTuning<'_> {
        let TuneConfig { steps, batch, learning_rate, ref lora, micro_batch_tokens, .. } = self.config.tune;
        FineTuning {
            steps,
            batch,
            learning_rate,
            lora: lora.as_ref(),
            micro_batch_tokens,
            gradient_checkpointing: self.config.tune.gradient_checkpointing,
            gpu: self.config.tune.gpu,
            seed: self.config.seed,
        }
    }

    fn measured(
        &self,
        Parts { train, held_out, counts }: &Parts,
        simulator: &LanguageModel,
        judge: Agreement,
        losses: &Losses,
    ) -> Result<SimulatorReport, PipelineError> {
        let queries = different_queries(held_out, self.config.tune.held_out_queries);
        let top_k = usual_count(train);
        say(format!("measure on {} held-out queries, {top_k} documents each", queries.len()));
        let results = |model: &LanguageModel, template: &SimulatorPrompt| {
            let engine = engine(self.config.tune.simulation, model, template, &self.device, &Ledger::new())?;
            Ok::<_, PipelineError>(simulate(&engine, &queries, top_k, self.config.seed)?)
        };
        let written = StagesReport {
            prompt_mode: results(self.base, &SimulatorPrompt::prompted()?)?,
            before_tuning: results(self.base, &self.template)?,
            tuned: results(simulator, &self.template)?,
        };
        let examples = self.config.tune.lessons.ordered(held_out);
        let examples = sft_examples(&examples, &self.template, &self.base.codec, 1.0)?;
        let perplexity = |model: &LanguageModel| self.tuning().perplexity(model, &examples, &self.device);
        let perplexity = PerplexityReport {
            before_tuning: perplexity(self.base)?,
            tuned: perplexity(simulator)?,
            n: examples.len(),
        };
        let TuneConfig { steps, batch, ref lora, .. } = self.config.tune;
        let tuning = TuningReport {
            steps,
            batch,
            parameters: self.base.weights.parameters(),
            lora: lora.is_some(),
            first_loss: losses.first,
            last_loss: losses.last,
        };
        Ok(SimulatorReport {
            seed: self.config.seed,
            rows: *counts,
            judge,
            tuning,
            obedience: written.map(|rows| Obedience::of(rows).into()),
            perplexity,
            documents: documents(&written, held_out, train),
            surface_auc: SurfaceReport { real: surface_auc(held_out), tuned: surface_auc(&written.tuned) },
        })
    }
}

struct Parts {
    train: Vec<LabelledInteraction>,
    held_out: Vec<LabelledInteraction>,
    counts: RowsReport,
}

impl<T> StagesReport<T> {
    fn map<U>(&self, figure: impl Fn(&T) -> U) -> StagesReport<U> {
        let Self { prompt_mode, before_tuning, tuned } = self;
        StagesReport { prompt_mode: figure(prompt_mode), before_tuning: figure(before_tuning), tuned: figure(tuned) }
    }
}

/// The labels beside those of the exact rule.
fn agreement(rows: &[LabelledInteraction], undecided: usize) -> Result<Agreement, PipelineError> {
    let interactions: Vec<Interaction> = rows.iter().map(|row| row.interaction.clone()).collect();
    let rule = RuleJudge.judge(&interactions)?;
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (row, rule) in rows.iter().zip(rule) {
        *counts.entry((row.quality.keyword(), rule.keyword())).or_default() += 1;
    }
    let count = |judged, rule| counts.get(&(judged, rule)).copied().unwrap_or_default();
    let same = count("useful", "useful") + count("noisy", "noisy");
    Ok(Agreement {
        with_rule: Share::of(same, rows.len()),
        useful_against_rule: count("useful", "noisy"),
        noisy_against_rule: count("noisy", "useful"),
        undecided,
    })
}

/// The first interactions with different questions or queries.
fn different_queries(rows: &[LabelledInteraction], most: usize) -> Vec<Interaction> {
    let mut seen = HashSet::new();
    let interactions = rows.iter().map(|row| &row.interaction);
    interactions.filter(|i| seen.insert((&i.question, &i.query))).take(most).cloned().collect()
}

/// The most frequent number of documents in a result, the largest of several.
fn usual_count(rows: &[LabelledInteraction]) -> usize {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(row.interaction.documents.len()).or_default() += 1);
    counts.into_iter().max_by_key(|(documents, rows)| (*rows, *documents)).map_or(1, |(documents, _)| documents)
}

fn documents(
    written: &StagesReport<Vec<LabelledInteraction>>,
    real: &[LabelledInteraction],
    train: &[LabelledInteraction],
) -> DocumentsReport {
    let training = TrainingText::of(train);
    let StagesReport { prompt_mode, before_tuning, tuned } = written;
    let all = [real, prompt_mode, before_tuning, tuned];
    // A model that wrote nothing must not leave nothing to compare.
    let words = all.into_iter().map(DocumentStatistics::words).filter(|words| *words > 0).min().unwrap_or_default();
    // By question, since the results of one question are alike.
    let mut halves: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sides: [Vec<&String>; 2] = [Vec::new(), Vec::new()];
    for row in real {
        let next = halves.len();
        let side = *halves.entry(&row.interaction.question).or_insert(next) % 2;
        sides[side].extend(&row.interaction.documents);
    }
    let [left, right] = sides;
    let of_real = DocumentStatistics::of(real, real, &training, words);
    DocumentsReport {
        real: DocumentStatistics { style_distance: style_distance(left, right), ..of_real },
        simulated: written.map(|rows| DocumentStatistics::of(rows, real, &training, words)),
    }
}

#[cfg(test)]
mod tests {
    use zerosearch_lm::{HostWeights, LoraConfig, ModelConfig};
    use zerosearch_search::Quality;
    use zerosearch_simulator::SimulationConfig;
    use zerosearch_text::{SpecialTokens, train_bpe};

    use super::*;

    fn base() -> LanguageModel {
        let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
        let texts = ["the query needs documents with useful or noisy information about item".to_string()].into_iter();
        let codec = train_bpe(texts, 300, &[], &special).unwrap();
        let config = ModelConfig::tiny_llama(300, 8, 1, 2, 1, 16);
        LanguageModel::new(config.clone(), HostWeights::init(&config, 0), codec)
    }

    fn rows() -> Vec<TuningRow> {
        let row = |number: usize, is_useful: bool| {
            let word = if is_useful { format!("value{number}") } else { "nothing".into() };
            let interaction = Interaction {
                question: format!("What is item {number}?"),
                golden_answers: vec![format!("value{number}")],
                query: format!("item {number}"),
                documents: vec![format!("Item {number} is {word}."), format!("More on {number}.")],
            };
            TuningRow {
                interaction,
                quality: (number > 3).then_some(if is_useful { Quality::Useful } else { Quality::Noisy }),
            }
        };
        let mut rows: Vec<TuningRow> = (0..12).flat_map(|number| [row(number, true), row(number, false)]).collect();
        // One that no context holds.
        let mut long = row(20, true);
        long.interaction.documents[0] = "word ".repeat(3000);
        rows.push(long);
        rows
    }

    fn training<'a>(base: &'a LanguageModel, out: &'a Path, lora: Option<LoraConfig>) -> SimulatorTraining<'a> {
        let simulation = SimulationConfig { max_new_tokens: 12, ..SimulationConfig::default() };
        let tune = TuneConfig { held_out: 0.25, steps: 2, batch: 2, simulation, lora, ..TuneConfig::default() };
        SimulatorTraining {
            config: SimulatorTrainingConfig { tune, ..SimulatorTrainingConfig::default() },
            base,
            template: SimulatorPrompt::new("{{ quality }} {{ question }} {{ answer }} {{ query }}\n").unwrap(),
            judge: &RuleJudge,
            out,
            resume: false,
            settings: Value::Null,
            device: Device::flex(),
        }
    }

    #[test]
    fn a_simulator_is_made_from_rows_and_a_resumed_run_ends_with_the_same_report() {
        let (base, rows) = (base(), rows());
        for lora in [None, Some(LoraConfig { rank: 2, ..LoraConfig::default() })] {
            let folder = tempfile::tempdir().unwrap();
            let mut training = training(&base, folder.path(), lora.clone());
            let report = training.run(Source::Rows(&rows)).unwrap();
            let counts = &report.rows;
            assert_eq!((counts.collected, counts.too_long, counts.twins), (25, 1, 0));
            assert_eq!(counts.train.useful, counts.train.noisy);
            // Of 13 questions 3 are held back, the one that is too long perhaps among them.
            let held_out = counts.held_out.questions;
            assert!(counts.train.questions + held_out == 12 && (2..4).contains(&held_out), "{counts:?}");
            assert_eq!((report.judge.with_rule.n, report.judge.with_rule.share), (25, 24.0 / 25.0));
            assert_eq!(report.tuning.lora, lora.is_some());
            assert!(report.perplexity.tuned != report.perplexity.before_tuning && report.perplexity.n == 2 * held_out);
            assert_eq!(report.obedience.tuned.useful.n, held_out);

            let simulator = LanguageModel::read(folder.path().join("simulator")).unwrap();
            let name = "model.norm.weight";
            let of = |model: &LanguageModel| model.weights.get(name).unwrap().values.clone();
            assert_eq!(of(&simulator) == of(&base), lora.is_some());
            let template = SimulatorPrompt::for_model(folder.path().join("simulator")).unwrap();
            assert_eq!(template.source(), training.template.source());

            assert!(training.run(Source::Rows(&rows)).unwrap_err().to_string().contains("--resume"));
            training.resume = true;
            for lost in
                [&["report.json"] as &[&str], &["report.json", "tuned.json"], &["report.json", "collected.json"]]
            {
                lost.iter().for_each(|file| std::fs::remove_file(folder.path().join(file)).unwrap());
                assert_eq!(training.run(Source::Rows(&rows)).unwrap(), report, "{lost:?}");
            }
            let message = training.run(Source::Rows(&rows[1..])).unwrap_err().to_string();
            assert!(message.contains("`data`") && message.contains("another folder"), "{message}");
            let shown = report.to_string();
            assert!(shown.contains("fine-tuned ") && shown.contains("96.0 (80.5–99.3)"), "{shown}");
        }
    }

    #[test]
    fn the_usual_count_and_different_queries() {
        let row = |query: &str, documents: usize| {
            let interaction = Interaction {
                question: "?".into(),
                golden_answers: Vec::new(),
                query: query.into(),
                documents: vec![String::new(); documents],
            };
            LabelledInteraction { interaction, quality: Quality::Useful }
        };
        assert_eq!(usual_count(&[row("a", 3), row("a", 3), row("a", 5), row("a", 5), row("a", 9)]), 5);
        assert_eq!(usual_count(&[]), 1);
        let queries = different_queries(&[row("a", 1), row("b", 2), row("a", 3), row("c", 4)], 2);
        assert_eq!(queries.iter().map(|i| i.query.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
