use netlink_packet_core::{DefaultNla, Emitable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    BondFailOverMac, BondMode as WireMode, BondPortState, BondPrimaryReselect, InfoBond,
    InfoBondPort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, MiiStatus, XdpAttached,
};
use proptest::prelude::*;

use super::*;

/// An Ethernet device; the encoder is the library's, so that the decoder is
/// checked against somebody else's reading of the format.
fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    message.attributes = vec![
        LinkAttribute::IfName("ens2v3".to_owned()),
        LinkAttribute::Mtu(9000),
        LinkAttribute::MaxMtu(9194),
        LinkAttribute::Address(vec![0x52, 0x54, 0, 1, 2, 3]),
    ];
    message.attributes.extend(attributes);
    message
}

pub(super) fn bytes(message: &LinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn mac(last: u8) -> Option<Mac> {
    Some(Mac([0x52, 0x54, 0, 1, 2, last]))
}

#[test]
fn a_vf_that_is_a_port() {
    let described = decode(&bytes(&message(vec![
        LinkAttribute::PermAddress(vec![0x52, 0x54, 0, 1, 2, 4]),
        LinkAttribute::Controller(9),
        LinkAttribute::ParentDevName("0000:01:10.3".to_owned()),
        LinkAttribute::ParentDevBusName("pci".to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bond),
            LinkInfo::PortData(InfoPortData::BondPort(vec![
                InfoBondPort::BondPortState(BondPortState::Backup),
                InfoBondPort::MiiStatus(MiiStatus::Up),
                InfoBondPort::LinkFailureCount(3),
                InfoBondPort::PermHwaddr(vec![0x52, 0x54, 0, 1, 2, 5]),
                InfoBondPort::Prio(-1),
            ])),
        ]),
    ])))
    .unwrap();
    assert_eq!(
        described,
        Described {
            link: Link {
                ifindex: Ifindex(7),
                name: "ens2v3".parse().unwrap(),
                kind: LinkKind::Physical,
                mac: mac(3),
                permanent_mac: mac(4),
                pci: None,
                pci_parent: None,
                driver: None,
                mtu: 9000,
                max_mtu: 9194,
                admin_up: true,
                carrier: true,
                controller: Some(Ifindex(9)),
                occupant: None,
                bond: None,
                port: Some(PortFacts {
                    active: false,
                    mii_up: true,
                    link_failures: 3,
                    permanent_mac: mac(5),
                }),
            },
            parent: Some(("pci".to_owned(), "0000:01:10.3".to_owned())),
            info_kind: None,
            lower: None,
        }
    );
}

#[test]
fn a_bond_with_options_nobody_knows_yet() {
    let options = vec![
        InfoBond::Mode(WireMode::ActiveBackup),
        InfoBond::ActivePort(7),
        InfoBond::MiiMon(100),
        InfoBond::Primary(8),
        InfoBond::PrimaryReselect(BondPrimaryReselect::Failure),
        InfoBond::FailOverMac(BondFailOverMac::Active),
        InfoBond::NumPeerNotif(5),
        InfoBond::AllPortsActive(1.into()),
        InfoBond::Other(DefaultNla::new(99, vec![1, 2, 3])),
    ];
    let link = |info| {
        decode(&bytes(&message(vec![LinkAttribute::LinkInfo(info)])))
            .unwrap()
            .link
    };
    let bond = link(vec![
        LinkInfo::Kind(InfoKind::Bond),
        LinkInfo::Data(InfoData::Bond(options)),
    ]);
    assert_eq!(bond.kind, LinkKind::Bond);
    assert_eq!(
        bond.bond,
        Some(BondFacts {
            mode: BondMode::ActiveBackup,
            active: Some(Ifindex(7)),
            primary: Some(Ifindex(8)),
            fail_over_mac: FailOverMac::Active,
            primary_reselect: PrimaryReselect::Failure,
            miimon_ms: 100,
            all_ports_active: true,
            peer_notifications: 5,
        })
    );
    let other = link(vec![
        LinkInfo::Kind(InfoKind::Bond),
        LinkInfo::Data(InfoData::Bond(vec![InfoBond::Mode(WireMode::Ieee8023Ad)])),
    ]);
    assert_eq!(other.bond.unwrap().mode, BondMode::Other);
    assert_eq!(link(vec![LinkInfo::Kind(InfoKind::Bond)]).port, None);
}

#[test]
fn a_vlan_is_software_and_names_its_lower_link() {
    let described = decode(&bytes(&message(vec![
        LinkAttribute::Link(4),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]),
    ])))
    .unwrap();
    assert_eq!(described.link.kind, LinkKind::Software);
    assert_eq!(described.info_kind.as_deref(), Some("vlan"));
    assert_eq!(described.lower, Some(Ifindex(4)));
}

#[test]
fn a_vxlan_names_its_lower_link_among_its_own_attributes() {
    let described = decode(&bytes(&message(vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(vec![InfoVxlan::Id(7), InfoVxlan::Link(4)])),
    ])])))
    .unwrap();
    assert_eq!(described.link.kind, LinkKind::Software);
    assert_eq!(described.lower, Some(Ifindex(4)));
}

#[test]
fn an_xdp_program_is_seen_on_its_nic() {
    let with = |attached| {
        let xdp = LinkAttribute::Xdp(vec![LinkXdp::Attached(attached)]);
        decode(&bytes(&message(vec![xdp]))).unwrap().link.occupant
    };
    assert_eq!(with(XdpAttached::None), None);
    assert_eq!(with(XdpAttached::Driver), Some(Occupant::Xdp));
    assert_eq!(with(XdpAttached::SocketBuffer), Some(Occupant::Xdp));
}

#[test]
fn what_is_no_ethernet_is_never_physical() {
    let mut loopback = message(vec![]);
    loopback.header.link_layer_type = LinkLayerType::Loopback;
    assert_eq!(
        decode(&bytes(&loopback)).unwrap().link.kind,
        LinkKind::Software
    );
}

#[test]
fn a_bridges_view_of_a_port_is_not_the_port() {
    let mut message = message(vec![]);
    message.header.interface_family = AddressFamily::Bridge;
    assert_eq!(decode(&bytes(&message)), None);
}

#[test]
fn a_damaged_attribute_costs_only_itself() {
    let odd = message(vec![
        LinkAttribute::PermAddress(vec![1, 2, 3]),
        LinkAttribute::Other(DefaultNla::new(IFLA_MASTER, vec![1])),
        LinkAttribute::Other(DefaultNla::new(IFLA_LINKINFO, vec![255, 255, 1, 0, 7])),
    ]);
    let mut bytes = bytes(&odd);
    let link = decode(&bytes).unwrap().link;
    assert_eq!((link.permanent_mac, link.controller), (None, None));
    assert_eq!(link.kind, LinkKind::Physical);
    bytes.extend([200, 0, 1, 0]);
    assert_eq!(decode(&bytes).unwrap().link, link, "cut off at the end");
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }

    #[test]
    fn any_damage_is_taken_or_refused(at: prop::sample::Index, byte: u8) {
        let mut bytes = bytes(&message(vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bond),
            LinkInfo::Data(InfoData::Bond(vec![InfoBond::ActivePort(7)])),
        ])]));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
    }
}
