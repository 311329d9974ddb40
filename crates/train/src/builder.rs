//! A trainer from its parts.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use zerosearch_algorithms::Algorithm;
use zerosearch_curriculum::SuccessRate;
use zerosearch_data::Question;
use zerosearch_generate::{Ledger, Role, Stream};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_lm::{Decoder, LanguageModel, ModelFiles, Refit, generator_for};
use zerosearch_metrics::{JsonlSink, Sink, Sinks, TensorBoardSink, unix_seconds};
use zerosearch_reward::{F1Reward, RewardFn};
use zerosearch_rollout::Tool;
use zerosearch_search::{Metered, SearchEngine};
use zerosearch_text::PromptTemplate;

use crate::collector::{BeforeUpdate, Collector};
use crate::identity::Identity;
use crate::learner::Learner;
use crate::outputs::{Outputs, read_ledger};
use crate::updater::Updater;
use crate::{Experience, TrainConfig, TrainError, Trainer, Validation, critic};

/// The parts of a [`Trainer`], most of which have defaults.
pub struct TrainerBuilder {
    policy: LanguageModel,
    questions: Arc<[Question]>,
    engine: Arc<dyn SearchEngine>,
    tools: Vec<Arc<dyn Tool>>,
    config: TrainConfig,
    format: Option<EpisodeFormat>,
    algorithm: Option<Box<dyn Algorithm>>,
    prompt: Option<PromptTemplate>,
    reward: Arc<dyn RewardFn>,
    before_update: Vec<BeforeUpdate>,
    generator: Option<Box<dyn Refit>>,
    device: Device,
    further_devices: Vec<Device>,
    validation: Option<Validation>,
    sinks: Sinks,
    ledger: Ledger,
    logs: Option<PathBuf>,
    samples: Option<(PathBuf, usize)>,
    checkpoints: Option<PathBuf>,
}

impl TrainerBuilder {
    pub(crate) fn new(policy: LanguageModel, questions: Arc<[Question]>, engine: Arc<dyn SearchEngine>) -> Self {
        Self {
            policy,
            questions,
            engine,
            tools: Vec::new(),
            config: TrainConfig::default(),
            format: None,
            algorithm: None,
            prompt: None,
            reward: Arc::new(F1Reward),
            before_update: Vec::new(),
            generator: None,
            device: Device::flex(),
            further_devices: Vec::new(),
            validation: None,
            sinks: Sinks::new(),
            ledger: Ledger::new(),
            logs: None,
            samples: None,
            checkpoints: None,
        }
    }

    /// How to train; the paper's values by default.
    #[must_use]
    pub fn config(self, config: TrainConfig) -> Self {
        Self { config, ..self }
    }

    /// An algorithm of your own in the place of `config.algorithm`, which is then not looked at.
    #[must_use]
    pub fn algorithm(self, algorithm: impl Algorithm + 'static) -> Self {
        Self { algorithm: Some(Box::new(algorithm)), ..self }
    }

    /// Another tool beside the engine, which the policy calls by its tag.
    #[must_use]
    pub fn tool(mut self, tool: impl Tool + 'static) -> Self {
        self.tools.push(Arc::new(tool));
        self
    }

    /// The words of an episode, in the place of the format that `config.rollout.format` names.
    #[must_use]
    pub fn format(self, format: EpisodeFormat) -> Self {
        Self { format: Some(format), ..self }
    }

    /// The words in which the policy is asked a question. By default those that fit the model: its own, or those of the
    /// format ([`PromptTemplate::for_model_or`]).
    #[must_use]
    pub fn prompt(self, prompt: PromptTemplate) -> Self {
        Self { prompt: Some(prompt), ..self }
    }

    /// The reward of an episode; F1 by default.
    #[must_use]
    pub fn reward(self, reward: impl RewardFn + 'static) -> Self {
        Self { reward: Arc::new(reward), ..self }
    }

    /// Has a function change the rollouts of a step once they have their rewards: give rewards that compare the samples of a
    /// question, leave some out of the update (`kept`), or correct what a reward function cannot see. It is called with whole groups, before
    /// dynamic sampling, the curriculum and the metrics see them. A resumed run equals an uninterrupted one if the function remembers
    /// nothing.
    ///
    /// ```
    /// # fn example(builder: zerosearch_train::TrainerBuilder) -> zerosearch_train::TrainerBuilder {
    /// // Nothing is learnt from rollouts of more than 2,000 tokens.
    /// builder.before_update(|experiences| {
    ///     for experience in experiences {
    ///         experience.kept &= experience.rollout.trajectory.len() <= 2000;
    ///     }
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn before_update(mut self, change: impl FnMut(&mut [Experience]) + Send + 'static) -> Self {
        self.before_update.push(Box::new(change));
        self
    }

    /// The generator that collects the rollouts, in the place of the one that fits model and device
    /// ([`generator_for`]). It is given the policy's weights before it samples.
    #[must_use]
    pub fn generator(self, generator: impl Refit + 'static) -> Self {
        Self { generator: Some(Box::new(generator)), ..self }
    }

    /// The device that the policy is decoded and trained on; the CPU by default.
    #[must_use]
    pub fn device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Further devices that take part in the updates: each computes the gradient of a part of the sequences, beside the
    /// [`device`](Self::device), which adds them up. The result is that of one device, up to the order of additions; a
    /// checkpoint knows nothing of devices.
    #[must_use]
    pub fn further_devices(self, devices: &[Device]) -> Self {
        Self { further_devices: devices.to_vec(), ..self }
    }

    /// Questions that the policy answers every `validate_every` steps.
    #[must_use]
    pub fn validation(self, validation: Validation) -> Self {
        Self { validation: Some(validation), ..self }
    }

    /// A sink for the figures of every step that this process takes. One that goes on with a file of an earlier process is
    /// added to the built trainer: see [`Trainer::first_unrecorded_step`].
    #[must_use]
    pub fn sink(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.push(sink);
        self
    }

    /// The ledger that the run's searches and turns are reported to, and that completers may report to as well, such as a
    /// simulator's. Without it the run has one of its own.
    #[must_use]
    pub fn ledger(self, ledger: Ledger) -> Self {
        Self { ledger, ..self }
    }

    /// A folder for the figures of all steps, `metrics.jsonl` and `tensorboard/`, and for `ledger.json`, what the run has used so
    /// far. A resumed run goes on with the files.
    #[must_use]
    pub fn logs(self, folder: impl Into<PathBuf>) -> Self {
        Self { logs: Some(folder.into()), ..self }
    }

    /// A folder for the first `count` samples of every step, for people to read.
    #[must_use]
    pub fn samples(self, folder: impl Into<PathBuf>, count: usize) -> Self {
        Self { samples: Some((folder.into(), count)), ..self }
    }

    /// The folder of the checkpoints. Where it holds one of this run, the trainer goes on from the newest; one of another run
    /// is an error that names the difference.
    #[must_use]
    pub fn checkpoints(self, folder: impl Into<PathBuf>) -> Self {
        Self { checkpoints: Some(folder.into()), ..self }
    }

    /// Puts the parts together, and goes on from the newest checkpoint if there is one.
    ///
    /// # Errors
    /// When the configuration is out of range or contradicts itself, there is nothing to train on, a file of an earlier process
    /// is damaged, or the checkpoints are another run's.
    pub fn build(self) -> Result<Trainer, TrainError> {
        let Self { policy, questions, engine, tools, config, algorithm, prompt, reward, generator, device, .. } = self;
        config.validate()?;
        config.validate_on(&device)?;
        warn_of_other_distribution(&config);
        let algorithm = match algorithm {
            Some(algorithm) => algorithm,
            None => config.algorithm.clone().build()?,
        };
        config.validate_with(&*algorithm)?;
        let curriculum = config.curriculum.build()?;
        if questions.is_empty() {
            return Err(TrainError::NoQuestions);
        }
        let mut format = self.format.unwrap_or_else(|| config.rollout.format.into());
        format.tools.extend(tools.iter().map(|tool| tool.tag().to_owned()));
        let prompt = match prompt {
            Some(prompt) => prompt,
            None => PromptTemplate::for_model_or(&policy.codec, &format.prompt)?,
        };
        let validation = self.validation;
        let identity =
            Identity::of(&policy, &prompt, &questions, algorithm.name(), reward.name(), validation.as_ref())?;
        let config = Arc::new(config);
        // The default generator has the policy's weights already. With adapters it is given the merged ones, as ever after.
        let is_current = generator.is_none() && config.lora.is_none();
        let mut generator = match generator {
            Some(generator) => generator,
            None => generator_for(&policy, &device, config.rollout_dtype_on(&device))?,
        };
        generator.limit_cache(config.kv_cache_memory_bytes.unwrap_or(usize::MAX));
        let codec = policy.codec.clone();
        let collector = Collector {
            config: config.clone(),
            codec,
            prompt,
            questions,
            engine: Arc::new(Metered::new(engine, self.ledger.account(Role::Engine))),
            ledger: self.ledger.clone(),
            tools,
            format,
            reward,
            before_update: self.before_update,
            curriculum,
            greedy_baseline: algorithm.greedy_baseline(),
            dynamic_sampling: algorithm.dynamic_sampling(),
            generator,
            is_current,
            has_lent: false,
            cursor: 0,
            ahead: VecDeque::new(),
            success: SuccessRate::new(0.9)?,
        };
        let (files, mut updater) = networks(policy, config.clone(), algorithm, device)?;
        updater.replicas = self.further_devices.iter().map(|device| updater.replica(device)).collect();
        let outputs =
            Outputs { sinks: self.sinks, checkpoints: self.checkpoints, samples: self.samples, ..Outputs::default() };
        let (step, skipped, best, is_broken) = (0, 0, None, false);
        let mut trainer = Trainer {
            config,
            files,
            collector,
            updater,
            step,
            skipped,
            validation,
            best,
            identity,
            outputs,
            is_broken,
        };
        if trainer.outputs.checkpoints.is_some() {
            trainer.resume()?;
        }
        if let Some(folder) = self.logs {
            let ledger = folder.join("ledger.json");
            self.ledger.resume(&read_ledger(&ledger)?);
            trainer.outputs.ledger = Some((ledger, self.ledger));
            let first = trainer.first_unrecorded_step();
            std::fs::create_dir_all(&folder).map_err(|error| TrainError::file(&folder, error))?;
            trainer.add_sink(JsonlSink::resume(folder.join("metrics.jsonl"), first)?);
            trainer.add_sink(TensorBoardSink::resume(folder.join("tensorboard"), first, unix_seconds)?);
        }
        Ok(trainer)
    }
}

/// The loss takes rollouts for draws from the policy at temperature 1: warns where they are not and nothing corrects for it.
fn warn_of_other_distribution(config: &TrainConfig) {
    let sampling = &config.rollout.sampling;
    if !sampling.is_untouched() && config.importance_sampling.is_none() {
        tracing::warn!(
            "rollouts are drawn at temperature {}, top_p {}, top_k {}, min_p {}, and the loss takes them for draws from the policy itself, at \
             temperature 1 and untruncated; `importance_sampling` with `old_logprobs = \"recomputed\"` corrects for it",
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.min_p
        );
    }
}

/// Policy, critic and reference on a device, as a run begins, and the policy's folder without its weights.
fn networks(
    policy: LanguageModel,
    config: Arc<TrainConfig>,
    algorithm: Box<dyn Algorithm>,
    device: Device,
) -> Result<(ModelFiles, Updater), TrainError> {
    let learner = |decoder| Learner::new(decoder, config.optimizer);
    let critic = algorithm.value_loss().map(|_| critic::initial_weights(&policy));
    let critic = critic.map(|weights| Decoder::trainable(&policy.config, weights, &device)).transpose()?;
    let critic = critic.map(|critic| learner(config.precise(critic)));
    let compares = algorithm.terms().kl.coefficient != 0.0 || config.kl_reward.coefficient != 0.0;
    let (files, decoder, reference) = match &config.lora {
        Some(lora) => {
            let seed = Stream { seed: config.seed, purpose: "adapters", ..Stream::default() }.value();
            let adapters = lora.initial(&policy.config, seed);
            let (files, weights) = policy.into_parts();
            let decoder = config.precise_policy(Decoder::with_lora(&files.config, weights, lora, &adapters, &device)?);
            let reference = compares.then(|| decoder.without_lora());
            (files, decoder, reference)
        }
        None => {
            // A copy of all weights, which a run without a KL term does not pay for.
            let reference = compares.then(|| Decoder::frozen(&policy.config, &*policy.weights, &device)).transpose()?;
            let reference = reference.map(|reference| config.precise_policy(reference));
            let (files, weights) = policy.into_parts();
            let decoder = config.precise_policy(Decoder::trainable(&files.config, weights, &device)?);
            (files, decoder, reference)
        }
    };
    let (policy, kl_beta) = (learner(decoder), config.kl_reward.coefficient);
    let updater = Updater { config, device, policy, critic, algorithm, reference, replicas: Vec::new(), kl_beta };
    Ok((files, updater))
}
