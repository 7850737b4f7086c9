//! Long computing inside an async task.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs a section that computes for long (decoding, compressing, hashing) so that other tasks go on meanwhile.
///
/// On a runtime of several threads the other tasks of this thread move to another. On a runtime of one thread, or on
/// none, it is a plain call, so that a simulation stays deterministic.
pub fn run_blocking_section<T>(section: impl FnOnce() -> T) -> T {
    if has_many_threads() { tokio::task::block_in_place(section) } else { section() }
}

/// Whether this is a runtime of several threads, on which work may go on beside other work.
pub(crate) fn has_many_threads() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use super::run_blocking_section;

    #[test]
    fn it_is_a_plain_call_without_a_runtime() {
        assert_eq!(run_blocking_section(|| 7), 7);
    }

    #[tokio::test]
    async fn it_is_a_plain_call_on_one_thread() {
        assert_eq!(run_blocking_section(|| 7), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_of_the_thread_go_on_meanwhile() {
        let (ask, asked) = std::sync::mpsc::channel();
        let other = tokio::spawn(async move { ask.send(7).is_ok() });
        let waiter = tokio::spawn(async move { run_blocking_section(|| asked.recv()) });
        assert_eq!(waiter.await.unwrap(), Ok(7));
        assert!(other.await.unwrap());
    }
}
