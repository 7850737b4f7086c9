//! Four bars on stderr: split, at the provider, collected, merged. Off a terminal there are none.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::tracker::Status;

/// The bars.
pub(crate) struct Progress {
    bars: MultiProgress,
    split: ProgressBar,
    provider: ProgressBar,
    collected: ProgressBar,
    merged: ProgressBar,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bars = MultiProgress::new();
        let bar = |name: &'static str| {
            let bar = bars.add(ProgressBar::new(0).with_style(waiting()));
            bar.set_prefix(name);
            bar
        };
        let (split, provider, collected, merged) =
            (bar("split"), bar("at the provider"), bar("collected"), bar("merged"));
        Self { bars, split, provider, collected, merged }
    }

    pub(crate) fn show(&self, status: &Status) {
        let Some(rows) = status.rows else {
            self.split.set_message(format!("{} batches", status.batches_split));
            return;
        };
        let ended = status.end.is_some();
        for (bar, position) in [
            (&self.split, rows),
            (&self.provider, status.rows_submitted),
            (&self.collected, status.counts.rows),
            (&self.merged, if ended { rows } else { 0 }),
        ] {
            if bar.length() != Some(rows) || rows == 0 {
                bar.set_style(counting());
                bar.set_length(rows);
                bar.set_message("");
            }
            bar.set_position(position);
        }
        let failed = status.counts.failed_rows();
        if failed > 0 {
            self.collected.set_message(format!(", {failed} failed"));
        }
    }

    /// Leaves the bars as they are.
    pub(crate) fn finish(self) {
        for bar in [&self.split, &self.provider, &self.collected, &self.merged] {
            bar.abandon();
        }
        drop(self.bars);
    }
}

fn waiting() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>16} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn counting() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>16} {wide_bar} {human_pos}/{human_len} rows{msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
