//! Kernels whose elements do not depend on one another: their launch, and what generator and trainer compute alike.

use cubecl::prelude::*;

/// Units of a cube.
pub(super) const UNITS: usize = 256;

/// Cubes for so many elements, each of which takes one after another at the distance of all units.
pub(super) fn cubes(elements: usize) -> CubeCount {
    CubeCount::Static(elements.div_ceil(UNITS).clamp(1, 1 << 14) as u32, 1, 1)
}

/// `silu(gate) · up`.
#[cube]
pub(super) fn gated(gate: f32, up: f32) -> f32 {
    gate / (1.0f32 + f32::exp(-gate)) * up
}

/// A pair of a head's numbers, rotated by an angle.
#[cube]
pub(super) fn rotated(a: f32, b: f32, cosine: f32, sine: f32) -> (f32, f32) {
    (fma(a, cosine, -(b * sine)), fma(b, cosine, a * sine))
}
