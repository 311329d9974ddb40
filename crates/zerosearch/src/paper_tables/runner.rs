//! The runs behind the cells.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use serde_json::{Value, json};
use zerosearch_data::{Fingerprint, Question, fingerprint};
use zerosearch_eval::{GroupedScores, Strategy};
use zerosearch_files::{prepare_file, prepare_folder};
use zerosearch_generate::{Ledger, Role};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_kernels::InstructionSet;
use zerosearch_lm::{LanguageModel, StoredDtype};
use zerosearch_metrics::{ConsoleSink, say};
use zerosearch_search::{Bm25Index, SearchEngine};
use zerosearch_simulator::SimulatorPrompt;
use zerosearch_train::{TrainError, Trainer, TrainerBuilder, read_ledger};

use super::base::{Base, BaseModel};
use super::cell::of_simulator;
use super::experiment::hash;
use super::{Cell, CellConfig, CellScores, Experiment, Results, Training, TrainingEngine};
use crate::pipeline::evaluation::Examination;
use crate::pipeline::steps::{COLUMNS, take_steps};
use crate::pipeline::tune::engine;
use crate::pipeline::{Material, Pipeline, PipelineConfig, PipelineError};

/// A mistake in a training run, made through the seams that any program has.
pub trait Defect {
    /// Its name in an [`Experiment`].
    fn name(&self) -> &'static str;

    /// The engine of the training with the mistake; `questions` are those of the training.
    fn engine(&self, engine: Box<dyn SearchEngine>, questions: &[Question]) -> Box<dyn SearchEngine> {
        let _ = questions;
        engine
    }

    /// The trainer with the mistake.
    ///
    /// # Errors
    /// When it cannot be made in a run of this configuration.
    fn trainer(&self, builder: TrainerBuilder, training: &Training) -> Result<TrainerBuilder, TrainError> {
        let _ = training;
        Ok(builder)
    }
}

/// Makes cells, and keeps in a folder what they have in common: the simulator of each seed. The folder also has each run's
/// checkpoints, metrics, policy and predictions, so that a run that was killed goes on.
pub struct Runner<'a> {
    config: PipelineConfig,
    material: &'a Material,
    work: &'a Path,
    device: Device,
    small: bool,
    defects: Vec<Box<dyn Defect>>,
    base: Base<'a>,
    plain: Option<Base<'a>>,
    smaller: Option<Base<'a>>,
    real: Arc<Bm25Index>,
    /// A cell's configuration but for the model, the simulator and the experiment.
    common: CellConfig,
    /// The simulator that was last asked for, by its folder.
    simulator: Option<(PathBuf, LanguageModel, SimulatorPrompt)>,
}

impl<'a> Runner<'a> {
    /// Reads the base model and indexes the passages. Everything is computed on the CPU.
    ///
    /// # Errors
    /// When the configuration is out of range, or a file of the model is missing or broken.
    pub fn new(
        mut config: PipelineConfig,
        model: &'a Path,
        material: &'a Material,
        work: &'a Path,
    ) -> Result<Self, PipelineError> {
        config.validate()?;
        // No policy is chosen by a validation: the last one counts.
        (config.train.validate_every, config.train.early_stop_patience) = (0, 0);
        let base = Base::read(model)?;
        let common = CellConfig {
            small: false,
            model: base.fingerprint.clone(),
            corpus: of_corpus(material),
            training_questions: fingerprint(&material.train),
            held_out_questions: fingerprint(&material.held_out),
            bounds: config.train.rollout,
            simulator: Value::Null,
            simulator_model: None,
            experiment: Experiment { strategy: Strategy::Search, training: None, plain: false },
        };
        Ok(Self {
            base,
            plain: None,
            smaller: None,
            real: Arc::new(Bm25Index::new(material.corpus.iter().cloned())?),
            config,
            material,
            work,
            device: Device::flex(),
            small: false,
            defects: Vec::new(),
            common,
            simulator: None,
        })
    }

    /// The base model of experiments that begin without a wrong habit.
    ///
    /// # Errors
    /// When a file of the model is missing or broken.
    pub fn plain(self, model: &'a Path) -> Result<Self, PipelineError> {
        Ok(Self { plain: Some(Base::read(model)?), ..self })
    }

    /// The base model of the simulator of another size.
    ///
    /// # Errors
    /// When a file of the model is missing or broken.
    pub fn smaller(self, model: &'a Path) -> Result<Self, PipelineError> {
        Ok(Self { smaller: Some(Base::read(model)?), ..self })
    }

    /// Everything is computed on this device.
    #[must_use]
    pub fn device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Marks the cells as those of a few steps on a few questions.
    #[must_use]
    pub fn small(self, small: bool) -> Self {
        Self { small, ..self }
    }

    /// The defects that experiments may name.
    #[must_use]
    pub fn defects(self, defects: Vec<Box<dyn Defect>>) -> Self {
        Self { defects, ..self }
    }

    /// Everything that decides the figures of a cell.
    ///
    /// # Errors
    /// As [`Experiment::named`].
    pub fn cell_config(&self, experiment: &str, seed: u64) -> Result<CellConfig, PipelineError> {
        let experiment = Experiment::named(experiment, &self.config)?.with_seed(seed);
        let engine = experiment.training.as_ref().map(|training| training.engine);
        let simulator = match engine {
            Some(TrainingEngine::PromptedSimulator) => json!({ "simulation": self.config.simulation }),
            Some(TrainingEngine::FineTunedSimulator | TrainingEngine::SmallerSimulator) => of_simulator(&self.config),
            Some(TrainingEngine::None | TrainingEngine::Real) | None => Value::Null,
        };
        let simulator_model = match engine {
            Some(TrainingEngine::SmallerSimulator) => Some(self.base(BaseModel::Smaller)?.fingerprint.clone()),
            _ => None,
        };
        let model = self.base(experiment.policy_base())?.fingerprint.clone();
        Ok(CellConfig { small: self.small, model, simulator, simulator_model, experiment, ..self.common.clone() })
    }

    fn base(&self, of: BaseModel) -> Result<&Base<'a>, PipelineError> {
        let (base, key, expected) = match of {
            BaseModel::Shipped => return Ok(&self.base),
            BaseModel::Plain => (&self.plain, "plain", "the folder of a base model without a wrong habit"),
            BaseModel::Smaller => (&self.smaller, "smaller", "the folder of a smaller base model"),
        };
        base.as_ref().ok_or_else(|| PipelineError::Config { key, value: "missing".into(), expected })
    }

    /// Those of the cells that `results` lack, or have of another configuration, in their order and each once.
    ///
    /// # Errors
    /// When a file of the results is no cell, an experiment has no such name, or a small cell would replace a whole one.
    pub fn missing<'n>(
        &self,
        cells: &[(&'n str, u64)],
        results: &Results,
    ) -> Result<Vec<(&'n str, u64)>, PipelineError> {
        let mut missing = Vec::new();
        for (experiment, seed) in cells {
            let config = self.cell_config(experiment, *seed)?;
            self.defect(&config.experiment)?;
            results.refuse_smaller(experiment, *seed, &config)?;
            let there = results.cell(experiment, *seed)?;
            if there.is_none_or(|cell| !cell.config.same_figures(&config)) && !missing.contains(&(*experiment, *seed)) {
                missing.push((*experiment, *seed));
            }
        }
        Ok(missing)
    }

    /// Runs the cells that `results` lack and writes each when it is done, after which `done` is called. `false` when interrupted.
    ///
    /// # Errors
    /// As [`missing`](Self::missing), and when a run fails or `done` does.
    pub fn fill(
        &mut self,
        cells: &[(&str, u64)],
        results: &Results,
        interrupted: &AtomicBool,
        done: &mut dyn FnMut(&Cell) -> Result<(), PipelineError>,
    ) -> Result<bool, PipelineError> {
        let missing = self.missing(cells, results)?;
        // Before hours of work.
        prepare_folder(results.folder())?;
        prepare_folder(self.work)?;
        for (number, (experiment, seed)) in missing.iter().enumerate() {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(false);
            }
            say(format!("\ncell {} of {}: {experiment}, seed {seed}", number + 1, missing.len()));
            let Some(cell) = self.run(experiment, *seed, interrupted)? else { return Ok(false) };
            results.write(&cell)?;
            done(&cell)?;
        }
        Ok(true)
    }

    /// One cell. `None` when interrupted.
    fn run(&mut self, name: &str, seed: u64, interrupted: &AtomicBool) -> Result<Option<Cell>, PipelineError> {
        let config = self.cell_config(name, seed)?;
        let experiment = config.experiment.clone();
        let hash = config.hash();
        let folder = self.work.join(format!("{name}-{hash}-seed{seed}"));
        prepare_folder(&folder)?;
        let trained = match &experiment.training {
            None => Ok(Some(self.base(experiment.policy_base())?.model.clone())),
            Some(training) => self.policy(training, experiment.policy_base(), seed, &folder, interrupted),
        };
        let (policy, failure) = match trained {
            Ok(Some(policy)) => (Some(policy), None),
            Ok(None) => return Ok(None),
            // A training that diverges is a result.
            Err(PipelineError::Train(error @ TrainError::NotFinite { .. })) => (None, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let began = Instant::now();
        let scores = policy.map(|policy| self.scores(&policy, experiment.strategy, seed, &folder)).transpose()?;
        let usage = read_ledger(folder.join(LEDGER))?;
        // Over all processes that had a part in the training.
        let training = usage.get(&Role::Policy).map_or(0.0, |policy| policy.device_seconds + policy.idle_seconds);
        let seconds = training + began.elapsed().as_secs_f64();
        let checkpoints = folder.join(CHECKPOINTS);
        if checkpoints.exists() {
            std::fs::remove_dir_all(&checkpoints)
                .map_err(|error| PipelineError::file(&checkpoints, format!("cannot be removed: {error}")))?;
        }
        let instructions = match self.device == Device::flex() {
            true => InstructionSet::current().name().to_owned(),
            false => format!("{:?}", self.device),
        };
        Ok(Some(Cell { experiment: name.into(), seed, hash, instructions, scores, failure, seconds, usage, config }))
    }

    fn scores(
        &self,
        policy: &LanguageModel,
        strategy: Strategy,
        seed: u64,
        folder: &Path,
    ) -> Result<CellScores, PipelineError> {
        let examination = Examination {
            engine: &self.real,
            device: &self.device,
            questions: &self.material.held_out,
            rollout: self.config.train.rollout,
            seed,
        };
        let (_, predictions) = examination.of("evaluate", policy, strategy, &folder.join("predictions.jsonl"))?;
        let GroupedScores { overall, single_hop, multi_hop, .. } = GroupedScores::of(&predictions);
        Ok(CellScores { one_hop: single_hop, several_hops: multi_hop, all: overall })
    }

    /// The trained policy. `None` when interrupted.
    fn policy(
        &mut self,
        training: &Training,
        base: BaseModel,
        seed: u64,
        folder: &Path,
        interrupted: &AtomicBool,
    ) -> Result<Option<LanguageModel>, PipelineError> {
        let saved = folder.join("policy");
        if saved.join("config.json").exists() {
            return Ok(Some(LanguageModel::read(&saved)?));
        }
        prepare_file(folder.join("metrics.jsonl"), &[])?;
        let ledger = Ledger::new();
        let engine = self.engine(training.engine, base, seed, &ledger)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let questions = &self.material.train;
        let defect = training.defect.as_deref().and_then(|name| self.defects.iter().find(|it| it.name() == name));
        let engine = match defect {
            Some(defect) => defect.engine(engine, questions),
            None => engine,
        };
        let base = self.base(base)?;
        let mut builder = Trainer::builder(base.model.clone(), questions.clone(), engine)
            .device(self.device.clone())
            .ledger(ledger)
            .reward(training.reward.build()?)
            .checkpoints(folder.join(CHECKPOINTS))
            .logs(folder)
            .sink(ConsoleSink::stdout(&COLUMNS))
            .config(training.train.clone());
        if training.engine == TrainingEngine::None {
            let format = EpisodeFormat::from(training.train.rollout.format);
            builder = builder.prompt(Strategy::Cot.prompt(&base.model.codec, &format)?);
        }
        if let Some(defect) = defect {
            builder = defect.trainer(builder, training)?;
        }
        let policy = take_steps(builder.build()?, "train", interrupted, &mut || Ok(()))?;
        if let Some(policy) = &policy {
            policy.save(&saved, StoredDtype::F32)?;
        }
        Ok(policy)
    }

    fn engine(
        &mut self,
        kind: TrainingEngine,
        base: BaseModel,
        seed: u64,
        ledger: &Ledger,
    ) -> Result<Box<dyn SearchEngine>, PipelineError> {
        Ok(match kind {
            // An episode of one turn executes no search.
            TrainingEngine::None | TrainingEngine::Real => Box::new(Arc::clone(&self.real)),
            TrainingEngine::PromptedSimulator => {
                let prompt = SimulatorPrompt::prompted()?;
                Box::new(engine(self.config.simulation, &self.base(base)?.model, &prompt, &self.device, ledger)?)
            }
            TrainingEngine::FineTunedSimulator | TrainingEngine::SmallerSimulator => {
                let simulation = self.config.simulation;
                let device = self.device.clone();
                let of = if kind == TrainingEngine::SmallerSimulator { BaseModel::Smaller } else { base };
                let (model, prompt) = self.simulator(of, seed)?;
                Box::new(engine(simulation, model, prompt, &device, ledger)?)
            }
        })
    }

    /// The simulator of a base model and a seed, which all their runs have in common.
    fn simulator(&mut self, of: BaseModel, seed: u64) -> Result<(&LanguageModel, &SimulatorPrompt), PipelineError> {
        let base = self.base(of)?;
        let (folder, model) = (base.folder, base.fingerprint.clone());
        let mut config = self.config.clone();
        config.train.seed = seed;
        let common = CellConfig { model, ..self.common.clone() };
        let name = hash(&(&common, of_simulator(&config), &config.train));
        let out = self.work.join(format!("simulator-{name}-seed{seed}"));
        if self.simulator.as_ref().is_none_or(|(of, ..)| *of != out) {
            self.simulator = None;
            let mut pipeline = Pipeline::new(config, folder, self.material, &out);
            pipeline.resume = true;
            pipeline.device = self.device.clone();
            let prepared = pipeline.before_training()?;
            self.simulator = Some((out, prepared.simulator, prepared.simulator_prompt));
        }
        match &self.simulator {
            Some((_, model, prompt)) => Ok((model, prompt)),
            None => Err(PipelineError::file(self.work, "has no simulator")),
        }
    }

    /// The defect that an experiment names.
    fn defect(&self, experiment: &Experiment) -> Result<(), PipelineError> {
        let name = experiment.training.as_ref().and_then(|training| training.defect.as_deref());
        match name {
            Some(name) if !self.defects.iter().any(|defect| defect.name() == name) => Err(PipelineError::Config {
                key: "defect",
                value: format!("{name:?}"),
                expected: "one of the defects that the runner was given",
            }),
            _ => Ok(()),
        }
    }
}

const CHECKPOINTS: &str = "checkpoints";
const LEDGER: &str = "ledger.json";

fn of_corpus(material: &Material) -> String {
    let mut hash = Fingerprint::default();
    for document in &material.corpus {
        hash.text(document.id.as_deref().unwrap_or_default());
        hash.text(&document.text());
    }
    format!("{}-{hash}", material.corpus.len())
}
