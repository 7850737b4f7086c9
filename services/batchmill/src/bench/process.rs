//! What this process took so far, as Linux counts it. None elsewhere.

use std::time::Duration;

use runtime::Clock;

/// Seconds of processor time: user and system time in hundredths (proc(5), `/proc/[pid]/stat`, fields 14 and 15).
pub(super) fn cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command's name in brackets, and may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / 100.0)
}

/// The largest resident set in bytes (`VmHWM`).
pub(super) fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A stretch of work from its begin to now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    began: Duration,
    cpu: Option<f64>,
}

impl Stretch {
    pub(super) fn begin(clock: &Clock) -> Self {
        Self { began: clock.monotonic(), cpu: cpu() }
    }

    /// Wall seconds so far.
    pub(super) fn seconds(&self, clock: &Clock) -> f64 {
        clock.monotonic().saturating_sub(self.began).as_secs_f64()
    }

    /// Seconds of processor time so far.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        cpu().zip(self.cpu).map(|(now, before)| now - before)
    }
}
