//! Draws one token from log-probabilities.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use zerosearch_generate::{SampledToken, Sampling, TokenId};

/// Draws from `logprobs` (`[vocab]`, natural, temperature 1). The recorded log-probability is the
/// untruncated one at temperature 1, whatever `sampling` cut away.
///
/// One number is drawn from the stream for every token that is not greedy.
pub(crate) fn sample(logprobs: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> SampledToken {
    let id = if sampling.temperature == 0.0 { argmax(logprobs) } else { draw(logprobs, sampling, rng) };
    SampledToken { id: id as TokenId, logprob: logprobs[id] }
}

fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, v)| if *v > best.1 { (i, *v) } else { best }).0
}

fn draw(logprobs: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> usize {
    let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let highest = logprobs.iter().fold(f32::NEG_INFINITY, |highest, value| highest.max(*value));
    let mut mass: Vec<f64> =
        logprobs.iter().map(|value| f64::from((value - highest) / sampling.temperature).exp()).collect();
    truncate(&mut mass, sampling);
    let total: f64 = mass.iter().sum();
    let mut left = uniform * total;
    let mut chosen = argmax(logprobs);
    for (id, share) in mass.iter().enumerate().filter(|(_, share)| **share > 0.0) {
        chosen = id;
        left -= share;
        if left < 0.0 {
            break;
        }
    }
    chosen
}

/// Sets the mass of tokens outside top-k, top-p and min-p to zero. min-p looks at the whole distribution, top-p at what top-k left.
fn truncate(mass: &mut [f64], sampling: &Sampling) {
    if sampling.min_p > 0.0 {
        // The highest mass is 1 by construction.
        mass.iter_mut().filter(|share| **share < f64::from(sampling.min_p)).for_each(|share| *share = 0.0);
    }
    if sampling.top_k == 0 && sampling.top_p >= 1.0 {
        return;
    }
    let mut order: Vec<usize> = (0..mass.len()).collect();
    order.sort_by(|a, b| mass[*b].total_cmp(&mass[*a]).then(a.cmp(b)));
    let mut kept = if sampling.top_k == 0 { order.len() } else { sampling.top_k.min(order.len()) };
    if sampling.top_p < 1.0 {
        let total: f64 = order[..kept].iter().map(|id| mass[*id]).sum();
        let mut reached = 0.0;
        let needed = order[..kept].iter().take_while(|id| {
            let before = reached;
            reached += mass[**id] / total;
            before < f64::from(sampling.top_p)
        });
        kept = needed.count().max(1);
    }
    order[kept..].iter().for_each(|id| mass[*id] = 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn logprobs() -> Vec<f32> {
        [0.5f32, 0.25, 0.15, 0.1].iter().map(|p| p.ln()).collect()
    }

    fn frequencies(sampling: &Sampling) -> [f64; 4] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[sample(&logprobs(), sampling, &mut rng).id as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn close(found: [f64; 4], expected: [f64; 4]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.015, "{found} is not {expected}");
        }
    }

    #[test]
    fn draws_follow_the_distribution_and_its_truncations() {
        close(frequencies(&Sampling::default()), [0.5, 0.25, 0.15, 0.1]);
        close(frequencies(&Sampling { top_k: 2, ..Sampling::default() }), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        close(frequencies(&Sampling { top_p: 0.6, ..Sampling::default() }), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        close(frequencies(&Sampling { min_p: 0.25, ..Sampling::default() }), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0]);
        close(frequencies(&Sampling::greedy()), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_recorded_logprob_is_untruncated() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let sampling = Sampling { top_k: 1, temperature: 0.5, ..Sampling::default() };
        assert_eq!(sample(&logprobs(), &sampling, &mut rng).logprob, 0.5f32.ln());
    }
}
