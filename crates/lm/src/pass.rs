//! A training pass: features first, a loss of one's own, then the gradients.

use burn::tensor::Tensor;

use crate::forward::Rows;
use crate::packing::Packing;
use crate::{Decoder, Gradients, ScoredSequence};

/// A forward pass whose loss is still to come.
///
/// With gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) only each layer's input is kept; the backward pass
/// computes a layer's forward pass once more before its own. The gradients are the same, to the bit on the CPU; memory
/// for activations falls from that of all layers to that of one, for one more forward pass.
pub struct Pass {
    decoder: Decoder,
    /// The normalised last hidden states from which the scored tokens are predicted, `[n, hidden]`.
    pub features: Tensor<2>,
    kept: Option<Kept>,
}

/// State kept for the backward pass through the layers.
struct Kept {
    packing: Packing,
    rows: Rows,
    /// Each layer's input, without autodiff.
    inputs: Vec<Tensor<2>>,
    /// The last layer's output, as a leaf.
    hidden: Tensor<2>,
}

impl Decoder {
    /// The forward pass of [`features`](Self::features), to be followed by [`Pass::backward`].
    pub fn pass(&self, sequences: &[ScoredSequence<'_>], gradient_checkpointing: bool) -> Pass {
        let decoder = self.clone();
        if !gradient_checkpointing {
            return Pass { features: self.features(sequences), decoder, kept: None };
        }
        let packing = Packing::of(sequences);
        let rows = Rows::of(&packing, self.config(), self.device());
        let constant = self.without_autodiff();
        let mut x = constant.embed(&packing.tokens);
        let mut inputs = Vec::with_capacity(self.config().layers);
        for layer in &constant.network.layers {
            inputs.push(x.clone());
            x = constant.layer(layer, x, &rows);
        }
        let hidden = x.autodiff().require_grad();
        let features = self.scored_features(hidden.clone(), &packing);
        Pass { decoder, features, kept: Some(Kept { packing, rows, inputs, hidden }) }
    }
}

impl Pass {
    /// As [`Decoder::score`], of the sequences that the pass was made of.
    pub fn score(&self, sequences: &[ScoredSequence<'_>]) -> (Tensor<1>, Tensor<1>) {
        self.decoder.score_features(self.features.clone(), sequences)
    }

    /// Back-propagates a scalar loss of [`features`](Self::features) and adds the gradients of what is trained.
    pub fn backward(self, loss: Tensor<1>, gradients: &mut Gradients) {
        let Self { decoder, features, kept } = self;
        drop(features);
        let Some(Kept { packing, rows, inputs, hidden }) = kept else {
            return gradients.add(Gradients::of(loss, decoder.trained()));
        };
        let mut all = loss.backward();
        // Of head and embedding, which may be one: added up here first, as a pass that keeps everything does.
        let mut ends = Gradients::take(&mut all, decoder.trained());
        let mut upstream = hidden.grad_remove(&mut all);
        drop((hidden, all));
        let through = |output: Tensor<2>, upstream: Tensor<2>, gradients: &mut Gradients| {
            let mut all = (output * upstream).sum().backward();
            gradients.add(Gradients::take(&mut all, decoder.trained()));
            all
        };
        for (layer, input) in decoder.network.layers.iter().zip(inputs).rev() {
            let Some(gradient) = upstream else { break };
            let input = input.autodiff().require_grad();
            let output = decoder.layer(layer, input.clone(), &rows);
            upstream = input.grad_remove(&mut through(output, gradient, gradients));
        }
        if let Some(gradient) = upstream.filter(|_| decoder.trains_embedding()) {
            through(decoder.embed(&packing.tokens), gradient, &mut ends);
        }
        gradients.add(ends);
    }
}
