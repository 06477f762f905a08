//! rtnetlink: requests, notifications and what their messages mean. A room of its own,
//! which observes and decides nothing: `observe` and `act` use it.

pub(crate) mod address;
pub(crate) mod bond;
pub(crate) mod filter;
pub(crate) mod hint;
pub(crate) mod link;
pub(crate) mod message;
pub(crate) mod neighbour;
pub(crate) mod request;
pub(crate) mod route;
pub(crate) mod stations;
pub(crate) mod traffic_control;
pub(crate) mod watch;

use netlink_packet_core::NlasIterator;

/// Walks attributes; stops at the first that is malformed, keeping those before it.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|attribute| {
            let end = usize::from(attribute.length());
            (attribute.kind(), &attribute.into_inner()[4..end])
        })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|&(found, _)| found == kind)
        .map(|(_, value)| value)
}

/// Appends an attribute. Values come from the kernel or are numbers: they fit.
pub(crate) fn push_attribute(payload: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    payload.extend(length.to_ne_bytes());
    payload.extend(kind.to_ne_bytes());
    payload.extend(value);
    payload.resize(payload.len().next_multiple_of(4), 0);
}

/// A number of the kernel's byte order.
pub(crate) fn u32_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// A text that ends at its first zero byte.
pub(crate) fn text_of(value: &[u8]) -> Option<&str> {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok()
}
