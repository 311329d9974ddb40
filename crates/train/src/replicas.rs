//! Data parallelism: an update's sequences are dealt to devices, and the devices' gradients add up to the whole one.
//!
//! Every token's weight in the loss is that in the whole mini-batch, so nothing is averaged: the sum over the shares is the
//! gradient that one device would have computed. The sum is taken, and the optimizer steps, on the first device.

use std::thread;

use burn::tensor::Device;
use zerosearch_lm::Decoder;

use crate::batch::MiniBatch;
use crate::{TrainError, Trainer};

/// What a further device holds.
pub(crate) struct Replica {
    pub(crate) policy: Decoder,
    pub(crate) reference: Option<Decoder>,
    pub(crate) critic: Option<Decoder>,
}

impl Trainer<'_> {
    /// Has further devices take part in the updates: each computes the gradient of its share of the sequences, beside the
    /// device of [`Parts`](crate::Parts), which adds them up. The result is that of one device, up to the order of
    /// additions; a checkpoint knows nothing of devices.
    #[must_use]
    pub fn with_devices(mut self, further: &[Device]) -> Self {
        let replica = |device| {
            let policy = self.policy.decoder.replica(device);
            let reference = self.reference.as_ref().map(|reference| match &self.config.lora {
                Some(_) => policy.without_lora(),
                None => reference.replica(device),
            });
            let critic = self.critic.as_ref().map(|critic| critic.decoder.replica(device));
            Replica { policy, reference, critic }
        };
        self.replicas = further.iter().map(replica).collect();
        self
    }
}

/// Computes every share with the decoders of its device, all at once. What comes of them stands in the order of the devices.
pub(crate) fn compute<'b, D: Send, R: Send>(
    decoders: Vec<D>,
    mini_batch: &MiniBatch<'b>,
    compute: impl Fn(D, MiniBatch<'b>) -> Result<R, TrainError> + Sync,
) -> Result<Vec<R>, TrainError> {
    let shares = mini_batch.shares(decoders.len());
    let mut work = decoders.into_iter().zip(shares);
    let Some((first, share)) = work.next() else { return Ok(Vec::new()) };
    thread::scope(|scope| {
        let compute = &compute;
        let others: Vec<_> = work.map(|(decoder, share)| scope.spawn(move || compute(decoder, share))).collect();
        let mut results = vec![compute(first, share)];
        results.extend(
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        results.into_iter().collect()
    })
}
