//! Changes of a bond, as messages.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkMessage};
use rtnetlink::{LinkBond, LinkMessageBuilder};
use tandem_core::types::Ifindex;

/// Addresses a bond by its index only: a name in the message would be a rename.
pub(crate) fn bond_at(bond: Ifindex) -> LinkMessageBuilder<LinkBond> {
    LinkMessageBuilder::<LinkBond>::new_with_info_kind(InfoKind::Bond).index(bond.0)
}

/// Makes a port the primary.
pub(crate) fn make_primary(bond: Ifindex, port: Ifindex) -> LinkMessage {
    bond_at(bond).primary(port.0).build()
}

/// The whole request of [`make_primary`], ready to be written to a netlink socket.
pub(crate) fn primary_request(bond: Ifindex, port: Ifindex) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let payload = RouteNetlinkMessage::NewLink(make_primary(bond, port)).into();
    let mut request = NetlinkMessage::new(header, payload);
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}
