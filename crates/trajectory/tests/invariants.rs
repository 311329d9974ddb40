//! The promises of a trajectory, whatever was said and by whom.

use proptest::collection::vec;
use proptest::prelude::*;
use zerosearch_trajectory::{Finish, SampledToken, Segment, TokenId, Trajectory, WeightVersion};

/// Small ids, so that prompt, policy and observation often share one: authorship is all that tells them apart.
fn token() -> impl Strategy<Value = TokenId> {
    prop_oneof![4 => 0u32..4, 1 => any::<u32>()]
}

fn segment() -> impl Strategy<Value = Segment> {
    let finish = prop::sample::select(vec![
        Finish::Stop,
        Finish::EndOfText,
        Finish::Length,
        Finish::Context,
        Finish::Cancelled,
        Finish::TimedOut,
    ]);
    let sampled = (token(), -30f32..=0.0).prop_map(|(id, logprob)| SampledToken::new(id, logprob));
    prop_oneof![
        1 => vec(token(), 0..6).prop_map(Segment::Prompt),
        3 => (vec(sampled, 0..8), finish, any::<u64>())
            .prop_map(|(tokens, finish, weights)| Segment::Policy { tokens, finish, weights: WeightVersion(weights) }),
        3 => vec(token(), 0..8).prop_map(Segment::Observation),
    ]
}

fn trajectory() -> impl Strategy<Value = Trajectory> {
    (vec(token(), 0..8), vec(segment(), 0..8)).prop_map(|(prompt, segments)| build(prompt, segments))
}

fn build(prompt: Vec<TokenId>, segments: impl IntoIterator<Item = Segment>) -> Trajectory {
    let mut trajectory = Trajectory::new(prompt);
    segments.into_iter().for_each(|segment| trajectory.push(segment));
    trajectory
}

/// The same trajectory with `replace` applied to the tokens of every observation.
fn with_observations(trajectory: &Trajectory, replace: impl Fn(&[TokenId]) -> Vec<TokenId>) -> Trajectory {
    let mut segments = trajectory.segments().iter().map(|segment| match segment {
        Segment::Observation(tokens) => Segment::Observation(replace(tokens)),
        other => other.clone(),
    });
    let prompt = match segments.next() {
        Some(Segment::Prompt(prompt)) => prompt,
        other => panic!("a trajectory starts with its prompt, not with {other:?}"),
    };
    build(prompt, segments)
}

/// The bits of the tokens that no observation holds.
fn bits_outside_observations(trajectory: &Trajectory) -> Vec<bool> {
    let mask = trajectory.mask();
    let mut start = 0;
    let mut bits = Vec::new();
    for segment in trajectory.segments() {
        let end = start + segment.len();
        if !matches!(segment, Segment::Observation(_)) {
            bits.extend_from_slice(&mask.as_slice()[start..end]);
        }
        start = end;
    }
    bits
}

proptest! {
    #[test]
    fn the_tokens_are_the_concatenation_of_the_segments(trajectory in trajectory()) {
        let mut expected = Vec::new();
        for segment in trajectory.segments() {
            match segment {
                Segment::Prompt(tokens) | Segment::Observation(tokens) => expected.extend_from_slice(tokens),
                Segment::Policy { tokens, .. } => expected.extend(tokens.iter().map(|token| token.id)),
            }
        }
        prop_assert_eq!(trajectory.len(), expected.len());
        prop_assert_eq!(trajectory.is_empty(), expected.is_empty());
        prop_assert_eq!(trajectory.tokens(), expected);
    }

    #[test]
    fn the_mask_partitions_the_tokens_by_author(trajectory in trajectory()) {
        let mask = trajectory.mask();
        prop_assert_eq!(mask.as_slice().len(), trajectory.len());
        let mut start = 0;
        for segment in trajectory.segments() {
            let end = start + segment.len();
            let sampled = matches!(segment, Segment::Policy { .. });
            prop_assert!(mask.as_slice()[start..end].iter().all(|bit| *bit == sampled));
            start = end;
        }
        let positions: Vec<_> = mask.trained_positions().collect();
        prop_assert_eq!(positions.len(), mask.trained());
        prop_assert!(positions.iter().all(|position| mask.as_slice()[*position]));
        prop_assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn the_content_of_an_observation_changes_no_mask_bit(trajectory in trajectory(), key in any::<u32>()) {
        let other = with_observations(&trajectory, |tokens| tokens.iter().map(|token| token ^ key).collect());
        prop_assert_eq!(trajectory.mask(), other.mask());
        prop_assert_eq!(trajectory.logprobs(), other.logprobs());
    }

    #[test]
    fn the_length_of_an_observation_changes_no_bit_outside_it(trajectory in trajectory(), length in 0usize..5) {
        let other = with_observations(&trajectory, |_| vec![7; length]);
        prop_assert_eq!(bits_outside_observations(&trajectory), bits_outside_observations(&other));
        prop_assert_eq!(trajectory.mask().trained(), other.mask().trained());
    }

    /// Released code marks document tokens by the pad id, and so drops a pad token that the policy sampled.
    #[test]
    fn no_token_id_is_a_sentinel(trajectory in trajectory(), pad in token()) {
        let padded = trajectory.segments().iter().skip(1).map(|segment| match segment.clone() {
            Segment::Prompt(tokens) => Segment::Prompt(vec![pad; tokens.len()]),
            Segment::Observation(tokens) => Segment::Observation(vec![pad; tokens.len()]),
            Segment::Policy { tokens, finish, weights } => {
                let tokens = tokens.iter().map(|token| SampledToken { id: pad, ..*token }).collect();
                Segment::Policy { tokens, finish, weights }
            }
        });
        let padded = build(vec![pad; trajectory.segments()[0].len()], padded);
        prop_assert_eq!(trajectory.mask(), padded.mask());
    }

    #[test]
    fn logprobs_align_with_the_trained_positions(trajectory in trajectory()) {
        let (tokens, mask, logprobs) = (trajectory.tokens(), trajectory.mask(), trajectory.logprobs());
        prop_assert_eq!(logprobs.len(), mask.trained());
        let sampled: Vec<_> = trajectory
            .segments()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Policy { tokens, .. } => Some(tokens),
                _ => None,
            })
            .flatten()
            .collect();
        for ((position, logprob), token) in mask.trained_positions().zip(logprobs).zip(sampled) {
            prop_assert_eq!(tokens[position], token.id);
            prop_assert_eq!(logprob, token.logprob);
        }
    }

    #[test]
    fn the_prompt_ends_before_the_first_trained_token(trajectory in trajectory()) {
        let first = trajectory.mask().trained_positions().next().unwrap_or(trajectory.len());
        prop_assert!(trajectory.prompt_len() <= first);
        prop_assert!(trajectory.prompt_len() >= trajectory.segments()[0].len());
    }

    #[test]
    fn json_keeps_every_token_and_every_bit_of_a_logprob(trajectory in trajectory()) {
        let json = serde_json::to_string(&trajectory).unwrap();
        let back: Trajectory = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&back, &trajectory);
        let bits = |trajectory: &Trajectory| trajectory.logprobs().iter().map(|p| p.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&back), bits(&trajectory));
    }
}

#[test]
fn a_sampled_pad_token_is_trained_on_and_an_observed_one_is_not() {
    const PAD: TokenId = 0;
    let trajectory = build(
        vec![PAD, 1],
        [
            Segment::Policy {
                tokens: vec![SampledToken::new(5, -0.5), SampledToken::new(PAD, -1.5)],
                finish: Finish::EndOfText,
                weights: WeightVersion(3),
            },
            Segment::Observation(vec![PAD, 5]),
        ],
    );
    assert_eq!(trajectory.mask().as_slice(), [false, false, true, true, false, false]);
    assert_eq!(trajectory.logprobs(), [-0.5, -1.5]);
}

#[test]
fn the_json_form_is_fixed() {
    let trajectory = build(
        vec![1],
        [Segment::Policy {
            tokens: vec![SampledToken::new(2, -0.25)],
            finish: Finish::EndOfText,
            weights: WeightVersion(4),
        }],
    );
    let expected = r#"{"segments":[{"prompt":[1]},{"policy":{"tokens":[{"id":2,"logprob":-0.25}],"finish":"end_of_text","weights":4}}]}"#;
    assert_eq!(serde_json::to_string(&trajectory).unwrap(), expected);
}
