//! A heap that gives back what it no longer needs.
//!
//! glibc gives threads heaps of their own, up to eight a processor, and each keeps what it once held. Row groups are made
//! on one thread and freed on another, so without this the process holds several times what is in use, and the more the
//! longer it runs: `run` took 138 MB for 200,000 rows and 247 MB for 1,000,000. One heap for all threads mended most of that.
//!
//! The rest is a choice. Blocks that go back to the system as soon as they are freed keep `run`, which has all rooms and a simulator
//! in one process, at 56 MB for 200,000 rows and at 61 MB for 1,000,000. But each of them is mapped and cleared anew, page by page:
//! for a million rows that is 1.8 of 5.2 seconds of processor time in the splitter, and 1.8 of 6.2 in the poller. A service holds less
//! than half of what it may, so there the heap keeps up to 32 MiB for what comes next: 4.0 and 4.9 seconds, for 15 MB more.

use crate::cli::{Cli, Command};

/// Where the heap gives back at once: glibc's default, in bytes, which grows by itself unless it is set. A block of this size or
/// more is the system's own mapping, and so much of what is free at the heap's end stays.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const AT_ONCE: libc::c_int = 128 * 1024;
/// The same where it keeps some.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEEPING: libc::c_int = 32 * 1024 * 1024;

/// Tells the allocator to keep one heap, and how much of it. To be called first, while there is one thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_the_heap_small(cli: &Cli) {
    let threshold = if matches!(cli.command, Command::Run(_)) { AT_ONCE } else { KEEPING };
    // SAFETY: mallopt reads two integers and sets a parameter of the allocator; no other thread exists yet. Should it
    // fail, the allocator stays as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, threshold);
        libc::mallopt(libc::M_TRIM_THRESHOLD, threshold);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_the_heap_small(_: &Cli) {}
