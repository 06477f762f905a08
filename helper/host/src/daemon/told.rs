//! How much is logged about one guest: a guest that makes the same thing happen all the time fills no disk.

use std::time::Duration;

use tokio::time::Instant;

/// Lines in a row.
const MOST: u32 = 4;
/// After each such time one more.
const PACE: Duration = Duration::from_secs(300);

/// What was logged of late.
#[derive(Debug)]
pub(super) struct Told {
    /// Lines that may be written now.
    left: u32,
    /// When the last of them came.
    since: Instant,
    left_out: u32,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            left: MOST,
            since: Instant::now(),
            left_out: 0,
        }
    }
}

impl Told {
    /// Lines that were left out and not told of yet.
    #[cfg(test)]
    pub(super) fn left_out(&self) -> u32 {
        self.left_out
    }

    /// What to put behind a line that may be written; `None` if it may not.
    pub(super) fn may(&mut self) -> Option<String> {
        while self.left < MOST && self.since.elapsed() >= PACE {
            self.left += 1;
            self.since += PACE;
        }
        if self.left == 0 {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        if self.left == MOST {
            self.since = Instant::now();
        }
        self.left -= 1;
        Some(match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            more => format!(" ({more} more lines about this guest were left out)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_a_second_becomes_a_few_an_hour_and_says_so() {
        let mut told = Told::default();
        let mut lines = Vec::new();
        for _ in 0..3600 {
            lines.extend(told.may());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // Four, and one more each five minutes.
        assert!((14..=16).contains(&lines.len()), "{lines:?}");
        assert_eq!(lines[..4], ["", "", "", ""]);
        assert!(
            lines[4].contains("more lines about this guest"),
            "{lines:?}"
        );
        // After a quiet time the next ones are all written.
        tokio::time::advance(PACE * 4).await;
        let after: Vec<_> = (0..6).filter_map(|_| told.may()).collect();
        assert_eq!(after.len(), 4);
    }
}
