//! Sees whether frames pass from one port of a bond through the network to another.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tandem_core::types::Ifindex;

use super::ActError;
use super::announce::{packet_socket, port_of, transmit};
use super::frames::{ETHERTYPE_EXPERIMENTAL, path_check, path_check_payload};
use crate::observe::netlink::request::Requests;

/// Frames that are sent at most; a fabric may miss one.
const TRIES: u32 = 5;
/// How long each may take. All together stay well below the time in which a bond
/// has to react to anything else.
const TRY: Duration = Duration::from_millis(100);
/// What the frames begin with.
const MAGIC: [u8; 8] = *b"tandem\0p";
/// Longer frames of that ethertype are somebody else's.
const MAX_FRAME_BYTES: usize = 128;

/// Sends frames out of `from` until one arrives at `to`.
///
/// The frames carry the MAC of `from`, so with a shared MAC the network learns that
/// the bond is there. Where none arrives, one out of `to` leads it back.
pub(super) fn check_path(
    requests: &mut Requests,
    bond: Ifindex,
    from: Ifindex,
    to: Ifindex,
) -> Result<(), ActError> {
    let sender = port_of(requests, bond, from)?;
    let receiver = port_of(requests, bond, to)?;
    let failed = |error: io::Error| ActError::Send {
        step: format!("use a packet socket of {} (needs CAP_NET_RAW)", sender.name),
        error,
    };
    let (Some(mac), Some(back)) = (sender.mac, receiver.mac) else {
        return Err(ActError::Refused {
            errno: libc::EINVAL,
            message: format!("{} or {} has no MAC", sender.name, receiver.name),
        });
    };
    let payload = payload();
    let arrived = arrives(from, to, &path_check(mac, &payload), &payload).map_err(failed)?;
    if arrived {
        return Ok(());
    }
    // One that does not get out changes nothing: the port's own traffic leads back too.
    let _ = transmit(to, &[path_check(back, &MAGIC)]);
    Err(ActError::Refused {
        errno: libc::ETIMEDOUT,
        message: format!(
            "none of {TRIES} frames that {} sent reached {} through the network",
            sender.name, receiver.name
        ),
    })
}

/// What makes the frames of this path check unlike all others.
fn payload() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let number = RandomState::new().build_hasher().finish();
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&MAGIC);
    payload[8..].copy_from_slice(&number.to_be_bytes());
    payload
}

fn arrives(from: Ifindex, to: Ifindex, frame: &[u8], payload: &[u8]) -> io::Result<bool> {
    // A port's frames reach sockets on the port itself, whether it is active or a
    // backup (`__netif_receive_skb_core`, net/core/dev.c, 6.12: `orig_dev`).
    let receiver = packet_socket(to, ETHERTYPE_EXPERIMENTAL.to_be())?;
    let sender = packet_socket(from, 0)?;
    for _ in 0..TRIES {
        match send(&sender, frame, SendFlags::DONTWAIT) {
            // A full queue may have room in a moment.
            Ok(_) | Err(Errno::NOBUFS | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        if arrives_within(&receiver, payload, TRY)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn arrives_within(receiver: &OwnedFd, payload: &[u8], limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    let mut bytes = [0; MAX_FRAME_BYTES];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = left.try_into().map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(receiver, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match recv(receiver, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((count, _)) => {
                let found = bytes.get(..count).and_then(path_check_payload);
                if found.is_some_and(|found| found.starts_with(payload)) {
                    return Ok(true);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
