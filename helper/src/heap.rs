//! The C library's heap, kept small: reading the kernel's types takes about 45 MiB
//! for a moment, and the service lives long.

/// Has all threads share one heap. With one for each thread, as is usual, glibc never
/// returns the unused end of any but the first (`mtrim`, malloc/malloc.c, 2.41). Call it
/// before there are threads.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "glibc offers it as a C function only")]
    // SAFETY: mallopt has no preconditions; an unknown option is refused.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives what is free back to the kernel: glibc would keep it for later.
pub(crate) fn return_unused() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "glibc offers it as a C function only")]
    // SAFETY: malloc_trim has no preconditions and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
