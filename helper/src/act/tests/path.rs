//! A bond's neighbours are asked through its ports. As in `bonding`, the lab runs these in its guests.

use tandem_core::action::PathProof;
use tandem_core::path::PathAnswer;

use super::bonding::{accepted, assemble};
use super::on_the_wire::{arrived, listen};
use super::others::{BEFORE, SHOT, TCX_INGRESS, attach};
use super::*;
use crate::packet::frames::{reverse_arp, solicited_answer};
use crate::packet::socket::transmit;

/// Asks through one port, then through the other.
async fn asked(bond: Ifindex, port: Ifindex, other: Ifindex) -> PathAnswer {
    answer(bond, port, other, Asking::Fully).await
}

async fn answer(bond: Ifindex, port: Ifindex, other: Ifindex, how: Asking) -> PathAnswer {
    let id = ActionId(7);
    let kind = ActionKind::AskPath {
        bond,
        port,
        other,
        how,
    };
    let completion = Executor::new().start(Action { id, kind }).await;
    assert_eq!(completion.outcome, Outcome::Accepted);
    match completion.learnt[..] {
        [Input::PathAsked { answer, .. }] => answer,
        ref learnt => panic!("{learnt:?}"),
    }
}

/// A frame with the bond's MAC as the source passed there.
fn shows_the_bond(socket: &std::os::fd::OwnedFd) -> bool {
    let frames = arrived(socket, [0x02, 0x00, 0x00]);
    frames
        .iter()
        .any(|frame| frame[6..12] == [0x02, 0, 0, 0, 0, 7])
}

/// Both ports lead to a bridge that is the neighbour.
async fn with_a_neighbour() -> (Ifindex, Ifindex, Ifindex) {
    let (bond, one, two) = assemble().await;
    ip_all(
        "link add br0 address 02:00:00:00:00:aa type bridge
         addr add 192.0.2.1/24 dev br0
         link set br0 up
         link set one-far master br0
         link set two-far master br0
         addr add 192.0.2.2/24 dev bond7",
    );
    std::fs::write("/proc/sys/net/ipv6/conf/bond7/disable_ipv6", "1").unwrap();
    // Both addresses are of this namespace.
    std::fs::write("/proc/sys/net/ipv4/conf/br0/accept_local", "1").unwrap();
    (bond, one, two)
}

/// The neighbour has answered once, a while ago.
fn know_the_neighbour() {
    ip("neigh flush dev bond7");
    ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:aa dev bond7 nud stale");
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn neighbours_are_asked_through_the_port_and_then_through_the_other_as_somebody_else() {
    in_namespace_async(|| async {
        let (bond, one, two) = with_a_neighbour().await;
        assert_eq!(asked(bond, one, two).await, PathAnswer::NobodyKnown);
        know_the_neighbour();
        assert_eq!(asked(bond, one, two).await, PathAnswer::Answered);
        let check = |from, to| ActionKind::CheckPath {
            bond,
            from,
            to,
            proof: PathProof::Neighbours,
        };
        accepted(check(two, one)).await;
        // A backup asks as somebody else, who is answered; one that is cut off is not, and hears nothing.
        let learnt = listen(ifindex("two-far"));
        assert_eq!(asked(bond, two, one).await, PathAnswer::Answered);
        assert!(!shows_the_bond(&learnt));
        let neighbour = [192, 0, 2, 1].into();
        ip("link set two-far nomaster");
        assert_eq!(asked(bond, two, one).await, PathAnswer::Lost { neighbour });
        ip("link set two-far master br0");
        // The path of the port that carries the traffic dies; its carrier stays.
        know_the_neighbour();
        let learnt = listen(ifindex("two-far"));
        ip("link set one-far nomaster");
        assert_eq!(asked(bond, one, two).await, PathAnswer::Lost { neighbour });
        assert!(!shows_the_bond(&learnt));
        let answer = run(check(one, two)).await;
        assert!(
            matches!(
                answer,
                Outcome::Failed {
                    errno: libc::ETIMEDOUT,
                    ..
                }
            ),
            "{answer:?}"
        );
        know_the_neighbour();
        ip("link set two-far nomaster");
        assert_eq!(asked(bond, one, two).await, PathAnswer::Silent);
    });
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_backup_whose_host_filters_what_it_sends_is_not_deaf() {
    in_namespace_async(|| async {
        let (bond, one, two) = with_a_neighbour().await;
        // As the fast path's programs do with broadcasts for a minute after a switchover, but with everything.
        let kept_away = attach(two, TCX_INGRESS, BEFORE, SHOT);
        know_the_neighbour();
        assert_eq!(asked(bond, two, one).await, PathAnswer::Answered);
        let filter = attach(ifindex("two-far"), TCX_INGRESS, BEFORE, SHOT);
        know_the_neighbour();
        assert_eq!(asked(bond, two, one).await, PathAnswer::Answered);
        // A VF that gets nothing out is no good all the same, whatever it hears.
        let check = ActionKind::CheckPath {
            bond,
            from: two,
            to: one,
            proof: PathProof::NoFault,
        };
        let (_, message) = failed(run(check).await);
        assert!(message.contains("none of its frames gets out"), "{message}");
        // Nor is anything heard now.
        ip("link set two-far nomaster");
        know_the_neighbour();
        let neighbour = [192, 0, 2, 1].into();
        assert_eq!(asked(bond, two, one).await, PathAnswer::Lost { neighbour });
        drop((filter, kept_away));
    });
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_bond_that_is_a_port_of_a_bridge_is_asked_about_as_any_other() {
    in_namespace_async(|| async {
        let (bond, one, two) = with_a_neighbour().await;
        ip_all(
            "addr del 192.0.2.2/24 dev bond7
             link add br7 address 02:00:00:00:01:07 type bridge
             link set br7 up
             link set bond7 master br7
             addr add 192.0.2.2/24 dev br7",
        );
        let know = || {
            ip_all(
                "neigh flush dev br7
                 neigh add 192.0.2.1 lladdr 02:00:00:00:00:aa dev br7 nud stale",
            );
        };
        know();
        std::fs::write("/proc/sys/net/ipv4/conf/br7/accept_local", "1").unwrap();
        assert_eq!(asked(bond, one, two).await, PathAnswer::Answered);
        assert_eq!(asked(bond, two, one).await, PathAnswer::Answered);
        for proof in [
            PathProof::NoFault,
            PathProof::Neighbours,
            PathProof::Standby,
        ] {
            accepted(ActionKind::CheckPath {
                bond,
                from: two,
                to: one,
                proof,
            })
            .await;
        }
        let neighbour = [192, 0, 2, 1].into();
        ip("link set one-far nomaster");
        know();
        assert_eq!(asked(bond, one, two).await, PathAnswer::Lost { neighbour });
    });
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_path_check_tells_which_direction_fails_and_proves_nothing_where_nobody_answers() {
    in_namespace_async(|| async {
        let (bond, one, two) = with_a_neighbour().await;
        let check = |proof| ActionKind::CheckPath {
            bond,
            from: two,
            to: one,
            proof,
        };
        // Nobody is known.
        ip("link set two-far nomaster");
        accepted(check(PathProof::NoFault)).await;
        know_the_neighbour();
        let said = |outcome| {
            let (errno, message) = failed(outcome);
            assert_eq!(errno, libc::ETIMEDOUT, "{message}");
            message
        };
        let message = said(run(check(PathProof::NoFault)).await);
        assert!(message.contains("none of its frames gets out"), "{message}");
        ip_all(
            "link set two-far master br0
             link set two-far type bridge_slave learning off flood off mcast_flood off bcast_flood off",
        );
        let message = said(run(check(PathProof::NoFault)).await);
        assert!(message.contains("none gets in"), "{message}");
        // As a PF that gives its VF broadcasts, and no unicast for a MAC that is not the VF's: only a trial can tell.
        ip(
            "link set two-far type bridge_slave learning off flood off mcast_flood on bcast_flood on",
        );
        let learnt = listen(ifindex("two-far"));
        accepted(check(PathProof::NoFault)).await;
        assert!(!shows_the_bond(&learnt), "it was of no risk");
        ip("link set two-far type bridge_slave learning on flood on mcast_flood on bcast_flood on");
        let learnt = listen(ifindex("two-far"));
        accepted(check(PathProof::NoFault)).await;
        assert!(!shows_the_bond(&learnt), "it was of no risk");
        // Another neighbour in a VLAN; the bond's own network has none.
        ip_all(
            "neigh flush dev bond7
             link add link br0 name br0.5 type vlan id 5
             addr add 198.51.100.1/24 dev br0.5
             link set br0.5 up
             link add link bond7 name bond7.5 type vlan id 5
             addr add 198.51.100.2/24 dev bond7.5
             link set bond7.5 up
             neigh add 198.51.100.1 lladdr 02:00:00:00:00:aa dev bond7.5 nud stale",
        );
        std::fs::write("/proc/sys/net/ipv4/conf/br0.5/accept_local", "1").unwrap();
        accepted(check(PathProof::NoFault)).await;
        // Something takes this VLAN's frames away, and no others.
        ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:aa dev bond7 nud stale");
        ip_all(
            "link add link two-far name two-far.5 type vlan id 5
             link set two-far.5 up",
        );
        let message = said(run(check(PathProof::NoFault)).await);
        assert!(message.contains("198.51.100.1 in VLAN 5"), "{message}");
        assert!(message.contains("others answer there"), "{message}");
        // Where nobody else is known, what passes without a tag tells nothing of the VLAN.
        ip("neigh flush dev bond7");
        let message = said(run(check(PathProof::NoFault)).await);
        assert!(message.contains("198.51.100.1 in VLAN 5"), "{message}");
        assert!(message.contains("none of its frames gets out"), "{message}");
        ip("link del two-far.5");
        accepted(check(PathProof::NoFault)).await;
        ip("link set two-far nomaster");
        let message = said(run(check(PathProof::NoFault)).await);
        assert!(message.contains("198.51.100.1 in VLAN 5"), "{message}");
        // Nobody answers, on either port.
        ip("link set one-far nomaster");
        accepted(check(PathProof::NoFault)).await;
        said(run(check(PathProof::Neighbours)).await);
    });
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_trial_tells_a_dead_path_from_a_network_that_does_not_learn() {
    in_namespace_async(|| async {
        let (bond, one, two) = with_a_neighbour().await;
        let neighbour = [192, 0, 2, 1].into();
        let primary = |port| ActionKind::SetPrimary { bond, port };
        know_the_neighbour();
        assert_eq!(asked(bond, one, two).await, PathAnswer::Answered);
        ip("link set two-far type bridge_slave learning off");
        accepted(primary(two)).await;
        know_the_neighbour();
        let tried = || answer(bond, two, one, Asking::OnTrial);
        assert_eq!(tried().await, PathAnswer::Astray { neighbour });
        ip("link set two-far type bridge_slave learning on");
        know_the_neighbour();
        assert_eq!(tried().await, PathAnswer::Answered);
        ip("link set two-far nomaster");
        know_the_neighbour();
        assert_eq!(tried().await, PathAnswer::Lost { neighbour });
        ip("link set one-far nomaster");
        know_the_neighbour();
        assert_eq!(tried().await, PathAnswer::Silent);
        ip("neigh flush dev bond7");
        assert_eq!(tried().await, PathAnswer::NobodyKnown);
    });
}

/// As [`with_a_neighbour`], by IPv6 alone. The neighbour has no other address, from which it would ask for the bond after 5 s
/// and be known by that too (`ndisc_solicit`, `net/ipv6/ndisc.c`, 6.12).
async fn with_a_neighbour_by_ipv6() -> (Ifindex, Ifindex, Ifindex) {
    let (bond, one, two) = assemble().await;
    ip_all(
        "link add br0 address 02:00:00:00:00:aa type bridge
         link set br0 addrgenmode none up
         link set one-far master br0
         link set two-far master br0
         -6 addr add 2001:db8::2/64 dev bond7 nodad
         -6 route add default via 2001:db8::1 dev bond7
         -6 addr add 2001:db8::1/64 dev br0 nodad",
    );
    (bond, one, two)
}

fn know_the_neighbour_by_ipv6() {
    ip("-6 neigh flush dev bond7");
    ip("-6 neigh replace 2001:db8::1 lladdr 02:00:00:00:00:aa dev bond7 nud stale");
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn neighbours_are_solicited_where_there_is_ipv6_alone() {
    in_namespace_async(|| async {
        let (bond, one, two) = with_a_neighbour_by_ipv6().await;
        let neighbour = "2001:db8::1".parse().unwrap();
        let know = know_the_neighbour_by_ipv6;
        // A gateway whose MAC is not known yet is asked as one of a group.
        ip("-6 neigh flush dev bond7");
        assert_eq!(asked(bond, one, two).await, PathAnswer::Answered);
        ip("-6 route del default");
        ip("-6 neigh flush dev bond7");
        assert_eq!(asked(bond, one, two).await, PathAnswer::NobodyKnown);
        know();
        assert_eq!(asked(bond, one, two).await, PathAnswer::Answered);
        let check = |proof| ActionKind::CheckPath {
            bond,
            from: two,
            to: one,
            proof,
        };
        let said = |outcome| {
            let (errno, message) = failed(outcome);
            assert_eq!(errno, libc::ETIMEDOUT, "{message}");
            message
        };
        let learnt = listen(ifindex("two-far"));
        accepted(check(PathProof::NoFault)).await;
        know();
        assert_eq!(asked(bond, two, one).await, PathAnswer::Answered);
        assert!(!shows_the_bond(&learnt), "it was of no risk");
        // Answers to strangers go nowhere, whichever port they asked through: that is no fault of the port's.
        ip_all(
            "link add sink type veth peer name sink-far
             link set sink up
             link set sink-far up
             link set sink master br0
             -6 neigh replace fe80::40a5:ff:fe00:7 lladdr 02:00:00:00:00:dd dev br0 nud permanent",
        );
        let at_sink = reverse_arp("02:00:00:00:00:dd".parse().unwrap(), &[]);
        transmit(ifindex("sink-far"), &[at_sink]).unwrap();
        know();
        let at_port = listen(two);
        accepted(check(PathProof::NoFault)).await;
        let answers = arrived(&at_port, [0x02, 0x00, 0x00]).into_iter();
        assert_eq!(
            answers
                .filter(|frame| solicited_answer(frame).is_some())
                .count(),
            0
        );
        ip("-6 neigh del fe80::40a5:ff:fe00:7 dev br0");
        ip("link set two-far nomaster");
        know();
        let message = said(run(check(PathProof::NoFault)).await);
        assert!(message.contains("none of its frames gets out"), "{message}");
        assert!(message.contains("2001:db8::1 answers"), "{message}");
        know();
        assert_eq!(asked(bond, two, one).await, PathAnswer::Lost { neighbour });
        ip("link set two-far master br0");
        know();
        ip("link set one-far nomaster");
        assert_eq!(asked(bond, one, two).await, PathAnswer::Lost { neighbour });
        // On trial, in a network that has learnt that the bond is behind the other port.
        ip("link set one-far master br0");
        know();
        assert_eq!(asked(bond, one, two).await, PathAnswer::Answered);
        ip("link set two-far type bridge_slave learning off");
        accepted(ActionKind::SetPrimary { bond, port: two }).await;
        let tried = || {
            know();
            answer(bond, two, one, Asking::OnTrial)
        };
        assert_eq!(tried().await, PathAnswer::Astray { neighbour });
        ip("link set two-far type bridge_slave learning on");
        assert_eq!(tried().await, PathAnswer::Answered);
        ip("link set two-far nomaster");
        assert_eq!(tried().await, PathAnswer::Lost { neighbour });
        ip("link set one-far nomaster");
        assert_eq!(tried().await, PathAnswer::Silent);
    });
}
