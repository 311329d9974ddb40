//! The stages in their order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use serde::Serialize;
use zerosearch_eval::Strategy;
use zerosearch_files::prepare_folder;
use zerosearch_generate::Ledger;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::{LanguageModel, LocalCompleter, StoredDtype};
use zerosearch_metrics::{ConsoleSink, say};
use zerosearch_search::{Bm25Index, CallCount, Counted, SearchEngine};
use zerosearch_simulator::{
    Interaction, Judge, LabelledInteraction, Obedience, RuleJudge, SimulatedEngine, SimulationConfig, SimulatorPrompt,
    balance, contrast, read_interactions, simulate, surface_auc, write_interactions,
};
use zerosearch_text::PromptTemplate;
use zerosearch_train::{Trainer, Validation, read_samples, samples_path};

use super::collect::Collector;
use super::evaluation::Examination;
use super::folder::Folder;
use super::report::write_run_report;
use super::steps::{COLUMNS, take_steps};
use super::tune::{engine, tune};
use super::{Material, Outcome, PipelineConfig, PipelineError, Summary};

/// The whole method on one model and one body of questions.
pub struct Pipeline<'a> {
    /// How it runs.
    pub config: PipelineConfig,
    /// The folder of the base policy.
    pub model: &'a Path,
    /// Passages and questions.
    pub material: &'a Material,
    /// The run's folder.
    pub out: &'a Path,
    /// Whether to go on with what is in it.
    pub resume: bool,
    /// Labels the interactions.
    pub judge: &'a dyn Judge,
    /// The device that policy and simulator are decoded and trained on.
    pub device: Device,
    /// The usage of policy, simulator and engine during the training, and of a judge that was given an account of it.
    pub ledger: Ledger,
}

/// How a pipeline ended.
pub enum PipelineEnd {
    /// With results.
    Finished(Box<Outcome>),
    /// It was asked to stop, and can be resumed.
    Interrupted,
}

#[derive(Serialize, serde::Deserialize)]
struct Tuned {
    before: Obedience,
    #[serde(default)]
    prompt_mode: Option<Obedience>,
    first_attempt: Obedience,
    as_used: Obedience,
    #[serde(default)]
    surface_auc: Option<f64>,
}

/// The interactions that are to be judged.
#[derive(Serialize, serde::Deserialize)]
struct Collected {
    searches: Vec<Interaction>,
    /// The same searches with documents of the other quality.
    twins: Vec<Interaction>,
}

/// The parts of a run when its reinforcement learning begins.
pub(crate) struct Prepared {
    pub(crate) base: LanguageModel,
    pub(crate) simulator: LanguageModel,
    pub(crate) simulator_prompt: SimulatorPrompt,
    index: Arc<Bm25Index>,
    /// The same, with its queries counted.
    real: Counted<Arc<Bm25Index>>,
    tuned: Tuned,
}

impl<'a> Pipeline<'a> {
    /// The method as published: the exact rule judges. Everything is computed on the CPU; see
    /// [`DeviceName`](crate::device::DeviceName) for a GPU.
    pub fn new(config: PipelineConfig, model: &'a Path, material: &'a Material, out: &'a Path) -> Self {
        Self {
            config,
            model,
            material,
            out,
            resume: false,
            judge: &RuleJudge,
            device: Device::flex(),
            ledger: Ledger::new(),
        }
    }

    /// Runs every stage that is not done yet. `interrupted` is looked at before every training step.
    ///
    /// # Errors
    /// When the folder holds another run, or a stage fails.
    pub fn run(&self, interrupted: &AtomicBool) -> Result<PipelineEnd, PipelineError> {
        let Prepared { base, simulator, simulator_prompt, index, real, tuned } = self.before_training()?;
        let calls = real.calls();
        let ledger = self.ledger.clone();
        let simulated = engine(self.config.simulation, &simulator, &simulator_prompt, &self.device, &ledger)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(PipelineEnd::Interrupted);
        }
        let Some((policy, real_calls)) = self.train(&base, simulated, ledger, index, &calls, interrupted)? else {
            return Ok(PipelineEnd::Interrupted);
        };
        say(format!("calls to the real engine during training: {real_calls}"));
        policy.save(self.out.join("policy"), StoredDtype::F32)?;

        let examination = Examination {
            engine: &real,
            device: &self.device,
            questions: &self.material.held_out,
            rollout: self.config.train.rollout,
            seed: self.config.train.seed,
        };
        let file = |name: &str| self.out.join(format!("predictions_{name}.jsonl"));
        let (base_direct, _) =
            examination.of("evaluate: base, direct", &base, Strategy::Direct, &file("base_direct"))?;
        let (base_search, _) =
            examination.of("evaluate: base, searching", &base, Strategy::Search, &file("base_search"))?;
        let (trained_search, predictions) =
            examination.of("evaluate: trained, searching", &policy, Strategy::Search, &file("trained_search"))?;
        let summary = Summary {
            seed: self.config.train.seed,
            algorithm: self.algorithm_name(),
            steps: self.config.train.steps,
            real_search_calls_during_training: real_calls,
            simulator: tuned.as_used,
            simulator_first_attempt: tuned.first_attempt,
            simulator_before_tuning: tuned.before,
            simulator_prompt_mode: tuned.prompt_mode,
            simulator_surface_auc: tuned.surface_auc,
            base_direct,
            base_search,
            trained_search,
        };
        self.folder().write("summary.json", &summary)?;
        let samples = read_samples(samples_path(self.out.join(SAMPLES), self.config.train.steps))?;
        write_run_report(self.out, &summary, &samples, &self.material.train, &base.codec)?;
        Ok(PipelineEnd::Finished(Box::new(Outcome { summary, predictions })))
    }

    /// Every stage before the reinforcement learning that is not done yet.
    pub(crate) fn before_training(&self) -> Result<Prepared, PipelineError> {
        self.config.validate()?;
        self.prepare()?;
        let base = LanguageModel::read(self.model)?;
        let format = EpisodeFormat::from(self.config.train.rollout.format);
        let prompt = PromptTemplate::for_model_or(&base.codec, &format.prompt)?;
        let simulator_prompt = SimulatorPrompt::for_model(self.model)?;
        self.begin()?;
        let index = Arc::new(Bm25Index::new(self.material.corpus.iter().cloned())?);
        let real = Counted::new(Arc::clone(&index));
        let (count, train, test) = (base.weights.parameters(), self.material.train.len(), self.material.held_out.len());
        say(format!(
            "base policy: {:.1}M parameters; {} passages; {train} training and {test} held-out questions",
            count as f64 / 1e6,
            self.material.corpus.len()
        ));
        self.save_model("base", &base, None)?;

        let (simulator, tuned) = self.simulator(&base, &prompt, &simulator_prompt, &real)?;
        say("simulator: results with a golden answer, keyword useful and keyword noisy, of so many held-out queries:");
        let attempts = self.config.simulation.attempts;
        for (name, o) in [
            ("prompt mode".into(), tuned.prompt_mode),
            ("before fine-tuning".into(), Some(tuned.before)),
            ("fine-tuned, first attempt".into(), Some(tuned.first_attempt)),
            (format!("as used: up to {attempts} attempts"), (attempts > 1).then_some(tuned.as_used)),
        ] {
            let Some(o) = o else { continue };
            let [useful, noisy] = [o.useful_contains, o.noisy_contains].map(|share| 100.0 * share);
            say(format!("  {name:28} {useful:5.1} % {noisy:5.1} %   {:5}", o.n));
        }
        if let Some(auc) = tuned.surface_auc {
            say(format!("  told apart by their surface alone: AUC {auc:.2} (0.5 is chance)"));
        }
        Ok(Prepared { base, simulator, simulator_prompt, index, real, tuned })
    }

    /// The run's folder, empty or, when resuming, with its files. Obstacles in it are noticed before any work.
    fn prepare(&self) -> Result<(), PipelineError> {
        if let Some(before) = self.marked()? {
            if !self.resume {
                return Err(PipelineError::Occupied { path: self.out.into() });
            }
            if let Some(change) = self.config.change_from(&before) {
                let remedy = "resume with the same options, or start in another folder";
                return Err(PipelineError::file(self.out.join(MARKER), format!("{change}; {remedy}")));
            }
        }
        prepare_folder(self.out)?;
        let folders =
            ["base", "simulator", "checkpoints", "tensorboard", SAMPLES, "policy"].map(|name| self.out.join(name));
        Ok(folders.iter().filter(|folder| folder.exists()).try_for_each(prepare_folder)?)
    }

    /// Marks the folder as this run's, now that its parts could be read.
    fn begin(&self) -> Result<(), PipelineError> {
        if self.marked()?.is_some_and(|before| before == self.config) {
            return Ok(());
        }
        self.folder().write(MARKER, &self.config)
    }

    /// The configuration of the run in the folder, if there is one.
    fn marked(&self) -> Result<Option<PipelineConfig>, PipelineError> {
        self.folder().read_if_there(MARKER)
    }

    fn simulator(
        &self,
        base: &LanguageModel,
        prompt: &PromptTemplate,
        template: &SimulatorPrompt,
        real: &dyn SearchEngine,
    ) -> Result<(LanguageModel, Tuned), PipelineError> {
        let (folder, figures) = (self.out.join("simulator"), self.out.join("simulator.json"));
        if figures.exists() {
            return Ok((LanguageModel::read(&folder)?, self.folder().read("simulator.json")?));
        }
        let seed = self.config.train.seed;
        let (rollout, device) = (self.config.train.rollout, &self.device);
        let collector = Collector { model: base, prompt, engine: real, device, rollout, seed };
        let rows = self.labelled(&collector)?;
        let held_out = collector.collect(
            "queries of held-out questions",
            &self.material.held_out,
            self.config.obedience_questions,
            "held-out queries",
        )?;
        let used = self.config.simulation;
        let results = |model: &LanguageModel, template: &SimulatorPrompt, attempts: usize, queries: &[Interaction]| {
            let engine = engine(SimulationConfig { attempts, ..used }, model, template, &self.device, &Ledger::new())?;
            Ok::<_, PipelineError>(simulate(&engine, queries, self.config.train.rollout.top_k, seed)?)
        };
        let some = &held_out[..held_out.len().min(BEFORE)];
        let prompt_mode = Obedience::of(&results(base, &SimulatorPrompt::prompted()?, 1, some)?);
        let before = Obedience::of(&results(base, template, 1, some)?);
        let (simulator, _) =
            tune(&(&self.config).into(), self.config.simulator_lessons, base, template, &rows, &self.device)?;
        let written = results(&simulator, template, 1, &held_out)?;
        let (first_attempt, surface_auc) = (Obedience::of(&written), surface_auc(&written));
        let as_used = match used.attempts {
            0 | 1 => first_attempt,
            attempts => Obedience::of(&results(&simulator, template, attempts, &held_out)?),
        };
        let tuned = Tuned { before, prompt_mode: Some(prompt_mode), first_attempt, as_used, surface_auc };
        self.save_model("simulator", &simulator, Some(template))?;
        self.folder().write("simulator.json", &tuned)?;
        Ok((simulator, tuned))
    }

    fn labelled(&self, collector: &Collector<'_>) -> Result<Vec<LabelledInteraction>, PipelineError> {
        let path = self.out.join("interactions.jsonl");
        let rows = if path.exists() {
            read_interactions(&path)?
        } else {
            let rows = self.judged(self.collected(collector)?)?;
            write_interactions(&path, &rows)?;
            rows
        };
        let collected = self.out.join(COLLECTED);
        if collected.exists() {
            std::fs::remove_file(&collected)
                .map_err(|error| PipelineError::file(&collected, format!("cannot be removed: {error}")))?;
        }
        Ok(rows)
    }

    fn judged(&self, Collected { searches, twins }: Collected) -> Result<Vec<LabelledInteraction>, PipelineError> {
        let (collected, added) = (searches.len(), twins.len());
        let interactions = [searches, twins].concat();
        let before = self.judge.undecided();
        let labels = self.judge.judge(&interactions)?;
        let undecided = self.judge.undecided() - before;
        if undecided > 0 {
            say(format!("the judge could not decide {undecided} of {}: they count as noisy", interactions.len()));
        }
        let rows: Vec<_> = interactions
            .into_iter()
            .zip(labels)
            .map(|(interaction, quality)| LabelledInteraction { interaction, quality })
            .collect();
        let rows = balance(rows, self.config.train.seed)?;
        let each = rows.len() / 2;
        say(format!("collected {collected} searches, added {added} of the other quality, balanced to {each} of each"));
        Ok(rows)
    }

    /// The searches on the real engine, kept in the folder until they have labels: a judge that fails costs none of them.
    fn collected(&self, collector: &Collector<'_>) -> Result<Collected, PipelineError> {
        if self.out.join(COLLECTED).exists() {
            return self.folder().read(COLLECTED);
        }
        let searches = collector.collect(
            "collect with the real engine",
            &self.material.train,
            self.config.collect_questions,
            "collect",
        )?;
        let twins = contrast(
            &searches,
            collector.engine,
            self.config.train.rollout.top_k,
            self.config.simulator_lessons.evidence,
        )?;
        let collected = Collected { searches, twins };
        self.folder().write(COLLECTED, &collected)?;
        Ok(collected)
    }

    /// `None` when interrupted.
    fn train(
        &self,
        base: &LanguageModel,
        simulated: SimulatedEngine<LocalCompleter>,
        ledger: Ledger,
        index: Arc<Bm25Index>,
        calls: &CallCount,
        interrupted: &AtomicBool,
    ) -> Result<Option<(LanguageModel, u64)>, PipelineError> {
        // Counted over all processes that had a part in the run.
        let counted_before: u64 =
            if self.resume && self.out.join(CALLS).exists() { self.folder().read(CALLS)? } else { 0 };
        let before = calls.total();
        let real_calls = || counted_before + calls.total() - before;
        let config = self.config.train.clone();
        let mut trainer = Trainer::builder(base.clone(), self.material.train.clone(), simulated);
        if !self.material.validation.is_empty() {
            // Its searches are no part of the training, nothing in the training depends on them, and they are not counted.
            trainer = trainer.validation(Validation::new(self.material.validation.clone(), index));
        }
        let trainer = trainer
            .device(self.device.clone())
            .ledger(ledger)
            .checkpoints(self.out.join("checkpoints"))
            .logs(self.out)
            .sink(ConsoleSink::stdout(&COLUMNS))
            .samples(self.out.join(SAMPLES), 2 * config.samples_per_question)
            .config(config)
            .build()?;
        let policy = take_steps(trainer, "train against the simulator", interrupted, &mut || {
            self.folder().write(CALLS, &real_calls())
        })?;
        Ok(policy.map(|policy| (policy, real_calls())))
    }

    fn save_model(
        &self,
        name: &str,
        model: &LanguageModel,
        template: Option<&SimulatorPrompt>,
    ) -> Result<(), PipelineError> {
        let folder = self.out.join(name);
        model.save(&folder, StoredDtype::F32)?;
        if let Some(template) = template {
            template.save(&folder)?;
        }
        Ok(())
    }

    fn folder(&self) -> Folder<'_> {
        Folder(self.out)
    }

    fn algorithm_name(&self) -> String {
        serde_json::to_value(&self.config.train.algorithm)
            .ok()
            .and_then(|value| value.get("name")?.as_str().map(str::to_string))
            .unwrap_or_default()
    }
}

/// The configuration: where it is, a run has begun.
const MARKER: &str = "pipeline.json";

/// Held-out queries that the model is asked before it is tuned: enough to tell a difference of tens of points.
const BEFORE: usize = 100;

/// Two groups of rollouts of each step.
const SAMPLES: &str = "rollouts";

/// Searches without labels.
const COLLECTED: &str = "collected.json";

/// Queries that reached the real engine while the policy was trained.
const CALLS: &str = "real_search_calls_during_training.json";
