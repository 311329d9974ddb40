//! An update on several devices is the update on one.

mod fixture;

use burn::tensor::Device;
use fixture::{Fixture, config, run};
use zerosearch_lm::{AdamWConfig, HostWeights, LoraConfig};
use zerosearch_train::{RunEnd, TrainConfig, Trainer};

/// An optimizer whose steps follow the gradient's size, so that rounding stays rounding.
const SMOOTH: AdamWConfig = AdamWConfig { beta1: 0.0, beta2: 0.0, epsilon: 1.0, weight_decay: 0.0 };

const SKIPPED: &str = "actor/skipped_update";

fn trainer<'a>(fixture: &'a Fixture, config: &TrainConfig, devices: usize) -> Trainer<'a> {
    let further = vec![Device::flex(); devices - 1];
    Trainer::new(config.clone(), fixture.parts()).unwrap().with_devices(&further)
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
        let steps = [one.step().unwrap(), one.step().unwrap()];
        let alone = one.model().weights;
        assert!(largest_difference(&alone, &fixture.model.weights) > 1e-4, "{config:?} changes nothing");
        // Six sequences: the last of eight devices have none.
        for devices in [2, 3, 8] {
            let mut several = trainer(&fixture, &config, devices);
            for step in &steps {
                let report = several.replay(step.rollouts.clone()).unwrap();
                let figures = step.metrics.iter().filter(|(name, _)| name.starts_with("actor/") && *name != SKIPPED);
                for (name, value) in figures {
                    let found = report.metrics.get(name).unwrap();
                    assert!((found - value).abs() < 1e-5 * value.abs().max(1.0), "{devices}, {name}: {found}, {value}");
                }
            }
            let apart = largest_difference(&alone, &several.model().weights);
            assert!(apart < 1e-6, "{devices} devices are {apart} apart: {config:?}");
        }
    }
}

#[test]
fn a_run_on_two_devices_repeats_itself_and_can_go_on_with_one() {
    let fixture = Fixture::new();
    let config = config("ppo");
    let weights = || {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = trainer(&fixture, &config, 2);
        assert_eq!(run(&mut trainer, folder.path(), 2), RunEnd::Interrupted);
        let mut again = self::trainer(&fixture, &config, 2);
        assert!(again.resume(&folder.path().join("checkpoints")).unwrap());
        assert_eq!(again.model().weights, trainer.model().weights);
        let mut alone = self::trainer(&fixture, &config, 1);
        assert!(alone.resume(&folder.path().join("checkpoints")).unwrap());
        alone.step().unwrap();
        again.step().unwrap();
        // Adam divides by the gradient's size: where that is nearly nothing, rounding is everything.
        assert!(largest_difference(&again.model().weights, &alone.model().weights) < 3e-3);
        again.model().weights
    };
    assert_eq!(weights(), weights());
}
