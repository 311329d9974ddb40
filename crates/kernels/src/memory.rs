//! The allocator's settings.

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

/// `length` zeros, in huge pages where the system grants them: a pass over all weights of a model touches a
/// new page with every few lines otherwise, and decoding one sequence is such passes and little else.
pub(crate) fn in_huge_pages<T: Clone>(length: usize, zero: T) -> Vec<T> {
    let mut values: Vec<T> = Vec::with_capacity(length);
    #[cfg(target_os = "linux")]
    {
        // From `sys/mman.h`.
        const MADV_HUGEPAGE: i32 = 14;
        const PAGE: usize = 4096;
        unsafe extern "C" {
            fn madvise(start: *mut u8, length: usize, advice: i32) -> i32;
        }
        let start = values.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE);
        let bytes = (length * size_of::<T>()).saturating_sub(skipped) / PAGE * PAGE;
        if bytes > 0 {
            // SAFETY: the whole pages lie inside the allocation, and the advice changes no content. Whether it is taken
            // changes nothing but speed.
            unsafe { madvise(start.wrapping_add(skipped), bytes, MADV_HUGEPAGE) };
        }
    }
    values.resize(length, zero);
    values
}

/// Makes a buffer, whose content does not matter, so long; where it has to grow, in huge pages.
pub fn resize_buffer(buffer: &mut Vec<f32>, length: usize) {
    if buffer.capacity() < length {
        *buffer = in_huge_pages(length, 0.0);
    }
    buffer.resize(length, 0.0);
}
