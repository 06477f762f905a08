//! Netlink messages within a datagram.

/// End of an answer, with an error number.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// End of a dump.
pub(crate) const NLMSG_DONE: u16 = 3;
/// `RTM_*`, `include/uapi/linux/rtnetlink.h`, 6.12.
pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_NEWQDISC: u16 = 36;
pub(crate) const RTM_DELQDISC: u16 = 37;
pub(crate) const RTM_NEWTFILTER: u16 = 44;
pub(crate) const RTM_DELTFILTER: u16 = 45;
pub(crate) const RTM_NEWCHAIN: u16 = 100;
pub(crate) const RTM_DELCHAIN: u16 = 101;

/// One message, header taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) message_type: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram; stops at the first that is malformed.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<16>()?;
        let [l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let message = Message {
            message_type: u16::from_ne_bytes([t0, t1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload: bytes.get(16..length)?,
        };
        bytes = bytes
            .get(length.checked_next_multiple_of(4)?..)
            .unwrap_or(&[]);
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_two_messages_apart_and_stops_at_a_half_one() {
        let mut bytes = Vec::new();
        for (kind, payload) in [(RTM_NEWLINK, &b"abcde"[..]), (RTM_DELLINK, b"xyz")] {
            bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.extend([255, 0, 0, 0]);
        bytes.extend([0; 12]);
        let found: Vec<_> = messages(&bytes)
            .map(|message| (message.message_type, message.payload))
            .collect();
        assert_eq!(
            found,
            [(RTM_NEWLINK, &b"abcde"[..]), (RTM_DELLINK, &b"xyz"[..])]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16);
        }
    }
}
