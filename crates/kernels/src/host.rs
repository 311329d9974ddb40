//! Batch-invariant row operations on plain slices, for decoding on the CPU.
//!
//! Every output element is reduced in one fixed order, whatever the number of rows beside it: the
//! same token in the same context gets the same bits in a batch of 1 and of 64. Sixteen partial
//! sums run down the inner dimension and are added as a tree, so the compiler can keep them in one
//! vector register.

const LANES: usize = 16;

/// Picks the widest instruction set of this processor, once per call.
macro_rules! dispatch {
    ($body:ident, ($($arg:ident: $ty:ty),*)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        fn avx512($($arg: $ty),*) {
            $body::<true>($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2($($arg: $ty),*) {
            $body::<true>($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has AVX-512F, as just detected.
                return unsafe { avx512($($arg),*) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has AVX2 and FMA, as just detected.
                return unsafe { avx2($($arg),*) };
            }
        }
        $body::<false>($($arg),*)
    }};
}

/// `out[r, o] = Σ_i x[r, i] · weight[o, i] (+ bias[o])`: a linear layer with the weight as
/// checkpoints store it. `x` is `[rows, inner]`, `weight` `[outer, inner]`, `out` `[rows, outer]`.
///
/// # Panics
/// When the lengths do not agree.
pub fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, inner: usize, out: &mut [f32]) {
    let rows = x.len() / inner;
    let outer = weight.len() / inner;
    assert_eq!(
        (x.len(), weight.len(), out.len()),
        (rows * inner, outer * inner, rows * outer),
        "linear: lengths disagree"
    );
    linear_dispatch(x, weight, inner, out);
    if let Some(bias) = bias {
        for row in out.chunks_exact_mut(outer) {
            row.iter_mut().zip(bias).for_each(|(value, b)| *value += b);
        }
    }
}

fn linear_dispatch(x: &[f32], weight: &[f32], inner: usize, out: &mut [f32]) {
    dispatch!(linear_body, (x: &[f32], weight: &[f32], inner: usize, out: &mut [f32]))
}

#[inline(always)]
fn linear_body<const FMA: bool>(x: &[f32], weight: &[f32], inner: usize, out: &mut [f32]) {
    let (rows, outer) = (x.len() / inner, weight.len() / inner);
    let mut o = 0;
    while o < outer {
        let width = if outer - o >= 4 { 4 } else { 1 };
        let mut r = 0;
        while r < rows {
            let height = if rows - r >= 4 { 4 } else { 1 };
            match (height, width) {
                (4, 4) => block::<FMA, 4, 4>(x, weight, inner, outer, r, o, out),
                (4, _) => block::<FMA, 4, 1>(x, weight, inner, outer, r, o, out),
                (_, 4) => block::<FMA, 1, 4>(x, weight, inner, outer, r, o, out),
                _ => block::<FMA, 1, 1>(x, weight, inner, outer, r, o, out),
            }
            r += height;
        }
        o += width;
    }
}

#[inline(always)]
fn block<const FMA: bool, const R: usize, const O: usize>(
    x: &[f32],
    weight: &[f32],
    inner: usize,
    outer: usize,
    r: usize,
    o: usize,
    out: &mut [f32],
) {
    let mut sums = [[[0f32; LANES]; O]; R];
    let xs: [&[f32]; R] = std::array::from_fn(|i| &x[(r + i) * inner..][..inner]);
    let ws: [&[f32]; O] = std::array::from_fn(|j| &weight[(o + j) * inner..][..inner]);
    let whole = inner / LANES;
    for chunk in 0..whole {
        let at = chunk * LANES;
        let wv: [[f32; LANES]; O] = std::array::from_fn(|j| lanes(&ws[j][at..]));
        for i in 0..R {
            let xv = lanes(&xs[i][at..]);
            for j in 0..O {
                add_product::<FMA>(&mut sums[i][j], &xv, &wv[j]);
            }
        }
    }
    if whole * LANES < inner {
        let at = whole * LANES;
        let wv: [[f32; LANES]; O] = std::array::from_fn(|j| padded(&ws[j][at..]));
        for i in 0..R {
            let xv = padded(&xs[i][at..]);
            for j in 0..O {
                add_product::<FMA>(&mut sums[i][j], &xv, &wv[j]);
            }
        }
    }
    for i in 0..R {
        for j in 0..O {
            out[(r + i) * outer + o + j] = tree(sums[i][j]);
        }
    }
}

#[inline(always)]
fn lanes(values: &[f32]) -> [f32; LANES] {
    let mut out = [0f32; LANES];
    out.copy_from_slice(&values[..LANES]);
    out
}

#[inline(always)]
fn padded(values: &[f32]) -> [f32; LANES] {
    let mut out = [0f32; LANES];
    out[..values.len()].copy_from_slice(values);
    out
}

#[inline(always)]
fn add_product<const FMA: bool>(sums: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]) {
    for lane in 0..LANES {
        // Without the instruction, `mul_add` is a library call, a hundred times slower.
        sums[lane] = if FMA { a[lane].mul_add(b[lane], sums[lane]) } else { a[lane] * b[lane] + sums[lane] };
    }
}

#[inline(always)]
fn tree(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// RMS norm of each row of `x` (`[rows, hidden]`) into `out`.
pub fn rms_norm_rows(x: &[f32], weight: &[f32], epsilon: f64, out: &mut [f32]) {
    let hidden = weight.len();
    for (row, out) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
        let mean = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>() / hidden as f64;
        let scale = (1.0 / (mean + epsilon).sqrt()) as f32;
        for ((value, weight), out) in row.iter().zip(weight).zip(out) {
            *out = value * scale * weight;
        }
    }
}

/// `gate = silu(gate) · up`, element by element.
pub fn swiglu_rows(gate: &mut [f32], up: &[f32]) {
    dispatch!(swiglu_body, (gate: &mut [f32], up: &[f32]))
}

#[inline(always)]
fn swiglu_body<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp::<FMA>(-*gate)) * up;
    }
}

/// Attention of one query row over a sequence's cache.
///
/// `q` and `out` are `[heads · head_dim]`; `keys` and `values` are `[length, kv_heads · head_dim]`;
/// query head `h` reads key head `h / (heads / kv_heads)`.
#[allow(clippy::too_many_arguments)]
pub fn attend_row(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    head_dim: usize,
    kv_heads: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let length = keys.len() / (kv_heads * head_dim);
    scores.clear();
    scores.resize(length, 0.0);
    attend_dispatch(q, keys, values, head_dim, kv_heads, scores, out);
}

fn attend_dispatch(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    head_dim: usize,
    kv_heads: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    dispatch!(attend_body, (q: &[f32], keys: &[f32], values: &[f32], head_dim: usize, kv_heads: usize, scores: &mut [f32], out: &mut [f32]))
}

#[inline(always)]
fn attend_body<const FMA: bool>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    head_dim: usize,
    kv_heads: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let stride = kv_heads * head_dim;
    let group = q.len() / head_dim / kv_heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    for (h, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let offset = h / group * head_dim;
        let mut highest = f32::NEG_INFINITY;
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(stride)) {
            *score = dot::<FMA>(q, &key[offset..offset + head_dim]) * scale;
            highest = highest.max(*score);
        }
        for score in scores.iter_mut() {
            *score = exp::<FMA>(*score - highest);
        }
        let total: f32 = scores.iter().sum();
        out.fill(0.0);
        for (score, value) in scores.iter().zip(values.chunks_exact(stride)) {
            for (out, value) in out.iter_mut().zip(&value[offset..offset + head_dim]) {
                *out = if FMA { score.mul_add(*value, *out) } else { score * value + *out };
            }
        }
        out.iter_mut().for_each(|value| *value /= total);
    }
}

#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks_a, rest_a) = a.as_chunks::<LANES>();
    let (chunks_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in chunks_a.iter().zip(chunks_b) {
        add_product::<FMA>(&mut sums, a, b);
    }
    if !rest_a.is_empty() {
        add_product::<FMA>(&mut sums, &padded(rest_a), &padded(rest_b));
    }
    tree(sums)
}

/// Replaces logits by natural log-probabilities.
pub fn log_softmax_row(logits: &mut [f32]) {
    dispatch!(log_softmax_body, (logits: &mut [f32]))
}

#[inline(always)]
fn log_softmax_body<const FMA: bool>(logits: &mut [f32]) {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |highest, value| highest.max(*value));
    let mut sums = [0f64; LANES];
    for chunk in logits.chunks(LANES) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(exp::<FMA>(*value - highest));
        }
    }
    let shift = highest + sums.iter().sum::<f64>().ln() as f32;
    logits.iter_mut().for_each(|value| *value -= shift);
}

/// e^x to about 2 ulp, without a call or a branch, so that loops over it vectorise (Cephes' `expf`).
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    let madd = |a: f32, b: f32, c: f32| if FMA { a.mul_add(b, c) } else { a * b + c };
    let x = x.clamp(-87.3, 88.3);
    // Rounds to nearest by pushing the fraction off the end of the mantissa.
    const MAGIC: f32 = 12_582_912.0;
    let n = madd(x, std::f32::consts::LOG2_E, MAGIC) - MAGIC;
    let r = madd(n, -0.693_359_4, x);
    let r = madd(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        p = madd(p, r, c);
    }
    let y = madd(p, r * r, r) + 1.0;
    y * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|i| {
                let x = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
                ((x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35) >> 8) as f32 / 16_777_216.0 - 0.5
            })
            .collect()
    }

    proptest! {
        #[test]
        fn linear_agrees_with_f64_and_never_depends_on_the_rows_beside(rows in 1usize..13, inner in 1usize..80, outer in 1usize..11, seed: u32) {
            let (x, w) = (values(rows * inner, seed), values(outer * inner, seed ^ 1));
            let mut together = vec![0.0; rows * outer];
            linear(&x, &w, None, inner, &mut together);
            for r in 0..rows {
                let mut alone = vec![0.0; outer];
                linear(&x[r * inner..][..inner], &w, None, inner, &mut alone);
                prop_assert_eq!(&alone, &together[r * outer..][..outer]);
                for o in 0..outer {
                    let exact: f64 = (0..inner).map(|i| f64::from(x[r * inner + i]) * f64::from(w[o * inner + i])).sum();
                    prop_assert!((exact - f64::from(alone[o])).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn exp_is_close(x in -80f32..80.0) {
            let exact = f64::from(x).exp();
            prop_assert!(((f64::from(exp::<false>(x)) - exact) / exact).abs() < 3e-7);
            prop_assert!(((f64::from(exp::<true>(x)) - exact) / exact).abs() < 3e-7);
        }

        #[test]
        fn attention_agrees_with_the_formula(length in 1usize..40, seed: u32) {
            let (head_dim, kv_heads, heads) = (24, 2, 6);
            let q = values(heads * head_dim, seed);
            let (k, v) = (values(length * kv_heads * head_dim, seed ^ 2), values(length * kv_heads * head_dim, seed ^ 3));
            let mut out = vec![0.0; heads * head_dim];
            attend_row(&q, &k, &v, head_dim, kv_heads, &mut Vec::new(), &mut out);
            for h in 0..heads {
                let offset = h / 3 * head_dim;
                let score = |t: usize| (0..head_dim).map(|d| f64::from(q[h * head_dim + d]) * f64::from(k[t * kv_heads * head_dim + offset + d])).sum::<f64>() / (head_dim as f64).sqrt();
                let total: f64 = (0..length).map(|t| score(t).exp()).sum();
                for d in 0..head_dim {
                    let exact: f64 = (0..length).map(|t| score(t).exp() / total * f64::from(v[t * kv_heads * head_dim + offset + d])).sum();
                    prop_assert!((exact - f64::from(out[h * head_dim + d])).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn log_softmax_sums_to_one() {
        let mut row = values(1000, 7);
        log_softmax_row(&mut row);
        let total: f64 = row.iter().map(|value| f64::from(*value).exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
    }
}
