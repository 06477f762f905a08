//! The bonding driver itself, with veths as ports. Ignored here: the driver is not
//! in every kernel; the lab runs these in its guests, on several kernels.

use tandem_core::action::PathProof;
use tandem_core::link::{BondFacts, BondMode, PrimaryReselect};

use super::on_the_wire::{arrived, listen};
use super::*;
use crate::netlink::link;
use crate::observe::testing::forget_module;
use crate::packet::frames::reverse_arp;
use crate::packet::socket::transmit;

const PORTS: &str = "link set lo up
    link add one address 02:00:00:00:00:01 type veth peer name one-far
    link add two address 02:00:00:00:00:02 type veth peer name two-far
    link set one-far up
    link set two-far up";

fn options() -> BondOptions {
    BondOptions {
        miimon_ms: Some(100),
        fail_over_mac: Some(FailOverMac::None),
        primary_reselect: Some(PrimaryReselect::Always),
        all_ports_active: Some(false),
        peer_notifications: Some(3),
    }
}

/// A bond that is up, its two ports in it, the first one the primary.
pub(super) async fn assemble() -> (Ifindex, Ifindex, Ifindex) {
    ip_all(PORTS);
    accepted(ActionKind::CreateBond {
        name: "bond7".parse().unwrap(),
        mac: Some("02:00:00:00:00:07".parse().unwrap()),
        options: options(),
    })
    .await;
    let (bond, one, two) = (ifindex("bond7"), ifindex("one"), ifindex("two"));
    accepted(ActionKind::SetAdminUp {
        link: bond,
        up: true,
    })
    .await;
    // The second is open: it has to be closed first.
    ip("link set two up");
    for port in [one, two] {
        accepted(ActionKind::Enslave { port, bond }).await;
    }
    accepted(ActionKind::SetPrimary { bond, port: one }).await;
    (bond, one, two)
}

pub(super) async fn accepted(kind: ActionKind) {
    assert_eq!(run(kind.clone()).await, Outcome::Accepted, "{kind:?}");
}

fn link(link: Ifindex) -> tandem_core::Link {
    let mut requests = Requests::open().unwrap();
    link::get(&mut requests, link).unwrap().unwrap().link
}

fn facts(bond: Ifindex) -> BondFacts {
    link(bond).bond.unwrap()
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_bond_is_made_as_asked_and_switches_as_told() {
    in_namespace_async(|| async {
        let (bond, one, two) = assemble().await;
        let expected = |active, primary| BondFacts {
            mode: BondMode::ActiveBackup,
            active: Some(active),
            primary: Some(primary),
            fail_over_mac: FailOverMac::None,
            primary_reselect: PrimaryReselect::Always,
            miimon_ms: 100,
            all_ports_active: false,
            peer_notifications: 3,
        };
        assert_eq!(facts(bond), expected(one, one));
        let mac = "02:00:00:00:00:07".parse().ok();
        for (port, own) in [(one, "02:00:00:00:00:01"), (two, "02:00:00:00:00:02")] {
            let link = link(port);
            assert_eq!((link.controller, link.mac), (Some(bond), mac));
            assert!(link.admin_up && link.carrier);
            let facts = link.port.unwrap();
            assert_eq!(facts.permanent_mac, own.parse().ok());
            assert_eq!((facts.active, facts.mii_up), (port == one, true));
        }
        accepted(ActionKind::SetPrimary { bond, port: two }).await;
        assert_eq!(facts(bond), expected(two, two));
        assert!(link(two).port.unwrap().active);
        assert!(!link(one).port.unwrap().active);

        accepted(ActionKind::Release { port: one, bond }).await;
        let released = link(one);
        assert_eq!((released.controller, released.admin_up), (None, false));
        assert_eq!(released.mac, "02:00:00:00:00:01".parse().ok());
        assert_eq!(facts(bond), expected(two, two));
        // Again, and of a port that is not there: nothing to do, or refused.
        accepted(ActionKind::Release { port: one, bond }).await;
        accepted(ActionKind::Enslave { port: two, bond }).await;
        let (errno, _) = failed(run(ActionKind::SetPrimary { bond, port: one }).await);
        assert_eq!(errno, libc::EINVAL);
        assert_eq!(facts(bond), expected(two, two), "not cleared");

        let release = ActionKind::Release { port: two, bond };
        let (errno, message) = failed(run(release.clone()).await);
        assert_eq!(errno, libc::EBUSY, "{message}");
        assert_eq!(facts(bond), expected(two, two), "the last one stays");
        accepted(ActionKind::Enslave { port: one, bond }).await;
        ip("link set one-far down");
        let (errno, message) = failed(run(release).await);
        assert_eq!(errno, libc::EBUSY, "without a carrier: {message}");
    });
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn options_change_one_by_one_and_delays_stay() {
    in_namespace_async(|| async {
        let (bond, ..) = assemble().await;
        ip("link set bond7 type bond updelay 200 downdelay 300 peer_notify_delay 400");
        let set = |options| ActionKind::SetBondOptions { bond, options };
        accepted(set(BondOptions {
            miimon_ms: Some(50),
            ..BondOptions::default()
        }))
        .await;
        let shown = ip("-d link show dev bond7");
        for expected in [
            "miimon 50 ",
            "updelay 200 ",
            "downdelay 300 ",
            "peer_notify_delay 400 ",
        ] {
            assert!(shown.contains(expected), "{expected}in {shown}");
        }
        accepted(set(BondOptions {
            all_ports_active: Some(true),
            peer_notifications: Some(1),
            primary_reselect: Some(PrimaryReselect::Failure),
            ..BondOptions::default()
        }))
        .await;
        let facts = facts(bond);
        assert!(facts.all_ports_active);
        assert_eq!(facts.peer_notifications, 1);
        assert_eq!(facts.primary_reselect, PrimaryReselect::Failure);
        assert_eq!(facts.miimon_ms, 50);

        let (errno, message) = failed(
            run(set(BondOptions {
                fail_over_mac: Some(FailOverMac::Active),
                ..BondOptions::default()
            }))
            .await,
        );
        assert_eq!(errno, libc::ENOTEMPTY);
        assert!(message.contains("slaves"), "the kernel's words: {message}");
    });
}

/// The driver's own `bond0`, made when the first bond loads it, is taken over. It
/// makes that in the guest's first namespace only, so this test runs there.
#[tokio::test(flavor = "current_thread")]
#[ignore = "needs the bonding driver and a guest of its own; the suite lab-executor runs it"]
async fn a_bond0_that_came_with_the_driver_is_taken_over() {
    if std::fs::exists("/sys/module/bonding").unwrap() {
        forget_module("bonding");
    }
    let create = ActionKind::CreateBond {
        name: "bond0".parse().unwrap(),
        mac: None,
        options: options(),
    };
    accepted(create.clone()).await;
    let facts = facts(ifindex("bond0"));
    assert_eq!(facts.mode, BondMode::ActiveBackup);
    assert_eq!(facts.miimon_ms, 100);
    let (errno, message) = failed(run(create).await);
    assert_eq!(errno, libc::EEXIST);
    assert_eq!(message, "a bond has the name bond0 already");
    ip("link del bond0");
}

/// The way a guest's addresses go: from a lone NIC to a bond without ports, which
/// then takes the NIC in.
#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn addressing_moves_to_a_bond_before_its_first_port_comes() {
    in_namespace_async(|| async {
        ip_all(PORTS);
        ip_all(
            "link set one up
             address add 10.1.0.2/24 dev one
             route add default via 10.1.0.1 metric 100
             -6 address add 2001:db8:1::2/64 dev one nodad
             -6 route add default via 2001:db8:1::1",
        );
        accepted(ActionKind::CreateBond {
            name: "bond7".parse().unwrap(),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            options: options(),
        })
        .await;
        let (bond, one) = (ifindex("bond7"), ifindex("one"));
        accepted(ActionKind::SetAdminUp {
            link: bond,
            up: true,
        })
        .await;
        accepted(ActionKind::MoveAddressing {
            from: one,
            to: bond,
        })
        .await;
        accepted(ActionKind::Enslave { port: one, bond }).await;
        let shown = ip("route") + &ip("-6 route") + &ip("address show dev bond7");
        for expected in [
            "default via 10.1.0.1 dev bond7 metric 100",
            "10.1.0.0/24 dev bond7 proto kernel scope link src 10.1.0.2",
            "default via 2001:db8:1::1 dev bond7",
            "inet 10.1.0.2/24 scope global bond7",
            "inet6 2001:db8:1::2/64 scope global nodad",
        ] {
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
        assert!(!shown.contains("dev one "), "{shown}");
        assert!(link(bond).carrier);
    });
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn announcements_of_a_bond_and_its_vlan_leave_through_the_port_named() {
    in_namespace_async(|| async {
        let (bond, one, two) = assemble().await;
        ip_all(
            "address add 192.0.2.1/24 dev bond7
             link add link bond7 name bond7.9 type vlan id 9
             link set bond7.9 up
             address add 192.0.2.9/24 dev bond7.9",
        );
        for (port, far) in [(one, "one-far"), (two, "two-far")] {
            let listener = listen(ifindex(far));
            accepted(ActionKind::Announce { bond, port }).await;
            let frames = arrived(&listener, [0x02, 0x00, 0x00]);
            // The kernel takes a VLAN's tag out of what a packet socket gets.
            for last in [1, 9] {
                let sender_ip = [192, 0, 2, last];
                let arp = |frame: &Vec<u8>| frame[28..32] == sender_ip;
                // The kernel's own announcement of a new active port may be among them.
                assert!(frames.iter().filter(|frame| arp(frame)).count() >= 2);
            }
        }
    });
}

/// The kernel itself tells of the bond's addresses then, and of no station that a bridge has learnt.
#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_prepared_switchover_is_announced_with_it() {
    in_namespace_async(|| async {
        let (bond, one, two) = assemble().await;
        ip_all(
            "link add br0 address 02:aa:00:00:00:04 type bridge
             link add tap1 type veth peer name tap1-peer
             link set tap1 up
             link set tap1-peer up
             link set bond7 master br0
             link set tap1 master br0
             link set br0 up",
        );
        let station = reverse_arp("02:aa:00:00:00:06".parse().unwrap(), &[]);
        transmit(ifindex("tap1-peer"), std::slice::from_ref(&station)).unwrap();
        for (port, far, is_prepared) in [(two, "two-far", false), (one, "one-far", true)] {
            let options = BondOptions {
                all_ports_active: Some(is_prepared),
                ..BondOptions::default()
            };
            accepted(ActionKind::SetBondOptions { bond, options }).await;
            let listener = listen(ifindex(far));
            accepted(ActionKind::SetPrimary { bond, port }).await;
            let frames = arrived(&listener, [0x02, 0xaa, 0x00]);
            assert_eq!(frames.contains(&station), is_prepared, "{far}: {frames:?}");
        }
    });
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_port_passes_its_path_check_or_does_not() {
    in_namespace_async(|| async {
        let (bond, one, two) = assemble().await;
        ip_all(
            "link add br0 type bridge
             link set br0 up
             link set one-far master br0
             link set two-far master br0",
        );
        let path_check = ActionKind::CheckPath {
            bond,
            from: two,
            to: one,
            proof: PathProof::Standby,
        };
        accepted(path_check.clone()).await;
        // The port that carries the traffic can be checked as well as a backup.
        accepted(ActionKind::CheckPath {
            bond,
            from: one,
            to: two,
            proof: PathProof::Standby,
        })
        .await;
        // A carrier, and nothing behind it.
        ip("link set two-far nomaster");
        let Outcome::Failed { errno, message } = run(path_check.clone()).await else {
            panic!("a frame passed a network that is not there");
        };
        assert_eq!(errno, libc::ETIMEDOUT, "{message}");
        assert!(
            message.contains("two") && message.contains("one"),
            "{message}"
        );
        ip("link set two-far master br0");
        accepted(path_check.clone()).await;
        // Both have the bond's MAC: after a failure the network is led back to `to`.
        let learnt = listen(ifindex("one-far"));
        ip("link set two-far nomaster");
        run(path_check).await;
        assert!(!arrived(&learnt, [0x02, 0x00, 0x00]).is_empty());
        let stranger = ifindex("br0");
        let outcome = run(ActionKind::CheckPath {
            bond,
            from: stranger,
            to: one,
            proof: PathProof::Standby,
        })
        .await;
        assert!(
            matches!(
                outcome,
                Outcome::Failed {
                    errno: libc::EINVAL,
                    ..
                }
            ),
            "{outcome:?}"
        );
    });
}

/// Addresses that lie beside a bond whose MAC follows its port have a new MAC with it.
#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn addresses_beside_a_bond_are_announced_where_its_mac_follows() {
    in_namespace_async(|| async {
        for follows in [true, false] {
            ip_all(PORTS);
            ip("address add 198.51.100.7/32 dev lo");
            let fail_over_mac = Some(match follows {
                true => FailOverMac::Active,
                false => FailOverMac::None,
            });
            accepted(ActionKind::CreateBond {
                name: "bond7".parse().unwrap(),
                mac: None,
                options: BondOptions {
                    fail_over_mac,
                    ..options()
                },
            })
            .await;
            let (bond, port) = (ifindex("bond7"), ifindex("one"));
            accepted(ActionKind::SetAdminUp {
                link: bond,
                up: true,
            })
            .await;
            accepted(ActionKind::Enslave { port, bond }).await;
            let listener = listen(ifindex("one-far"));
            accepted(ActionKind::Announce { bond, port }).await;
            let frames = arrived(&listener, [0x02, 0x00, 0x00]);
            let is_it = |frame: &Vec<u8>| {
                frame[12..14] == [0x08, 0x06] && frame[28..32] == [198, 51, 100, 7]
            };
            assert_eq!(frames.iter().any(is_it), follows);
            assert!(!frames.iter().any(|frame| frame[28..32] == [127, 0, 0, 1]));
            ip_all(
                "link del bond7
                 link del one
                 link del two
                 address del 198.51.100.7/32 dev lo",
            );
        }
    });
}
