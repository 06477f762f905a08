//! Which link a notification is about; more is not taken from it.

use tandem_core::types::Ifindex;

use super::message::{
    RTM_DELADDR, RTM_DELCHAIN, RTM_DELLINK, RTM_DELQDISC, RTM_DELROUTE, RTM_DELTFILTER,
    RTM_NEWADDR, RTM_NEWCHAIN, RTM_NEWLINK, RTM_NEWQDISC, RTM_NEWROUTE, RTM_NEWTFILTER, messages,
};
use super::route::RTA_OIF;
use super::{attribute, u32_of};

/// What a notification calls into question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hint {
    /// A link.
    Link(Ifindex),
    /// Addresses and routes of a link.
    Addressing(Ifindex),
    /// Addresses and routes of any link: a route with several next hops.
    AnyAddressing,
    /// Queueing disciplines or filters of a link.
    Chains(Ifindex),
}

/// The hints of a datagram.
pub(crate) fn hints(datagram: &[u8]) -> impl Iterator<Item = Hint> {
    messages(datagram).filter_map(|message| match message.message_type {
        RTM_NEWLINK | RTM_DELLINK if message.payload.first() == Some(&0) => {
            index_at_4(message.payload).map(Hint::Link)
        }
        RTM_NEWADDR | RTM_DELADDR => index_at_4(message.payload).map(Hint::Addressing),
        RTM_NEWROUTE | RTM_DELROUTE => {
            let through = attribute(message.payload.get(12..)?, RTA_OIF).and_then(u32_of);
            Some(through.map_or(Hint::AnyAddressing, |index| {
                Hint::Addressing(Ifindex(index))
            }))
        }
        RTM_NEWQDISC | RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER | RTM_NEWCHAIN
        | RTM_DELCHAIN => index_at_4(message.payload).map(Hint::Chains),
        _ => None,
    })
}

/// `ifi_index`, `ifa_index` and `tcm_ifindex` have the same place.
fn index_at_4(payload: &[u8]) -> Option<Ifindex> {
    payload.get(4..8).and_then(u32_of).map(Ifindex)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::address::AddressMessage;
    use netlink_packet_route::link::LinkMessage;
    use netlink_packet_route::route::{RouteAttribute, RouteMessage};
    use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
    use proptest::prelude::*;

    use super::*;

    fn datagram(message: RouteNetlinkMessage) -> Vec<u8> {
        let payload = NetlinkPayload::InnerMessage(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn tells_the_link() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        let mut of_a_bridge = link.clone();
        of_a_bridge.header.interface_family = AddressFamily::Bridge;
        let mut address = AddressMessage::default();
        address.header.index = 8;
        let mut route = RouteMessage::default();
        let mut bytes = datagram(RouteNetlinkMessage::NewLink(link.clone()));
        bytes.extend(datagram(RouteNetlinkMessage::DelLink(of_a_bridge)));
        bytes.extend(datagram(RouteNetlinkMessage::DelLink(link)));
        bytes.extend(datagram(RouteNetlinkMessage::DelAddress(address)));
        bytes.extend(datagram(RouteNetlinkMessage::NewRoute(route.clone())));
        route.attributes.push(RouteAttribute::Oif(9));
        bytes.extend(datagram(RouteNetlinkMessage::DelRoute(route)));
        assert_eq!(
            hints(&bytes).collect::<Vec<_>>(),
            [
                Hint::Link(Ifindex(7)),
                Hint::Link(Ifindex(7)),
                Hint::Addressing(Ifindex(8)),
                Hint::AnyAddressing,
                Hint::Addressing(Ifindex(9)),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>) {
            let _ = hints(&bytes).count();
        }
    }
}
