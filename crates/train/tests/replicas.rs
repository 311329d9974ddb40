//! An update on several devices is the update on one.

mod fixture;

use burn::tensor::Device;
use fixture::{Fixture, RunEnd, build_in, config, run, step};
use zerosearch_lm::{AdamWConfig, HostWeights, LoraConfig};
use zerosearch_rollout::Rollout;
use zerosearch_train::{StepReport, TrainConfig, Trainer, TrainerBuilder};

/// An optimizer whose steps follow the gradient's size, so that rounding stays rounding.
const SMOOTH: AdamWConfig = AdamWConfig { beta1: 0.0, beta2: 0.0, epsilon: 1.0, weight_decay: 0.0 };

const SKIPPED: &str = "actor/skipped_update";

fn builder(fixture: &Fixture, config: &TrainConfig, devices: usize) -> TrainerBuilder {
    fixture.builder(config.clone()).further_devices(&vec![Device::flex(); devices - 1])
}

fn trainer(fixture: &Fixture, config: &TrainConfig, devices: usize) -> Trainer {
    builder(fixture, config, devices).build().unwrap()
}

fn rollouts(step: &StepReport) -> Vec<Rollout> {
    step.samples.iter().map(|sample| sample.rollout.clone()).collect()
}

fn largest_difference(a: &HostWeights, b: &HostWeights) -> f32 {
    let pairs = a.iter().zip(b.iter()).flat_map(|((_, a), (_, b))| a.values.iter().zip(&b.values));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn several_devices_take_the_step_of_one() {
    let fixture = Fixture::new();
    let lora = Some(LoraConfig { rank: 2, ..LoraConfig::default() });
    for config in [
        config("grpo"),
        config("gspo"),
        config("ppo"),
        TrainConfig { mini_batch_size: 1, epochs: 2, ..config("ppo") },
        TrainConfig { lora, ..config("grpo") },
    ] {
        let config = TrainConfig {
            optimizer: SMOOTH,
            learning_rate: 0.05,
            critic_learning_rate: 0.05,
            // A share is more than one micro-batch, and a small one is.
            micro_batch_tokens: 60,
            ..config
        };
        let mut one = trainer(&fixture, &config, 1);
        // The second step begins with weights that the first device alone has computed.
        let steps = [step(&mut one), step(&mut one)];
        let alone = one.model().unwrap().weights;
        assert!(largest_difference(&alone, &fixture.model.weights) > 1e-4, "{config:?} changes nothing");
        // Six sequences: the last of eight devices have none.
        for devices in [2, 3, 8] {
            let mut several = trainer(&fixture, &config, devices);
            for step in &steps {
                let report = several.replay(rollouts(step)).unwrap();
                let figures = step.metrics.iter().filter(|(name, _)| name.starts_with("actor/") && *name != SKIPPED);
                for (name, value) in figures {
                    let found = report.metrics.get(name).unwrap();
                    assert!((found - value).abs() < 1e-5 * value.abs().max(1.0), "{devices}, {name}: {found}, {value}");
                }
            }
            let apart = largest_difference(&alone, &several.model().unwrap().weights);
            assert!(apart < 1e-6, "{devices} devices are {apart} apart: {config:?}");
        }
    }
}

#[test]
fn a_run_on_two_devices_repeats_itself_and_can_go_on_with_one() {
    let fixture = Fixture::new();
    // The third step leaves no checkpoint, so that two trainers can take it from the same second one.
    let config = TrainConfig { checkpoint_every: 2, ..config("ppo") };
    let weights = || {
        let folder = tempfile::tempdir().unwrap();
        let trainer = |devices| build_in(folder.path(), builder(&fixture, &config, devices));
        let mut first = trainer(2);
        assert_eq!(run(&mut first, 2), RunEnd::Interrupted);
        let mut again = trainer(2);
        assert_eq!(again.steps_done(), 2);
        assert_eq!(again.model().unwrap().weights, first.model().unwrap().weights);
        let mut alone = trainer(1);
        assert_eq!(alone.steps_done(), 2);
        step(&mut alone);
        step(&mut again);
        // Adam divides by the gradient's size: where that is nearly nothing, rounding is everything.
        assert!(largest_difference(&again.model().unwrap().weights, &alone.model().unwrap().weights) < 3e-3);
        again.model().unwrap().weights
    };
    assert_eq!(weights(), weights());
}
