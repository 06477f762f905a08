//! A half that stands still for longer than it may hold frames.

use std::time::Duration;

use tandem_carry_kernel::LEASE_MS;

use crate::halves::Rig;
use crate::peer::Peer;

/// What passed its hold meanwhile waits in the tap's queue, of a guest that stands still.
#[test]
fn a_source_that_stood_still_after_the_stop_loses_nothing() {
    let mut rig = Rig::new();
    // Not more than the hold has room for.
    let peer = Peer::every(Duration::from_millis(2));
    rig.run_ms(100);
    rig.holds_until_the_stop();
    let completes_ms = rig.completes_ms.take();
    rig.run_ms(50);
    let half = rig.source.take();
    rig.run_ms(LEASE_MS + 500);
    rig.source = half;
    rig.completes_ms = completes_ms;
    rig.arrives();
    let sent = rig.ends(peer);
    let source = rig.source.as_ref().unwrap().machine.outcome().unwrap();
    println!("sent {sent:?}, {source:?}");
    let (lost, twice, _) = rig.judge(sent);
    assert_eq!((source.cause, lost, twice), (None, [0, 0], [0, 0]));
}
