//! What `RTM_NEWADDR` messages say, and how to ask for them.
//!
//! Numbers: `include/uapi/linux/if_addr.h`, 6.12.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use tandem_core::link::Address;
use tandem_core::types::Ifindex;

use super::request::{RequestError, Requests};
use super::{attributes, u32_of};

const HEADER_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_DADFAILED: u32 = 0x08;
/// `INFINITY_LIFE_TIME` (include/net/addrconf.h, 6.12), for IPv4 too.
const FOREVER: u32 = u32::MAX;
const IFA_F_TENTATIVE: u32 = 0x40;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The link.
    pub(crate) ifindex: Ifindex,
    /// The address.
    pub(crate) address: Address,
    /// Duplicate address detection allows its use.
    pub(crate) usable: bool,
    /// For how many seconds it is valid if nobody renews it; `None` for ever, and while it is being phased out.
    pub(crate) valid_s: Option<u32>,
}

impl Assigned {
    /// A server leased it, as far as it tells: routers advertise prefixes, of which no address is whole.
    pub(crate) fn is_leased(&self) -> bool {
        self.valid_s.is_some() && (self.address.ip.is_ipv4() || self.address.prefix == 128)
    }
}

/// Decodes the payload of `RTM_NEWADDR`.
pub(crate) fn decode(payload: &[u8]) -> Option<Assigned> {
    let [_, prefix, flags, _, i0, i1, i2, i3] = *payload.first_chunk::<HEADER_BYTES>()?;
    let mut flags = u32::from(flags);
    let mut address = None;
    let mut local = None;
    let mut valid_s = None;
    for (kind, value) in attributes(&payload[HEADER_BYTES..]) {
        match kind {
            IFA_ADDRESS => address = ip_of(value),
            IFA_LOCAL => local = ip_of(value),
            // `struct ifa_cacheinfo`: preferred and valid lifetime.
            IFA_CACHEINFO => {
                let at = |from: usize| value.get(from..from + 4).and_then(u32_of);
                let is_preferred = at(0).is_some_and(|preferred_s| preferred_s > 0);
                valid_s = at(4).filter(|valid_s| *valid_s != FOREVER && is_preferred);
            }
            IFA_FLAGS => flags = u32_of(value).unwrap_or(flags),
            _ => {}
        }
    }
    Some(Assigned {
        ifindex: Ifindex(u32::from_ne_bytes([i0, i1, i2, i3])),
        address: Address {
            // Where both are there, `IFA_ADDRESS` is the peer's.
            ip: local.or(address)?,
            prefix,
        },
        usable: flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == 0,
        valid_s,
    })
}

/// Reads the addresses of a link, or of all links; `None` from `decode` leaves one out.
pub(crate) fn dump<T>(
    requests: &mut Requests,
    link: Option<Ifindex>,
    decode: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Vec<T>, RequestError> {
    requests.dump_both(decode, |family| {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.index = link.map_or(0, |link| link.0);
        RouteNetlinkMessage::GetAddress(message)
    })
}

/// An address of either family, by its length.
pub(crate) fn ip_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}
