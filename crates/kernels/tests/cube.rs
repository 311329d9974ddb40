//! The decoding kernels against sums in f64, and every row against the same row alone.

#![cfg(any(feature = "cuda", feature = "webgpu"))]

use burn::tensor::Device;
use half::bf16;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zerosearch_kernels::cube::{
    CacheShape, DrawRule, Gpu, GpuBuffer, GpuStream, HeadNorms, Linear, LinearOutput, LinearParts, PagedRows,
    ProductPath, Sampler, SplitSums, attend, copy_block, embed, rms_norm, rotate_and_append, select_rows,
};

fn gpu() -> Gpu {
    // Of the feature that is on.
    Gpu::of(&Device::default()).expect("a GPU, or an adapter such as Mesa's lavapipe")
}

fn floats(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Not a number, so that what a kernel leaves out is seen.
fn unwritten(gpu: &Gpu, count: usize) -> GpuBuffer {
    gpu.upload(&vec![f32::NAN; count])
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3, |scale: f64, x| scale.max(x.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 2e-6 * scale, "{what}, {index}: {found} for {expected}");
    }
}

fn rounded(value: f32, to_bf16: bool) -> f64 {
    f64::from(if to_bf16 { bf16::from_f32(value).to_f32() } else { value })
}

#[test]
fn norms() {
    let (gpu, mut rng) = (gpu(), ChaCha8Rng::seed_from_u64(1));
    for (width, rows) in [(64, 3), (7, 2), (577, 4)] {
        let (x, gain) = (floats(&mut rng, width * rows), floats(&mut rng, width));
        let out = unwritten(&gpu, x.len());
        rms_norm(&gpu, &gpu.upload(&x), &gpu.upload(&gain), 1e-5, rows, &out);
        let expected = x.chunks(width).flat_map(|row| {
            let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            row.iter().zip(&gain).map(move |(x, gain)| f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*gain))
        });
        assert_close(&gpu.read(&out).unwrap(), &expected.collect::<Vec<_>>(), &format!("width {width}"));
    }
}

/// The paths of products on this device, and whether their weights are in bf16.
fn paths(gpu: &Gpu) -> Vec<(ProductPath, bool)> {
    let tensor_cores = [ProductPath::EmulatedTensorCores, ProductPath::of(gpu, true)];
    let mut paths = vec![(ProductPath::Units, false), (ProductPath::Units, true)];
    paths.extend(tensor_cores.into_iter().filter(|path| *path != ProductPath::Units).map(|path| (path, true)));
    paths
}

/// `[rows, outer]` in f64. Tensor cores round the rows as well.
fn products(matrix: &[f32], x: &[f32], inner: usize, (path, to_bf16): (ProductPath, bool)) -> Vec<f64> {
    let round = path != ProductPath::Units;
    let dot = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(w, x)| rounded(*w, to_bf16) * rounded(*x, round)).sum();
    x.chunks(inner).flat_map(|x| matrix.chunks(inner).map(move |row| dot(row, x))).collect()
}

#[test]
fn products_of_rows() {
    let (gpu, mut rng) = (gpu(), ChaCha8Rng::seed_from_u64(2));
    for (inner, outers, rows) in [
        (64, vec![32], 1),
        (576, vec![192, 64, 64], 3),
        (7, vec![5], 20),
        (130, vec![33, 1], 9),
        (300, vec![64], 17),
        (50, vec![40], 70),
        // Many outputs leave a tile to fewer units.
        (40, vec![6_400], 2),
        (40, vec![14_001], 2),
    ] {
        for ((path, to_bf16), with_bias) in paths(&gpu).into_iter().zip([false, true].into_iter().cycle()) {
            let what = format!("{inner} to {outers:?}, {rows} rows, bias {with_bias}, {path:?}, bf16 {to_bf16}");
            let outer: usize = outers.iter().sum();
            let matrix = floats(&mut rng, outer * inner);
            let (x, bias, present) =
                (floats(&mut rng, rows * inner), floats(&mut rng, outer), floats(&mut rng, rows * outer));
            let mut linear = Linear::on(&gpu, path, inner, outer, LinearParts::Stacked, to_bf16);
            let mut rest = &matrix[..];
            let parts: Vec<GpuBuffer> = outers
                .iter()
                .map(|outer| {
                    let (part, others) = rest.split_at(outer * inner);
                    rest = others;
                    gpu.upload(part)
                })
                .collect();
            linear.fill(&gpu, &parts.iter().collect::<Vec<_>>());
            linear.set_bias(with_bias.then(|| gpu.upload(&bias)));
            let memory = Linear::rounded(&gpu, rows, inner);
            let stored = unwritten(&gpu, rows * outer);
            linear.forward(&gpu, &gpu.upload(&x), rows, LinearOutput::Store, &memory, &stored);
            let stored = gpu.read(&stored).unwrap();
            let mut expected = products(&matrix, &x, inner, (path, to_bf16));
            if with_bias {
                expected.iter_mut().zip(bias.iter().cycle()).for_each(|(y, bias)| *y += f64::from(*bias));
            }
            assert_close(&stored, &expected, &what);

            let added = gpu.upload(&present);
            linear.forward(&gpu, &gpu.upload(&x), rows, LinearOutput::Add, &memory, &added);
            expected.iter_mut().zip(&present).for_each(|(y, present)| *y += f64::from(*present));
            assert_close(&gpu.read(&added).unwrap(), &expected, &what);

            for row in [0, rows - 1] {
                let alone = unwritten(&gpu, outer);
                let x = gpu.upload(&x[row * inner..][..inner]);
                linear.forward(&gpu, &x, 1, LinearOutput::Store, &memory, &alone);
                assert_eq!(gpu.read(&alone).unwrap(), stored[row * outer..][..outer], "{what}, row {row} alone");
            }
        }
    }
}

#[test]
fn gated_products() {
    let (gpu, mut rng) = (gpu(), ChaCha8Rng::seed_from_u64(3));
    for (inner, width, rows, with_bias) in [(64, 48, 2, false), (20, 7, 10, true), (20, 40, 6, true)] {
        for (path, to_bf16) in paths(&gpu) {
            let [gate, up] = [(); 2].map(|()| floats(&mut rng, width * inner));
            let x = floats(&mut rng, rows * inner);
            let bias = floats(&mut rng, 2 * width);
            let mut linear = Linear::on(&gpu, path, inner, 2 * width, LinearParts::Gated, to_bf16);
            linear.set_bias(with_bias.then(|| gpu.upload(&bias)));
            linear.fill(&gpu, &[&gpu.upload(&gate), &gpu.upload(&up)]);
            let out = unwritten(&gpu, rows * width);
            let memory = Linear::rounded(&gpu, rows, inner);
            linear.forward(&gpu, &gpu.upload(&x), rows, LinearOutput::Gated, &memory, &out);
            let [gates, ups] = [(&gate, &bias[..width]), (&up, &bias[width..])].map(|(matrix, bias)| {
                let mut products = products(matrix, &x, inner, (path, to_bf16));
                if with_bias {
                    products.iter_mut().zip(bias.iter().cycle()).for_each(|(y, bias)| *y += f64::from(*bias));
                }
                products
            });
            let expected: Vec<f64> =
                gates.iter().zip(ups).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            assert_close(&gpu.read(&out).unwrap(), &expected, &format!("{inner} to {width}, {path:?}"));
        }
    }
}

#[test]
fn embeddings_and_chosen_rows() {
    let (gpu, mut rng) = (gpu(), ChaCha8Rng::seed_from_u64(4));
    let (vocabulary, width, tokens) = (70, 20, [0, 69, 33, 31]);
    for (path, to_bf16) in paths(&gpu) {
        let table = floats(&mut rng, vocabulary * width);
        let linear = Linear::on(&gpu, path, width, vocabulary, LinearParts::Stacked, to_bf16);
        linear.fill(&gpu, &[&gpu.upload(&table)]);
        let out = unwritten(&gpu, tokens.len() * width);
        embed(&gpu, &linear, &gpu.upload_words(&tokens), tokens.len(), &out);
        let row = |token: u32| table[token as usize * width..][..width].iter().map(|x| rounded(*x, to_bf16) as f32);
        let expected: Vec<f32> = tokens.into_iter().flat_map(row).collect();
        assert_eq!(gpu.read(&out).unwrap(), expected);
        let chosen = unwritten(&gpu, 2 * width);
        select_rows(&gpu, &out, width, &gpu.upload_words(&[3, 1]), &chosen);
        assert_eq!(gpu.read(&chosen).unwrap(), [&expected[3 * width..], &expected[width..2 * width]].concat());
    }
}

/// Sequences in a cache whose blocks are strewn, and their attention in f64.
struct Sequences {
    shape: CacheShape,
    lengths: Vec<usize>,
    /// Of every sequence, `[length, (heads + 2 · kv_heads) · head_dim]`.
    qkv: Vec<Vec<f32>>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Gains of queries and keys.
    norms: Option<[Vec<f32>; 2]>,
}

/// Blocks of one line of the table.
const LINE: usize = 40;
const POSITIONS: usize = 400;

impl Sequences {
    fn width(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim
    }

    fn table(&self) -> Vec<u32> {
        let blocks = LINE * self.lengths.len();
        (0..blocks).map(|index| ((index * 37 + 11) % blocks) as u32).collect()
    }

    /// A head of a query or a key, rotated.
    fn rotated(&self, sequence: usize, position: usize, head: usize) -> Vec<f64> {
        let dim = self.shape.head_dim;
        let raw = &self.qkv[sequence][position * self.width() + head * dim..][..dim];
        let mut raw: Vec<f64> = raw.iter().map(|x| f64::from(*x)).collect();
        if let Some([query, key]) = &self.norms {
            let mean = raw.iter().map(|x| x * x).sum::<f64>() / dim as f64;
            let gain = if head < self.shape.heads { query } else { key };
            raw.iter_mut().zip(gain).for_each(|(x, gain)| *x *= f64::from(*gain) / (mean + 1e-6).sqrt());
        }
        let half = dim / 2;
        let turn = |i: usize| {
            let at = position * half + i % half;
            let (cos, sin) = (f64::from(self.cos[at]), f64::from(self.sin[at]));
            if i < half { raw[i] * cos - raw[i + half] * sin } else { raw[i] * cos + raw[i - half] * sin }
        };
        (0..dim).map(turn).collect()
    }

    fn attention(&self) -> Vec<f64> {
        let CacheShape { heads, kv_heads, head_dim } = self.shape;
        let mut all = Vec::new();
        for (sequence, length) in self.lengths.iter().enumerate() {
            let key = |head: usize| (0..*length).map(move |position| self.rotated(sequence, position, heads + head));
            let keys: Vec<Vec<Vec<f64>>> = (0..kv_heads).map(|head| key(head).collect()).collect();
            for (position, head) in (0..*length).flat_map(|position| (0..heads).map(move |head| (position, head))) {
                let query = self.rotated(sequence, position, head);
                let kv = head / (heads / kv_heads);
                let score = |key: &Vec<f64>| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
                let scores = keys[kv][..=position].iter().map(|key| score(key) / (head_dim as f64).sqrt());
                let weights: Vec<f64> = scores.map(f64::exp).collect();
                let total: f64 = weights.iter().sum();
                let column = (heads + kv_heads + kv) * head_dim;
                let value = |at: usize, i: usize| f64::from(self.qkv[sequence][at * self.width() + column + i]);
                let mixed =
                    |i: usize| weights.iter().enumerate().map(|(at, weight)| weight * value(at, i)).sum::<f64>();
                all.extend((0..head_dim).map(|i| mixed(i) / total));
            }
        }
        all
    }

    /// Attention of the last rows of every sequence, from the given position on, after they were written to the cache.
    fn step(&self, gpu: &Gpu, cache: [&GpuBuffer; 2], from: impl Fn(usize) -> usize) -> Vec<f32> {
        let (mut positions, mut sequences, mut qkv) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, length) in self.lengths.iter().enumerate() {
            let start = from(*length);
            positions.extend(start as u32..*length as u32);
            sequences.resize(positions.len(), sequence as u32);
            qkv.extend_from_slice(&self.qkv[sequence][start * self.width()..]);
        }
        let rows = PagedRows {
            rows: positions.len(),
            last: *positions.iter().max().unwrap() as usize,
            positions: gpu.upload_words(&positions),
            sequences: gpu.upload_words(&sequences),
            tables: gpu.upload_words(&self.table()),
            width: LINE,
        };
        let tables = [&self.cos, &self.sin].map(|table| gpu.upload(table));
        let norms = self.norms.as_ref().map(|norms| norms.each_ref().map(|gain| gpu.upload(gain)));
        let norms = norms.map(|[query, key]| HeadNorms { query, key, epsilon: 1e-6 });
        let queries = unwritten(gpu, rows.rows * self.shape.heads * self.shape.padded());
        let qkv = gpu.upload(&qkv);
        rotate_and_append(gpu, self.shape, &rows, tables.each_ref(), norms.as_ref(), &qkv, &queries, cache);
        let out = unwritten(gpu, rows.rows * self.shape.heads * self.shape.head_dim);
        let memory = SplitSums::new(gpu, self.shape, rows.rows, rows.last);
        attend(gpu, self.shape, &rows, &queries, cache, &memory, &out);
        gpu.read(&out).unwrap()
    }
}

#[test]
fn attention_over_blocks() {
    let (gpu, mut rng) = (gpu(), ChaCha8Rng::seed_from_u64(5));
    for (heads, kv_heads, head_dim, normalised) in
        [(9, 3, 64, false), (4, 2, 6, true), (7, 1, 32, false), (2, 2, 2, true), (3, 1, 128, false)]
    {
        let shape = CacheShape { heads, kv_heads, head_dim };
        let width = (heads + 2 * kv_heads) * head_dim;
        let lengths = vec![300, 1, 17, 256, 257];
        let half = head_dim / 2;
        let angles = (0..POSITIONS * half).map(|at| (at / half) as f32 * 0.3f32.powi((at % half) as i32 + 1));
        let sequences = Sequences {
            shape,
            qkv: lengths.iter().map(|length| floats(&mut rng, length * width)).collect(),
            cos: angles.clone().map(f32::cos).collect(),
            sin: angles.map(f32::sin).collect(),
            norms: normalised.then(|| [(); 2].map(|()| floats(&mut rng, head_dim))),
            lengths,
        };
        let what = format!("{heads} heads on {kv_heads}, {head_dim} wide");
        let blocks = LINE * sequences.lengths.len();
        let cache = [(); 2].map(|()| gpu.zeros(blocks * shape.block()));
        let all = sequences.step(&gpu, cache.each_ref(), |_| 0);
        assert_close(&all, &sequences.attention(), &what);

        let last = sequences.step(&gpu, cache.each_ref(), |length| length - 1);
        let row = heads * head_dim;
        let mut end = 0;
        for (alone, length) in last.chunks(row).zip(&sequences.lengths) {
            end += length * row;
            assert_eq!(alone, &all[end - row..end], "{what}, the last of {length} rows alone");
        }

        let (from, to) = (sequences.table()[0] as usize, 5);
        copy_block(&gpu, shape, &cache[0], from, to);
        let keys = gpu.read(&cache[0]).unwrap();
        let block = |index: usize| &keys[index * shape.block()..][..shape.block()];
        assert!(block(from) == block(to) && block(from).iter().any(|x| *x != 0.0));
    }
}

/// The token, its log-probability and the one it was drawn under, in f64.
fn drawn(logits: &[f32], rule: &DrawRule) -> (u32, f64, f64) {
    let highest = logits.iter().fold(f64::MIN, |highest, x| highest.max(f64::from(*x)));
    let total: f64 = logits.iter().map(|x| (f64::from(*x) - highest).exp()).sum();
    let logprob = |token: usize| f64::from(logits[token]) - highest - total.ln();
    let mut order: Vec<usize> = (0..logits.len()).filter(|token| !rule.banned.contains(&(*token as u32))).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if rule.temperature == 0.0 {
        return (order[0] as u32, logprob(order[0]), 0.0);
    }
    let best = f64::from(logits[order[0]]);
    let mass = |token: &usize| ((f64::from(logits[*token]) - best) / f64::from(rule.temperature)).exp();
    if rule.top_k > 0 {
        order.truncate(rule.top_k as usize);
    }
    if rule.top_p < 1.0 {
        let whole: f64 = order.iter().map(mass).sum();
        let mut reached = 0.0;
        let needed = order.iter().take_while(|token| {
            let before = reached;
            reached += mass(token) / whole;
            before < f64::from(rule.top_p)
        });
        let needed = needed.count();
        order.truncate(needed.max(1));
    }
    order.retain(|token| mass(token) >= f64::from(rule.min_p));
    order.sort_unstable();
    let kept: f64 = order.iter().map(mass).sum();
    let mut left = f64::from(rule.uniform) * kept;
    let under = order.iter().find(|token| {
        left -= mass(token);
        left < 0.0
    });
    let token = *under.unwrap_or(&order[order.len() - 1]);
    (token as u32, logprob(token), (mass(&token) / kept).ln())
}

#[test]
fn draws() {
    let (gpu, mut rng) = (gpu(), ChaCha8Rng::seed_from_u64(6));
    let open = DrawRule { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0, banned: Vec::new() };
    for vocabulary in [4, 1000, 1024, 5000] {
        let mut rules = Vec::new();
        for uniform in [0.0, 0.3, 0.9, 0.999_999] {
            let open = DrawRule { uniform, ..open.clone() };
            rules.extend([
                open.clone(),
                DrawRule { temperature: 0.0, ..open.clone() },
                DrawRule { temperature: 0.5, banned: vec![1, 2], ..open.clone() },
                DrawRule { top_k: 2, ..open.clone() },
                DrawRule { top_k: 3, top_p: 0.6, ..open.clone() },
                DrawRule { temperature: 1.7, top_p: 0.7, ..open.clone() },
                DrawRule { min_p: 0.3, banned: vec![0], ..open },
            ]);
        }
        let mut logits: Vec<f32> = floats(&mut rng, vocabulary * rules.len()).iter().map(|x| x * 6.0).collect();
        // Many equal logits in every third row.
        logits.chunks_mut(vocabulary).step_by(3).flatten().for_each(|x| *x = x.round());
        let found = Sampler { vocabulary }.draw(&gpu, &gpu.upload(&logits), &rules).unwrap();
        for ((rule, found), logits) in rules.iter().zip(found).zip(logits.chunks(vocabulary)) {
            let (token, logprob, sampling_logprob) = drawn(logits, rule);
            // Sums in f32 may end on the other side of a border that is this near.
            let near = |by: f32| drawn(logits, &DrawRule { uniform: (rule.uniform + by).max(0.0), ..rule.clone() }).0;
            if found.token != token {
                assert!(near(1e-6) != token || near(-1e-6) != token, "{vocabulary}, {rule:?}: {found:?} for {token}");
                continue;
            }
            let close = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-5;
            assert!(close(found.logprob, logprob), "{vocabulary}, {rule:?}: {found:?} for {logprob}");
            assert!(
                close(found.sampling_logprob, sampling_logprob),
                "{vocabulary}, {rule:?}: {found:?} for {sampling_logprob}"
            );
        }
    }
}

#[test]
fn recorded_kernels_compute_what_launched_ones_do() {
    let (gpu, mut rng) = (gpu(), ChaCha8Rng::seed_from_u64(9));
    let (inner, outer, rows) = (130, 70, 3);
    let matrix = gpu.upload(&floats(&mut rng, outer * inner));
    let linear = Linear::new(&gpu, inner, outer, LinearParts::Stacked, false);
    linear.fill(&gpu, &[&matrix]);
    let (x, normed, out) = (gpu.empty(rows * inner), gpu.empty(rows * inner), unwritten(&gpu, rows * outer));
    let gain = gpu.upload(&floats(&mut rng, inner));
    let memory = Linear::rounded(&gpu, rows, inner);
    let work = || {
        rms_norm(&gpu, &x, &gain, 1e-5, rows, &normed);
        linear.forward(&gpu, &normed, rows, LinearOutput::Store, &memory, &out);
    };
    let stream = GpuStream::new();
    let recording = stream.enter(|| gpu.record(work)).unwrap();
    for _ in 0..3 {
        let values = floats(&mut rng, rows * inner);
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        // From another thread, whose own stream is another.
        let replayed = std::thread::scope(|scope| {
            let replayed = scope.spawn(|| {
                stream.enter(|| {
                    gpu.write(&x, &bits);
                    recording.replay().unwrap();
                    gpu.read(&out).unwrap()
                })
            });
            replayed.join().unwrap()
        });
        let (again, launched) = (unwritten(&gpu, rows * inner), unwritten(&gpu, rows * outer));
        rms_norm(&gpu, &gpu.upload(&values), &gain, 1e-5, rows, &again);
        linear.forward(&gpu, &again, rows, LinearOutput::Store, &memory, &launched);
        assert_eq!(replayed, gpu.read(&launched).unwrap());
    }
    // A write may be shorter than the buffer, and a part of a buffer is in its memory.
    let buffer = gpu.upload_words(&[7; 200]);
    gpu.write(&buffer, &[1, 2]);
    gpu.write(&buffer.part(128, 2), &[3, 4]);
    assert_eq!(gpu.read_words(&buffer).unwrap()[..4], [1, 2, 7, 7]);
    assert_eq!(gpu.read_words(&buffer).unwrap()[127..131], [7, 3, 4, 7]);
    assert_eq!(gpu.read_words(&buffer.part(128, 3)).unwrap(), [3, 4, 7]);
}
