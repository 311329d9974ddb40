//! Dry runs: memory, tokens, searches, time and cost of a training run, before anything of it is there but its configuration.

mod activations;
mod check;
mod config;
mod device;
mod error;
mod estimate;
mod memory;
mod plan;
mod rates;
mod report;
mod sizes;
mod tokens;

use std::path::{Path, PathBuf};

use serde::Serialize;
use zerosearch_data::{Question, read_questions};

pub use self::config::{DryRunConfig, Rates};
pub use self::error::DryRunError;
pub use self::estimate::Estimate;
pub use self::memory::{Memory, Part};
pub use self::plan::{KvCache, MemoryPlan};
pub use self::sizes::ModelSize;
pub use self::tokens::{Lengths, PromptLength, Tokens, Usage};
use crate::config::{EngineConfig, RunConfig, Tables};
use crate::device::DeviceName;
use crate::pipeline::PipelineConfig;

use self::device::Target;
use self::memory::Run;
use self::rates::Measured;

/// The needs of a training run, from its tables and the `config.json` of its models. No weights are read, and no server is asked.
///
/// ```
/// use std::path::Path;
/// use zerosearch::config::Tables;
/// use zerosearch::dry_run::DryRun;
///
/// let text = r#"
///     model = "Qwen2.5-3B"
///     questions = "train.jsonl"
///     out = "runs/large"
///     device = "cuda:0"
///     engine = { kind = "retriever", url = "http://10.0.0.5:8000" }
///     train = { gradient_checkpointing = true, kv_cache_memory_bytes = 8_000_000_000 }
///     dry_run = { memory_gib = 24 }
/// "#;
/// let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/recipes");
/// let dry_run = DryRun::of(Tables::parse("run.toml", text, &[])?, &recipes, None)?;
/// assert_eq!(dry_run.policy.parameters, 3_085_938_688);
/// assert_eq!(dry_run.lengths.rollouts, 64 * 5);
/// // Masters, reference, gradients and moments alone are 20 bytes a parameter.
/// assert!(dry_run.memory.peak_bytes > 20 * 3_085_938_688);
/// assert!(dry_run.fits().unwrap_err().to_string().contains("`dry_run.memory_gib` is 24"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRun {
    /// The policy.
    pub policy: ModelSize,
    /// Parameters that are trained: the policy's, or those of its adapters.
    pub trained_parameters: u64,
    /// The simulator, where this process decodes it.
    pub simulator: Option<ModelSize>,
    /// The training device; `auto` is the one that this machine has.
    pub device: DeviceName,
    /// Whether this machine has it.
    pub device_is_here: bool,
    /// The memory that it needs, at most.
    pub memory: Memory,
    /// The memory that it has, in GiB, where it is given.
    pub memory_gib: Option<f64>,
    /// The longest that rollouts can be.
    pub lengths: Lengths,
    /// Steps of the run.
    pub steps: u64,
    /// The most tokens and searches.
    pub at_most: Tokens,
    /// The expected ones, where those of a rollout are given or were measured.
    pub expected: Option<Tokens>,
    /// Time and cost, where rates are given or were measured.
    pub estimate: Option<Estimate>,
    /// Files, keys and devices that this machine lacks.
    pub missing: Vec<String>,
    #[serde(skip)]
    remedies: Vec<Remedy>,
}

impl DryRun {
    /// Checks the tables of a training run and computes what it needs. `beside` is the folder of the configuration file, `rates` the
    /// folder of a finished run or a TOML file with the keys of `[rates]`; both tables of the file win over it.
    ///
    /// # Errors
    /// When the run would be refused before its first step, the sizes of a model are not to be found, or `rates` holds none.
    pub fn of(tables: Tables, beside: &Path, rates: Option<&Path>) -> Result<Self, DryRunError> {
        let questions = tables.questions.as_ref().and_then(|path| read_questions(path).ok()).unwrap_or_default();
        Self::asking(&questions, tables, beside, rates)
    }

    /// The reinforcement learning of a pipeline, its largest stage: policy and simulator begin with the same model.
    fn of_pipeline(
        config: &PipelineConfig,
        model: &Path,
        questions: &[Question],
        device: DeviceName,
    ) -> Result<Self, DryRunError> {
        let tables = Tables {
            model: Some(model.into()),
            questions: Some(PathBuf::new()),
            out: Some(PathBuf::new()),
            engine: Some(EngineConfig::Simulator { model: model.into(), simulation: config.simulation }),
            train: config.train.clone(),
            device,
            ..Tables::default()
        };
        Self::asking(questions, tables, Path::new(""), None)
    }

    fn asking(
        questions: &[Question],
        tables: Tables,
        beside: &Path,
        rates: Option<&Path>,
    ) -> Result<Self, DryRunError> {
        let (given, own_rates) = (tables.dry_run.clone(), tables.rates.clone());
        given.check()?;
        own_rates.check()?;
        tables.server.validate()?;
        let run = tables.into_run().map_err(DryRunError::Tables)?;
        let algorithm = check::check(&run)?;
        let measured = rates.map(Measured::read).transpose()?.unwrap_or_default();
        let policy = ModelSize::find(&run.model, beside, &given.sizes)?;
        let simulator = local_simulator(&run.engine).map(|folder| ModelSize::find(folder, beside, &given.sizes));
        let simulator = simulator.transpose()?;
        let RunConfig { train, .. } = &run;
        let target = Target::of(run.device);
        let lengths = Lengths::of(train, &run.model, &policy.config, questions, &run.engine);
        let memory = Run {
            policy: &policy,
            simulator: simulator.as_ref().filter(|_| is_beside_policy(&run)),
            train,
            algorithm: &*algorithm,
            served: run.generator.is_some(),
            target,
            lengths: &lengths,
        };
        let memory = memory.memory();
        let at_most = lengths.bound(train, &*algorithm);
        let expectation = given.clone().or(&measured.rollouts);
        let expected = lengths.expected(&expectation, measured.simulated_tokens, train, &*algorithm);
        let rates = own_rates.or(&measured.rates);
        let estimate = Estimate::of(&rates, expected.as_ref(), &at_most, train);
        let models = std::iter::once(("model", &policy)).chain(simulator.iter().map(|model| ("engine.model", model)));
        let absent = models.filter(|(_, model)| !model.has_weights());
        let mut missing: Vec<String> =
            absent.map(|(key, model)| format!("`{key}`: {} has no weights here", model.folder.display())).collect();
        missing.extend(check::missing(&run));
        let trained_parameters = train.lora.as_ref().map_or(policy.parameters, |lora| policy.adapters(lora));
        Ok(Self {
            trained_parameters,
            device: run.device.resolved(),
            device_is_here: target.is_here,
            memory,
            memory_gib: given.memory_gib,
            steps: train.steps,
            at_most,
            expected,
            estimate,
            missing,
            remedies: remedies(&run),
            lengths,
            policy,
            simulator,
        })
    }

    /// Refuses a run that needs more memory than `dry_run.memory_gib`.
    ///
    /// # Errors
    /// Names the need, the time of its peak, the largest parts and the keys that would lower it.
    pub fn fits(&self) -> Result<(), DryRunError> {
        let needed = self.memory.peak_bytes;
        match self.memory_gib {
            Some(gib) if report::gib(needed) > gib => {
                let available = format!("`dry_run.memory_gib` is {gib}");
                let largest = report::largest(self.memory.parts.iter(), self.memory.peak_during);
                Err(self.too_large(needed, self.memory.peak_during, available, largest, &self.remedies))
            }
            _ => Ok(()),
        }
    }

    fn too_large<'r>(
        &self,
        needed_bytes: u64,
        time: &str,
        available: String,
        largest: String,
        remedies: impl IntoIterator<Item = &'r Remedy>,
    ) -> DryRunError {
        let keys: Vec<&str> = remedies.into_iter().map(|remedy| remedy.key).collect();
        let remedy = format!("It would fall with {}", keys.join(", "));
        DryRunError::Memory { needed_bytes, available, during: report::during(time), largest, remedy }
    }
}

/// A key that would lower the memory of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remedy {
    key: &'static str,
    /// Whether it lowers what does not depend on the length of rollouts.
    lowers_certain: bool,
}

/// The folder of a simulator that this process decodes.
fn local_simulator(engine: &EngineConfig) -> Option<&Path> {
    match engine {
        EngineConfig::Simulator { model, .. } => Some(model),
        EngineConfig::Simulated(simulator) if simulator.server.is_none() => simulator.model.as_deref(),
        EngineConfig::Wrapped { engine, wrap } if wrap.replay.is_none() => local_simulator(engine),
        _ => None,
    }
}

/// Whether a simulator of this process has the device of the policy.
fn is_beside_policy(run: &RunConfig) -> bool {
    fn own_device(engine: &EngineConfig) -> Option<DeviceName> {
        match engine {
            EngineConfig::Simulated(simulator) => simulator.device,
            EngineConfig::Wrapped { engine, .. } => own_device(engine),
            _ => None,
        }
    }
    own_device(&run.engine).is_none_or(|device| device.resolved() == run.device.resolved())
}

/// The keys that would lower the memory of a run and are not set yet.
fn remedies(run: &RunConfig) -> Vec<Remedy> {
    let train = &run.train;
    let policy = run.generator.is_none();
    let simulator = local_simulator(&run.engine).is_some() && is_beside_policy(run);
    let all = [
        (!train.gradient_checkpointing, true, "`train.gradient_checkpointing = true`"),
        (train.kv_cache_memory_bytes.is_none() && policy, false, "`train.kv_cache_memory_bytes`"),
        (
            policy || simulator,
            false,
            "a smaller `train.rollout.concurrency`, which bounds the caches of policy and simulator",
        ),
        (train.lora.is_none(), true, "adapters (`train.lora`)"),
        (policy, true, "a policy on servers (`policy.backend`)"),
        (simulator, true, "a simulator on servers (`engine.backend`) or on another device (`engine.device`)"),
        (true, false, "a smaller `train.micro_batch_tokens`"),
    ];
    let applies = all.into_iter().filter(|(applies, ..)| *applies);
    applies.map(|(_, lowers_certain, key)| Remedy { key, lowers_certain }).collect()
}
