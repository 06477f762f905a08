//! What needs a machine of its own: its NICs go, and its clock is set. Ignored
//! here; the lab runs these in its guests.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::*;
use tandem_core::Link;

/// A NIC on PCI, known by function and driver, is taken from the guest and given
/// back, and each step is told.
#[tokio::test(flavor = "current_thread")]
#[ignore = "removes a NIC; the suite lab-executor runs it"]
async fn a_nic_comes_and_goes() {
    let mut sources = open(options());
    let inputs = until(&mut sources, |input| matches!(input, Input::Links(_))).await;
    let Some(Input::Links(links)) = inputs.last() else {
        panic!("{inputs:?}");
    };
    assert!(
        links.iter().all(|link| link.kind == LinkKind::Physical),
        "no loopback: {links:?}"
    );
    let of_driver = |driver: &str| {
        let found = links
            .iter()
            .find(|link| link.driver.as_deref() == Some(driver));
        found.unwrap_or_else(|| panic!("no {driver} in {links:?}"))
    };
    let standby = of_driver("virtio_net");
    assert!(standby.pci.is_some() && standby.mac.is_some());
    let vf = of_driver("e1000e").clone();
    assert!(vf.pci_parent.is_some(), "behind a root port: {vf:?}");
    let function = vf.pci.unwrap();

    ip(&format!("link set {} mtu 1400", vf.name));
    let smaller = |input: &Input| matches!(input, Input::Link(link) if link.mtu == 1400);
    until(&mut sources, smaller).await;

    let path = format!("/sys/bus/pci/devices/{function}/remove");
    std::fs::write(path, "1").unwrap();
    let gone =
        |input: &Input| matches!(input, Input::LinkGone { ifindex } if *ifindex == vf.ifindex);
    until(&mut sources, gone).await;
    std::fs::write("/sys/bus/pci/rescan", "1").unwrap();
    // A new NIC comes with all links, so that what lies on it is known.
    let is_back = |link: &&Link| link.pci == vf.pci && link.ifindex != vf.ifindex;
    let back = |input: &Input| match input {
        Input::Links(links) => links.iter().any(|link| is_back(&link)),
        _ => false,
    };
    let inputs = until(&mut sources, back).await;
    let Some(Input::Links(links)) = inputs.last() else {
        panic!("{inputs:?}");
    };
    let link = links.iter().find(is_back).unwrap();
    assert_eq!(link.occupant, None);

    ip(&format!(
        "link add link {} name v7 type vlan id 7",
        link.name
    ));
    let on_it = |wanted: bool| {
        let ifindex = link.ifindex;
        move |input: &Input| match input {
            Input::Link(link) => link.ifindex == ifindex && link.occupant.is_some() == wanted,
            Input::Links(links) => links
                .iter()
                .any(|link| link.ifindex == ifindex && link.occupant.is_some() == wanted),
            _ => false,
        }
    };
    until(&mut sources, on_it(true)).await;
    ip("link del v7");
    until(&mut sources, on_it(false)).await;
    assert_eq!(
        (&link.driver, link.permanent_mac, link.pci_parent),
        (&vf.driver, vf.permanent_mac, vf.pci_parent)
    );
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "sets the clock; the suite lab-executor runs it"]
async fn a_set_clock_is_a_jump() {
    let mut sources = open(options());
    settled(&mut sources).await;
    let set = |seconds: i64| {
        let now = clock_gettime(ClockId::Realtime);
        clock_settime(
            ClockId::Realtime,
            Timespec {
                tv_sec: now.tv_sec + seconds,
                ..now
            },
        )
        .unwrap();
    };
    for seconds in [3600, 7200] {
        set(seconds);
        let jump = |input: &Input| matches!(input, Input::ClockJump { .. });
        let inputs = until(&mut sources, jump).await;
        let Some(Input::ClockJump { forward_ms }) = inputs.last() else {
            panic!("{inputs:?}");
        };
        let expected_ms = u64::try_from(seconds).unwrap() * 1000;
        // The clock goes on between being read and being set.
        assert!(forward_ms.abs_diff(expected_ms) < 60_000, "{forward_ms}");
    }
}
