//! Packet sockets (packet(7)): frames of one link, as they are.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};
use tandem_core::types::Ifindex;

use super::frames::{
    ARP_OPERATION_AT, ARP_REPLY, ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV6,
    ETHERTYPE_PROVIDER_VLAN, ETHERTYPE_VLAN, IPV6_HEADER_BYTES, IPV6_NEXT_HEADER_AT,
    NEIGHBOUR_ADVERTISEMENT, NEXT_HEADER_ICMPV6,
};
use crate::socket_option::{self, checked};

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

/// What of all that arrives at a link a socket is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// Answers to ARP requests.
    ArpReplies,
    /// Neighbour advertisements.
    Advertisements,
    /// Frames of this type.
    OfType(u16),
}

/// A socket for frames that arrive at a link, whatever becomes of them there: a socket for one protocol gets nothing of a
/// bond's port while the bond is itself a port of a bridge, and nothing that a tc program drops; one for all protocols has
/// them before (`ptype_all`, `sch_handle_ingress` and `rx_handler` in `__netif_receive_skb_core`, `net/core/dev.c`, 6.12).
pub(crate) fn arrivals_socket(link: Ifindex, what: Arrivals) -> io::Result<OwnedFd> {
    let socket = unbound()?;
    socket_option::attach_filter(&socket, &what.filter())?;
    ignore_outgoing(&socket)?;
    bind(&socket, link, ALL_PROTOCOLS)?;
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

const fn instruction(code: u32, [jump_if, jump_else]: [u8; 2], value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: jump_if,
        jf: jump_else,
        k: value,
    }
}

/// `ETH_P_ALL`, in network order.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
const VLAN_TAG_BYTES: u32 = 4;
const ETHERTYPE_AT: usize = 12;
const LOAD_TYPE: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
/// These count from behind a tag, if there is one: of two the kernel has taken off the outer one by then.
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const SKIP: u32 = libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

impl Arrivals {
    /// Where to look, and what has to be there.
    fn marks(self) -> Vec<(u32, usize, u32)> {
        let of_type = |ethertype: u16| (LOAD_HALF, ETHERTYPE_AT, u32::from(ethertype));
        let at = |offset| ETHERNET_HEADER_BYTES + offset;
        match self {
            Self::OfType(ethertype) => vec![of_type(ethertype)],
            Self::ArpReplies => vec![
                of_type(ETHERTYPE_ARP),
                (LOAD_HALF, at(ARP_OPERATION_AT), u32::from(ARP_REPLY)),
            ],
            Self::Advertisements => vec![
                of_type(ETHERTYPE_IPV6),
                (
                    LOAD_BYTE,
                    at(IPV6_NEXT_HEADER_AT),
                    u32::from(NEXT_HEADER_ICMPV6),
                ),
                (
                    LOAD_BYTE,
                    at(IPV6_HEADER_BYTES),
                    u32::from(NEIGHBOUR_ADVERTISEMENT),
                ),
            ],
        }
    }

    fn filter(self) -> Vec<libc::sock_filter> {
        let mut program = vec![
            instruction(LOAD_TYPE, [0, 0], ETHERTYPE_AT as u32),
            instruction(IF_EQUAL, [3, 0], u32::from(ETHERTYPE_VLAN)),
            instruction(IF_EQUAL, [2, 0], u32::from(ETHERTYPE_PROVIDER_VLAN)),
            instruction(SKIP, [0, 0], 0),
            instruction(JUMP, [0, 0], 1),
            instruction(SKIP, [0, 0], VLAN_TAG_BYTES),
        ];
        let marks = self.marks();
        // To the end, over the marks that follow and over what lets a frame through.
        let beyond = |index: usize| (2 * (marks.len() - 1 - index) + 1) as u8;
        for (index, (load, at, value)) in marks.iter().enumerate() {
            program.push(instruction(*load, [0, 0], *at as u32));
            program.push(instruction(IF_EQUAL, [0, beyond(index)], *value));
        }
        program.push(instruction(RETURN, [0, 0], u32::MAX));
        program.push(instruction(RETURN, [0, 0], 0));
        program
    }
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
pub(crate) fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    socket_option::set(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &on)
}

/// Has a link's NIC take in what is sent to this MAC too, for as long as the socket is
/// open. Takes RTNL, here and when the socket is closed (`packet_mc_add`,
/// `packet_flush_mclist`, `net/packet/af_packet.c`, 6.12).
pub(crate) fn take_in(socket: &OwnedFd, link: Ifindex, mac: [u8; 6]) -> io::Result<()> {
    let mut wanted = libc::packet_mreq {
        mr_ifindex: link.0.cast_signed(),
        mr_type: libc::PACKET_MR_UNICAST as u16,
        mr_alen: mac.len() as u16,
        mr_address: [0; 8],
    };
    wanted.mr_address[..mac.len()].copy_from_slice(&mac);
    socket_option::set(
        socket,
        libc::SOL_PACKET,
        libc::PACKET_ADD_MEMBERSHIP,
        &wanted,
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tandem_core::types::Mac;

    use super::*;
    use crate::packet::frames::{
        ETHERTYPE_EXPERIMENTAL, VlanTag, arp_answer, gratuitous_arp, neighbour_advertisement,
        neighbour_solicitation, path_check,
    };

    /// What the kernel makes of a filter, as far as ours go.
    fn passes(what: Arrivals, frame: &[u8]) -> bool {
        let program = what.filter();
        let (mut at, mut value, mut index) = (0, 0_u32, 0_u32);
        loop {
            let one = program[at];
            let code = u32::from(one.code);
            let from = one.k as usize;
            let read = |from: usize, bytes: usize| {
                let found = frame.get(from..from + bytes)?;
                Some(
                    found
                        .iter()
                        .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
                )
            };
            at += 1;
            match code {
                LOAD_TYPE | LOAD_HALF | LOAD_BYTE => {
                    let from = from + if code == LOAD_TYPE { 0 } else { index as usize };
                    let Some(found) = read(from, if code == LOAD_BYTE { 1 } else { 2 }) else {
                        return false;
                    };
                    value = found;
                }
                SKIP => index = one.k,
                JUMP => at += from,
                IF_EQUAL => at += usize::from(if value == one.k { one.jt } else { one.jf }),
                RETURN => return one.k != 0,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn a_socket_for_answers_gets_those_alone_behind_a_tag_too() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        let tags: Vec<_> = [ETHERTYPE_VLAN, ETHERTYPE_PROVIDER_VLAN]
            .map(|protocol| vec![VlanTag { protocol, id: 5 }])
            .into_iter()
            .chain([Vec::new()])
            .collect();
        for tags in tags {
            let [request, reply] = gratuitous_arp(mac, &tags, ip);
            let advertisement = neighbour_advertisement(mac, &tags, ip.to_ipv6_mapped(), false);
            let solicitation =
                neighbour_solicitation(mac, None, &tags, ip.to_ipv6_mapped(), ip.to_ipv6_mapped());
            let check = path_check(mac, &tags, &[0; 8]);
            let frames = [request, reply, advertisement, solicitation, check];
            let passed = |what| frames.each_ref().map(|frame| passes(what, frame));
            assert_eq!(
                passed(Arrivals::ArpReplies),
                [false, true, false, false, false]
            );
            assert_eq!(
                passed(Arrivals::Advertisements),
                [false, false, true, false, false]
            );
            let of_type = Arrivals::OfType(ETHERTYPE_EXPERIMENTAL);
            assert_eq!(passed(of_type), [false, false, false, false, true]);
            assert_eq!(arp_answer(&frames[1]), Some(ip));
        }
        assert!(!passes(Arrivals::ArpReplies, &[0; 14]), "too short");
    }
}
