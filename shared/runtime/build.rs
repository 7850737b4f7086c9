//! Notes the compiler's version, for `batchmill_build_info`.

use std::ffi::OsString;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let said = Command::new(rustc).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    // "rustc 1.95.0 (59807616e 2026-04-14)"
    println!("cargo:rustc-env=BATCHMILL_RUSTC={}", said.split(' ').nth(1).unwrap_or("unknown").trim());
}
