//! The filters, run by the kernel itself: a datagram sent through a pair of unix
//! sockets passes the same interpreter as one of netlink.

use std::os::unix::net::UnixDatagram;

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteNextHop, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::*;

fn passes(filter: &Filter, datagram: &[u8]) -> bool {
    let (sender, receiver) = UnixDatagram::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    filter.attach(&receiver).unwrap();
    sender.send(datagram).unwrap();
    let mut buffer = [0; 4096];
    match receiver.recv(&mut buffer) {
        Ok(received) => {
            assert_eq!(&buffer[..received], datagram, "not cut");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            false
        }
    }
}

fn datagram(message: RouteNetlinkMessage) -> Vec<u8> {
    let payload = NetlinkPayload::InnerMessage(message);
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn link(name: &str, info: Option<Vec<LinkInfo>>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
    ];
    message.attributes.extend(info.map(LinkAttribute::LinkInfo));
    message
}

fn link_passes(filter: &Filter, message: LinkMessage) -> bool {
    let new = passes(
        filter,
        &datagram(RouteNetlinkMessage::NewLink(message.clone())),
    );
    let del = passes(filter, &datagram(RouteNetlinkMessage::DelLink(message)));
    assert_eq!(new, del);
    new
}

fn names(names: &[&str]) -> BTreeSet<IfName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn links_of_drivers_and_bonds_pass() {
    let filter = Filter::links(&BTreeSet::new(), &[], &[]);
    let kind = |kind| Some(vec![LinkInfo::Kind(kind)]);
    assert!(link_passes(&filter, link("eth0", None)));
    let port = Some(vec![LinkInfo::PortKind(InfoPortKind::Bond)]);
    assert!(link_passes(&filter, link("eth0", port)));
    assert!(link_passes(&filter, link("b", kind(InfoKind::Bond))));
    assert!(link_passes(&filter, link("x", kind(InfoKind::Vxlan))));

    for other in [
        InfoKind::Veth,
        InfoKind::Vlan,
        InfoKind::Bridge,
        InfoKind::MacVlan,
        InfoKind::Other("bonding".to_owned()),
        InfoKind::Other("bon".to_owned()),
    ] {
        assert!(!link_passes(&filter, link("bond0", kind(other))));
    }
}

#[test]
fn other_views_types_and_messages_do_not_pass() {
    let filter = Filter::links(&names(&["eth0"]), &[], &[]);
    let mut of_a_bridge = link("eth0", None);
    of_a_bridge.header.interface_family = AddressFamily::Bridge;
    assert!(!link_passes(&filter, of_a_bridge));
    let mut loopback = link("lo", None);
    loopback.header.link_layer_type = LinkLayerType::Loopback;
    assert!(!link_passes(&filter, loopback));
    let get = datagram(RouteNetlinkMessage::GetLink(link("eth0", None)));
    assert!(!passes(&filter, &get));
    assert!(!passes(&filter, &[0; 10]));
}

#[test]
fn names_of_interest_pass_whatever_carries_them() {
    let filter = Filter::links(&names(&["bond0", "b", "fifteen-letters"]), &[], &[]);
    let veth = |name| link(name, Some(vec![LinkInfo::Kind(InfoKind::Veth)]));
    for name in ["bond0", "b", "fifteen-letters"] {
        assert!(link_passes(&filter, veth(name)), "{name}");
    }
    for name in ["bond", "bond00", "bond1", "bb", "a", "fifteen-letterz"] {
        assert!(!link_passes(&filter, veth(name)), "{name}");
    }
    let mut tunnel = veth("bond0");
    tunnel.header.link_layer_type = LinkLayerType::Ipgre;
    assert!(link_passes(&filter, tunnel));
}

#[test]
fn links_named_by_index_pass() {
    let veth = || link("x", Some(vec![LinkInfo::Kind(InfoKind::Veth)]));
    assert!(link_passes(
        &Filter::links(&BTreeSet::new(), &[Ifindex(3), Ifindex(7)], &[]),
        veth()
    ));
    assert!(!link_passes(
        &Filter::links(&BTreeSet::new(), &[Ifindex(8)], &[]),
        veth()
    ));
}

#[test]
fn upper_devices_of_bonds_and_nics_pass() {
    let upper_devices = |lower: Option<u32>| {
        let mut message = link("x", Some(vec![LinkInfo::Kind(InfoKind::MacVlan)]));
        message.attributes.extend(lower.map(LinkAttribute::Link));
        message
    };
    let filter = Filter::links(&names(&["bond0"]), &[], &[Ifindex(3), Ifindex(9)]);
    assert!(link_passes(&filter, upper_devices(Some(3))));
    assert!(link_passes(&filter, upper_devices(Some(9))));
    assert!(!link_passes(&filter, upper_devices(Some(4))));
    assert!(!link_passes(&filter, upper_devices(None)));
}

#[test]
fn the_largest_policy_still_fits() {
    let most: BTreeSet<IfName> = (0..tandem_core::Policy::MAX_BONDS)
        .map(|number| format!("fifteen-let-{number:03}").parse().unwrap())
        .collect();
    let filter = Filter::links(&most, &[], &[]);
    let other = link("x", Some(vec![LinkInfo::Kind(InfoKind::Veth)]));
    assert!(!link_passes(&filter, other));
    let last = link(
        "fifteen-let-031",
        Some(vec![LinkInfo::Kind(InfoKind::Veth)]),
    );
    assert!(link_passes(&filter, last));
}

#[test]
fn addresses_pass_by_link() {
    let many: Vec<Ifindex> = (1000..1300).map(Ifindex).collect();
    let filter = Filter::addressing(&many);
    for (index, expected) in [(1000, true), (1299, true), (999, false), (7, false)] {
        let mut message = AddressMessage::default();
        message.header.index = index;
        for message in [
            RouteNetlinkMessage::NewAddress(message.clone()),
            RouteNetlinkMessage::DelAddress(message),
        ] {
            assert_eq!(passes(&filter, &datagram(message)), expected, "{index}");
        }
    }
}

fn route(protocol: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.header.protocol = RouteProtocol::from(protocol);
    message.attributes.push(RouteAttribute::Table(254));
    message.attributes.extend(attributes);
    message
}

#[test]
fn configured_routes_pass_by_link() {
    let filter = Filter::addressing(&[Ifindex(3), Ifindex(7)]);
    let check = |message: RouteMessage| {
        let new = passes(
            &filter,
            &datagram(RouteNetlinkMessage::NewRoute(message.clone())),
        );
        let del = passes(&filter, &datagram(RouteNetlinkMessage::DelRoute(message)));
        assert_eq!(new, del);
        new
    };
    let through = |index| vec![RouteAttribute::Oif(index)];
    for protocol in [3, 4, 9, 16, 18, 77] {
        assert!(check(route(protocol, through(7))), "{protocol}");
        assert!(!check(route(protocol, through(8))), "{protocol}");
    }
    for &protocol in UNREPORTED_PROTOCOLS {
        assert!(!check(route(protocol, through(7))), "{protocol}");
    }
    let hops = vec![RouteAttribute::MultiPath(vec![RouteNextHop::default()])];
    assert!(check(route(4, hops)));
    let mut local = route(4, through(7));
    local.header.kind = RouteType::Local;
    assert!(!check(local));
    let mut other_table = route(4, through(7));
    other_table.header.table = 123;
    assert!(!check(other_table));
}

#[test]
fn too_many_links_to_filter_pass_all() {
    let many: Vec<Ifindex> = (1..3000).map(Ifindex).collect();
    let filter = Filter::addressing(&many);
    let mut message = AddressMessage::default();
    message.header.index = 5000;
    assert!(passes(
        &filter,
        &datagram(RouteNetlinkMessage::NewAddress(message))
    ));
}

#[test]
fn events_of_virtual_devices_do_not_pass() {
    let filter = Filter::device_events();
    let event = |action: &str, path: &str| {
        format!("{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=net\0SEQNUM=1\0")
    };
    for action in [
        "add", "remove", "change", "move", "online", "offline", "bind", "unbind",
    ] {
        for (path, expected) in [
            ("/devices/pci0000:00/0000:00:02.0", true),
            ("/devices/platform/x/virtio1/virtio-ports/vport1p1", true),
            ("/devices/virtual/net/veth0", false),
            ("/devices/virtual/net/veth0/queues/rx-0", false),
            ("/module/bonding", false),
        ] {
            let event = event(action, path);
            assert_eq!(passes(&filter, event.as_bytes()), expected, "{event}");
        }
    }
    assert!(!passes(
        &filter,
        b"libudev\0not from the kernel, and long enough"
    ));
    assert!(!passes(&filter, b"add@/d"));
}

#[test]
fn a_filter_whose_jumps_do_not_reach_passes_everything() {
    let block = |instructions: usize| {
        let mut block = Filter::default();
        (0..instructions).for_each(|_| block.push(RETURN, DROP));
        block
    };
    let skipping = |instructions| {
        let mut inner = Filter::default();
        inner.load(Size::Byte, 0);
        inner.unless_equal_skip(7, &block(instructions));
        inner.append(&block(instructions));
        let mut filter = Filter::default();
        filter.append(&inner);
        filter.finish(PASS).or_pass_all()
    };
    let longest = usize::from(u8::MAX);
    assert!(!passes(&skipping(longest), &[7]));
    assert!(passes(&skipping(longest), &[8]));
    for message in [7, 8] {
        assert!(passes(&skipping(longest + 1), &[message]));
    }
    let mut text = Filter::default();
    text.load(Size::Byte, 0);
    text.pass_if_text(&"x".repeat(4 * 200));
    assert!(text.jumps_too_far);
}
