//! One datagram of rtnetlink by every decoder, and what it says as the machine's inputs.

use tandem_core::Input;
use tandem_guest::fuzzing::rtnetlink;

use crate::machine::Driven;

/// Bytes of a netlink header.
const HEADER_BYTES: usize = 16;

pub(super) fn run(datagram: &[u8]) {
    let found = rtnetlink(datagram);
    assert!(found.messages <= datagram.len() / HEADER_BYTES);
    assert!(found.links.len() <= found.messages);
    let kept: usize = found.next_hops.iter().map(Vec::len).sum();
    assert!(
        kept <= 2 * datagram.len(),
        "{kept} bytes of {}",
        datagram.len()
    );
    let words: usize = found.reasons.iter().map(String::len).sum();
    assert!(
        words <= datagram.len() * 2 + 256 * found.messages,
        "{words} bytes of words"
    );
    let mut driven = Driven::with_a_bond();
    driven.handle(Input::Addressings(vec![found.addressing.clone()]));
    driven.handle(Input::Links(found.links.clone()));
    driven.wait_ms(5_000);
    for link in found.links.into_iter().take(64) {
        driven.handle(Input::Link(link.clone()));
        driven.wait_ms(100);
        driven.handle(Input::LinkGone {
            ifindex: link.ifindex,
        });
    }
    driven.handle(Input::Addressing(found.addressing));
    driven.wait_ms(60_000);
}
