//! Work that only the memory limits: what decoding is measured against.

use rayon::prelude::*;

use crate::vector::vectorised;

/// Sums kept apart, enough to hide the latency of an addition.
const SUMS: usize = 128;

/// Adds up all values, each thread its share: reads memory as fast as it comes.
pub fn read_all(values: &[f32]) -> f32 {
    let share = values.len().div_ceil(rayon::current_num_threads()).next_multiple_of(SUMS).max(SUMS);
    let sums = values.par_chunks(share).map(|values| {
        vectorised(
            #[inline(always)]
            || {
                let mut sums = [0f32; SUMS];
                for block in values.chunks(SUMS) {
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

#[cfg(test)]
mod tests {
    #[test]
    fn every_value_is_read() {
        assert_eq!(super::read_all(&[1.0; 128 * 77 + 5]), 128.0 * 77.0 + 5.0);
        assert_eq!(super::read_all(&[]), 0.0);
    }
}
