//! When two devices of an evacuation are the same one.

use super::*;

#[test]
fn devices_overlap_in_whatever_both_are_known_by() {
    let identity = |pci: Option<&str>, alias: Option<&str>, mac: Option<&str>| VfIdentity {
        pci: pci.and_then(|text| text.parse().ok()),
        alias: alias.map(str::to_owned),
        mac: mac.and_then(|text| text.parse().ok()),
    };
    let (pci, alias, mac) = (
        Some("0000:3b:02.1"),
        Some("ua-a"),
        Some("52:54:00:00:00:02"),
    );
    let whole = identity(pci, alias, mac);
    for same in [
        identity(pci, None, None),
        identity(None, alias, None),
        identity(None, None, mac),
        identity(Some("0000:3b:02.2"), alias, None),
        identity(Some("0000:3b:02.2"), Some("ua-b"), mac),
    ] {
        assert!(whole.overlaps(&same) && same.overlaps(&whole), "{same:?}");
    }
    let other = identity(
        Some("0000:3b:02.2"),
        Some("ua-b"),
        Some("52:54:00:00:00:03"),
    );
    assert!(!whole.overlaps(&other));
    assert!(!identity(pci, None, None).overlaps(&identity(None, alias, mac)));
}
