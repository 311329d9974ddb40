//! The device that a run is sized for.

use zerosearch_kernels::is_cpu;
use zerosearch_lm::{GpuProducts, WeightDtype};
use zerosearch_train::TrainConfig;

use crate::device::DeviceName;

/// The kind of device, which need not be on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) gpu: bool,
    /// Whether it multiplies in bf16 unless it is told otherwise.
    bf16: bool,
    /// Whether this machine has it.
    pub(super) is_here: bool,
}

impl Target {
    /// The device of that name: as it is where this machine has it, else an NVIDIA GPU with bf16, or a GPU without.
    pub(super) fn of(name: DeviceName) -> Self {
        match name.open() {
            Ok(device) => {
                let bf16 = WeightDtype::default_on(&device) == WeightDtype::Bf16;
                Self { gpu: !is_cpu(&device), bf16, is_here: true }
            }
            Err(_) => Self { gpu: true, bf16: matches!(name, DeviceName::Cuda(_)), is_here: false },
        }
    }

    /// The type of a frozen model's weights.
    pub(super) fn default_dtype(self) -> WeightDtype {
        if self.bf16 { WeightDtype::Bf16 } else { WeightDtype::F32 }
    }

    /// The type of the weights that rollouts are sampled with.
    pub(super) fn rollout_dtype(self, train: &TrainConfig) -> WeightDtype {
        train.rollout_dtype.unwrap_or(self.default_dtype())
    }

    /// Whether activations of the training passes are in bf16.
    pub(super) fn trains_in_bf16(self, train: &TrainConfig) -> bool {
        self.bf16 && train.gpu == GpuProducts::Fast
    }

    /// Bytes of buffers that hold so many: those of a GPU grow by half.
    pub(super) fn grown(self, bytes: u64) -> u64 {
        if self.gpu { bytes.saturating_add(bytes / 2) } else { bytes }
    }

    /// The most bytes whose buffers, once [`grown`](Self::grown), are no more than so many.
    pub(super) fn before_growth(self, bytes: u64) -> u64 {
        if self.gpu { bytes / 3 * 2 } else { bytes }
    }
}
