//! `silu(gate) * up` and its gradients.

use burn::backend::Cube;
use cubecl::prelude::*;

use super::super::elementwise::{UNITS, cubes, gated};
use super::tensor::{GpuTensor, arg, assert_one_type, elements, empty_like, with_type};
use crate::buffer::Contiguous;
use crate::swiglu::SwigluKernels;

impl SwigluKernels for Cube {
    fn swiglu(gate: GpuTensor, up: GpuTensor) -> GpuTensor {
        let (gate, up) = (Self::contiguous(gate), Self::contiguous(up));
        assert_one_type(&[&gate, &up]);
        let out = empty_like(&gate);
        let count = elements(&gate);
        with_type!(gate, F => unsafe {
            forward::launch_unchecked::<F>(
                &gate.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                arg(&gate),
                arg(&up),
                arg(&out),
                count as u32,
            );
        });
        out
    }

    fn swiglu_backward(gate: GpuTensor, up: GpuTensor, upstream: GpuTensor) -> [GpuTensor; 2] {
        let [gate, up, upstream] = [gate, up, upstream].map(Self::contiguous);
        assert_one_type(&[&gate, &up, &upstream]);
        let (d_gate, d_up) = (empty_like(&gate), empty_like(&up));
        let count = elements(&gate);
        with_type!(gate, F => unsafe {
            backward::launch_unchecked::<F>(
                &gate.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                arg(&gate),
                arg(&up),
                arg(&upstream),
                arg(&d_gate),
                arg(&d_up),
                count as u32,
            );
        });
        [d_gate, d_up]
    }
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + f32::exp(-x))
}

#[cube(launch_unchecked)]
fn forward<F: Float>(gate: &[F], up: &[F], out: &mut [F], elements: u32) {
    let mut index = ABSOLUTE_POS;
    while index < elements as usize {
        out[index] = F::cast_from(gated(f32::cast_from(gate[index]), f32::cast_from(up[index])));
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}

#[cube(launch_unchecked)]
fn backward<F: Float>(gate: &[F], up: &[F], upstream: &[F], d_gate: &mut [F], d_up: &mut [F], elements: u32) {
    let mut index = ABSOLUTE_POS;
    while index < elements as usize {
        let value = f32::cast_from(gate[index]);
        let from_above = f32::cast_from(upstream[index]);
        let share = sigmoid(value);
        d_up[index] = F::cast_from(from_above * value * share);
        let slope = share * (1.0f32 + value * (1.0f32 - share));
        d_gate[index] = F::cast_from(from_above * f32::cast_from(up[index]) * slope);
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}
