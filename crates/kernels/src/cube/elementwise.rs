//! The launch of kernels whose elements do not depend on one another.

use cubecl::prelude::*;

/// Units of a cube.
pub(super) const UNITS: usize = 256;

/// Cubes for so many elements, each of which takes one after another at the distance of all units.
pub(super) fn cubes(elements: usize) -> CubeCount {
    CubeCount::Static(elements.div_ceil(UNITS).clamp(1, 1 << 14) as u32, 1, 1)
}
