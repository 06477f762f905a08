//! Announcements, as they arrive at the other end of a link.

use std::io::{Read as _, Write as _};

use rustix::net::{RecvFlags, recv};
use tandem_core::types::Mac;

use super::*;
use crate::packet::frames::{gratuitous_arp, neighbour_advertisement, reverse_arp};
use crate::packet::socket::{ignore_outgoing, packet_socket, transmit};

/// `ETH_P_ALL`, in network order.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();

/// Listens to all that arrives at a link, and to nothing that leaves there.
pub(super) fn listen(link: Ifindex) -> std::os::fd::OwnedFd {
    let socket = packet_socket(link, ALL_PROTOCOLS).unwrap();
    ignore_outgoing(&socket).unwrap();
    socket
}

/// The frames that have arrived. A veth delivers within the sender's call, so
/// nothing has to be waited for.
pub(super) fn arrived(socket: &std::os::fd::OwnedFd, source: [u8; 3]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0_u8; 2048];
    while let Ok((_, length)) = recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
        let frame = &buffer[..length];
        if frame[6..9] == source {
            frames.push(frame.to_owned());
        }
    }
    frames
}

#[test]
fn upper_devices_of_a_link_are_announced_with_it() {
    in_namespace_async(|| async {
        ip_all(
            "link add dev top address 02:aa:00:00:00:01 type veth peer name top-peer
             link add port type veth peer name far
             link add br0 address 02:aa:00:00:00:04 type bridge
             link set top up
             link set top-peer up
             link set port up
             link set far up
             address add 192.0.2.1/24 dev top
             -6 address add 2001:db8::1/64 dev top nodad
             link add link top name mac1 address 02:aa:00:00:00:02 type macvlan mode bridge
             link set mac1 up
             link add link top name mac2 address 02:aa:00:00:00:03 type macvlan mode bridge
             link set mac1 master br0
             address add 192.0.2.4/24 dev br0
             link set br0 up",
        );
        for link in ["mac1", "br0"] {
            let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
            std::fs::write(path, "1").unwrap();
        }
        std::fs::write("/proc/sys/net/ipv6/conf/top/forwarding", "1").unwrap();
        ip("-6 address flush dev top scope link");

        let far = listen(ifindex("far"));
        let mut requests = Requests::open().unwrap();
        let frames = announce::frames_of(&mut requests, ifindex("top")).unwrap();
        transmit(ifindex("port"), &frames).unwrap();

        let mac = "02:aa:00:00:00:01".parse().unwrap();
        let mut expected = Vec::new();
        expected.extend(gratuitous_arp(mac, &[], [192, 0, 2, 1].into()));
        let ip6 = "2001:db8::1".parse().unwrap();
        expected.push(neighbour_advertisement(mac, &[], ip6, true));
        // Without an address of its own, and closed: not announced.
        expected.push(reverse_arp("02:aa:00:00:00:02".parse().unwrap(), &[]));
        let bridge = "02:aa:00:00:00:04".parse().unwrap();
        expected.extend(gratuitous_arp(bridge, &[], [192, 0, 2, 4].into()));
        expected.sort();
        let mut arrived = arrived(&far, [0x02, 0xaa, 0x00]);
        arrived.sort();
        assert_eq!(arrived, expected);
    });
}

/// What a bridge has learnt behind its other ports moves too.
#[test]
fn stations_behind_a_bridge_are_announced() {
    in_namespace_async(|| async {
        ip_all(
            "link add dev top address 02:aa:00:00:00:01 type veth peer name top-peer
             link add br0 address 02:aa:00:00:00:04 type bridge
             link add tap1 type veth peer name tap1-peer
             link set top up
             link set top-peer up
             link set tap1 up
             link set tap1-peer up
             link set top master br0
             link set tap1 master br0
             link set br0 up",
        );
        // Learnt behind the other port, and behind the one towards the network.
        let [behind, before] = [6, 7].map(|last| Mac([2, 0xaa, 0, 0, 0, last]));
        transmit(ifindex("tap1-peer"), &[reverse_arp(behind, &[])]).unwrap();
        transmit(ifindex("top-peer"), &[reverse_arp(before, &[])]).unwrap();
        let mut requests = Requests::open().unwrap();
        let frames = announce::all_frames_of(&mut requests, ifindex("top")).unwrap();
        let times = |mac: Mac| {
            let wanted = reverse_arp(mac, &[]);
            frames.iter().filter(|frame| **frame == wanted).count()
        };
        assert_eq!((times(behind), times(before)), (1, 0));
    });
}

/// A macvlan that another network namespace has is in no list of links.
#[test]
fn a_macvlan_of_another_namespace_is_announced() {
    in_namespace_async(|| async {
        ip_all(
            "link add dev top address 02:aa:00:00:00:01 type veth peer name top-peer
             link set top up
             link set top-peer up
             link add link top name mac1 address 02:aa:00:00:00:05 type macvlan mode bridge",
        );
        let mut elsewhere = std::process::Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "echo; read go; ip link set mac1 up; echo; read end",
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let id = elsewhere.id();
        let (mut say, mut hear) = (elsewhere.stdin.take(), elsewhere.stdout.take());
        let mut next = || hear.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        next();
        ip(&format!("link set mac1 netns {id}"));
        writeln!(say.as_mut().unwrap()).unwrap();
        next();
        let mut requests = Requests::open().unwrap();
        let frames = announce::all_frames_of(&mut requests, ifindex("top")).unwrap();
        drop(say);
        elsewhere.wait().unwrap();
        let station = Mac([2, 0xaa, 0, 0, 0, 5]);
        assert!(frames.contains(&reverse_arp(station, &[])));
    });
}

/// A neighbour that knew another MAC for the address learns the new one.
#[test]
fn a_neighbour_believes_it() {
    in_namespace_async(|| async {
        ip_all(
            "link add dev top address 02:aa:00:00:00:01 type veth peer name top-peer
             link add port type veth peer name far
             link set top up
             link set top-peer up
             link set port up
             link set far up
             address add 192.0.2.1/24 dev top
             -6 address add 2001:db8::1/64 dev top nodad
             address add 192.0.2.99/24 dev far
             -6 address add 2001:db8::99/64 dev far nodad
             neigh add 192.0.2.1 lladdr 02:bb:00:00:00:01 dev far nud stale
             neigh add 2001:db8::1 lladdr 02:bb:00:00:00:01 dev far nud stale",
        );
        // Both ends are in one namespace here, where ARP from an own address is
        // otherwise taken for a mistake.
        std::fs::write("/proc/sys/net/ipv4/conf/far/accept_local", "1").unwrap();
        let mut requests = Requests::open().unwrap();
        let frames = announce::frames_of(&mut requests, ifindex("top")).unwrap();
        transmit(ifindex("port"), &frames).unwrap();
        let neighbours = ip("neigh show dev far");
        assert!(
            neighbours.contains("192.0.2.1 lladdr 02:aa:00:00:00:01"),
            "{neighbours}"
        );
        assert!(
            neighbours.contains("2001:db8::1 lladdr 02:aa:00:00:00:01"),
            "{neighbours}"
        );
    });
}

#[test]
fn a_closed_port_is_an_error() {
    in_namespace_async(|| async {
        ip("link add port type veth peer name far");
        let frame = reverse_arp("02:aa:00:00:00:01".parse().unwrap(), &[]);
        let error = transmit(ifindex("port"), &[frame]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
    });
}
