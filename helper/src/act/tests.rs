//! The executor on the running kernel, in network namespaces of its own.

use tandem_core::action::{ActionId, BondOptions};
use tandem_core::link::{Address, FailOverMac, Route};
use tandem_core::types::Ifindex;

use super::*;
use crate::observe::testing::{ifindex, in_namespace_async, ip, ip_all};

mod bonding;
mod moving;
mod on_the_wire;
mod others;
mod path;

async fn run(kind: ActionKind) -> Outcome {
    let id = ActionId(7);
    let completion = Executor::new().start(Action { id, kind }).await;
    assert_eq!(completion.action, id);
    completion.outcome
}

fn failed(outcome: Outcome) -> (i32, String) {
    match outcome {
        Outcome::Failed { errno, message } => (errno, message),
        other => panic!("{other:?}"),
    }
}

fn address(text: &str) -> Address {
    let (ip, prefix) = text.split_once('/').unwrap();
    Address {
        ip: ip.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
    }
}

#[test]
fn opens_closes_and_sizes_a_link() {
    in_namespace_async(|| async {
        ip("link add one type veth peer name two");
        let link = ifindex("one");
        let up = ActionKind::SetAdminUp { link, up: true };
        assert_eq!(run(up).await, Outcome::Accepted);
        assert!(ip("link show dev one").contains(",UP"));
        let mtu = ActionKind::SetMtu { link, mtu: 1400 };
        assert_eq!(run(mtu).await, Outcome::Accepted);
        assert!(ip("link show dev one").contains("mtu 1400"));
        let mac = "02:00:00:00:00:09".parse().unwrap();
        let mac = ActionKind::SetMac { link, mac };
        assert_eq!(run(mac).await, Outcome::Accepted);
        assert!(ip("link show dev one").contains("02:00:00:00:00:09"));
        let down = ActionKind::SetAdminUp { link, up: false };
        assert_eq!(run(down).await, Outcome::Accepted);
        assert!(!ip("link show dev one").contains("UP"));
    });
}

#[test]
fn says_what_the_kernel_refused_and_what_is_gone() {
    in_namespace_async(|| async {
        ip("link add one type veth peer name two");
        let link = ifindex("one");
        let (errno, message) = failed(run(ActionKind::SetMtu { link, mtu: 70_000 }).await);
        assert_eq!(errno, libc::EINVAL);
        assert_eq!(message, "mtu greater than device maximum");
        let gone = Ifindex(4711);
        for kind in [
            ActionKind::SetAdminUp {
                link: gone,
                up: true,
            },
            ActionKind::Enslave {
                port: link,
                bond: gone,
            },
            ActionKind::MoveAddressing {
                from: link,
                to: gone,
            },
            ActionKind::FlushAddressing { link: gone },
        ] {
            assert_eq!(run(kind).await, Outcome::Gone);
        }
    });
}

#[test]
fn refuses_what_would_do_harm() {
    in_namespace_async(|| async {
        ip_all(
            "link add one type veth peer name two
             link add br0 type bridge
             link set one master br0
             link set two up",
        );
        let (a, b, bridge) = (ifindex("one"), ifindex("two"), ifindex("br0"));
        for (kind, errno) in [
            (ActionKind::Enslave { port: b, bond: a }, libc::EINVAL),
            (ActionKind::SetPrimary { bond: a, port: b }, libc::EINVAL),
            (ActionKind::Announce { bond: a, port: b }, libc::EINVAL),
            (
                ActionKind::MoveAddressing {
                    from: b,
                    to: bridge,
                },
                libc::ENETDOWN,
            ),
        ] {
            assert_eq!(failed(run(kind).await).0, errno);
        }
        // Not in that bond any more: nothing to do, and nothing done.
        assert_eq!(
            run(ActionKind::Release { port: a, bond: b }).await,
            Outcome::Accepted
        );
        assert!(ip("link show dev one").contains("master br0"));
    });
}

/// The bonding driver is in the lab's kernels; here it may be missing, and then
/// the message has to say so.
#[test]
fn creates_a_bond_or_says_that_there_is_no_driver() {
    in_namespace_async(|| async {
        let create = || ActionKind::CreateBond {
            name: "bond7".parse().unwrap(),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
            options: BondOptions {
                miimon_ms: Some(100),
                fail_over_mac: Some(FailOverMac::None),
                ..BondOptions::default()
            },
        };
        let outcome = run(create()).await;
        if outcome == Outcome::Accepted {
            let bond = ip("-d link show dev bond7");
            assert!(bond.contains("mode active-backup miimon 100"), "{bond}");
            assert!(bond.contains("02:00:00:00:00:07"), "{bond}");
        } else {
            let (errno, message) = failed(outcome);
            assert_eq!(errno, libc::EOPNOTSUPP);
            assert!(message.contains("no bonding driver"), "{message}");
        }
        ip("link add bond8 type veth peer name two");
        let taken = ActionKind::CreateBond {
            name: "bond8".parse().unwrap(),
            mac: None,
            options: BondOptions::default(),
        };
        let (errno, message) = failed(run(taken).await);
        assert_eq!(errno, libc::EEXIST);
        assert_eq!(
            message,
            "another software device has the name bond8 already"
        );
    });
}

#[test]
fn adds_what_is_missing_once() {
    in_namespace_async(|| async {
        ip_all(
            "link add one type veth peer name two
             link set one up
             link set two up",
        );
        let add = || ActionKind::AddAddressing {
            link: ifindex("one"),
            addresses: ["192.0.2.7/24", "198.51.100.1/32", "2001:db8::7/64"]
                .map(address)
                .to_vec(),
            routes: [
                ("0.0.0.0/0", Some("203.0.113.1"), None),
                ("203.0.113.0/24", None, Some(50)),
                ("::/0", Some("2001:db8::1"), Some(300)),
            ]
            .map(|(destination, gateway, metric)| Route {
                destination: address(destination),
                gateway: gateway.map(|gateway: &str| gateway.parse().unwrap()),
                metric,
            })
            .to_vec(),
        };
        assert_eq!(run(add()).await, Outcome::Accepted);
        let state = || ip("address show dev one") + &ip("route") + &ip("-6 route show dev one");
        let once = state();
        for expected in [
            "inet 192.0.2.7/24 brd 192.0.2.255 scope global one",
            "inet 198.51.100.1/32 scope global one",
            "inet6 2001:db8::7/64 scope global nodad",
            "default via 203.0.113.1 dev one proto static",
            "203.0.113.0/24 dev one proto static scope link metric 50",
            "default via 2001:db8::1 proto static metric 300",
        ] {
            assert!(once.contains(expected), "{expected} in\n{once}");
        }
        assert_eq!(run(add()).await, Outcome::Accepted);
        let without_link_local = |state: &str| {
            let lines = state.lines().filter(|line| !line.contains("fe80"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(without_link_local(&state()), without_link_local(&once));
    });
}

#[test]
fn what_is_not_for_the_executor_is_refused() {
    in_namespace_async(|| async {
        for (source, expected) in [
            (Source::Links, true),
            (Source::Udev, true),
            (Source::Channel, false),
        ] {
            let outcome = run(ActionKind::Observe { source }).await;
            assert_eq!(outcome == Outcome::Accepted, expected, "{source:?}");
        }
    });
}

#[test]
fn tells_what_has_to_be_read_again() {
    let (a, b) = (Ifindex(1), Ifindex(2));
    let touched = touched_by(&ActionKind::Enslave { port: a, bond: b });
    assert_eq!(
        (touched.links, touched.addressing),
        (vec![a, b], vec![a, b])
    );
    let touched = touched_by(&ActionKind::MoveAddressing { from: a, to: b });
    assert_eq!((touched.links, touched.addressing), (vec![], vec![a, b]));
    let touched = touched_by(&ActionKind::Observe {
        source: Source::Addressing,
    });
    assert_eq!(touched.source, Some(Source::Addressing));
}

/// A driver that holds the kernel's lock must not hold the service.
type AnyWork = Box<dyn FnOnce() -> Done + Send>;

/// Both ways to carry out an action.
const WAYS: [fn(AnyWork) -> Work; 2] = [
    |work| pooled(work),
    |work| on_its_own(&Arc::default(), work),
];

#[tokio::test(flavor = "current_thread")]
async fn an_action_ends_in_bounded_time() {
    for start in WAYS {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let work = start(Box::new(move || {
            let _ = held.recv();
            (Ok(()), Vec::new())
        }));
        let outcome = outcome_within(Duration::from_millis(1), work).await;
        assert_eq!(outcome, (Outcome::TimedOut, Vec::new()));
        drop(release);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn questions_that_the_kernel_keeps_leave_no_more_threads_than_a_few() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let threads = Arc::default();
    let kept: Vec<_> = (0..MOST_OWN_THREADS)
        .map(|_| {
            let held = Arc::clone(&held);
            on_its_own(&threads, move || {
                let _ = held.lock().map(|held| held.recv());
                (Ok(()), Vec::new())
            })
        })
        .collect();
    let ask = || on_its_own(&threads, || (Ok(()), Vec::new()));
    let (outcome, _) = outcome_within(LIMIT, ask()).await;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    drop(release);
    for work in kept {
        let (outcome, _) = outcome_within(LIMIT, work).await;
        assert_eq!(outcome, Outcome::Accepted);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_action_that_panics_has_failed() {
    for start in WAYS {
        let work = start(Box::new(|| panic!("a defect")));
        let (outcome, _) = outcome_within(LIMIT, work).await;
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    }
}
