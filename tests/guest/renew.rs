//! A guest that goes on from a saved state, made one of its own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, Timespec, clock_settime};

/// `_IO('R', 0x07)` of include/uapi/linux/random.h (6.12): reseeds at once from what was mixed in.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Takes random numbers and the wall clock's time, in ms since 1970.
pub(crate) fn renew(seed: &[u8], unix_ms: u64) -> Result<()> {
    let mut random = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .context("cannot open the kernel's random numbers")?;
    random
        .write_all(seed)
        .context("cannot mix into the kernel's random numbers")?;
    #[expect(unsafe_code, reason = "rustix has no such ioctl")]
    // SAFETY: the request takes no argument, and the descriptor is open.
    let done = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) };
    if done != 0 {
        bail!(
            "the kernel's random numbers are not seeded anew: {}",
            std::io::Error::last_os_error()
        );
    }
    let now = Timespec {
        tv_sec: i64::try_from(unix_ms / 1000)?,
        tv_nsec: i64::try_from(unix_ms % 1000 * 1_000_000)?,
    };
    clock_settime(ClockId::Realtime, now).context("cannot set the clock")
}
