//! What is told of queueing disciplines and their filters.
//!
//! Numbers: `include/uapi/linux/{rtnetlink,pkt_sched}.h`, 6.12.

use tandem_core::types::Ifindex;

use super::request::{RequestError, Requests};
use super::u32_of;

/// `RTNLGRP_TC`.
pub(crate) const GROUP: u32 = 4;
/// `TCM_IFINDEX_MAGIC_BLOCK`: filters of a block that several devices may share.
pub(crate) const SHARED_BLOCK: Ifindex = Ifindex(0xffff_ffff);
const RTM_GETTFILTER: u16 = 46;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`.
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// Of `struct tcmsg`.
const HEADER_BYTES: usize = 20;

/// Whether a `clsact` has filters on a link's way out.
pub(crate) fn has_egress_filters(
    requests: &mut Requests,
    link: Ifindex,
) -> Result<bool, RequestError> {
    let found = requests.dump_raw(RTM_GETTFILTER, &asked(link), |payload| {
        is_on_the_way_out(payload, link).then_some(())
    })?;
    Ok(!found.is_empty())
}

fn asked(link: Ifindex) -> Vec<u8> {
    let mut payload = vec![0; HEADER_BYTES];
    payload[4..8].copy_from_slice(&link.0.to_ne_bytes());
    payload[12..16].copy_from_slice(&CLSACT_EGRESS.to_ne_bytes());
    payload
}

fn is_on_the_way_out(payload: &[u8], link: Ifindex) -> bool {
    let word = |at| payload.get(at..at + 4).and_then(u32_of);
    word(4) == Some(link.0) && word(12) == Some(CLSACT_EGRESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_on_that_links_way_out_counts() {
        let mut answer = asked(Ifindex(7));
        assert_eq!(answer.len(), HEADER_BYTES);
        assert!(is_on_the_way_out(&answer, Ifindex(7)));
        assert!(!is_on_the_way_out(&answer, Ifindex(8)));
        assert!(!is_on_the_way_out(&answer[..15], Ifindex(7)));
        // `TC_H_MIN_INGRESS`.
        answer[12..16].copy_from_slice(&0xffff_fff2_u32.to_ne_bytes());
        assert!(!is_on_the_way_out(&answer, Ifindex(7)));
    }
}
