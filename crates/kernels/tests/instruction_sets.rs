//! Every instruction set that the processor has gives the same bits.

mod common;

use zerosearch_kernels::InstructionSet;
use zerosearch_kernels::host::{
    Attention, KV_BLOCK, KvBlocks, Masses, Packed, add_rows, merge_adapter, rms_norm_rows, rotate_row, swiglu_rows,
    write_key, write_value,
};

/// Numbers in [-0.5, 0.5) that differ from one another.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let number = |i: u32| {
        let x = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        ((x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35) >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..count as u32).map(number).collect()
}

/// Products of every number of rows that a tile has and of more, over inputs and outputs that no tile divides.
fn products() -> Vec<f32> {
    let mut results = Vec::new();
    for (inner, outer) in [(1, 1), (7, 16), (70, 83), (800, 200)] {
        let weight = values(inner * outer, 1);
        for weight in [Packed::new(&[&weight], inner), Packed::new_bf16(&[&weight], inner)] {
            for rows in (1..20).chain([100, 197]) {
                let mut out = vec![0.0; rows * outer];
                weight.multiply(&values(rows * inner, rows as u32), &mut out);
                results.extend(out);
            }
        }
    }
    results
}

/// Sums whose terms cancel, and numbers at the ends of the range: where roundings differ if ever they do.
fn extremes() -> Vec<f32> {
    let inner = 64;
    let x: Vec<f32> = values(3 * inner, 5).iter().map(|v| if *v > 0.0 { 1.0 + v * 1e-3 } else { v * 1e-30 }).collect();
    let weight: Vec<f32> = (0..40 * inner)
        .zip(values(40 * inner, 6))
        .map(|(i, v)| [1.0, -1.0][i % 2] * (1.0 + v * 1e-5) * [1.0, 1e-12, 3e30, f32::MIN_POSITIVE][i / inner % 4])
        .collect();
    let mut out = vec![0.0; 3 * 40];
    Packed::new(&[&weight], inner).multiply(&x, &mut out);
    out
}

fn attention() -> Vec<f32> {
    let mut results = Vec::new();
    for (head_dim, heads) in [(64, 3), (20, 1), (128, 8)] {
        let (length, stride) = (77usize, usize::next_multiple_of(head_dim, KV_BLOCK));
        let keys = values(length * head_dim, 8);
        let mut blocks = vec![vec![0.0; KV_BLOCK * (head_dim + stride)]; length.div_ceil(KV_BLOCK)];
        for (position, key) in keys.chunks_exact(head_dim).enumerate() {
            let (keys, values) = blocks[position / KV_BLOCK].split_at_mut(KV_BLOCK * head_dim);
            write_key(keys, position % KV_BLOCK, key);
            write_value(values, stride, position % KV_BLOCK, key);
        }
        let blocks: Vec<&[f32]> = blocks.iter().map(|block| &block[..]).collect();
        let cache = KvBlocks { blocks: &blocks, keys: 0, values: KV_BLOCK * head_dim, value_stride: stride };
        for (first, count) in [(length - 1, 1), (0, 16), (40, 5), (61, 16)] {
            let queries: Vec<f32> = values(count * heads * head_dim, 9).iter().map(|value| value * 8.0).collect();
            let mut out = vec![0.0; queries.len()];
            let rows = queries.chunks_exact(heads * head_dim).zip(out.chunks_exact_mut(heads * head_dim));
            Attention::default().run(head_dim, first, rows, cache);
            results.extend(out);
        }
    }
    results
}

fn rows() -> Vec<f32> {
    let (width, rank) = (75, 3);
    let (x, weight) = (values(2 * width * 40, 1), values(width, 2));
    let mut results = vec![0.0; width * 40];
    rms_norm_rows(&x[..width * 40], &weight, 1e-5, &mut results);
    let mut gated = vec![0.0; width * 40];
    swiglu_rows(&x, width, &mut gated);
    add_rows(&mut gated, &results);
    let mut merged = x[..width * 20].to_vec();
    merge_adapter(&mut merged, &x[..rank * width], &x[..20 * rank], width, 0.3);
    rotate_row(&mut merged, &weight[..25], &weight[25..50]);
    let mut masses = Masses::default();
    for temperature in [1.0, 0.6] {
        masses.fill(&x, temperature);
        results.extend(&masses.masses);
        results.extend(masses.sums.iter().flat_map(|sum| [*sum as f32, (*sum - f64::from(*sum as f32)) as f32]));
    }
    results.extend(gated);
    results.extend(merged);
    results
}

/// One test, as the choice is the process's.
#[test]
fn the_instruction_set_does_not_change_a_bit() {
    let run = || {
        let mut parts: Vec<Vec<u32>> = [products(), extremes(), attention(), rows()]
            .map(|values| values.into_iter().map(f32::to_bits).collect())
            .into();
        parts.extend(common::bits_of_everything());
        parts
    };
    InstructionSet::Plain.select().unwrap();
    let plain = run();
    assert!(plain[0].iter().all(|bits| f32::from_bits(*bits).is_finite()));
    for set in InstructionSet::available() {
        set.select().unwrap();
        assert_eq!(InstructionSet::current(), set);
        for (part, (found, expected)) in run().iter().zip(&plain).enumerate() {
            let differ = found.iter().zip(expected).filter(|(a, b)| a != b).count();
            assert!(found.len() == expected.len() && differ == 0, "{set}: {differ} of part {part} differ");
        }
    }
}
