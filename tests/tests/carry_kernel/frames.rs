//! Frames that not every tap takes.

use tandem_carry::{Frame, HEADER_BYTES};
use tandem_carry_kernel::Injector;

use crate::guest_tap::without_offloads;
use crate::halves::Rig;
use crate::network::{GUEST, PEER, aggregated, frame, ip, send};
use crate::peer::Peer;

/// A bridge lets frames through that are longer by a VLAN's tag, whether they have one or not, and a tap takes none of those
/// that have none (`is_skb_forwardable` of net/core/dev.c, `packet_snd` of `net/packet/af_packet.c`, 6.12).
#[test]
fn a_frame_that_no_tap_takes_costs_nothing_but_itself() {
    for stays in [false, true] {
        let mut rig = Rig::new();
        ip("link set peer mtu 1504");
        let peer = Peer::start();
        rig.run_ms(100);
        rig.holds_until_the_stop();
        let long = Injector::new("peer").unwrap();
        let mut bytes = frame(GUEST, PEER, 0).bytes().to_vec();
        // No number that counts.
        bytes[HEADER_BYTES + 12..][..2].copy_from_slice(&[0x88, 0xb5]);
        bytes.resize(HEADER_BYTES + 1518, 0);
        send(&long, &Frame::new(&bytes).unwrap());
        if stays {
            rig.run_ms(5);
            rig.migration_fails();
        } else {
            rig.arrives();
        }
        let sent = rig.ends(peer);
        assert_eq!(rig.judge(sent), ([0, 0], [0, 0], 0), "it stays: {stays}");
        let (source, destination) = (&rig.source, &rig.destination);
        let lost = [
            source.as_ref().unwrap().lost(),
            destination.as_ref().unwrap().lost(),
        ];
        assert_eq!(lost, if stays { [1, 0] } else { [0, 1] });
    }
}

/// What the network has put together would never get into its queue.
#[test]
fn a_guest_that_takes_no_segments_in_one_gets_them_one_by_one() {
    let mut rig = Rig::new();
    rig.taps.iter().for_each(without_offloads);
    let peer = Peer::start();
    rig.run_ms(100);
    rig.holds_until_the_stop();
    let many = aggregated();
    send(&Injector::new("peer").unwrap(), &many);
    rig.arrives();
    let sent = rig.ends(peer);
    assert_eq!(rig.judge(sent), ([0, 0], [0, 0], 0));
    assert!(rig.got_bytes > many.ethernet().len(), "{}", rig.got_bytes);
    assert!(rig.longest <= 1518, "{}", rig.longest);
}
