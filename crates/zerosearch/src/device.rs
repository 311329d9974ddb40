//! The device that a model is computed on, by name.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

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
        match self {
            Self::Auto => Ok(cuda(0).or_else(|_| gpu_by_wgpu(self)).unwrap_or_else(|_| Device::flex())),
            Self::Cpu => Ok(Device::flex()),
            Self::Cuda(index) => cuda(index),
            Self::WebGpu => any_by_wgpu(self),
        }
    }
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
