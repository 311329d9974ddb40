//! One parameter on a device.

use burn::tensor::{Device, Tensor, TensorData};

use crate::HostTensor;

/// One parameter on a device.
#[derive(Clone, Debug)]
pub enum Weight {
    /// A projection `[out, in]` or an embedding `[vocab, hidden]`.
    Matrix(Tensor<2>),
    /// A norm or a bias.
    Vector(Tensor<1>),
}

impl Weight {
    /// Takes values to a device.
    pub fn from_host(tensor: HostTensor, device: &Device) -> Self {
        let HostTensor { shape, values } = tensor;
        let dimensions = shape.len();
        let data = TensorData::new(values, shape);
        if dimensions == 2 {
            Self::Matrix(Tensor::from_data(data, device))
        } else {
            Self::Vector(Tensor::from_data(data, device))
        }
    }

    /// Its dimensions.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Matrix(tensor) => tensor.dims().to_vec(),
            Self::Vector(tensor) => tensor.dims().to_vec(),
        }
    }

    /// Copies values to the host.
    pub fn to_host(&self) -> HostTensor {
        let data = match self {
            Self::Matrix(tensor) => tensor.clone().without_autodiff().into_data(),
            Self::Vector(tensor) => tensor.clone().without_autodiff().into_data(),
        };
        let shape = data.shape().to_vec();
        let data = data.convert::<f32>();
        let values = match data.as_slice::<f32>() {
            Ok(values) => values.to_vec(),
            Err(_) => data.iter().collect(),
        };
        HostTensor { shape, values }
    }

    /// The memory of a GPU that holds it, row-major.
    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(&self) -> Option<zerosearch_kernels::cube::GpuBuffer> {
        match self {
            Self::Matrix(tensor) => zerosearch_kernels::cube::GpuBuffer::of(tensor),
            Self::Vector(tensor) => zerosearch_kernels::cube::GpuBuffer::of(tensor),
        }
    }

    /// As a matrix; a vector is its one row.
    pub(crate) fn into_matrix(self) -> Tensor<2> {
        match self {
            Self::Matrix(tensor) => tensor,
            Self::Vector(tensor) => tensor.unsqueeze(),
        }
    }

    /// As a vector; of a matrix, its rows one after another.
    pub(crate) fn into_vector(self) -> Tensor<1> {
        match self {
            Self::Matrix(tensor) => tensor.flatten(0, 1),
            Self::Vector(tensor) => tensor,
        }
    }

    /// Takes it out, to be changed in place where nothing else holds it; an empty vector stays.
    pub(crate) fn take(&mut self) -> Self {
        let device = match self {
            Self::Matrix(tensor) => tensor.device(),
            Self::Vector(tensor) => tensor.device(),
        };
        std::mem::replace(self, Self::Vector(Tensor::empty([1], &device)))
    }

    /// The same values as a constant.
    pub(crate) fn without_autodiff(&self) -> Self {
        match self.clone() {
            Self::Matrix(tensor) => Self::Matrix(tensor.without_autodiff()),
            Self::Vector(tensor) => Self::Vector(tensor.without_autodiff()),
        }
    }

    /// The same values on a device, as a constant or as a leaf that collects a gradient.
    pub(crate) fn copy_to(&self, device: &Device, tracked: bool) -> Self {
        let mut copy = match self.without_autodiff() {
            Self::Matrix(tensor) => Self::Matrix(tensor.to_device(device)),
            Self::Vector(tensor) => Self::Vector(tensor.to_device(device)),
        };
        if tracked {
            copy.track();
        }
        copy
    }

    /// Whether it collects a gradient.
    pub(crate) fn is_tracked(&self) -> bool {
        match self {
            Self::Matrix(tensor) => tensor.is_require_grad(),
            Self::Vector(tensor) => tensor.is_require_grad(),
        }
    }

    /// Makes it a leaf that collects a gradient.
    pub fn track(&mut self) {
        *self = match self.clone() {
            Self::Matrix(tensor) => Self::Matrix(tensor.without_autodiff().autodiff().require_grad()),
            Self::Vector(tensor) => Self::Vector(tensor.without_autodiff().autodiff().require_grad()),
        };
    }
}
