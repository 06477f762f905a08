//! The clocks: the machine's time, and jumps of the wall clock.

use rustix::time::{ClockId, clock_gettime};
use tandem_core::Time;

/// The machine's time: `CLOCK_BOOTTIME`.
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = u64::try_from(now.tv_nsec).unwrap_or(0) / 1000;
    Time(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
