//! Attention by tensor cores, and its gradients: rows, weights and slopes rounded to bf16, sums in f32.
//!
//! A warp has sixteen lines of its own, keys or queries, whose numbers stay in its registers, and goes through the other side's lines,
//! which the cube stages. Scores come out of an instruction as the next one takes them, so that weights and slopes never leave the
//! registers. Which line or number of an instruction is which in memory does not matter to a sum: a unit has four that are adjacent.

mod backward;
mod forward;
mod lines;

use cubecl::prelude::*;

use self::backward::{keys_gradient, queries_gradient};
use self::forward::attend;
use self::lines::Variant;
use super::super::linear::ProductPath;
use super::attention::Saved;
use super::spans::{Table, keys, queries};
use super::tensor::{GpuTensor, arg, elements, with_type};
use crate::AttentionShape;

const WARPS: usize = 4;
const UNITS: usize = 32 * WARPS;
/// Lines of a cube.
pub(super) const LINES: usize = 16 * WARPS;

/// Whether heads are of a width that the kernels take.
pub(super) fn takes(shape: AttentionShape) -> bool {
    shape.head_dim.is_multiple_of(4)
}

/// Writes what queries attend to, and the logarithms of their sums of exponentials. `queries`: tiles of [`LINES`].
pub(super) fn forward(
    path: ProductPath,
    [q, k, v]: [&GpuTensor; 3],
    [output, log_sums]: [&GpuTensor; 2],
    queries: &Table,
    shape: AttentionShape,
) {
    with_type!(q, F => unsafe {
        attend::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(queries.lines as u32, shape.heads as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            quads(q),
            quads(k),
            quads(v),
            queries.buffer.arg(),
            quads(output),
            arg(log_sums),
            shape.scale(),
            Variant::of(path, shape),
        );
    });
}

/// Writes the gradients of `q`, `k` and `v`. `of_outputs`: the products of each output with its gradient, `[rows, heads]`.
pub(super) fn backward(
    path: ProductPath,
    saved: &Saved,
    [upstream, of_outputs]: [&GpuTensor; 2],
    [d_q, d_k, d_v]: [&GpuTensor; 3],
) {
    let Saved { q, k, v, log_sums, spans, shape, .. } = saved;
    let (shape, queries, [keys, visits]) = (*shape, queries(spans, LINES, q), keys(spans, LINES, q));
    let variant = Variant::of(path, shape);
    let units = CubeDim::new_1d(UNITS as u32);
    with_type!(q, F => unsafe {
        queries_gradient::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(queries.lines as u32, shape.heads as u32, 1),
            units,
            quads(q),
            quads(k),
            quads(v),
            quads(upstream),
            queries.buffer.arg(),
            arg(log_sums),
            arg(of_outputs),
            quads(d_q),
            shape.scale(),
            variant,
        );
        keys_gradient::launch_unchecked::<F>(
            &q.client,
            CubeCount::Static(keys.lines as u32, shape.kv_heads as u32, 1),
            units,
            quads(q),
            quads(k),
            quads(v),
            quads(upstream),
            keys.buffer.arg(),
            visits.buffer.arg(),
            arg(log_sums),
            arg(of_outputs),
            quads(d_k),
            quads(d_v),
            shape.scale(),
            variant,
        );
    });
}

/// A tensor as the argument of a kernel that takes four of its numbers at a time.
fn quads(x: &GpuTensor) -> BufferArg {
    unsafe { BufferArg::from_raw_parts(x.handle.clone(), (elements(x) / 4).max(1)) }
}
