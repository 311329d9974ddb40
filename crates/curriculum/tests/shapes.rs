//! Each curriculum against its definition, at its limits and for any parameters.

use proptest::prelude::*;
use zerosearch_curriculum::{
    Adaptive, Constant, Curriculum, CurriculumConfig, CurriculumError, Exponential, Linear, PerTurn, Progress,
    Reversed, Step, SuccessRate,
};

fn at(curriculum: &impl Curriculum, step: u64, total: u64) -> f64 {
    curriculum.noise_probability(Progress::at(step, total))
}

#[test]
fn exponential_follows_the_formula() {
    for (start, end, base) in [(0.0, 0.5, 4.0), (0.25, 0.75, 4.0), (0.0, 0.5, 2.0), (0.1, 0.9, 10.0), (0.2, 0.6, 0.25)]
    {
        let curriculum = Exponential::new(start, end, base).unwrap();
        for i in 0..=203u64 {
            let formula = start + (f64::powf(base, i as f64 / 203.0) - 1.0) / (base - 1.0) * (end - start);
            assert!((at(&curriculum, i, 203) - formula).abs() < 1e-12, "{start} {end} {base} at {i}");
        }
    }
}

#[test]
fn exponential_has_the_values_of_the_paper_by_hand() {
    let curriculum = Exponential::new(0.0, 0.5, 4.0).unwrap();
    // (4^(1/2) − 1)/3 · 0.5 = 1/6 and (4^(1/4) − 1)/3 · 0.5 = (√2 − 1)/6.
    assert!((at(&curriculum, 100, 200) - 1.0 / 6.0).abs() < 1e-15);
    assert!((at(&curriculum, 50, 200) - (2f64.sqrt() - 1.0) / 6.0).abs() < 1e-15);
}

#[test]
fn exponential_has_its_limits() {
    let curriculum = Exponential::new(0.2, 0.7, 4.0).unwrap();
    assert_eq!(at(&curriculum, 0, 100), 0.2);
    assert_eq!(at(&curriculum, 100, 100), 0.7);
    assert_eq!(at(&curriculum, 101, 100), 0.7);
    assert_eq!(at(&curriculum, u64::MAX, 100), 0.7);
    assert_eq!(at(&curriculum, 0, 0), 0.7, "a run of no steps is finished");
}

#[test]
fn base_one_is_the_straight_line_and_so_is_its_neighbourhood() {
    let linear = Linear::new(0.1, 0.6).unwrap();
    for base in [1.0, 1.0 + f64::EPSILON, 1.0 - f64::EPSILON, 1.0 + 1e-9, 1.0 - 1e-9] {
        let curriculum = Exponential::new(0.1, 0.6, base).unwrap();
        for i in 0..=50 {
            assert!((at(&curriculum, i, 50) - at(&linear, i, 50)).abs() < 1e-9, "base {base} at {i}");
        }
    }
}

#[test]
fn a_large_base_rises_late_and_a_small_one_early() {
    let [late, line, early] = [16.0, 1.0, 1.0 / 16.0].map(|base| Exponential::new(0.0, 1.0, base).unwrap());
    assert!(at(&late, 50, 100) < at(&line, 50, 100));
    assert!(at(&line, 50, 100) < at(&early, 50, 100));
}

#[test]
fn constant_linear_and_step() {
    let constant = Constant::new(0.3).unwrap();
    assert_eq!([0, 5, 99].map(|i| at(&constant, i, 10)), [0.3; 3]);
    let linear = Linear::new(1.0, 0.0).unwrap();
    assert_eq!([0, 1, 2, 3, 4, 9].map(|i| at(&linear, i, 4)), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    let step = Step::new(vec![(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)]).unwrap();
    assert_eq!([0, 4, 5, 9, 10, 11].map(|i| at(&step, i, 10)), [0.0, 0.0, 0.25, 0.25, 1.0, 1.0]);
}

#[test]
fn per_turn_uses_the_last_entry_from_there_on() {
    let per_turn = PerTurn::new(vec![Constant::new(0.1).unwrap(), Constant::new(0.4).unwrap()]).unwrap();
    let turns = [0, 1, 2, u32::MAX].map(|turn| per_turn.noise_probability(Progress { turn, ..Progress::at(3, 9) }));
    assert_eq!(turns, [0.1, 0.4, 0.4, 0.4]);
}

#[test]
fn adaptive_holds_a_policy_in_its_band() {
    let curriculum = Adaptive::new(0.4, 0.6, 0.0, 0.8).unwrap();
    let rate = |success_rate| curriculum.noise_probability(Progress { success_rate, ..Progress::at(1, 9) });
    assert_eq!([None, Some(0.0), Some(0.4), Some(0.6), Some(1.0)].map(rate), [0.0, 0.0, 0.0, 0.8, 0.8]);
    assert!((rate(Some(0.5)) - 0.4).abs() < 1e-12);
    assert_eq!(rate(Some(f64::NAN)), 0.0, "total: a rate that is no number is no reason for noise");

    // A policy that would succeed always on good documents and loses a unit of success per unit of noise.
    let mut success = SuccessRate::new(0.8).unwrap();
    let mut current = 1.0;
    for _ in 0..200 {
        success.observe(current);
        current = 1.0 - rate(success.value());
    }
    assert!((0.4..=0.6).contains(&current), "settled at {current}");
}

#[test]
fn the_success_rate_survives_a_checkpoint() {
    let mut rate = SuccessRate::new(0.5).unwrap();
    [0.25, 0.75, f64::NAN, 2.0].into_iter().for_each(|value| rate.observe(value));
    assert_eq!(rate.value(), Some(0.75), "a half of (0.25 + 0.75)/2 and a half of 1");
    let mut back: SuccessRate = serde_json::from_str(&serde_json::to_string(&rate).unwrap()).unwrap();
    assert_eq!(back, rate);
    [&mut back, &mut rate].into_iter().for_each(|rate| rate.observe(0.25));
    assert_eq!(back, rate, "and goes on as if nothing had happened");
}

#[test]
fn bad_parameters_are_refused_by_name_value_and_range() {
    let message = |result: Result<(), CurriculumError>| result.unwrap_err().to_string();
    for (built, expected) in [
        (Exponential::new(1.5, 0.5, 4.0).map(drop), "curriculum: `start` is 1.5; expected a number in [0, 1]"),
        (Exponential::new(0.0, -0.1, 4.0).map(drop), "curriculum: `end` is -0.1; expected a number in [0, 1]"),
        (Exponential::new(0.0, f64::NAN, 4.0).map(drop), "curriculum: `end` is NaN; expected a number in [0, 1]"),
        (Exponential::new(0.0, 0.5, 0.0).map(drop), "curriculum: `base` is 0; expected a finite number above 0"),
        (Exponential::new(0.0, 0.5, -4.0).map(drop), "curriculum: `base` is -4; expected a finite number above 0"),
        (
            Exponential::new(0.0, 0.5, f64::INFINITY).map(drop),
            "curriculum: `base` is inf; expected a finite number above 0",
        ),
        (Exponential::new(0.0, 0.5, f64::NAN).map(drop), "curriculum: `base` is NaN; expected a finite number above 0"),
        (Constant::new(2.0).map(drop), "curriculum: `probability` is 2; expected a number in [0, 1]"),
        (Linear::new(0.0, f64::INFINITY).map(drop), "curriculum: `end` is inf; expected a number in [0, 1]"),
        (Step::new(vec![]).map(drop), "curriculum: `steps` is empty; expected at least one entry"),
        (
            Step::new(vec![(0.1, 0.5)]).map(drop),
            "curriculum: `steps` is 0.1; expected 0 as the share of the first entry",
        ),
        (
            Step::new(vec![(0.0, 0.5), (0.0, 0.6)]).map(drop),
            "curriculum: `share of an entry of steps` is 0 and `share of the next` is 0; \
             expected share of an entry of steps < share of the next",
        ),
        (Step::new(vec![(0.0, 1.1)]).map(drop), "curriculum: `steps` is 1.1; expected a number in [0, 1]"),
        (PerTurn::<Constant>::new(vec![]).map(drop), "curriculum: `turns` is empty; expected at least one entry"),
        (
            Adaptive::new(0.6, 0.4, 0.0, 0.5).map(drop),
            "curriculum: `low` is 0.6 and `high` is 0.4; expected low < high",
        ),
        (Adaptive::new(0.4, 0.6, 0.5, 0.5).map(drop), "curriculum: `min` is 0.5 and `max` is 0.5; expected min < max"),
        (SuccessRate::new(1.0).map(drop), "curriculum: `decay` is 1; expected a number in [0, 1)"),
    ] {
        assert_eq!(message(built), expected);
    }
}

#[test]
fn the_default_configuration_is_the_paper_s() {
    let default = CurriculumConfig::default();
    assert_eq!(default, CurriculumConfig::Exponential { start: 0.0, end: 0.5, base: 4.0 });
    assert_eq!(toml::from_str::<CurriculumConfig>("kind = 'exponential'").unwrap(), default);
    assert!((default.build().unwrap().noise_probability(Progress::at(1, 2)) - 1.0 / 6.0).abs() < 1e-15);
}

#[test]
fn every_kind_reads_from_toml_and_builds() {
    for (text, at_first, at_last) in [
        ("kind = 'exponential'\nend = 0.75\nbase = 2", 0.0, 0.75),
        ("kind = 'constant'\nprobability = 0.5", 0.5, 0.5),
        ("kind = 'linear'\nstart = 0.5\nend = 0.25", 0.5, 0.25),
        ("kind = 'step'\nsteps = [[0.0, 0.125], [0.5, 1.0]]", 0.125, 1.0),
        ("kind = 'reversed'\n[of]\nkind = 'linear'", 0.5, 0.0),
        ("kind = 'per_turn'\n[[turns]]\nkind = 'linear'\n[[turns]]\nkind = 'constant'\nprobability = 1", 0.0, 0.5),
        ("kind = 'adaptive'\nlow = 0.4\nhigh = 0.6\nmin = 0.125", 0.125, 0.125),
    ] {
        let config: CurriculumConfig = toml::from_str(text).unwrap();
        let curriculum = config.build().unwrap();
        assert_eq!((at(&curriculum, 0, 10), at(&curriculum, 10, 10)), (at_first, at_last), "{text}");
        let back: CurriculumConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(back, config);
    }
}

#[test]
fn unknown_keys_and_bad_values_in_a_configuration_are_refused() {
    let error = toml::from_str::<CurriculumConfig>("kind = 'exponential'\nstrat = 0.1").unwrap_err().to_string();
    assert!(error.contains("strat"), "{error}");
    let error = toml::from_str::<CurriculumConfig>("kind = 'cosine'").unwrap_err().to_string();
    assert!(error.contains("cosine") && error.contains("exponential"), "{error}");
    let nested = toml::from_str::<CurriculumConfig>("kind = 'reversed'\n[of]\nkind = 'linear'\nstart = 1.5").unwrap();
    let error = nested.build().map(drop).unwrap_err().to_string();
    assert_eq!(error, "curriculum: `start` is 1.5; expected a number in [0, 1]");
}

fn base() -> impl Strategy<Value = f64> {
    prop_oneof![1e-6..1e6f64, 0.999..1.001f64, Just(1.0)]
}

proptest! {
    #[test]
    fn exponential_is_monotone_and_stays_between_its_ends(
        start in 0.0..=1.0f64, end in 0.0..=1.0f64, base in base(), total in 1u64..500,
    ) {
        let curriculum = Exponential::new(start, end, base).unwrap();
        let values: Vec<_> = (0..=total + 2).map(|i| at(&curriculum, i, total)).collect();
        prop_assert_eq!(values[0], start);
        prop_assert!(values[total as usize..].iter().all(|p| *p == end));
        let (low, high) = (start.min(end), start.max(end));
        prop_assert!(values.iter().all(|p| (low..=high).contains(p)));
        for pair in values.windows(2) {
            // Neighbouring values may differ by rounding where the curve is flat.
            prop_assert!((pair[1] - pair[0]) * (end - start).signum() >= -1e-15);
        }
    }

    #[test]
    fn reversed_mirrors_time(start in 0.0..=1.0f64, end in 0.0..=1.0f64, base in base(), total in 1u64..300, step in 0u64..400) {
        let forward = Exponential::new(start, end, base).unwrap();
        let backward = Reversed(forward);
        prop_assert_eq!(at(&backward, step, total), at(&forward, total - step.min(total), total));
        prop_assert_eq!(at(&Reversed(backward), step.min(total), total), at(&forward, step.min(total), total));
    }

    #[test]
    fn step_takes_only_its_own_values(
        probabilities in prop::collection::vec(0.0..=1.0f64, 1..6), step in 0u64..120, total in 0u64..100,
    ) {
        let n = probabilities.len() as f64;
        let steps = probabilities.iter().enumerate().map(|(i, p)| (i as f64 / n, *p)).collect();
        let value = at(&Step::new(steps).unwrap(), step, total);
        prop_assert!(probabilities.contains(&value));
    }

    #[test]
    fn adaptive_never_gives_less_noise_to_more_success(
        edges in (0.0..0.5f64, 0.5..=1.0f64), noise in (0.0..0.5f64, 0.5..=1.0f64), rates in (0.0..=1.0f64, 0.0..=1.0f64),
    ) {
        prop_assume!(edges.0 < edges.1 && noise.0 < noise.1);
        let curriculum = Adaptive::new(edges.0, edges.1, noise.0, noise.1).unwrap();
        let p = |rate| curriculum.noise_probability(Progress { success_rate: Some(rate), ..Progress::at(0, 1) });
        let (worse, better) = (rates.0.min(rates.1), rates.0.max(rates.1));
        prop_assert!(p(worse) <= p(better) + 1e-15);
        prop_assert!((noise.0..=noise.1).contains(&p(worse)) && (noise.0..=noise.1).contains(&p(better)));
    }

    #[test]
    fn a_curriculum_is_built_exactly_when_its_values_are_in_range(start in -1.0..2.0f64, end in -1.0..2.0f64, base in -1.0..2.0f64) {
        let valid = (0.0..=1.0).contains(&start) && (0.0..=1.0).contains(&end) && base > 0.0;
        prop_assert_eq!(Exponential::new(start, end, base).is_ok(), valid);
    }
}
