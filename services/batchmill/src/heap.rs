//! One heap for all threads.
//!
//! glibc gives threads heaps of their own, up to eight a processor, and each keeps what it once held. Row groups are made
//! on one thread and freed on another, so without this the process holds several times what is in use, and the more the
//! longer it runs: 200,000 rows took 138 MB and 1,000,000 rows 247 MB. With one heap memory is flat, and threads hardly
//! wait for one another: they allocate seldom, and much at a time.

/// Tells the allocator to keep one heap. To be called first, while there is one thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_one_heap() {
    // SAFETY: mallopt reads two integers and sets a parameter of the allocator; no other thread exists yet. Should it
    // fail, the allocator stays as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_one_heap() {}
