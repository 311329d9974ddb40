//! An algorithm of your own: one type that implements [`Algorithm`], and one line that hands it to the trainer.
//!
//!     cargo run --release --example custom_algorithm
//!
//! This one is best-of-n imitation (rejection sampling, as in RAFT, arXiv:2304.06767): of each question's samples
//! the best is made likelier, if it earned anything, and the others are left alone. The base policy plays its own engine.

use std::path::Path;

use zerosearch::Failure;
use zerosearch::algorithms::{
    Advantages, Aggregation, Algorithm, AlgorithmError, Kl, LossInputs, LossTerms, RewardBatch, TokenLoss,
};
use zerosearch::burn::tensor::Device;
use zerosearch::lm::{LanguageModel, LocalCompleter};
use zerosearch::pipeline::{PipelineConfig, world_material};
use zerosearch::reward::F1Reward;
use zerosearch::simulator::{SimulatedEngine, SimulatorPrompt};
use zerosearch::text::PromptTemplate;
use zerosearch::train::{Parts, TrainConfig, Trainer};

#[derive(Debug)]
struct BestOfGroup;

impl Algorithm for BestOfGroup {
    fn name(&self) -> &'static str {
        "best_of_group"
    }

    /// 1 for the tokens of each group's best sequence, 0 for all others.
    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        let scores = batch.scores();
        let mut advantages = vec![0.0; scores.len()];
        for rows in batch.groups().values() {
            let best = rows.iter().copied().max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            if let Some(best) = best.filter(|best| scores[*best] > 0.0) {
                advantages[best] = 1.0;
            }
        }
        Ok(Advantages::from_sequences(batch, &advantages))
    }

    /// `−A·log π`: the likelihood of what was good.
    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        TokenLoss::unclipped(-(inputs.advantages() * inputs.logprobs.clone()))
    }

    fn terms(&self) -> LossTerms {
        LossTerms { aggregation: Aggregation::TokenMean, kl: Kl::default(), entropy_coefficient: 0.0 }
    }
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let folder = Path::new("models/base");
    let model = LanguageModel::read(folder)?;
    let defaults = PipelineConfig::default();
    let engine =
        SimulatedEngine::new(LocalCompleter::new(&model), SimulatorPrompt::for_model(folder)?, defaults.simulation);
    let (prompt, device, questions) =
        (PromptTemplate::for_model(&model.codec)?, Device::default(), world_material()?.train);
    let parts = Parts {
        model: model.clone(),
        prompt: &prompt,
        questions: &questions,
        engine: &engine,
        reward: &F1Reward,
        device: &device,
    };
    let config = TrainConfig { steps: 3, ..defaults.train };

    let mut trainer = Trainer::with_algorithm(config, parts, Box::new(BestOfGroup))?;
    while trainer.steps_done() < 3 {
        let report = trainer.step()?;
        let figure = |name: &str| report.metrics.get(name).unwrap_or(f64::NAN);
        let (reward, norm) = (figure("critic/score/mean"), figure("actor/grad_norm"));
        println!("step {}: reward {reward:.3}, gradient norm {norm:.4}", report.step);
        assert!(report.advantages.iter().flatten().all(|advantage| *advantage == 0.0 || *advantage == 1.0));
    }
    assert!(trainer.model().weights != model.weights, "three steps change the weights");
    Ok(())
}
