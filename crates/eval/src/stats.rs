//! Intervals and tests. Every draw is named by the number of values alone, so a figure is the same whenever it is computed again.

use rand::RngExt;
use zerosearch_generate::Stream;

/// Resamples of a bootstrap, and random sign flips of a test.
const RESAMPLES: usize = 2000;

/// Up to so many values that are not 0, every sign flip is tried.
const EXACT: usize = 14;

/// An unbiased estimate of the probability that at least one of `k` samples is right, from `n` samples of which `right` are:
/// `1 − C(n − right, k) / C(n, k)` (Chen et al. 2021, equation 1). 0 for a `k` of 0 or beyond `n`.
///
/// ```
/// use zerosearch_eval::pass_at_k;
///
/// assert_eq!(pass_at_k(4, 1, 1), 0.25);
/// assert!((pass_at_k(4, 1, 2) - 0.5).abs() < 1e-12);
/// assert_eq!(pass_at_k(4, 2, 3), 1.0, "three of four cannot miss both");
/// ```
pub fn pass_at_k(n: usize, right: usize, k: usize) -> f64 {
    if k == 0 || k > n {
        return 0.0;
    }
    let wrong = n.saturating_sub(right);
    if wrong < k {
        return 1.0;
    }
    // As a product, since binomials of hundreds overflow.
    1.0 - (wrong + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// The exact McNemar test: the two-sided probability that of `only_a + only_b` questions on which two methods disagree the
/// answers split as unevenly as they do, if either is as likely to be the right one. 1 where they never disagree.
///
/// ```
/// use zerosearch_eval::mcnemar_exact;
///
/// // 2 · (1 + 6) / 2⁶
/// assert!((mcnemar_exact(1, 5) - 0.21875).abs() < 1e-12);
/// assert_eq!(mcnemar_exact(3, 3), 1.0);
/// ```
pub fn mcnemar_exact(only_a: usize, only_b: usize) -> f64 {
    let (n, least) = (only_a + only_b, only_a.min(only_b));
    // ln C(n, i) − n ln 2, from term to term.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = term.exp();
    for i in 1..=least {
        term += ((n - i + 1) as f64).ln() - (i as f64).ln();
        tail += term.exp();
    }
    (2.0 * tail).min(1.0)
}

/// 95 % percentile intervals of the mean of each column, by bootstrap over its rows: all columns are resampled together. Rows of
/// several strata are resampled within each, and the mean is that of the strata's means. `[0, 0]` without rows.
pub(crate) fn bootstrap(strata: &[Vec<Vec<f64>>], columns: usize) -> Vec<[f64; 2]> {
    let strata: Vec<&Vec<Vec<f64>>> = strata.iter().filter(|rows| !rows.is_empty()).collect();
    if strata.is_empty() {
        return vec![[0.0; 2]; columns];
    }
    let rows: usize = strata.iter().map(|rows| rows.len()).sum();
    let mut rng = Stream { purpose: "bootstrap", question: rows as u64, ..Stream::default() }.rng();
    let mut means = vec![Vec::with_capacity(RESAMPLES); columns];
    for _ in 0..RESAMPLES {
        let mut sums = vec![0.0; columns];
        for rows in &strata {
            let share = 1.0 / (rows.len() * strata.len()) as f64;
            for _ in 0..rows.len() {
                let row = &rows[rng.random_range(0..rows.len())];
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += share * value);
            }
        }
        means.iter_mut().zip(sums).for_each(|(means, sum)| means.push(sum));
    }
    means.into_iter().map(percentiles).collect()
}

fn percentiles(mut means: Vec<f64>) -> [f64; 2] {
    means.sort_by(f64::total_cmp);
    let outside = RESAMPLES / 40;
    [means[outside], means[RESAMPLES - 1 - outside]]
}

/// The two-sided probability of a mean as far from 0 as that of these differences, if each is as likely to have the other sign
/// (a paired permutation test): exact for few of them, else by random flips, of which the observed one is counted as one.
pub(crate) fn sign_flip(differences: &[f64]) -> f64 {
    let moved: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    // A hair below, since sums in another order differ in their last digits.
    let observed = moved.iter().sum::<f64>().abs() * (1.0 - 1e-12);
    let flipped = |positive: &mut dyn FnMut(usize) -> bool| {
        let sign = |(index, value): (usize, &f64)| if positive(index) { *value } else { -value };
        moved.iter().enumerate().map(sign).sum::<f64>().abs() >= observed
    };
    if moved.len() <= EXACT {
        let all = 1_usize << moved.len();
        let far = (0..all).filter(|signs| flipped(&mut |index| signs >> index & 1 == 1)).count();
        return far as f64 / all as f64;
    }
    let mut rng = Stream { purpose: "sign_flip", question: differences.len() as u64, ..Stream::default() }.rng();
    let far = (0..RESAMPLES).filter(|_| flipped(&mut |_| rng.random::<bool>())).count();
    (far + 1) as f64 / (RESAMPLES + 1) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tests_have_the_published_values() {
        // min(1, 2 Σ C(b + c, i) / 2^(b + c)) for i from 0 to the lesser count, in exact arithmetic.
        for (b, c, expected) in
            [(0, 0, 1.0), (0, 5, 0.0625), (10, 2, 0.038_574_218_75), (15, 30, 0.035_697_803_555_194_7)]
        {
            assert!((mcnemar_exact(b, c) - expected).abs() < 1e-9, "{b} {c}: {}", mcnemar_exact(b, c));
        }
        assert!(mcnemar_exact(4000, 4400) < 1e-4 && mcnemar_exact(4000, 4400) > 0.0);
        // Of the 8 sign flips of 1, 2, 3 two are as far from 0.
        assert_eq!(sign_flip(&[1.0, 0.0, 2.0, 3.0]), 0.25);
        assert_eq!((sign_flip(&[]), sign_flip(&[0.0; 30])), (1.0, 1.0));
        assert!(sign_flip(&[0.5; 40]) < 0.001);
    }

    #[test]
    fn the_bootstrap_is_about_the_normal_interval_and_the_same_again() {
        let rows: Vec<Vec<f64>> = (0..400).map(|index| vec![f64::from(index % 4 == 0), 1.0]).collect();
        let intervals = bootstrap(std::slice::from_ref(&rows), 2);
        // 1.96 · √(0.25 · 0.75 / 400) = 0.0424
        assert!((intervals[0][0] - 0.2076).abs() < 0.01 && (intervals[0][1] - 0.2924).abs() < 0.01, "{intervals:?}");
        assert!(intervals[1].iter().all(|end| (end - 1.0).abs() < 1e-9), "{intervals:?}");
        assert_eq!(bootstrap(std::slice::from_ref(&rows), 2), intervals);
        // A stratum counts once, whatever its size.
        let [low, high] = bootstrap(&[rows, vec![vec![1.0]; 3], Vec::new()], 1)[0];
        assert!((low - 0.6038).abs() < 0.01 && (high - 0.6462).abs() < 0.01, "{low} {high}");
    }

    proptest! {
        /// Against its definition: the share of subsets of size k with a right sample.
        #[test]
        fn pass_at_k_is_the_share_of_subsets(n in 1_usize..10, right in 0_usize..10, k in 1_usize..10) {
            let (right, k) = (right.min(n), k.min(n));
            let subsets: Vec<usize> = (0..1_usize << n).filter(|set| set.count_ones() as usize == k).collect();
            let hits = subsets.iter().filter(|set| **set & ((1 << right) - 1) != 0).count();
            prop_assert!((pass_at_k(n, right, k) - hits as f64 / subsets.len() as f64).abs() < 1e-9);
        }
    }
}
