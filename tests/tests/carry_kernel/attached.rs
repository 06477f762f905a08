//! What is on a guest's tap: something while there is a carry, and nothing before it and after it.

use aya::programs::{SchedClassifier, TcAttachType};
use tandem_carry_kernel::{Guarded, Mode};

use crate::network::{Network, until};

/// The programs of both directions.
fn attached(device: &str) -> usize {
    let ways = [TcAttachType::Ingress, TcAttachType::Egress];
    let of = |way| SchedClassifier::query_tcx(device, way).unwrap().1.len();
    ways.map(of).iter().sum()
}

#[test]
fn nothing_is_on_a_tap_without_a_carry() {
    let network = Network::new();
    let device = network.guest.name();
    assert_eq!(attached(device), 0);
    for mode in [Mode::Drain, Mode::Hold, Mode::Closed] {
        let guarded = Guarded::new(device, mode).unwrap();
        assert_eq!(attached(device), 2, "{mode:?}");
        drop(guarded);
        // A program that another test is just starting has copies of all descriptors until it is another program.
        until("they are gone", || attached(device) == 0);
    }
}
