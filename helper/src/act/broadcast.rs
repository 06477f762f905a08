//! Frames that one port of a bond sends to all, to see that another one hears them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tandem_core::types::{Ifindex, Mac};

use super::listen::{await_frame, send_once};
use crate::packet::frames::{
    BROADCAST, ETHERTYPE_EXPERIMENTAL, VlanTag, number_by_chance, path_check, path_check_payload,
    path_check_to,
};
use crate::packet::socket::{Arrivals, arrivals_socket, packet_socket, transmit};

/// Frames that are sent at most where nothing else tells; a fabric may miss one.
pub(super) const TRIES: u32 = 5;
/// How long each may take. All together stay well below the time in which a bond
/// has to react to anything else.
const TRY: Duration = Duration::from_millis(100);
/// What the frames begin with.
const MAGIC: [u8; 8] = *b"tandem\0p";

/// Out of which port frames go, from which MAC, and in which VLANs: a network may pass some and not others.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) port: Ifindex,
    pub(super) mac: Mac,
    pub(super) tags: &'a [VlanTag],
}

/// Sends that many frames to all at most until one arrives at another port.
pub(super) fn reaches(sender: Sender<'_>, to: Ifindex, tries: u32) -> io::Result<bool> {
    reaches_as(sender, to, BROADCAST, tries)
}

/// The same with frames for that MAC, which the other port takes in or not.
pub(super) fn reaches_as(
    sender: Sender<'_>,
    to: Ifindex,
    as_mac: Mac,
    tries: u32,
) -> io::Result<bool> {
    is_heard(sender, as_mac, to, tries, || {})
}

/// As [`reaches`], to the port of `back`; after each frame the network is led back there.
pub(super) fn reaches_and_leads_back(
    sender: Sender<'_>,
    back: Sender<'_>,
    tries: u32,
) -> io::Result<bool> {
    is_heard(sender, BROADCAST, back.port, tries, || lead_back(back))
}

fn is_heard(
    sender: Sender<'_>,
    as_mac: Mac,
    to: Ifindex,
    tries: u32,
    after_each: impl Fn(),
) -> io::Result<bool> {
    let receiver = arrivals_socket(to, Arrivals::OfType(ETHERTYPE_EXPERIMENTAL))?;
    let payload = payload();
    let frame = path_check_to(as_mac, sender.mac, sender.tags, &payload);
    let socket = packet_socket(sender.port, 0)?;
    for _ in 0..tries {
        send_once(&socket, &frame)?;
        let arrives = arrives_within(&receiver, &payload, TRY)?;
        after_each();
        if arrives {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Shows the network that the bond is behind this port, in these VLANs: switches learn a MAC in each VLAN for itself. What
/// does not get out changes nothing: the port's own traffic leads back too.
pub(super) fn lead_back(back: Sender<'_>) {
    let _ = transmit(back.port, &[path_check(back.mac, back.tags, &MAGIC)]);
}

/// What makes these frames unlike all others.
fn payload() -> [u8; 16] {
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&MAGIC);
    payload[8..].copy_from_slice(&number_by_chance().to_be_bytes());
    payload
}

fn arrives_within(receiver: &OwnedFd, payload: &[u8], limit: Duration) -> io::Result<bool> {
    let found = await_frame(&[receiver], limit, |_, frame| {
        let found = path_check_payload(frame)?;
        found.starts_with(payload).then_some(())
    })?;
    Ok(found.is_some())
}
