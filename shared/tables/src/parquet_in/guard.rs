//! A fence around decoding bytes that nobody vouches for: a panic of the Parquet library becomes an error of the file.
//!
//! arrow-rs still fixes panics on broken files now and then. The message goes to standard error by way of the panic
//! hook; the caller gets it as text. What was borrowed by the closure may be half changed after a panic, so every user
//! here gives up on its state then.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;

/// Runs `decode`; a panic inside becomes a [`ParquetError::General`].
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|panic| Err(ParquetError::General(format!("the decoder panicked: {}", text(&*panic)))))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let failed = guarded::<()>(|| panic!("index {} out of range", 7)).unwrap_err();
        assert!(failed.to_string().contains("index 7 out of range"), "{failed}");
        assert_eq!(guarded(|| Ok(1)).unwrap(), 1);
    }
}
