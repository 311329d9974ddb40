//! Draws one token from logits.

use zerosearch_generate::{SampledToken, Sampling, TokenId};
use zerosearch_kernels::host::Masses;

use crate::engine::Draw;

/// Draws from the softmax of `logits` (`[vocab]`), never a banned token. The recorded log-probability is the untruncated
/// one at temperature 1, whatever is cut away; beside it stands the one under the distribution that was drawn from,
/// where they may differ.
pub(super) fn sample(logits: &[f32], draw: &Draw<'_>, masses: &mut Masses) -> SampledToken {
    let Draw { sampling, banned, uniform } = *draw;
    masses.fill(logits, 1.0);
    let (highest, log_total) = (masses.highest, masses.total().ln());
    let token = |id: usize, sampling_logprob| SampledToken {
        id: id as TokenId,
        logprob: (f64::from(logits[id] - highest) - log_total) as f32,
        sampling_logprob,
    };
    if sampling.temperature == 0.0 {
        return token(argmax(logits, banned), Some(0.0));
    }
    if banned.is_empty() && sampling.is_untouched() {
        return token(pick(masses, uniform), None);
    }
    if sampling.temperature != 1.0 {
        masses.fill(logits, sampling.temperature);
    }
    for id in banned {
        set_zero(masses, *id as usize);
    }
    truncate(masses, sampling);
    let id = pick(masses, uniform);
    token(id, Some((f64::from(masses.masses[id]) / masses.total()).ln() as f32))
}

fn argmax(logits: &[f32], banned: &[TokenId]) -> usize {
    let open = logits.iter().enumerate().filter(|(id, _)| !banned.contains(&(*id as TokenId)));
    open.fold((0, f32::NEG_INFINITY), |best, (id, value)| if *value > best.1 { (id, *value) } else { best }).0
}

/// The token under whose share of all mass a uniform number falls.
fn pick(masses: &Masses, uniform: f64) -> usize {
    let mut left = uniform * masses.total();
    let mut chosen = 0;
    for (index, (part, sum)) in masses.masses.chunks(Masses::PART).zip(&masses.sums).enumerate() {
        if left >= *sum {
            left -= sum;
            continue;
        }
        // Rounding may leave a little where the part ends: its last token with any mass then.
        for (slot, mass) in part.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
            chosen = index * Masses::PART + slot;
            left -= f64::from(*mass);
            if left < 0.0 {
                return chosen;
            }
        }
        return chosen;
    }
    masses.masses.iter().rposition(|mass| *mass > 0.0).unwrap_or(chosen)
}

fn set_zero(masses: &mut Masses, id: usize) {
    if let Some(mass) = masses.masses.get_mut(id) {
        *mass = 0.0;
        let part = id / Masses::PART;
        let all = &masses.masses[part * Masses::PART..];
        masses.sums[part] = all[..all.len().min(Masses::PART)].iter().map(|mass| f64::from(*mass)).sum();
    }
}

/// Sets the mass of tokens outside top-k, top-p and min-p to zero. min-p looks at the whole distribution, top-p at
/// what top-k left.
fn truncate(masses: &mut Masses, sampling: &Sampling) {
    let highest = masses.masses.iter().fold(0f32, |highest, mass| highest.max(*mass));
    let mut least = sampling.min_p * highest;
    if sampling.top_k > 0 || sampling.top_p < 1.0 {
        let kept = most_probable(&masses.masses, sampling);
        let mut all = std::mem::take(&mut masses.masses);
        let open = kept.into_iter().map(|id| (id, all[id])).filter(|(_, mass)| *mass >= least).collect::<Vec<_>>();
        all.fill(0.0);
        open.into_iter().for_each(|(id, mass)| all[id] = mass);
        masses.masses = all;
        least = 0.0;
    }
    masses.masses.iter_mut().filter(|mass| **mass < least).for_each(|mass| *mass = 0.0);
    let parts = masses.masses.chunks(Masses::PART);
    masses.sums = parts.map(|part| part.iter().map(|mass| f64::from(*mass)).sum()).collect();
}

/// The tokens that top-k and top-p keep: the more probable first, the lower id among equals.
fn most_probable(masses: &[f32], sampling: &Sampling) -> Vec<usize> {
    let total: f64 = masses.iter().map(|mass| f64::from(*mass)).sum();
    let order = |a: &usize, b: &usize| masses[*b].total_cmp(&masses[*a]).then(a.cmp(b));
    let mut ids: Vec<usize> = (0..masses.len()).collect();
    if sampling.top_k > 0 && sampling.top_k < ids.len() {
        ids.select_nth_unstable_by(sampling.top_k - 1, order);
        ids.truncate(sampling.top_k);
    } else if sampling.top_p < 1.0 {
        // A few tokens hold most of the mass: only they need sorting, where they suffice.
        let mut bound = 1e-3;
        loop {
            let likely = masses.iter().filter(|mass| f64::from(**mass) >= bound * total);
            if likely.map(|mass| f64::from(*mass)).sum::<f64>() >= f64::from(sampling.top_p) * total {
                ids.retain(|id| f64::from(masses[*id]) >= bound * total);
                break;
            }
            if bound == 0.0 {
                break;
            }
            bound = if bound < 1e-9 { 0.0 } else { bound * 1e-2 };
        }
    }
    ids.sort_unstable_by(order);
    if sampling.top_p < 1.0 {
        // Top-p takes its share of the mass that top-k left.
        let whole = if sampling.top_k > 0 { ids.iter().map(|id| f64::from(masses[*id])).sum() } else { total };
        let mut reached = 0.0;
        let needed = ids.iter().take_while(|id| {
            let before = reached;
            reached += f64::from(masses[**id]) / whole;
            before < f64::from(sampling.top_p)
        });
        let needed = needed.count().max(1);
        ids.truncate(needed);
    }
    ids
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::sequence::uniform;

    fn drawn(
        logits: &[f32],
        sampling: &Sampling,
        banned: &[TokenId],
        rng: &mut ChaCha8Rng,
        masses: &mut Masses,
    ) -> SampledToken {
        sample(logits, &Draw { sampling, banned, uniform: uniform(rng, sampling) }, masses)
    }

    /// Not normalised: a softmax does not mind.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.25, 0.15, 0.1].iter().map(|p| p.ln() + 3.0).collect()
    }

    fn frequencies(sampling: &Sampling) -> [f64; 4] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut masses = Masses::default();
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[drawn(&logits(), sampling, &[], &mut rng, &mut masses).id as usize] += 1.0 / 20_000.0;
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
    fn the_recorded_logprob_is_untruncated_and_the_one_drawn_from_stands_beside_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut draw = |sampling: Sampling, banned: &[TokenId]| {
            drawn(&logits(), &sampling, banned, &mut rng, &mut Masses::default())
        };
        let close = |found: f32, expected: f64| (f64::from(found) - expected.ln()).abs() < 1e-6;
        let token = draw(Sampling { top_k: 1, temperature: 0.5, ..Sampling::default() }, &[]);
        assert!(token.id == 0 && close(token.logprob, 0.5) && token.sampling_logprob.is_some_and(|p| close(p, 1.0)));
        let token = draw(Sampling::greedy(), &[0]);
        assert!(token.id == 1 && close(token.logprob, 0.25) && token.sampling_logprob == Some(0.0));
        let token = draw(Sampling { top_k: 2, ..Sampling::default() }, &[0]);
        let (model, open) = if token.id == 1 { (0.25, 0.25 / 0.4) } else { (0.15, 0.15 / 0.4) };
        assert!(close(token.logprob, model) && token.sampling_logprob.is_some_and(|p| close(p, open)), "{token:?}");
        assert_eq!(draw(Sampling::default(), &[]).sampling_logprob, None);
    }

    #[test]
    fn draws_and_truncations_reach_across_the_parts_of_a_large_vocabulary() {
        // Two tokens far apart hold nearly all mass, 5/8 and 3/8 of it.
        let mut logits = vec![-20.0; 5000];
        (logits[1500], logits[4999]) = (5f32.ln(), 3f32.ln());
        for (sampling, share) in [
            (Sampling::default(), 0.375),
            (Sampling { top_p: 0.9, ..Sampling::default() }, 0.375),
            (Sampling { top_p: 0.6, ..Sampling::default() }, 0.0),
            (Sampling { top_k: 2, top_p: 0.7, ..Sampling::default() }, 0.375),
        ] {
            let (mut rng, mut masses) = (ChaCha8Rng::seed_from_u64(9), Masses::default());
            let ids: Vec<u32> = (0..4000).map(|_| drawn(&logits, &sampling, &[], &mut rng, &mut masses).id).collect();
            let last = ids.iter().filter(|id| **id == 4999).count() as f64 / 4000.0;
            let first = ids.iter().filter(|id| **id == 1500).count() as f64 / 4000.0;
            assert!((last - share).abs() < 0.03 && first + last > 0.999, "{sampling:?}: {first} {last}");
        }
    }
}
