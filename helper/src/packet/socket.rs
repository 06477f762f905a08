//! Packet sockets (packet(7)): frames of one link, as they are.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};
use tandem_core::types::Ifindex;

use super::frames::{
    ETHERNET_HEADER_BYTES, ETHERTYPE_IPV6, IPV6_HEADER_BYTES, IPV6_NEXT_HEADER_AT,
    NEIGHBOUR_ADVERTISEMENT, NEXT_HEADER_ICMPV6,
};

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
pub(crate) fn packet_socket(link: Ifindex, protocol: u16) -> io::Result<OwnedFd> {
    let socket = unbound()?;
    bind(&socket, link, protocol)?;
    Ok(socket)
}

/// A socket for the neighbour advertisements that a link receives. All other IPv6 would fill its queue.
pub(crate) fn advertisements_socket(link: Ifindex) -> io::Result<OwnedFd> {
    let socket = unbound()?;
    filter(&socket, &ADVERTISEMENTS)?;
    bind(&socket, link, ETHERTYPE_IPV6.to_be())?;
    Ok(socket)
}

/// Receives nothing yet.
fn unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        flags,
        None,
    )?)
}

const fn instruction(code: u32, jump_else: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_else,
        k: value,
    }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const GO_ON_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Lets a frame through if it is an IPv6 packet whose first header is `ICMPv6`, and that a neighbour advertisement.
const ADVERTISEMENTS: [libc::sock_filter; 6] = [
    instruction(
        LOAD_BYTE,
        0,
        (ETHERNET_HEADER_BYTES + IPV6_NEXT_HEADER_AT) as u32,
    ),
    instruction(GO_ON_IF_EQUAL, 3, NEXT_HEADER_ICMPV6 as u32),
    instruction(
        LOAD_BYTE,
        0,
        (ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES) as u32,
    ),
    instruction(GO_ON_IF_EQUAL, 1, NEIGHBOUR_ADVERTISEMENT as u32),
    instruction(RETURN, 0, u32::MAX),
    instruction(RETURN, 0, 0),
];

#[expect(unsafe_code, reason = "no crate in use has socket filters")]
fn filter(socket: &OwnedFd, instructions: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: instructions.len() as u16,
        // The kernel only reads them.
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `program` is a complete sock_fprog of the length given, and its instructions live until the call is over.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    checked(result)
}

#[expect(unsafe_code, reason = "no crate in use binds AF_PACKET sockets")]
fn bind(socket: &OwnedFd, link: Ifindex, protocol: u16) -> io::Result<()> {
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
    checked(result)
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
