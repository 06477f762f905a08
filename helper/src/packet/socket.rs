//! Packet sockets (packet(7)): frames of one link, as they are.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};
use tandem_core::types::Ifindex;

/// Sends frames as they are. A full queue loses some, which is no failure as long
/// as others get out: announcements are repeated.
pub(crate) fn transmit(port: Ifindex, frames: &[Vec<u8>]) -> io::Result<()> {
    // Protocol 0: nothing is received.
    let socket = packet_socket(port, 0)?;
    let mut sent = 0;
    let mut failed = None;
    for frame in frames {
        match send(&socket, frame, SendFlags::DONTWAIT) {
            Ok(_) => sent += 1,
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if sent == 0 => Err(error.into()),
        _ => Ok(()),
    }
}

/// A socket for frames of one link.
#[expect(unsafe_code, reason = "no crate in use binds AF_PACKET sockets")]
pub(crate) fn packet_socket(link: Ifindex, protocol: u16) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: link.0.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a complete sockaddr_ll of the length given, and bind only
    // reads it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    checked(result).map(|()| socket)
}

/// Has a socket not see what its own link sends (`packet_rcv`'s `ignore_outgoing`, `net/packet/af_packet.c`, 6.12).
#[cfg(test)]
#[expect(unsafe_code, reason = "no crate in use has PACKET_IGNORE_OUTGOING")]
pub(crate) fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is an int of the length given, and setsockopt only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    checked(result)
}

/// Has a link's NIC take in what is sent to this MAC too, for as long as the socket is
/// open. Takes RTNL, here and when the socket is closed (`packet_mc_add`,
/// `packet_flush_mclist`, `net/packet/af_packet.c`, 6.12).
#[expect(unsafe_code, reason = "no crate in use has packet memberships")]
pub(crate) fn take_in(socket: &OwnedFd, link: Ifindex, mac: [u8; 6]) -> io::Result<()> {
    let mut wanted = libc::packet_mreq {
        mr_ifindex: link.0.cast_signed(),
        mr_type: libc::PACKET_MR_UNICAST as u16,
        mr_alen: mac.len() as u16,
        mr_address: [0; 8],
    };
    wanted.mr_address[..mac.len()].copy_from_slice(&mac);
    // SAFETY: `wanted` is a complete packet_mreq of the length given, and setsockopt
    // only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const wanted).cast(),
            size_of_val(&wanted) as libc::socklen_t,
        )
    };
    checked(result)
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
