//! How the C library's allocator treats the memory that tensors give back.

/// Asks glibc to keep freed memory for later allocations instead of returning it to the system.
///
/// A training step allocates and frees the same large tensors again and again. By default glibc
/// maps and unmaps them each time, and the page faults can cost as much as the arithmetic. Call
/// this once at the start of a program that trains on the CPU; the process then stays at its
/// largest size. Returns whether it had an effect: it has none without glibc or with another
/// global allocator.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // From `malloc.h`.
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // SAFETY: `mallopt` is glibc's own and takes its lock; any value is allowed.
        unsafe { mallopt(M_MMAP_THRESHOLD, i32::MAX) == 1 && mallopt(M_TRIM_THRESHOLD, i32::MAX) == 1 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}
