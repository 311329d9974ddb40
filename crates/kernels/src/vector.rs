//! Vectorised arithmetic on slices: the instruction set is chosen at run time, the result is not.
//!
//! Nothing here fuses a multiplication with an addition and every sum has a fixed order, so the bits are the same with
//! SSE2, AVX2, AVX-512 and NEON.

use crate::instructions::InstructionSet;

/// Running sums kept apart in a reduction: two AVX-512 registers hide the latency of an addition.
const LANES: usize = 32;

/// Runs `work` compiled for the instruction set in use.
///
/// `work` must be marked `#[inline(always)]`, as must all it calls: only what is inlined here is
/// compiled with these features.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx2")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        match InstructionSet::current() {
            // SAFETY: a set is in use only where the processor has it.
            InstructionSet::Avx512 => return unsafe { avx512(work) },
            // SAFETY: as above.
            InstructionSet::Avx2 => return unsafe { avx2(work) },
            _ => {}
        }
    }
    work()
}

/// `e^x` with a relative error below 2e-7; below `ln(2^-126)` and above `ln(2^127.5)` it stays at
/// the value there, and NaN gives NaN.
///
/// Cody and Waite's reduction to `|r| <= ln(2)/2` and the polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.376_26;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;

    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `sum(a[i] * b[i])`, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    total(lanes)
}

/// `sum(a[i] * b[i] * c[i])`, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane] * c[lane];
        }
    }
    for (((lane, a), b), c) in lanes.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest) {
        *lane += a * b * c;
    }
    total(lanes)
}

/// Replaces every value by `e^(value - shift)` and returns their sum.
#[inline(always)]
pub(crate) fn exponentiate(values: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (blocks, rest) = values.as_chunks_mut::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            block[lane] = exp(block[lane] - shift);
            lanes[lane] += block[lane];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *value = exp(*value - shift);
        *lane += *value;
    }
    total(lanes)
}

/// `sum(e^d)` and `sum(d * e^d)` with `d = value - shift`.
#[inline(always)]
pub(crate) fn exponential_moments(values: &[f32], shift: f32) -> (f32, f32) {
    let (mut sums, mut weighted) = ([0.0; LANES], [0.0; LANES]);
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            let d = block[lane] - shift;
            let e = exp(d);
            sums[lane] += e;
            weighted[lane] += d * e;
        }
    }
    for ((sum, weighted), value) in sums.iter_mut().zip(&mut weighted).zip(rest) {
        let d = value - shift;
        let e = exp(d);
        *sum += e;
        *weighted += d * e;
    }
    (total(sums), total(weighted))
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest element; negative infinity for an empty slice. NaNs are passed over.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = if value > *lane { value } else { *lane };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_whole_range() {
        let mut worst = 0.0f64;
        for step in 0..2_000_000 {
            let x = -87.0 + step as f32 * (175.0 / 2_000_000.0);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exp_saturates_and_keeps_nan() {
        assert!(exp(f32::NEG_INFINITY) < 1.2e-38);
        assert!(exp(f32::INFINITY) > 2e38);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_of_every_length_agree_with_the_plain_ones() {
        let values: Vec<f32> = (0..100).map(|i| ((i * 37) % 100) as f32 - 50.0).collect();
        for length in 0..values.len() {
            let part = &values[..length];
            assert_eq!(dot(part, part), part.iter().map(|x| x * x).sum::<f32>(), "length {length}");
            assert_eq!(dot3(part, part, &vec![2.0; length]), part.iter().map(|x| 2.0 * x * x).sum::<f32>());
            assert_eq!(largest(part), part.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let (sum, weighted) = exponential_moments(part, 50.0);
            let exact: f64 = part.iter().map(|&x| f64::from(x - 50.0).exp()).sum();
            let exact_weighted: f64 = part.iter().map(|&x| f64::from(x - 50.0) * f64::from(x - 50.0).exp()).sum();
            assert!((f64::from(sum) - exact).abs() < 1e-6 && (f64::from(weighted) - exact_weighted).abs() < 1e-6);
            let mut exponentials = part.to_vec();
            assert_eq!(exponentiate(&mut exponentials, 50.0), sum);
        }
    }

    #[test]
    fn the_instruction_set_does_not_change_a_bit() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.731).sin() * 20.0).collect();
        let plain: Vec<u32> = values.iter().map(|&x| sigmoid(x).to_bits()).collect();
        let wide: Vec<u32> = vectorised(
            #[inline(always)]
            || values.iter().map(|&x| sigmoid(x).to_bits()).collect(),
        );
        assert_eq!(plain, wide);
        let wide = vectorised(
            #[inline(always)]
            || exponential_moments(&values, 20.0),
        );
        assert_eq!(exponential_moments(&values, 20.0), wide);
    }
}
