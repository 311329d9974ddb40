//! Runs on a GPU: nothing that is sampled is said otherwise in training, and a resumed run is an uninterrupted one.

#![cfg(any(feature = "cuda", feature = "webgpu"))]

mod fixture;

use burn::tensor::Device;
use fixture::{Fixture, config, run};
use zerosearch_lm::{LoraConfig, WeightDtype};
use zerosearch_train::TrainConfig;

#[test]
fn a_resumed_run_is_an_uninterrupted_one_and_its_generator_is_its_trainer() {
    // Of the feature that is on.
    let fixture = Fixture { device: Device::default(), ..Fixture::new() };
    let lora = Some(LoraConfig { rank: 2, ..LoraConfig::default() });
    for config in [
        TrainConfig { gradient_checkpointing: true, ..config("ppo") },
        TrainConfig { lora, synchronize_timings: true, ..config("grpo") },
    ] {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut whole = fixture.trainer_in(folders[0].path(), config.clone());
        let mut gaps = Vec::new();
        while let Some(report) = whole.next_step().unwrap() {
            gaps.push(report.metrics.get("rollout/logprob_gap_max").unwrap());
        }
        assert_eq!(gaps, [0.0; 4], "{config:?}");

        run(&mut fixture.trainer_in(folders[1].path(), config.clone()), 2);
        // The optimizer writes the weights of a generator that stays awake, where there are no adapters.
        let awake = TrainConfig { sleep: false, ..config.clone() };
        let mut resumed = fixture.trainer_in(folders[1].path(), awake);
        assert_eq!(resumed.steps_done(), 2);
        run(&mut resumed, 4);
        let weights = [whole, resumed].map(|trainer| trainer.into_model().unwrap().weights);
        assert!(weights[0] == weights[1], "{config:?}");
        assert!(weights[0] != fixture.model.weights, "{config:?}");
    }
}

#[test]
fn a_type_that_the_device_lacks_is_refused_before_the_run() {
    let fixture = Fixture { device: Device::default(), ..Fixture::new() };
    let config = TrainConfig { rollout_dtype: Some(WeightDtype::Bf16), ..config("grpo") };
    let refused = fixture.builder(config).build().err().map(|error| error.to_string());
    let has_it = WeightDtype::default_on(&fixture.device) == WeightDtype::Bf16;
    let expected = "`rollout_dtype` is bf16, expected f32, or nothing: the training device has no bf16";
    assert_eq!(refused.as_deref(), (!has_it).then_some(expected));
}
