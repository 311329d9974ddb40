//! A GPU and its memory.

use std::pin::Pin;

use burn::backend::{Cube, DType, DispatchDevice};
use burn::tensor::{Device, Tensor};
use cubecl::bytes::Bytes;
use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::{Handle, ServerError};

use super::elementwise::{UNITS, cubes};

/// A GPU, whose kernels run one after another in the order of their calls.
#[derive(Clone)]
pub struct Gpu {
    pub(super) client: Client,
}

/// Numbers of 32 bits in a GPU's memory, which is given back with the last copy of this handle.
#[derive(Clone, Debug)]
pub struct GpuBuffer {
    pub(super) handle: Handle,
    words: usize,
}

type Copied = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, ServerError>> + Send>>;

/// A copy to the host that is under way. Whoever does not want it any more [waits](Self::wait) for it all the same: its memory is written
/// until then.
pub struct Reading {
    bytes: Copied,
    /// Dropped after the future, which was made by it.
    _client: Box<Client>,
    words: usize,
}

impl Reading {
    /// Waits for whole numbers.
    ///
    /// # Errors
    /// When a kernel that writes them failed, or the copy did.
    pub fn wait(self) -> Result<Vec<u32>, GpuError> {
        let bytes = cubecl::future::block_on(self.bytes).map_err(|error| GpuError::Device(error.to_string()))?;
        let bytes = bytes.first().ok_or_else(|| GpuError::Device("nothing was copied".into()))?;
        Ok(u32::from_bytes(bytes)[..self.words].to_vec())
    }
}

/// An error of a GPU.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// A kernel that wrote this memory, or the copy of it to the host, failed.
    #[error("the GPU failed: {0}")]
    Device(String),
}

impl Gpu {
    /// The GPU behind a device; `None` where it is the CPU.
    pub fn of(device: &Device) -> Option<Self> {
        match device.clone().without_autodiff().as_dispatch() {
            DispatchDevice::Cube(device) => Some(Self { client: device.client() }),
            _ => None,
        }
    }

    /// A copy of numbers in the device's memory.
    pub fn upload(&self, values: &[f32]) -> GpuBuffer {
        GpuBuffer { handle: self.client.create_from_slice(f32::as_bytes(values)), words: values.len() }
    }

    /// A copy of whole numbers in the device's memory.
    pub fn upload_words(&self, values: &[u32]) -> GpuBuffer {
        GpuBuffer { handle: self.client.create_from_slice(u32::as_bytes(values)), words: values.len() }
    }

    /// Memory for this many numbers. It holds anything until it is written.
    pub fn empty(&self, words: usize) -> GpuBuffer {
        GpuBuffer { handle: self.client.empty(words.max(1) * size_of::<f32>()), words }
    }

    /// Memory of zeros.
    pub fn zeros(&self, words: usize) -> GpuBuffer {
        let buffer = self.empty(words);
        unsafe {
            clear::launch_unchecked(&self.client, cubes(words), CubeDim::new_1d(UNITS as u32), buffer.arg());
        }
        buffer
    }

    /// Copies one buffer over the beginning of another, which is at least as long.
    pub fn copy(&self, from: &GpuBuffer, to: &GpuBuffer) {
        if from.is_empty() {
            return;
        }
        unsafe {
            copy_words::launch_unchecked(
                &self.client,
                cubes(from.words),
                CubeDim::new_1d(UNITS as u32),
                from.arg(),
                to.arg(),
                from.words as u32,
            );
        }
    }

    /// Writes whole numbers over the beginning of a buffer, which is at least as long.
    pub fn write(&self, buffer: &GpuBuffer, words: &[u32]) {
        // A write is as long as the memory that it goes to.
        self.client.write(&buffer.part(0, words.len()).handle, Bytes::from_elems(words.to_vec()));
    }

    /// Waits for all kernels of the present stream. A kernel that failed shows when what it wrote is [read](Self::read).
    pub fn wait(&self) {
        let _ = cubecl::future::block_on(self.client.sync());
    }

    /// Gives memory that no buffer holds back to the device.
    pub fn give_memory_back(&self) {
        // A device that cannot do so now keeps the memory for the next buffers.
        let _ = self.client.memory_cleanup();
    }

    /// Waits for the kernels that write a buffer, and copies it to the host.
    ///
    /// # Errors
    /// When one of them failed.
    pub fn read(&self, buffer: &GpuBuffer) -> Result<Vec<f32>, GpuError> {
        Ok(self.read_words(buffer)?.into_iter().map(f32::from_bits).collect())
    }

    /// As [`read`](Self::read), of whole numbers.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_words(&self, buffer: &GpuBuffer) -> Result<Vec<u32>, GpuError> {
        self.begin_read(buffer).wait()
    }

    /// Begins to copy a buffer to the host, as the kernels leave it that are launched so far.
    pub fn begin_read(&self, buffer: &GpuBuffer) -> Reading {
        let client = Box::new(self.client.clone());
        let bytes: Pin<Box<dyn Future<Output = _> + Send + '_>> =
            Box::pin(client.read_async(vec![buffer.handle.clone()]));
        // SAFETY: only the lifetime changes, and what it may borrow from, the client in its box, is dropped after it.
        let bytes = unsafe { std::mem::transmute::<Pin<Box<dyn Future<Output = _> + Send + '_>>, Copied>(bytes) };
        Reading { bytes, _client: client, words: buffer.words }
    }
}

impl GpuBuffer {
    /// The memory of a tensor of 32-bit floats, row-major; `None` where it is not on a GPU or lies otherwise.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        let tensor = tensor.clone().without_autodiff().try_into_primitive::<Cube>().ok()?;
        let words = tensor.meta.shape().num_elements();
        let fits = tensor.dtype == DType::F32 && tensor.is_contiguous();
        fits.then_some(Self { handle: tensor.handle, words })
    }

    /// The memory behind a handle to so many numbers.
    pub(super) fn over(handle: Handle, words: usize) -> Self {
        Self { handle, words }
    }

    /// The numbers from `first` on, in the same memory. `first` is a multiple of 64.
    pub fn part(&self, first: usize, words: usize) -> Self {
        assert!(first.is_multiple_of(64) && first + words <= self.words, "GpuBuffer: no {words} at {first}");
        let bytes = |words: usize| (words * size_of::<f32>()) as u64;
        let handle = self.handle.clone().offset_start(bytes(first)).offset_end(bytes(self.words - first - words));
        Self { handle, words }
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.words
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// As the argument of a kernel that reads or writes single numbers.
    pub(super) fn arg(&self) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.words.max(1)) }
    }

    /// The first words as the argument of a kernel that reads or writes two numbers at a time.
    pub(super) fn pairs(&self, words: usize) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), words / 2) }
    }

    /// As the argument of a kernel that reads or writes four numbers at a time.
    pub(super) fn quads(&self) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.words / 4) }
    }
}

#[cube(launch_unchecked)]
fn clear(buffer: &mut [f32]) {
    let mut word = ABSOLUTE_POS;
    while word < buffer.len() {
        buffer[word] = 0.0f32;
        word += CUBE_COUNT * CUBE_DIM as usize;
    }
}

#[cube(launch_unchecked)]
fn copy_words(from: &[f32], to: &mut [f32], words: u32) {
    let mut word = ABSOLUTE_POS;
    while word < words as usize {
        to[word] = from[word];
        word += CUBE_COUNT * CUBE_DIM as usize;
    }
}
