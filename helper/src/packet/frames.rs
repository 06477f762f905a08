//! Frames that tell the network where a MAC is.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr};

use tandem_core::types::Mac;

pub(crate) const BROADCAST: Mac = Mac([0xff; 6]);
/// Shorter frames have to be padded to this, without the checksum that the NIC adds.
const MINIMUM_BYTES: usize = 60;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_RARP: u16 = 0x8035;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(crate) const ETHERTYPE_PROVIDER_VLAN: u16 = 0x88a8;
const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Local experimental ethertype 1 (IEEE 802, clause 9.2.4).
pub(crate) const ETHERTYPE_EXPERIMENTAL: u16 =
    u16::from_be_bytes(tandem_ebpf::PATH_CHECK_ETHERTYPE);
const ARP_REQUEST: u16 = 1;
pub(crate) const ARP_REPLY: u16 = 2;
/// Where the operation stands in an ARP packet.
pub(crate) const ARP_OPERATION_AT: usize = 6;
const RARP_REQUEST: u16 = 3;
pub(crate) const NEXT_HEADER_ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// `R`, `S` and `O` of a neighbour advertisement (RFC 4861, 4.4).
const FROM_A_ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// What comes before the next header, and what before the message, in an IPv6 packet without extensions.
pub(crate) const IPV6_NEXT_HEADER_AT: usize = 6;
pub(crate) const IPV6_HEADER_BYTES: usize = 40;
pub(crate) const ETHERNET_HEADER_BYTES: usize = 14;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// One VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VlanTag {
    /// 0x8100, or 0x88a8 for a provider's tag.
    pub(crate) protocol: u16,
    /// 1 to 4094.
    pub(crate) id: u16,
}

/// The two gratuitous ARP packets for an address: a request, which is what the
/// kernel itself sends (`inetdev_send_gratuitous_arp`, `net/ipv4/devinet.c`, 6.12),
/// and a reply, for neighbours that learn only from those.
pub(crate) fn gratuitous_arp(mac: Mac, tags: &[VlanTag], ip: Ipv4Addr) -> [Vec<u8>; 2] {
    let ip = ip.octets();
    let to_all = |operation, target| {
        let ends = [(mac, ip), (target, ip)];
        arp(BROADCAST, tags, ETHERTYPE_ARP, operation, ends)
    };
    [to_all(ARP_REQUEST, Mac::ZERO), to_all(ARP_REPLY, mac)]
}

/// An unsolicited neighbour advertisement to all nodes, as the kernel sends it
/// (`ndisc_send_unsol_na`, `net/ipv6/ndisc.c`, 6.12). `router` has to be true if the
/// guest forwards, or its neighbours stop to use it as their router.
pub(crate) fn neighbour_advertisement(
    mac: Mac,
    tags: &[VlanTag],
    ip: Ipv6Addr,
    router: bool,
) -> Vec<u8> {
    let mut icmp = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0];
    icmp.push(OVERRIDE | if router { FROM_A_ROUTER } else { 0 });
    icmp.extend([0; 3]);
    icmp.extend(ip.octets());
    icmp.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    icmp.extend(mac.0);
    let frame = ethernet(ALL_NODES_MAC, mac, tags, ETHERTYPE_IPV6);
    icmpv6(frame, [ip, ALL_NODES], icmp)
}

/// A reverse ARP request, which asks for nothing that anybody answers: it only
/// shows switches the MAC. QEMU announces a migrated guest in the same way.
pub(crate) fn reverse_arp(mac: Mac, tags: &[VlanTag]) -> Vec<u8> {
    let ends = [(mac, [0; 4]); 2];
    arp(BROADCAST, tags, ETHERTYPE_RARP, RARP_REQUEST, ends)
}

/// A broadcast that shows the way through the network; nobody answers it.
pub(crate) fn path_check(mac: Mac, tags: &[VlanTag], payload: &[u8]) -> Vec<u8> {
    path_check_to(BROADCAST, mac, tags, payload)
}

/// The same for one station.
pub(crate) fn path_check_to(to: Mac, mac: Mac, tags: &[VlanTag], payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(to, mac, tags, ETHERTYPE_EXPERIMENTAL);
    frame.extend(payload);
    padded(frame)
}

/// Makes a frame unlike all others.
pub(crate) fn number_by_chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What a frame of [`path_check`] carries, with its padding; `None` for all others.
pub(crate) fn path_check_payload(frame: &[u8]) -> Option<&[u8]> {
    let (ethertype, payload) = untagged(frame)?;
    (ethertype == ETHERTYPE_EXPERIMENTAL).then_some(payload)
}

/// Asks the station that has `ip`, at `to`, for its MAC.
pub(crate) fn arp_request(
    from: Mac,
    to: Mac,
    tags: &[VlanTag],
    own_ip: Ipv4Addr,
    ip: Ipv4Addr,
) -> Vec<u8> {
    let ends = [(from, own_ip.octets()), (Mac::ZERO, ip.octets())];
    arp(to, tags, ETHERTYPE_ARP, ARP_REQUEST, ends)
}

/// A frame's type and what follows, behind a tag where there is one: the kernel has taken off the outer one of two, or the
/// only one (`skb_vlan_untag`, `net/core/skbuff.c`, 6.12).
fn untagged(frame: &[u8]) -> Option<(u16, &[u8])> {
    let (header, rest) = frame.split_at_checked(ETHERNET_HEADER_BYTES)?;
    let ethertype = u16::from_be_bytes([header[12], header[13]]);
    match (ethertype, rest) {
        (ETHERTYPE_VLAN | ETHERTYPE_PROVIDER_VLAN, [_, _, high, low, rest @ ..]) => {
            Some((u16::from_be_bytes([*high, *low]), rest))
        }
        _ => Some((ethertype, rest)),
    }
}

/// Who sends this answer to an ARP request; `None` for all other frames.
pub(crate) fn arp_answer(frame: &[u8]) -> Option<Ipv4Addr> {
    let (ethertype, arp) = untagged(frame)?;
    let [_, _, _, _, 6, 4, o0, o1, rest @ ..] = arp else {
        return None;
    };
    let is_arp = ethertype == ETHERTYPE_ARP;
    let is_reply = u16::from_be_bytes([*o0, *o1]) == ARP_REPLY;
    let sender = rest.get(6..10)?;
    let sender = <[u8; 4]>::try_from(sender).ok()?;
    (is_arp && is_reply).then(|| sender.into())
}

/// Asks the station that has `ip` for its MAC: it alone where its MAC is known, else all whose addresses end like that
/// (RFC 4861, 4.3 and 7.2.2).
pub(crate) fn neighbour_solicitation(
    from: Mac,
    to: Option<Mac>,
    tags: &[VlanTag],
    own_ip: Ipv6Addr,
    ip: Ipv6Addr,
) -> Vec<u8> {
    let mut icmp = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0];
    icmp.extend([0; 4]);
    icmp.extend(ip.octets());
    icmp.extend([SOURCE_LINK_LAYER_ADDRESS, 1]);
    icmp.extend(from.0);
    let [.., third, second, last] = ip.octets();
    let [high, low] = [[0xff, third], [second, last]].map(u16::from_be_bytes);
    let those = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low);
    let those_mac = Mac([0x33, 0x33, 0xff, third, second, last]);
    let (to, receiver) = to.map_or((those_mac, those), |mac| (mac, ip));
    let frame = ethernet(to, from, tags, ETHERTYPE_IPV6);
    icmpv6(frame, [own_ip, receiver], icmp)
}

/// Who sends this answer to a neighbour solicitation; `None` for all other frames, as in [`arp_answer`].
pub(crate) fn solicited_answer(frame: &[u8]) -> Option<Ipv6Addr> {
    let (ethertype, packet) = untagged(frame)?;
    let (ip, icmp) = packet.split_at_checked(IPV6_HEADER_BYTES)?;
    let [kind, code, _, _, flags, _, _, _, rest @ ..] = icmp else {
        return None;
    };
    let is_advertised = ethertype == ETHERTYPE_IPV6
        && ip[IPV6_NEXT_HEADER_AT] == NEXT_HEADER_ICMPV6
        && (*kind, *code) == (NEIGHBOUR_ADVERTISEMENT, 0);
    let target: [u8; 16] = *rest.first_chunk()?;
    (is_advertised && flags & SOLICITED != 0).then(|| target.into())
}

/// Puts an `ICMPv6` message, whose checksum is 0 yet, behind a frame's header. `ends` are source and destination.
fn icmpv6(mut frame: Vec<u8>, ends: [Ipv6Addr; 2], mut message: Vec<u8>) -> Vec<u8> {
    let checksum = icmpv6_checksum(ends[0], ends[1], &message).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    frame.extend([0x60, 0, 0, 0]);
    // Some 32 bytes.
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([NEXT_HEADER_ICMPV6, 255]);
    frame.extend(ends.iter().flat_map(Ipv6Addr::octets));
    frame.extend(message);
    padded(frame)
}

/// `ends` are sender and target.
fn arp(
    destination: Mac,
    tags: &[VlanTag],
    ethertype: u16,
    operation: u16,
    ends: [(Mac, [u8; 4]); 2],
) -> Vec<u8> {
    let [(mac, ip), (target, target_ip)] = ends;
    let mut frame = ethernet(destination, mac, tags, ethertype);
    frame.extend(1_u16.to_be_bytes());
    frame.extend(ETHERTYPE_IPV4.to_be_bytes());
    frame.extend([6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac.0);
    frame.extend(ip);
    frame.extend(target.0);
    frame.extend(target_ip);
    padded(frame)
}

fn ethernet(destination: Mac, source: Mac, tags: &[VlanTag], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    frame.extend(destination.0);
    frame.extend(source.0);
    for tag in tags {
        frame.extend(tag.protocol.to_be_bytes());
        frame.extend(tag.id.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(MINIMUM_BYTES), 0);
    frame
}

/// The Internet checksum over pseudo-header and message (RFC 4443, 2.3).
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(40 + message.len());
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, NEXT_HEADER_ICMPV6]);
    bytes.extend(message);
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0x00, 0xab, 0xcd, 0xef]);

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(u8::is_ascii_hexdigit)
            .map(|digit| (digit as char).to_digit(16).unwrap() as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    #[test]
    fn gratuitous_arp_to_the_byte() {
        let [request, reply] = gratuitous_arp(MAC, &[], Ipv4Addr::new(192, 0, 2, 7));
        let padding = "00".repeat(18);
        assert_eq!(
            request,
            hex(&format!(
                "ffffffffffff 525400abcdef 0806
                 0001 0800 06 04 0001
                 525400abcdef c0000207 000000000000 c0000207 {padding}"
            ))
        );
        assert_eq!(
            reply,
            hex(&format!(
                "ffffffffffff 525400abcdef 0806
                 0001 0800 06 04 0002
                 525400abcdef c0000207 525400abcdef c0000207 {padding}"
            ))
        );
    }

    #[test]
    fn an_arp_question_and_its_answer_to_the_byte() {
        let gateway = Mac([2, 0, 0, 0, 0, 1]);
        let (own, ip) = (Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(192, 0, 2, 1));
        let padding = "00".repeat(18);
        let question = arp_request(MAC, gateway, &[], own, ip);
        assert_eq!(
            question,
            hex(&format!(
                "020000000001 525400abcdef 0806
                 0001 0800 06 04 0001
                 525400abcdef c0000207 000000000000 c0000201 {padding}"
            ))
        );
        assert_eq!(arp_answer(&question), None);
        let answer = hex("525400abcdef 020000000001 0806
             0001 0800 06 04 0002
             020000000001 c0000201 525400abcdef c0000207");
        assert_eq!(arp_answer(&answer), Some(ip));
        for end in 0..32 {
            assert_eq!(arp_answer(&answer[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn tags_come_in_order_outermost_first() {
        let tags = [
            VlanTag {
                protocol: 0x88a8,
                id: 100,
            },
            VlanTag {
                protocol: 0x8100,
                id: 7,
            },
        ];
        let [request, _] = gratuitous_arp(MAC, &tags, Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(
            request[..26],
            hex("ffffffffffff 525400abcdef 88a8 0064 8100 0007 0806 0001 0800")
        );
        assert_eq!(request.len(), 60);
    }

    /// The checksum is from a separate calculation.
    #[test]
    fn neighbour_advertisement_to_the_byte() {
        let ip = "2001:db8::7".parse().unwrap();
        assert_eq!(
            neighbour_advertisement(MAC, &[], ip, false),
            hex("333300000001 525400abcdef 86dd
                 60000000 0020 3a ff
                 20010db8000000000000000000000007
                 ff020000000000000000000000000001
                 88 00 da30 20000000
                 20010db8000000000000000000000007
                 02 01 525400abcdef")
        );
        let router = neighbour_advertisement(MAC, &[], ip, true);
        assert_eq!(router[58], 0xa0);
    }

    /// The checksums are from a separate calculation.
    #[test]
    fn a_solicitation_and_its_answer_to_the_byte() {
        let neighbour = Mac([2, 0, 0, 0, 0, 1]);
        let [own, ip] = ["2001:db8::7", "2001:db8::1:203"].map(|ip| ip.parse().unwrap());
        let known = neighbour_solicitation(MAC, Some(neighbour), &[], own, ip);
        assert_eq!(
            known,
            hex("020000000001 525400abcdef 86dd
                 60000000 0020 3a ff
                 20010db8000000000000000000000007
                 20010db8000000000000000000010203
                 87 00 c97a 00000000
                 20010db8000000000000000000010203
                 01 01 525400abcdef")
        );
        let unknown = neighbour_solicitation(MAC, None, &[], own, ip);
        assert_eq!(
            unknown,
            hex("3333ff010203 525400abcdef 86dd
                 60000000 0020 3a ff
                 20010db8000000000000000000000007
                 ff0200000000000000000001ff010203
                 87 00 f92e 00000000
                 20010db8000000000000000000010203
                 01 01 525400abcdef")
        );
        assert_eq!(solicited_answer(&known), None);
        // Of a router, solicited, without an option.
        let answer = hex("525400abcdef 020000000001 86dd
             60000000 0018 3a ff
             20010db8000000000000000000010203
             20010db8000000000000000000000007
             88 00 0000 c0000000
             20010db8000000000000000000010203");
        assert_eq!(solicited_answer(&answer), Some(ip));
        for end in 0..answer.len() {
            assert_eq!(solicited_answer(&answer[..end]), None, "{end} bytes");
        }
        let unasked = neighbour_advertisement(neighbour, &[], ip, true);
        assert_eq!(solicited_answer(&unasked), None);
    }

    #[test]
    fn reverse_arp_to_the_byte() {
        let padding = "00".repeat(18);
        assert_eq!(
            reverse_arp(MAC, &[]),
            hex(&format!(
                "ffffffffffff 525400abcdef 8035
                 0001 0800 06 04 0003
                 525400abcdef 00000000 525400abcdef 00000000 {padding}"
            ))
        );
    }
}
