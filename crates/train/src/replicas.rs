//! Data parallelism: an update's sequences are dealt to devices, and the devices' gradients add up to the whole one.
//!
//! Every token's weight in the loss is that in the whole mini-batch, so nothing is averaged: the sum over the devices is the
//! gradient that one device would have computed. The sum is taken, and the optimizer steps, on the first device.

use std::thread;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use zerosearch_lm::{Decoder, Gradients, Pass};

use crate::TrainError;
use crate::batch::{MicroBatch, MiniBatch};
use crate::updater::Updater;

/// The networks on a further device.
pub(crate) struct Replica {
    pub(crate) policy: Decoder,
    pub(crate) reference: Option<Decoder>,
    pub(crate) critic: Option<Decoder>,
}

impl Updater {
    /// A copy of all networks on another device.
    pub(crate) fn replica(&self, device: &Device) -> Replica {
        let policy = self.policy.decoder.replica(device);
        let reference = self.reference.as_ref().map(|reference| match &self.config.lora {
            Some(_) => policy.without_lora(),
            None => reference.replica(device),
        });
        let critic = self.critic.as_ref().map(|critic| critic.decoder.replica(device));
        Replica { policy, reference, critic }
    }
}

/// The gradient of a mini-batch, added up on `device`. Each decoder takes its part of the sequences through `micro_batch`, one
/// micro-batch of `budget` tokens after another, all decoders at once. Also returns each one's figures, to which `backward` adds
/// the seconds of every backward pass since it began.
pub(crate) fn gradients<D: Send, S: Default + Send>(
    decoders: Vec<D>,
    device: &Device,
    mini_batch: &MiniBatch<'_>,
    budget: usize,
    micro_batch: impl Fn(&D, usize, &MicroBatch<'_>, &mut S) -> Result<(Pass, Tensor<1>), TrainError> + Sync,
    backward: impl Fn(&D, &mut S, Instant) + Sync,
) -> Result<(Gradients, Vec<S>), TrainError> {
    let part = |decoder: D, part: MiniBatch<'_>| -> Result<(Gradients, S), TrainError> {
        let (mut gradients, mut figures) = (Gradients::default(), S::default());
        for (index, micro) in part.micro_batches(budget).iter().enumerate() {
            let (pass, loss) = micro_batch(&decoder, index, micro, &mut figures)?;
            let clock = Instant::now();
            pass.backward(loss, &mut gradients);
            backward(&decoder, &mut figures, clock);
        }
        Ok((gradients, figures))
    };
    let dealt = mini_batch.deal(decoders.len());
    let mut work = decoders.into_iter().zip(dealt);
    let Some((first, own)) = work.next() else { return Ok((Gradients::default(), Vec::new())) };
    let parts = thread::scope(|scope| {
        let part = &part;
        let others: Vec<_> = work.map(|(decoder, dealt)| scope.spawn(move || part(decoder, dealt))).collect();
        let mut parts = vec![part(first, own)];
        parts.extend(
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        parts.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    let mut sum = Gradients::default();
    let mut figures = Vec::with_capacity(parts.len());
    for (gradients, of_part) in parts {
        sum.add(gradients.on(device));
        figures.push(of_part);
    }
    Ok((sum, figures))
}
