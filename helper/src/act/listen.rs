//! Frames that are waited for on packet sockets.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// No frame that is waited for is longer.
const MAX_FRAME_BYTES: usize = 256;
/// Frames that are taken from one socket before the clock is looked at again.
const MAX_BATCH: usize = 64;

/// Waits for a frame that `take` makes something of, told from which of the sockets it came. What has arrived by then
/// counts, also if the guest slept until long after.
pub(super) fn await_frame<T>(
    sockets: &[&OwnedFd],
    limit: Duration,
    mut take: impl FnMut(usize, &[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let end = Instant::now() + limit;
    loop {
        for (index, socket) in sockets.iter().enumerate() {
            if let Some(found) = taken(socket, |frame| take(index, frame))? {
                return Ok(Some(found));
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = left.try_into().map_err(io::Error::other)?;
        let mut polled: Vec<_> = sockets
            .iter()
            .map(|socket| PollFd::new(*socket, PollFlags::IN))
            .collect();
        match poll(&mut polled, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn taken<T>(socket: &OwnedFd, mut take: impl FnMut(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
    let mut bytes = [0; MAX_FRAME_BYTES];
    for _ in 0..MAX_BATCH {
        match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((count, _)) => {
                if let Some(found) = bytes.get(..count).and_then(&mut take) {
                    return Ok(Some(found));
                }
            }
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Sends a frame; a full queue loses it, and may have room in a moment.
pub(super) fn send_once(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    match send(socket, frame, SendFlags::DONTWAIT) {
        Ok(_) | Err(Errno::NOBUFS | Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
