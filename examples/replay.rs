//! A step's recorded rollouts, scored anew: with the run's reward and algorithm, or with others.
//!
//!     cargo run --release --example replay -- runs/quickstart --step 10 --reward contains --algorithm rloo
//!
//! Nothing is generated. With `--model` the update that the step would make from those weights is computed as well.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::algorithms::{AlgorithmConfig, KlReward};
use zerosearch::data::Question;
use zerosearch::lm::LanguageModel;
use zerosearch::metrics::say;
use zerosearch::reward::{F1Reward, RewardConfig};
use zerosearch::search::{Document, Query, SearchEngine, SearchError};
use zerosearch::train::{Sample, TrainConfig, Trainer, latest_config, read_samples, rescore, samples_path};

#[derive(Parser)]
struct Arguments {
    /// A run's folder, with `rollouts/` and `checkpoints/` in it.
    run: PathBuf,
    /// The training step, counted from 1.
    #[arg(long, default_value_t = 1)]
    step: u64,
    /// The reward to score with: f1, em, contains or format.
    #[arg(long, default_value = "f1")]
    reward: RewardConfig,
    /// The algorithm that computes the advantages; the run's own if it is not given.
    #[arg(long)]
    algorithm: Option<AlgorithmConfig>,
    /// A policy's folder, to see the loss and the gradient of the update that these rollouts make of it.
    #[arg(long)]
    model: Option<PathBuf>,
}

/// A replay makes no search.
struct NoEngine;

impl SearchEngine for NoEngine {
    fn search(&self, _: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        Ok(Vec::new())
    }
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    let samples = read_samples(samples_path(arguments.run.join("rollouts"), arguments.step))?;
    let checkpoints = arguments.run.join("checkpoints");
    let config = latest_config(&checkpoints)?.ok_or_else(|| {
        Failure::message(format!("{} has no checkpoint, which would name the run's algorithm", checkpoints.display()))
    })?;

    // As it was, first. A dump holds some groups of a step: all that is needed where groups are compared and nothing else.
    let mut recorded = config.algorithm.clone().build()?;
    let by_groups = ["rloo", "opo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"].contains(&recorded.name());
    let whole = samples.len().is_multiple_of(config.samples_per_question);
    if by_groups && whole && config.kl_reward == KlReward::default() {
        let again = rescore(&samples, &F1Reward, recorded.as_mut())?;
        let same = |a: &Sample, b: &Sample| a.advantages.is_empty() || a.advantages == b.advantages;
        let same = samples.iter().zip(&again).all(|(a, b)| a.reward == b.reward && same(a, b));
        assert!(same, "F1 and the run's algorithm do not give what was recorded: was it run with others?");
        let (count, name) = (samples.len(), recorded.name());
        say(format!("{count} rollouts; F1 and the run's algorithm, {name}, give what was recorded"));
    }

    let reward = arguments.reward.build()?;
    let algorithm = arguments.algorithm.unwrap_or(config.algorithm.clone());
    say("question  reward      now  advantage      now  (of the first trained token)");
    for (before, after) in samples.iter().zip(rescore(&samples, reward.as_ref(), algorithm.clone().build()?.as_mut())?)
    {
        let first = |sample: &Sample| sample.advantages.first().map_or("-".into(), |value| format!("{value:.4}"));
        let (question, old, new) = (before.rollout.question_index, before.reward, after.reward);
        say(format!("{question:>8}  {old:>6.3}  {new:>7.3}  {:>9}  {:>7}", first(before), first(&after)));
    }

    if let Some(folder) = arguments.model {
        let model = LanguageModel::read(&folder)?;
        let ask = |sample: &Sample| Question::new("", &sample.rollout.question, sample.rollout.golden_answers.clone());
        let questions: Vec<Question> = samples.iter().map(ask).collect();
        let config = TrainConfig { algorithm, ..config };
        let mut trainer = Trainer::builder(model, questions, NoEngine).reward(reward).config(config).build()?;
        let report = trainer.replay(samples.into_iter().map(|sample| sample.rollout).collect())?;
        say(format!("the update that {} would be given:", folder.display()));
        for (name, value) in report.metrics.iter().filter(|(name, _)| name.starts_with("actor/")) {
            say(format!("  {name:24} {value:.6}"));
        }
    }
    Ok(())
}
