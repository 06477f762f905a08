//! What `RTM_NEWNEIGH` messages say, and how to ask for them.
//!
//! Numbers: `include/uapi/linux/{rtnetlink,neighbour}.h`, 6.12.

use std::net::IpAddr;
use std::time::Duration;

use tandem_core::types::{Ifindex, Mac};

use super::address::ip_of;
use super::link::mac_of;
use super::request::{RequestError, Requests};
use super::{attributes, push_attribute, u32_of};

pub(crate) const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const HEADER_BYTES: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NDA_IFINDEX: u16 = 8;
/// `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY` and `NUD_PROBE`: it answered once, and nobody wrote it down by hand.
const HAS_ANSWERED: u16 = 0x02 | 0x04 | 0x08 | 0x10;
/// Written down by hand.
const NUD_PERMANENT: u16 = 0x80;
/// A tick of `struct nda_cacheinfo` (`USER_HZ`, `jiffies_to_clock_t`, `kernel/time/time.c`, 6.12).
const TICK: Duration = Duration::from_millis(10);

/// A neighbour that has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) ip: IpAddr,
    pub(crate) mac: Mac,
    /// How long ago frames were last known to reach it and to come back: it answered, or a protocol above says so, such
    /// as TCP whose data was acknowledged (`dst_confirm`).
    pub(crate) confirmed: Duration,
}

/// Reads the neighbours on a link that have answered.
pub(crate) fn dump(requests: &mut Requests, link: Ifindex) -> Result<Vec<Neighbour>, RequestError> {
    dump_in(requests, link, |found| decode(found, link))
}

fn dump_in<T>(
    requests: &mut Requests,
    link: Ifindex,
    decode: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Vec<T>, RequestError> {
    let mut payload = vec![0; HEADER_BYTES];
    push_attribute(&mut payload, NDA_IFINDEX, &link.0.to_ne_bytes());
    requests.dump_raw(RTM_GETNEIGH, &payload, decode)
}

/// A neighbour that somebody wrote down by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrittenDown {
    ip: IpAddr,
    mac: Mac,
}

/// Reads those of a link.
pub(crate) fn written_down(
    requests: &mut Requests,
    link: Ifindex,
) -> Result<Vec<WrittenDown>, RequestError> {
    let found = dump_in(requests, link, |payload| {
        let found = Described::decode(payload, link)?;
        let is_by_hand = found.state & NUD_PERMANENT != 0;
        let (ip, mac) = found.ip.zip(found.mac).filter(|_| is_by_hand)?;
        Some(WrittenDown { ip, mac })
    })?;
    Ok(found)
}

/// The payload of an `RTM_NEWNEIGH` that writes one down for a link.
pub(crate) fn to_write_down(neighbour: &WrittenDown, link: Ifindex) -> Vec<u8> {
    let (family, ip) = match neighbour.ip {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let mut payload = vec![family as u8, 0, 0, 0];
    payload.extend(link.0.to_ne_bytes());
    payload.extend(NUD_PERMANENT.to_ne_bytes());
    payload.extend([0, 0]);
    for (kind, value) in [(NDA_DST, &ip[..]), (NDA_LLADDR, &neighbour.mac.0[..])] {
        push_attribute(&mut payload, kind, value);
    }
    payload
}

/// Makes a neighbour that has answered of the payload of `RTM_NEWNEIGH`.
fn decode(payload: &[u8], link: Ifindex) -> Option<Neighbour> {
    let found = Described::decode(payload, link)?;
    let has_answered = found.state & HAS_ANSWERED != 0;
    let (ip, mac) = found.ip.zip(found.mac).filter(|_| has_answered)?;
    let confirmed = found.confirmed;
    Some(Neighbour { ip, mac, confirmed })
}

/// What a message says of a neighbour.
struct Described {
    state: u16,
    ip: Option<IpAddr>,
    mac: Option<Mac>,
    confirmed: Duration,
}

impl Described {
    /// `None` if it is one of another link.
    fn decode(payload: &[u8], link: Ifindex) -> Option<Self> {
        let [_, _, _, _, i0, i1, i2, i3, s0, s1, ..] = *payload.first_chunk::<HEADER_BYTES>()?;
        if u32::from_ne_bytes([i0, i1, i2, i3]) != link.0 {
            return None;
        }
        let mut found = Self {
            state: u16::from_ne_bytes([s0, s1]),
            ip: None,
            mac: None,
            confirmed: Duration::MAX,
        };
        for (kind, value) in attributes(&payload[HEADER_BYTES..]) {
            match kind {
                NDA_DST => found.ip = ip_of(value),
                NDA_LLADDR => found.mac = mac_of(value),
                NDA_CACHEINFO => {
                    let ticks = value.get(..4).and_then(u32_of);
                    let confirmed = ticks.map(|ticks| TICK.saturating_mul(ticks));
                    found.confirmed = confirmed.unwrap_or(found.confirmed);
                }
                _ => {}
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: u16) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0, 1]);
        let mut cache = 25_u32.to_ne_bytes().to_vec();
        cache.extend([0; 12]);
        let mac = [2, 0, 0, 0, 0, 9];
        for (kind, value) in [
            (NDA_DST, &[192, 0, 2, 1][..]),
            (NDA_LLADDR, &mac),
            (NDA_CACHEINFO, &cache),
        ] {
            push_attribute(&mut bytes, kind, value);
        }
        bytes
    }

    #[test]
    fn a_neighbour_counts_if_it_has_answered_on_that_link() {
        let found = decode(&message(0x02), Ifindex(7)).unwrap();
        assert_eq!(found.ip, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(found.mac, Mac([2, 0, 0, 0, 0, 9]));
        assert_eq!(found.confirmed, Duration::from_millis(250));
        assert_eq!(decode(&message(0x02), Ifindex(8)), None);
        // Written down by hand, needing no answer, failed, incomplete.
        for state in [0x80, 0x40, 0x20, 0x01] {
            assert_eq!(decode(&message(state), Ifindex(7)), None, "{state:#x}");
        }
        for end in 0..message(0x02).len() {
            let _ = decode(&message(0x02)[..end], Ifindex(7));
        }
    }
}
