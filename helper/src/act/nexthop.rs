//! Next hops that are objects of their own (`ip nexthop`): many routes may use one,
//! and changing its device moves them all at once.
//!
//! The library has no messages for them; numbers: `include/uapi/linux/nexthop.h`, 6.12.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use tandem_core::types::Ifindex;

use crate::netlink::request::{RequestError, Requests};
use crate::netlink::{attributes, push_attribute};

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const HEADER_BYTES: usize = 8;
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;
const NLA_F_NESTED: u16 = 0x8000;
const RTNH_F_ONLINK: u8 = 4;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextHop {
    family: u8,
    protocol: u8,
    on_link: bool,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl NextHop {
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let [family, _, protocol, _, f0, f1, f2, f3] = *payload.first_chunk::<HEADER_BYTES>()?;
        let kept = [NHA_ID, NHA_OIF, NHA_GATEWAY, NHA_ENCAP_TYPE, NHA_ENCAP];
        Some(Self {
            family,
            protocol,
            on_link: u32::from_ne_bytes([f0, f1, f2, f3]) & u32::from(RTNH_F_ONLINK) != 0,
            attributes: attributes(&payload[HEADER_BYTES..])
                .filter(|(kind, _)| kept.contains(kind))
                .map(|(kind, value)| (kind, value.to_owned()))
                .collect(),
        })
    }

    pub(crate) fn device(&self) -> Option<Ifindex> {
        let (_, value) = self.attributes.iter().find(|(kind, _)| *kind == NHA_OIF)?;
        let index = value.as_slice().try_into().ok()?;
        Some(Ifindex(u32::from_ne_bytes(index)))
    }

    /// Its number, by which routes name it.
    pub(crate) fn id(&self) -> Option<u32> {
        let (_, value) = self.attributes.iter().find(|(kind, _)| *kind == NHA_ID)?;
        Some(u32::from_ne_bytes(value.as_slice().try_into().ok()?))
    }

    /// The payload that creates it anew, through a device.
    pub(crate) fn payload(&self, device: Ifindex) -> Vec<u8> {
        let mut payload = vec![self.family, 0, self.protocol, 0];
        let flags = if self.on_link { RTNH_F_ONLINK } else { 0 };
        payload.extend(u32::from(flags).to_ne_bytes());
        for (kind, value) in &self.attributes {
            match *kind {
                NHA_OIF => push_attribute(&mut payload, NHA_OIF, &device.0.to_ne_bytes()),
                NHA_ENCAP => push_attribute(&mut payload, NHA_ENCAP | NLA_F_NESTED, value),
                kind => push_attribute(&mut payload, kind, value),
            }
        }
        payload
    }
}

/// Reads the objects whose device is `link`; none on kernels before 5.3.
pub(super) fn of_link(
    requests: &mut Requests,
    link: Ifindex,
) -> Result<Vec<NextHop>, RequestError> {
    let mut payload = vec![0; HEADER_BYTES];
    push_attribute(&mut payload, NHA_OIF, &link.0.to_ne_bytes());
    let found = requests.dump_raw(RTM_GETNEXTHOP, &payload, |payload| {
        NextHop::decode(payload).filter(|next_hop| next_hop.device() == Some(link))
    });
    match found {
        Err(error) if error.errno() == libc::EOPNOTSUPP || error.is_absent() => Ok(Vec::new()),
        found => found,
    }
}

/// Gives an object another device; its routes follow in the same step. The device needs a carrier: `ENETDOWN`
/// (`rtm_to_nh_config`, `net/ipv4/nexthop.c`, 6.12).
pub(super) fn r#move(
    requests: &mut Requests,
    next_hop: &NextHop,
    to: Ifindex,
) -> Result<(), RequestError> {
    requests.change_raw(
        RTM_NEWNEXTHOP,
        NLM_F_CREATE | NLM_F_REPLACE,
        &next_hop.payload(to),
    )
}

/// Removes an object and the routes that use it.
pub(super) fn remove(requests: &mut Requests, next_hop: &NextHop) -> Result<(), RequestError> {
    let mut payload = vec![0; HEADER_BYTES];
    for (kind, value) in &next_hop.attributes {
        if *kind == NHA_ID {
            push_attribute(&mut payload, NHA_ID, value);
        }
    }
    requests.change_raw(RTM_DELNEXTHOP, 0, &payload)
}
