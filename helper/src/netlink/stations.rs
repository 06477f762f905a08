//! Stations whose frames leave through a device: what a bridge has learnt, and the MACs that devices on top take in.
//!
//! Numbers: `include/uapi/linux/{neighbour,if_link,if_bridge,rtnetlink}.h`, 6.12.

use tandem_core::types::{Ifindex, Mac};

use super::link::mac_of;
use super::request::{RequestError, Requests};
use super::{attribute, attributes, u32_of};

const RTM_GETNEIGH: u16 = 30;
const RTM_GETLINK: u16 = 18;
const AF_BRIDGE: u8 = 7;
const NEIGHBOUR_HEADER_BYTES: usize = 12;
const LINK_HEADER_BYTES: usize = 16;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
/// The device's own list, not a bridge's table.
const NTF_SELF: u8 = 0x02;
/// Of a bridge's table: an address of a port itself.
const NUD_PERMANENT: u16 = 0x80;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_BRVLAN: u32 = 2;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 4;

/// A MAC, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Station {
    pub(crate) mac: Mac,
    /// The bridge's port behind which it is, or the device that takes in its frames for what lies on it.
    pub(crate) device: Ifindex,
    /// The bridge that has learnt it, if one has.
    pub(crate) bridge: Option<Ifindex>,
    /// Its VLAN within the bridge, where that has VLANs.
    pub(crate) vlan: Option<u16>,
}

/// Reads all stations.
pub(crate) fn dump(requests: &mut Requests) -> Result<Vec<Station>, RequestError> {
    let mut payload = vec![0; NEIGHBOUR_HEADER_BYTES];
    payload[0] = AF_BRIDGE;
    requests.dump_raw(RTM_GETNEIGH, &payload, decode)
}

/// Decodes the payload of `RTM_NEWNEIGH` (`fdb_fill_info`, `net/bridge/br_fdb.c`; `nlmsg_populate_fdb_fill`,
/// net/core/rtnetlink.c, 6.12).
fn decode(payload: &[u8]) -> Option<Station> {
    let [family, _, _, _, i0, i1, i2, i3, s0, s1, flags, _] =
        *payload.first_chunk::<NEIGHBOUR_HEADER_BYTES>()?;
    if family != AF_BRIDGE {
        return None;
    }
    let attributes = payload.get(NEIGHBOUR_HEADER_BYTES..)?;
    let of = |kind| attribute(attributes, kind);
    let mac = mac_of(of(NDA_LLADDR)?)?;
    let bridge = of(NDA_MASTER).and_then(u32_of).map(Ifindex);
    let is_own_list = flags & NTF_SELF != 0;
    let is_ports_own = u16::from_ne_bytes([s0, s1]) & NUD_PERMANENT != 0;
    let is_of_many = mac.0[0] & 1 != 0;
    if is_of_many || !is_own_list && (bridge.is_none() || is_ports_own) {
        return None;
    }
    let vlan = of(NDA_VLAN).and_then(|value| value.try_into().ok());
    Some(Station {
        mac,
        device: Ifindex(u32::from_ne_bytes([i0, i1, i2, i3])),
        bridge: bridge.filter(|_| !is_own_list),
        vlan: vlan.map(u16::from_ne_bytes),
    })
}

/// Reads the VLANs that a bridge's port has, and which of them leave it without a tag.
pub(crate) fn port_vlans(
    requests: &mut Requests,
    port: Ifindex,
) -> Result<Vec<(u16, bool)>, RequestError> {
    let mut payload = vec![0; LINK_HEADER_BYTES];
    payload[0] = AF_BRIDGE;
    payload.extend(8_u16.to_ne_bytes());
    payload.extend(IFLA_EXT_MASK.to_ne_bytes());
    payload.extend(RTEXT_FILTER_BRVLAN.to_ne_bytes());
    let found = requests.dump_raw(RTM_GETLINK, &payload, |found| vlans_of(found, port))?;
    Ok(found.into_iter().flatten().collect())
}

fn vlans_of(payload: &[u8], port: Ifindex) -> Option<Vec<(u16, bool)>> {
    let [_, _, _, _, i0, i1, i2, i3, ..] = *payload.first_chunk::<LINK_HEADER_BYTES>()?;
    if u32::from_ne_bytes([i0, i1, i2, i3]) != port.0 {
        return None;
    }
    let vlans = attribute(payload.get(LINK_HEADER_BYTES..)?, IFLA_AF_SPEC)?;
    let vlans = attributes(vlans).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO);
    let vlans = vlans.filter_map(|(_, value)| {
        let [f0, f1, v0, v1] = *value.first_chunk::<4>()?;
        let is_untagged = u16::from_ne_bytes([f0, f1]) & BRIDGE_VLAN_INFO_UNTAGGED != 0;
        Some((u16::from_ne_bytes([v0, v1]), is_untagged))
    });
    Some(vlans.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::push_attribute;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn message(flags: u8, state: u16, mac: [u8; 6], master: Option<u32>) -> Vec<u8> {
        let mut bytes = vec![AF_BRIDGE, 0, 0, 0];
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([flags, 0]);
        let vlan = 5_u16.to_ne_bytes();
        let master = master.map(u32::to_ne_bytes);
        let master = master.as_ref().map(|value| (NDA_MASTER, &value[..]));
        let all = [(NDA_LLADDR, &mac[..]), (NDA_VLAN, &vlan)];
        for (kind, value) in all.into_iter().chain(master) {
            push_attribute(&mut bytes, kind, value);
        }
        bytes
    }

    #[test]
    fn what_is_learnt_and_what_is_taken_in_are_stations() {
        let learnt = decode(&message(0, 0x02, MAC, Some(3))).unwrap();
        assert_eq!(
            (learnt.device, learnt.bridge),
            (Ifindex(7), Some(Ifindex(3)))
        );
        assert_eq!((learnt.mac, learnt.vlan), (Mac(MAC), Some(5)));
        let taken_in = decode(&message(NTF_SELF, NUD_PERMANENT, MAC, None)).unwrap();
        assert_eq!((taken_in.device, taken_in.bridge), (Ifindex(7), None));
        // A port's own address, a group, nobody's.
        let group = [0x33, 0x33, 0, 0, 0, 1];
        for (flags, state, mac, master) in [
            (0, NUD_PERMANENT, MAC, Some(3)),
            (NTF_SELF, NUD_PERMANENT, group, None),
            (0, 0x02, MAC, None),
        ] {
            assert_eq!(decode(&message(flags, state, mac, master)), None);
        }
        let whole = message(0, 0x02, MAC, Some(3));
        for end in 0..whole.len() {
            let _ = decode(&whole[..end]);
        }
    }
}
