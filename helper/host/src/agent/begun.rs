//! What guests have begun to say and not ended: each little for nothing, and all together not more than this host can bear.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of lines that were begun, of all guests.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    held: AtomicUsize,
}

impl Budget {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            most,
            held: AtomicUsize::new(0),
        }
    }

    /// How many are held beyond what is free.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// The line that one guest has begun.
#[derive(Debug)]
pub(super) struct Begun {
    budget: &'static Budget,
    counted: usize,
}

impl Begun {
    /// What each guest may begin whatever others do: as much as is kept of its status.
    pub(super) const FREE: usize = 64 * 1024;

    pub(super) const fn new(budget: &'static Budget) -> Self {
        Self { budget, counted: 0 }
    }

    /// It has so many bytes by now; false if they are too many with all others.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let Budget { most, held } = self.budget;
        held.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = bytes.saturating_sub(Self::FREE);
        let all = held.fetch_add(self.counted, Ordering::Relaxed) + self.counted;
        self.counted == 0 || all <= *most
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.hold(0);
    }
}
