//! Launches that are recorded once and made again by a single call.

use cubecl::client::Graph;
use cubecl_environment::stream::Stream;

use super::{Gpu, GpuError};

/// A queue of a device's work: what is called inside runs in the order of the calls, whichever thread makes them.
#[derive(Clone, Copy, Debug)]
pub struct GpuStream(Stream);

impl GpuStream {
    /// A queue that no one else has.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Stream::new())
    }

    /// Runs work whose kernels are queued here.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        self.0.enter(work)
    }
}

/// Kernels with their buffers: a graph of CUDA, or a list of dispatches where the device knows no graphs.
///
/// One call launches them all, for less than a tenth of what they cost one by one. Their buffers are part of it: new inputs are
/// [written](Gpu::write) into the same memory.
#[derive(Debug)]
pub struct Recording(Graph);

impl Gpu {
    /// Records the kernels that `work` launches. It is called twice, first to compile and to reserve memory, and must do the same
    /// each time: no uploads and no reads. Nothing else may reach the device meanwhile, and nothing does: other threads wait.
    ///
    /// # Errors
    /// When the device cannot record, or a kernel does not compile.
    pub fn record(&self, work: impl Fn() + Send) -> Result<Recording, GpuError> {
        let failed = |error: &dyn std::fmt::Display| GpuError::Device(error.to_string());
        let client = &self.client;
        let recorded = client.exclusive(move || {
            client.graph_prepare()?;
            work();
            cubecl::future::block_on(client.sync())?;
            client.start_capture()?;
            work();
            client.stop_capture()
        });
        recorded.map_err(|error| failed(&error))?.map(Recording).map_err(|error| failed(&error))
    }
}

impl Recording {
    /// Launches the kernels, on the stream on which they were recorded.
    ///
    /// # Errors
    /// When the device takes no more work.
    pub fn replay(&self) -> Result<(), GpuError> {
        // SAFETY: the memory that was recorded is kept for as long as the graph is, whatever became of the buffers. Work of the
        // same stream waits for its turn, and whoever uses a buffer on another stream waits for this one, as with any kernel.
        unsafe { self.0.replay() }.map_err(|error| GpuError::Device(error.to_string()))
    }
}
