//! One moment that is waited for, by a timer of the kernel's own. The runtime's would wake the guest up to three times for
//! one that is seconds away: it looks again as the moment comes nearer (tokio 1.5, `runtime/time/wheel`: slots of 4 s,
//! 64 ms and 1 ms).

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tandem_core::Time;

use crate::observe::clock;
use crate::readable::Readable;

/// A timer of the machine's clock.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Readable<OwnedFd>,
    /// What it is set for.
    set_for: Option<Time>,
}

impl Alarm {
    /// A timer that is not set. Has to be called within a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(Self {
            timer: Readable::new(timer)?,
            set_for: None,
        })
    }

    /// Waits for a moment, for ever if there is none. Safe to cancel.
    ///
    /// # Errors
    /// The kernel refuses what it always takes.
    pub(crate) async fn at(&mut self, moment: Option<Time>) -> io::Result<()> {
        if self.set_for != moment {
            self.set(moment)?;
        }
        loop {
            if moment.is_some_and(|moment| clock::now() >= moment) {
                return Ok(());
            }
            self.timer.readable().await?;
            let read = self.timer.try_read(|timer| {
                let mut expirations = [0; 8];
                Ok(rustix::io::read(timer, &mut expirations)?)
            });
            match read {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    fn set(&mut self, moment: Option<Time>) -> io::Result<()> {
        // Zero ends it.
        let Time(us) = moment.unwrap_or(Time(0));
        let it_value = Timespec {
            tv_sec: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: (us % 1_000_000 * 1_000).cast_signed(),
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Itimerspec {
            it_interval,
            it_value,
        };
        timerfd_settime(self.timer.get(), TimerfdTimerFlags::ABSTIME, &value)?;
        self.set_for = moment;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn it_comes_neither_early_nor_never_and_may_be_set_anew() {
        let mut alarm = Alarm::open().unwrap();
        for wait_ms in [0, 1, 30, 2] {
            let moment = clock::now().plus_ms(wait_ms);
            alarm.at(Some(moment)).await.unwrap();
            assert!(clock::now() >= moment);
            // What is past stays past.
            alarm.at(Some(moment)).await.unwrap();
        }
        let soon = clock::now().plus_ms(5);
        let hour = clock::now().plus_ms(3_600_000);
        let mut context = Context::from_waker(Waker::noop());
        for moment in [Some(hour), None] {
            let waiting = pin!(alarm.at(moment)).poll(&mut context);
            assert!(matches!(waiting, Poll::Pending));
        }
        alarm.at(Some(soon)).await.unwrap();
        assert!(clock::now() >= soon);
    }
}
