//! One heap for all threads.
//!
//! glibc gives threads heaps of their own, up to eight a processor, and each keeps what it once held. Row groups are made
//! on one thread and freed on another, so without this the process holds several times what is in use, and the more the
//! longer it runs: `run` took 138 MB for 200,000 rows and 247 MB for 1,000,000. With one heap it takes 60 and 100 MB, and
//! threads hardly wait for one another: they allocate seldom, and much at a time. The rest of the difference is not
//! explained yet.

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
