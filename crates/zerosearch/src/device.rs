//! The device that a model is computed on, by name.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use sysinfo::System;

/// The device that models are computed on: `auto`, `cpu`, `cuda:N` or `webgpu`.
///
/// ```
/// use zerosearch::device::DeviceName;
///
/// assert_eq!("cuda".parse(), Ok(DeviceName::Cuda(0)));
/// assert_eq!("cuda:1".parse::<DeviceName>()?.to_string(), "cuda:1");
/// assert!(DeviceName::Cpu.open().is_ok());
/// # Ok::<(), zerosearch::device::DeviceError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The first GPU that this build can drive, else the CPU. A GPU that is played by software is none.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU, by its number; a build with the feature `cuda`.
    Cuda(usize),
    /// The best adapter that wgpu finds, be it played by software; a build with the feature `webgpu`.
    WebGpu,
}

/// A device that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A name of no device.
    #[error("the device is {0:?}, expected auto, cpu, cuda, cuda:N or webgpu")]
    Name(String),
    /// A device whose feature this build lacks.
    #[error("the device is {name}, which needs a build with `--features {feature}`")]
    Feature {
        /// The device.
        name: DeviceName,
        /// The missing feature.
        feature: &'static str,
    },
    /// A device that this machine does not have.
    #[error("the device is {name}, of which this machine has {found}; `auto` takes what there is")]
    Missing {
        /// The device.
        name: DeviceName,
        /// How many of its kind there are.
        found: usize,
    },
}

impl DeviceName {
    /// The device.
    ///
    /// # Errors
    /// When this build cannot drive it, or the machine has none.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self.resolved() {
            Self::Auto | Self::Cpu => Ok(Device::flex()),
            Self::Cuda(index) => cuda(index),
            Self::WebGpu => any_by_wgpu(self),
        }
    }

    /// The device that it stands for on this machine: the same, but for `auto`.
    #[must_use]
    pub fn resolved(self) -> Self {
        match self {
            Self::Auto if cuda(0).is_ok() => Self::Cuda(0),
            Self::Auto if gpu_by_wgpu(self).is_ok() => Self::WebGpu,
            Self::Auto => Self::Cpu,
            named => named,
        }
    }

    /// Bytes of its memory that are free, where that is to be known: of the CPU's, swap included, within the bounds of a container; of
    /// an NVIDIA GPU's, as `nvidia-smi` says. wgpu does not say.
    pub fn free_memory(self) -> Option<u64> {
        match self.resolved() {
            Self::Cpu => host_memory(),
            Self::Cuda(index) => nvidia_memory(index),
            _ => None,
        }
    }
}

fn host_memory() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let free = system.available_memory() + system.free_swap();
    let within = system.cgroup_limits().map(|limits| limits.free_memory + limits.free_swap);
    Some(free.min(within.unwrap_or(u64::MAX))).filter(|free| *free > 0)
}

fn nvidia_memory(index: usize) -> Option<u64> {
    // `nvidia-smi` counts all GPUs of the machine, and this process those that it is shown.
    let shown = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let name = shown.split(',').nth(index).map(str::trim).filter(|name| !name.is_empty());
    let name = name.map_or_else(|| index.to_string(), str::to_owned);
    let query = ["--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i"];
    let answer = Command::new("nvidia-smi").args(query).arg(name).output().ok()?;
    let mebibytes: u64 = String::from_utf8_lossy(&answer.stdout).trim().parse().ok()?;
    mebibytes.checked_mul(1 << 20)
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len();
    if index < found {
        Ok(Device::cuda(index))
    } else {
        Err(DeviceError::Missing { name: DeviceName::Cuda(index), found })
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::Feature { name: DeviceName::Cuda(index), feature: "cuda" })
}

#[cfg(feature = "webgpu")]
fn gpu_by_wgpu(name: DeviceName) -> Result<Device, DeviceError> {
    let software = Device::wgpu(burn::tensor::DeviceKind::Cpu);
    let all = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
    if all.iter().any(|device| *device != software) {
        any_by_wgpu(name)
    } else {
        Err(DeviceError::Missing { name, found: 0 })
    }
}

#[cfg(feature = "webgpu")]
fn any_by_wgpu(name: DeviceName) -> Result<Device, DeviceError> {
    let found = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec().len();
    if found == 0 {
        return Err(DeviceError::Missing { name, found });
    }
    Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "webgpu"))]
fn gpu_by_wgpu(name: DeviceName) -> Result<Device, DeviceError> {
    any_by_wgpu(name)
}

#[cfg(not(feature = "webgpu"))]
fn any_by_wgpu(name: DeviceName) -> Result<Device, DeviceError> {
    Err(DeviceError::Feature { name, feature: "webgpu" })
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let other = || DeviceError::Name(name.to_string());
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "webgpu" => Ok(Self::WebGpu),
            _ => match name.strip_prefix("cuda:") {
                Some(index) => index.parse().map(Self::Cuda).map_err(|_| other()),
                None => Err(other()),
            },
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::WebGpu => f.write_str("webgpu"),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(name: String) -> Result<Self, DeviceError> {
        name.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [DeviceName::Auto, DeviceName::Cpu, DeviceName::Cuda(3), DeviceName::WebGpu] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for name in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "webgpu:1"] {
            assert_eq!(name.parse::<DeviceName>(), Err(DeviceError::Name(name.to_string())));
        }
    }

    #[test]
    fn the_memory_of_the_cpu_is_known() {
        let free = DeviceName::Cpu.free_memory().unwrap();
        assert!((1 << 20..1 << 50).contains(&free), "{free}");
        assert_eq!((DeviceName::Cuda(3).resolved(), DeviceName::WebGpu.free_memory()), (DeviceName::Cuda(3), None));
    }

    #[cfg(not(any(feature = "cuda", feature = "webgpu")))]
    #[test]
    fn a_build_without_gpus_says_what_it_lacks() {
        assert!(zerosearch_kernels::is_cpu(&DeviceName::Auto.open().unwrap()));
        let error = DeviceName::Cuda(1).open().unwrap_err().to_string();
        assert_eq!(error, "the device is cuda:1, which needs a build with `--features cuda`");
        let error = DeviceName::WebGpu.open().unwrap_err().to_string();
        assert_eq!(error, "the device is webgpu, which needs a build with `--features webgpu`");
    }
}
