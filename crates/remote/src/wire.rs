//! Parts of the wire formats that all clients share.

use std::time::Duration;

use zerosearch_generate::GenerateError;
use zerosearch_http::{HttpError, RetryPolicy};

/// Requests under way at once, unless told otherwise: engines batch what arrives together.
pub(crate) const CONCURRENCY: usize = 64;

/// A long answer of a busy engine takes minutes, so an attempt may too.
pub(crate) fn patient() -> RetryPolicy {
    RetryPolicy { timeout: Duration::from_secs(300), attempts: 3, ..RetryPolicy::default() }
}

pub(crate) fn remote(error: HttpError) -> GenerateError {
    GenerateError::Remote { endpoint: error.endpoint, message: error.message }
}

/// Half of the bits of a seed: the most that every engine takes (some keep seeds in a signed 32-bit integer).
pub(crate) fn short_seed(seed: u64) -> u64 {
    (seed ^ (seed >> 32)) & 0x7fff_ffff
}
