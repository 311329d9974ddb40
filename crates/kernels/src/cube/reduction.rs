//! Sums and maxima over the units of a cube, in one order whatever the device.

use cubecl::prelude::*;

/// Units of a cube that sums up a row.
pub(super) const UNITS: usize = 256;
/// Cubes in one direction, at most.
pub(super) const MOST_CUBES: usize = (1 << 16) - 1;

/// Cubes for so many rows, each of which takes one after another at the distance of all cubes.
pub(super) fn cubes_of_rows(rows: usize) -> CubeCount {
    CubeCount::Static(rows.clamp(1, MOST_CUBES) as u32, 1, 1)
}

/// The sum of every unit's value, for all of them. `units` is a power of two, `shared` has room for one number a unit.
#[cube]
pub(super) fn cube_sum(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// The greatest of every unit's values, for all of them. As [`cube_sum`].
#[cube]
pub(super) fn cube_max(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            let own = shared[unit];
            shared[unit] = max(own, other);
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}
