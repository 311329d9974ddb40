//! Embeddings of tokens, and the gradient of their table.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};
use cubecl::prelude::*;

use super::super::elementwise::{UNITS, cubes};
use super::tensor::{GpuTensor, arg, elements, empty, gpu_of, is_gpu, rows_and_columns};
use crate::buffer::Contiguous;

/// Numbers of a line: a token, its first place in the order of all tokens, the place after its last.
const LINE: usize = 3;

/// Whether [`embedding`] takes a table: on a GPU, of 32-bit floats.
pub(crate) fn is_table(table: &Tensor<2>) -> bool {
    is_gpu(table) && table.dtype() == DType::F32
}

/// Rows of a table.
pub(crate) fn embedding(table: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_embedding(table.into_dispatch(), tokens.into()))
}

#[backend_extension(Cube, Autodiff)]
pub(crate) trait EmbeddingOp: Backend {
    fn fused_embedding(table: FloatTensor<Self>, tokens: Arc<[u32]>) -> FloatTensor<Self>;
}

impl EmbeddingOp for Cube {
    fn fused_embedding(table: GpuTensor, tokens: Arc<[u32]>) -> GpuTensor {
        let table = Self::contiguous(table);
        let (_, width) = rows_and_columns(&table);
        let out = empty(&table, [tokens.len(), width], DType::F32);
        let gpu = gpu_of(&table);
        if elements(&out) > 0 {
            unsafe {
                gather::launch_unchecked(
                    &table.client,
                    cubes(elements(&out)),
                    CubeDim::new_1d(UNITS as u32),
                    arg(&table),
                    gpu.upload_words(&tokens).arg(),
                    arg(&out),
                    elements(&out) as u32,
                    width as u32,
                );
            }
        }
        out
    }
}

#[derive(Debug)]
struct EmbeddingBackward;

impl Backward<Cube, 1> for EmbeddingBackward {
    /// The table's rows, and the tokens.
    type State = (usize, Arc<[u32]>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (vocab, tokens) = ops.state;
        let upstream = Cube::contiguous(grads.consume::<Cube>(&ops.node));
        if let [Some(parent)] = ops.parents {
            grads.register::<Cube>(parent.id, table_gradient(&upstream, vocab, &tokens));
        }
    }
}

impl<C: CheckpointStrategy> EmbeddingOp for Autodiff<Cube, C> {
    fn fused_embedding(table: FloatTensor<Self>, tokens: Arc<[u32]>) -> FloatTensor<Self> {
        let (table, node) = table.into_parts();
        let (vocab, _) = rows_and_columns(&table);
        let output = Cube::fused_embedding(table, Arc::clone(&tokens));
        match EmbeddingBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((vocab, tokens), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

fn table_gradient(upstream: &GpuTensor, vocab: usize, tokens: &[u32]) -> GpuTensor {
    let (_, width) = rows_and_columns(upstream);
    let gpu = gpu_of(upstream);
    let zeros = gpu.zeros(vocab * width);
    let gradient = GpuTensor::new_contiguous(
        upstream.client.clone(),
        upstream.device.clone(),
        [vocab, width].into(),
        zeros.handle,
        DType::F32,
    );
    let mut places: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    (0..).zip(tokens).for_each(|(place, token)| places.entry(*token).or_default().push(place));
    if places.is_empty() || width == 0 {
        return gradient;
    }
    let (mut lines, mut order) = (Vec::with_capacity(places.len() * LINE), Vec::with_capacity(tokens.len()));
    for (token, places) in &places {
        let first = order.len();
        order.extend_from_slice(places);
        lines.extend([*token, first as u32, order.len() as u32]);
    }
    unsafe {
        add_rows::launch_unchecked(
            &upstream.client,
            cubes(places.len() * width),
            CubeDim::new_1d(UNITS as u32),
            arg(upstream),
            gpu.upload_words(&lines).arg(),
            gpu.upload_words(&order).arg(),
            arg(&gradient),
            (places.len() * width) as u32,
            width as u32,
        );
    }
    gradient
}

#[cube(launch_unchecked)]
fn gather(table: &[f32], tokens: &[u32], out: &mut [f32], count: u32, width: u32) {
    let width = width as usize;
    let mut index = ABSOLUTE_POS;
    while index < count as usize {
        out[index] = table[tokens[index / width] as usize * width + index % width];
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}

/// A column of a token's gradient: the sum of those of its places.
#[cube(launch_unchecked)]
fn add_rows(upstream: &[f32], lines: &[u32], order: &[u32], gradient: &mut [f32], count: u32, width: u32) {
    let width = width as usize;
    let mut index = ABSOLUTE_POS;
    while index < count as usize {
        let (line, column) = (index / width * LINE, index % width);
        let mut sum = 0.0f32;
        let mut place = lines[line + 1] as usize;
        while place < lines[line + 2] as usize {
            sum += upstream[order[place] as usize * width + column];
            place += 1;
        }
        gradient[lines[line] as usize * width + column] = sum;
        index += CUBE_COUNT * CUBE_DIM as usize;
    }
}
