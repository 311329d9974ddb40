//! Work that only the machine limits: what decoding and training are measured against.

#![allow(clippy::needless_range_loop)]

use rayon::prelude::*;

use crate::vector::{vectorised, vectorised_fused};

/// Registers that are added to in turn, enough to hide the latency of an addition.
const REGISTERS: usize = 8;
const LANES: usize = 16;

/// Adds up all values, each thread its share: reads memory as fast as it comes.
pub fn read_all(values: &[f32]) -> f32 {
    let share = values.len().div_ceil(rayon::current_num_threads()).next_multiple_of(REGISTERS * LANES);
    let sums = values.par_chunks(share.max(1)).map(|values| {
        vectorised(
            #[inline(always)]
            || {
                let mut sums = [0f32; REGISTERS * LANES];
                for block in values.as_chunks::<{ REGISTERS * LANES }>().0 {
                    for (sum, value) in sums.iter_mut().zip(block) {
                        *sum += value;
                    }
                }
                sums.iter().sum::<f32>()
            },
        )
    });
    sums.sum()
}

/// Multiplies and adds in registers, `rounds` times 256 fused operations on each thread (512 floating-point operations, times
/// the threads). Returns what keeps the work from being left out.
pub fn multiply_add(rounds: usize) -> f32 {
    let threads = rayon::current_num_threads();
    (0..threads).into_par_iter().with_max_len(1).map(|thread| work(rounds, thread as f32)).sum()
}

fn work(rounds: usize, start: f32) -> f32 {
    vectorised_fused(
        #[inline(always)]
        |fused| {
            let mut sums = [[start; LANES]; 2 * REGISTERS];
            for _ in 0..rounds {
                // Const indices, as in `host`: the sums stay in registers.
                for register in 0..2 * REGISTERS {
                    for lane in 0..LANES {
                        let sum = sums[register][lane];
                        sums[register][lane] = if fused { sum.mul_add(0.999, 0.001) } else { sum * 0.999 + 0.001 };
                    }
                }
            }
            let done = sums;
            done.as_flattened().iter().sum()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done() {
        assert_eq!(read_all(&[1.0; 128 * 77]), 128.0 * 77.0);
        let rest = 1.0 - 0.999f32.powi(50);
        let expected = 256.0 * rest * rayon::current_num_threads() as f32;
        let started: f32 = (0..rayon::current_num_threads()).map(|thread| thread as f32 * (1.0 - rest) * 256.0).sum();
        let found = multiply_add(50);
        assert!((found - expected - started).abs() < 1e-3 * found, "{found} {expected} {started}");
    }
}
