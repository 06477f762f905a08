//! The clocks: the machine's time, and jumps of the wall clock.
//!
//! What a guest can know of a pause: while a VM is stopped, as at the end of a
//! live migration, all its clocks stand still and go on afterwards as if nothing
//! had been (QEMU restores kvmclock), so the pause itself is invisible to it.
//! What shows is the correction: the guest agent, chrony or the hypervisor sets
//! the wall clock forward by the pause. A suspend shows in the same way. The
//! kernel tells of each such step through a timer that is cancelled by it, so
//! that nothing has to be polled.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tandem_core::{Input, Time};

use crate::readable::Readable;

/// Smaller steps are those of time synchronisation, not of a pause.
const SMALLEST_JUMP_MS: u64 = 100;

/// The machine's time: `CLOCK_BOOTTIME`.
pub fn now() -> Time {
    let now = micros(clock_gettime(ClockId::Boottime));
    Time(u64::try_from(now).unwrap_or(0))
}

/// Watches the wall clock for steps.
#[derive(Debug)]
pub(crate) struct ClockWatch {
    timer: Readable<OwnedFd>,
    /// Wall clock minus the clock that is never set, in µs.
    offset_us: i64,
}

impl ClockWatch {
    /// Starts to watch.
    pub(crate) fn open() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let mut watch = Self {
            timer: Readable::new(timer)?,
            offset_us: 0,
        };
        watch.arm()?;
        watch.offset_us = offset_us();
        Ok(watch)
    }

    /// Waits for a step. Safe to cancel.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.timer.readable().await
    }

    /// What has happened since: a jump forward, or nothing worth telling.
    pub(crate) fn take(&mut self) -> io::Result<Option<Input>> {
        let read = self.timer.try_read(|timer| {
            let mut expirations = [0; 8];
            Ok(rustix::io::read(timer, &mut expirations)?)
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        self.arm()?;
        let before = self.offset_us;
        self.offset_us = offset_us();
        Ok(jump_ms(before, self.offset_us).map(|forward_ms| Input::ClockJump { forward_ms }))
    }

    /// Sets the timer to the end of time: it is there to be cancelled.
    fn arm(&self) -> io::Result<()> {
        let never = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            },
        };
        match timerfd_settime(
            self.timer.get(),
            TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET,
            &never,
        ) {
            // Armed all the same; the step that came in between is in the offset,
            // which is read after this.
            Ok(_) | Err(rustix::io::Errno::CANCELED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn jump_ms(before_us: i64, after_us: i64) -> Option<u64> {
    let forward_ms = u64::try_from(after_us.saturating_sub(before_us)).ok()? / 1000;
    (forward_ms >= SMALLEST_JUMP_MS).then_some(forward_ms)
}

fn offset_us() -> i64 {
    let wall = micros(clock_gettime(ClockId::Realtime));
    wall.saturating_sub(micros(clock_gettime(ClockId::Monotonic)))
}

fn micros(time: Timespec) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_nsec / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_jump_from_a_correction() {
        assert_eq!(jump_ms(1_000_000, 1_250_000), Some(250));
        assert_eq!(jump_ms(1_000_000, 1_099_999), None);
        assert_eq!(jump_ms(1_000_000, -5_000_000), None);
        assert_eq!(jump_ms(-86_400_000_000, 0), Some(86_400_000));
    }

    #[test]
    fn boot_time_goes_forward() {
        let earlier = now();
        assert!(earlier > Time(0));
        assert!(now() >= earlier);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_quiet_clock_tells_nothing() {
        let mut watch = ClockWatch::open().unwrap();
        assert_eq!(watch.take().unwrap(), None);
    }
}
