//! Operations on single rows.

use rayon::prelude::*;

use crate::rms_norm::normalise;
use crate::vector::{exponentiate, largest, sigmoid, vectorised};

/// Elements of one task: below it, handing work to another thread costs more than the work.
const TASK: usize = 1 << 14;

/// RMS norm of each row of `x` (`[rows, weight.len()]`) into `out`.
pub fn rms_norm_rows(x: &[f32], weight: &[f32], epsilon: f64, out: &mut [f32]) {
    normalise(x, weight, epsilon as f32, out);
}

/// `out = silu(gate) · up`, where a row of `both` is its gate followed by its up, `[rows, 2 · width]`.
pub fn swiglu_rows(both: &[f32], width: usize, out: &mut [f32]) {
    let rows = (TASK / width.max(1)).max(1);
    both.par_chunks(rows * 2 * width).zip(out.par_chunks_mut(rows * width)).for_each(|(both, out)| {
        vectorised(
            #[inline(always)]
            || {
                for (both, out) in both.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                    let (gate, up) = both.split_at(width);
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = gate * sigmoid(*gate) * up;
                    }
                }
            },
        );
    });
}

/// `x += y`, element by element.
pub fn add_rows(x: &mut [f32], y: &[f32]) {
    x.par_chunks_mut(TASK).zip(y.par_chunks(TASK)).for_each(|(x, y)| {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    });
}

/// Adds `scale · b · a` to a weight `[outer, inner]`, where `a` is `[rank, inner]` and `b` `[outer, rank]`.
pub fn merge_adapter(weight: &mut [f32], a: &[f32], b: &[f32], inner: usize, scale: f32) {
    let rank = a.len() / inner.max(1);
    weight.par_chunks_mut(inner.max(1)).zip(b.par_chunks(rank.max(1))).for_each(|(row, factors)| {
        vectorised(
            #[inline(always)]
            || {
                for (factor, from) in factors.iter().zip(a.chunks_exact(inner)) {
                    let factor = scale * factor;
                    row.iter_mut().zip(from).for_each(|(value, a)| *value += factor * a);
                }
            },
        );
    });
}

/// Rotates the two halves of every head (`[2 · cos.len()]`) of a row, as Hugging Face checkpoints expect.
pub fn rotate_row(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    vectorised(
        #[inline(always)]
        || {
            for head in heads.chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        },
    );
}

/// Softmax masses of a row of logits, in a buffer that is reused.
#[derive(Default)]
pub struct Masses {
    /// The highest value.
    pub highest: f32,
    /// `e^((value - highest) / temperature)` of every value.
    pub masses: Vec<f32>,
    /// The sum of each [`Self::PART`] adjacent masses: short sums in f32 are added in f64, as a vocabulary has 10^5 entries.
    pub sums: Vec<f64>,
}

impl Masses {
    /// Masses of one partial sum.
    pub const PART: usize = 1024;

    /// Those of these values.
    pub fn fill(&mut self, values: &[f32], temperature: f32) {
        vectorised(
            #[inline(always)]
            || {
                self.highest = largest(values);
                self.masses.clear();
                if temperature == 1.0 {
                    self.masses.extend_from_slice(values);
                } else {
                    let scaled = values.iter().map(|value| (value - self.highest) / temperature + self.highest);
                    self.masses.extend(scaled);
                }
                let parts = self.masses.chunks_mut(Self::PART);
                self.sums.clear();
                self.sums.extend(parts.map(|part| f64::from(exponentiate(part, self.highest))));
            },
        );
    }

    /// The sum of all masses.
    pub fn total(&self) -> f64 {
        self.sums.iter().sum()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Numbers in [-0.5, 0.5) that differ from one another.
    pub(in crate::host) fn values(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|i| {
                let x = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
                ((x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35) >> 8) as f32 / 16_777_216.0 - 0.5
            })
            .collect()
    }

    #[test]
    fn exponentials_and_their_sum_agree_with_f64() {
        let row: Vec<f32> = values(5000, 7).iter().map(|value| value * 30.0).collect();
        for temperature in [1.0, 0.7] {
            let mut found = Masses::default();
            found.fill(&[3.0; 9], 1.0);
            found.fill(&row, temperature);
            let highest = found.highest;
            assert!(row.contains(&highest) && row.iter().all(|value| *value <= highest));
            let exact = |value: &f32| f64::from((value - highest) / temperature).exp();
            let worst =
                row.iter().zip(&found.masses).map(|(x, y)| (exact(x) - f64::from(*y)).abs()).fold(0.0, f64::max);
            let sum: f64 = row.iter().map(exact).sum();
            assert!(worst < 2e-6 && (sum - found.total()).abs() / sum < 1e-6, "{worst} {sum} {}", found.total());
        }
    }

    #[test]
    fn norms_and_gates_agree_with_the_formulas_in_rows_of_any_number() {
        let (width, rows) = (37, 1100);
        let (x, weight) = (values(2 * width * rows, 1), values(width, 2));
        let (mut norm, mut gated) = (vec![0.0; width * rows], vec![0.0; width * rows]);
        rms_norm_rows(&x[..width * rows], &weight, 1e-5, &mut norm);
        swiglu_rows(&x, width, &mut gated);
        for row in [0, 500, rows - 1] {
            let part = &x[row * width..(row + 1) * width];
            let mean = part.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
            let (gate, up) = x[row * 2 * width..(row + 1) * 2 * width].split_at(width);
            for i in 0..width {
                let exact = f64::from(part[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                assert!((exact - f64::from(norm[row * width + i])).abs() < 1e-5);
                let gate = f64::from(gate[i]);
                let exact = gate / (1.0 + (-gate).exp()) * f64::from(up[i]);
                assert!((exact - f64::from(gated[row * width + i])).abs() < 1e-6);
            }
        }
    }
}
