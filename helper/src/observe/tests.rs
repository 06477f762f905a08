//! All sources on the running kernel, in network namespaces of their own.

use tandem_core::action::ActionId;
use tandem_core::input::{Input, Outcome, Source};
use tandem_core::link::LinkKind;
use tandem_core::types::IfName;

use super::testing::{ifindex, in_namespace_async, ip, ip_all};
use super::*;
use crate::netlink::filter::Filter;
use crate::netlink::link;
use crate::netlink::request::Requests;
use crate::netlink::watch::Watch;

mod in_a_guest;

/// A namespace where nothing runs but the test: no udevd.
fn options() -> Options {
    Options {
        udev_run: "/nonexistent".into(),
        ..Options::default()
    }
}

fn open(options: Options) -> Sources {
    let mut sources = Sources::open(options).unwrap();
    sources.set_names(&["watched".parse().unwrap()]).unwrap();
    sources
}

/// Collects until an input fits.
async fn until(sources: &mut Sources, fits: impl Fn(&Input) -> bool) -> Vec<Input> {
    let mut inputs = Vec::new();
    loop {
        for observed in sources.next().await.unwrap() {
            let Observed::Input(input) = observed else {
                continue;
            };
            let found = fits(&input);
            inputs.push(input);
            if found {
                return inputs;
            }
        }
    }
}

/// Collects what there is to say up to a moment that is sure to be after all that
/// has happened: an action's end.
async fn settled(sources: &mut Sources) -> Vec<Input> {
    let action = ActionId(u64::MAX);
    sources.complete(Completion {
        action,
        outcome: Outcome::Accepted,
        learnt: Vec::new(),
        touched: Touched {
            source: Some(Source::Addressing),
            ..Touched::default()
        },
    });
    until(
        sources,
        |input| matches!(input, Input::Done { action: done, .. } if *done == action),
    )
    .await
}

fn last_link(inputs: &[Input]) -> Option<&tandem_core::Link> {
    inputs.iter().rev().find_map(|input| match input {
        Input::Link(link) => Some(link),
        _ => None,
    })
}

#[test]
fn begins_with_health_then_links_then_addressing() {
    in_namespace_async(|| async {
        ip_all(
            "link add watched type veth peer name other
             link set watched up
             address add 192.0.2.1/24 dev watched
             address add 192.0.2.2/24 dev other",
        );
        let mut sources = open(options());
        let inputs = until(&mut sources, |input| matches!(input, Input::Addressings(_))).await;
        let mut health = Vec::new();
        for input in &inputs {
            if let Input::SourceHealth {
                source, health: h, ..
            } = input
            {
                assert_eq!(*h, tandem_core::status::SourceHealth::Working);
                health.push(*source);
            }
        }
        assert_eq!(health, [Source::Links, Source::Addressing, Source::Udev]);
        let [.., Input::Links(links), Input::Addressings(addressings)] = &inputs[..] else {
            panic!("{inputs:?}");
        };
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["watched"], "neither the peer nor the loopback");
        assert_eq!(links[0].kind, LinkKind::Software);
        assert_eq!(addressings.len(), 1);
        assert_eq!(addressings[0].ifindex, links[0].ifindex);
        let addresses = &addressings[0].addresses;
        assert!(addresses.iter().any(|address| address.ip.is_ipv4()));
    });
}

#[test]
fn follows_a_link_through_its_life() {
    in_namespace_async(|| async {
        let mut sources = open(options());
        until(&mut sources, |input| matches!(input, Input::Addressings(_))).await;

        ip("link add watched type veth peer name other");
        let index = ifindex("watched");
        let inputs = until(&mut sources, |input| matches!(input, Input::Addressing(_))).await;
        let link = last_link(&inputs).unwrap();
        assert_eq!((link.ifindex, link.admin_up), (index, false));

        ip("link set watched up");
        ip("link set other up");
        let carrier = |input: &Input| matches!(input, Input::Link(link) if link.carrier);
        until(&mut sources, carrier).await;
        ip("address add 192.0.2.1/24 dev watched");
        ip("route add default via 192.0.2.254 metric 7");
        until(&mut sources, |input| match input {
            Input::Addressing(addressing) => {
                addressing.ifindex == index
                    && addressing.routes.iter().any(|route| {
                        route.metric == Some(7) && route.gateway == "192.0.2.254".parse().ok()
                    })
            }
            _ => false,
        })
        .await;

        // IPv4 routes go with the link without any notification of their own.
        ip("link set watched down");
        until(&mut sources, |input| {
            matches!(input, Input::Addressing(addressing)
                if addressing.ifindex == index && addressing.routes.is_empty())
        })
        .await;

        ip("link set watched name elsewhere");
        let gone =
            |input: &Input| matches!(input, Input::LinkGone { ifindex } if *ifindex == index);
        until(&mut sources, gone).await;
        ip("link set elsewhere name watched");
        until(&mut sources, |input| matches!(input, Input::Link(_))).await;
        ip("link del watched");
        until(&mut sources, gone).await;
    });
}

#[test]
fn what_an_action_touched_comes_before_its_end() {
    in_namespace_async(|| async {
        ip("link add watched type veth peer name other");
        let mut sources = open(options());
        settled(&mut sources).await;
        let link = ifindex("watched");
        let executor = crate::act::Executor::new();
        for (number, up) in [(1, true), (2, false), (3, true)] {
            let action = tandem_core::Action {
                id: ActionId(number),
                kind: tandem_core::ActionKind::SetAdminUp { link, up },
            };
            sources.complete(executor.start(action).await);
            let inputs = until(
                &mut sources,
                |input| matches!(input, Input::Done { action, .. } if action.0 == number),
            )
            .await;
            assert_eq!(last_link(&inputs).unwrap().admin_up, up);
            let addressing = |input: &Input| matches!(input, Input::Addressing(_));
            assert!(inputs.iter().any(addressing), "{inputs:?}");
        }
    });
}

/// The state that is told last is the state there is, however often waiting was
/// broken off in between.
#[test]
fn nothing_is_lost_when_waiting_is_broken_off() {
    in_namespace_async(|| async {
        ip("link add watched type veth peer name other");
        let mut sources = open(options());
        settled(&mut sources).await;
        let mut mtu = None;
        for round in 0..200_u32 {
            if round % 10 == 0 {
                ip(&format!("link set watched mtu {}", 1000 + round));
            }
            tokio::select! {
                biased;
                batch = sources.next() => {
                    for observed in batch.unwrap() {
                        if let Observed::Input(Input::Link(link)) = observed {
                            mtu = Some(link.mtu);
                        }
                    }
                }
                () = tokio::task::yield_now() => {}
            }
        }
        let rest = settled(&mut sources).await;
        mtu = last_link(&rest).map(|link| link.mtu).or(mtu);
        if mtu != Some(1190) {
            let told = |input: &Input| matches!(input, Input::Link(link) if link.mtu == 1190);
            until(&mut sources, told).await;
        }
    });
}

#[test]
fn an_overrun_is_told_and_mended() {
    in_namespace_async(|| async {
        ip("link add watched type veth peer name other");
        let mut sources = open(Options {
            receive_buffer_bytes: 1,
            ..options()
        });
        settled(&mut sources).await;
        for mtu in 1000..1020 {
            ip(&format!("link set watched mtu {mtu}"));
        }
        until(&mut sources, |input| *input == Input::Lost(Source::Links)).await;
        sources.complete(Completion {
            action: ActionId(1),
            outcome: Outcome::Accepted,
            learnt: Vec::new(),
            touched: Touched {
                source: Some(Source::Links),
                ..Touched::default()
            },
        });
        let inputs = until(&mut sources, |input| matches!(input, Input::Done { .. })).await;
        let links = inputs.iter().rev().find_map(|input| match input {
            Input::Links(links) => Some(links),
            _ => None,
        });
        assert_eq!(links.unwrap()[0].mtu, 1019);
    });
}

/// Wake-ups of a socket, and the datagrams that it had, until it is silent.
async fn heard(watch: &mut Watch) -> (u32, u32) {
    let (mut wakes, mut datagrams) = (0, 0);
    let silence = std::time::Duration::from_millis(50);
    while tokio::time::timeout(silence, watch.readable())
        .await
        .is_ok()
    {
        let before = datagrams;
        assert!(!watch.drain(|_| datagrams += 1).unwrap(), "no overrun");
        wakes += u32::from(datagrams > before);
    }
    (wakes, datagrams)
}

/// 200 pairs of unrelated devices, their addresses and their end: the sockets
/// stay empty, so the service is not woken once.
#[test]
fn unrelated_devices_wake_nobody() {
    use netlink_sys::protocols::{NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE};
    use std::collections::BTreeSet;
    in_namespace_async(|| async {
        ip("link add watched type veth peer name other");
        let watched = ifindex("watched");
        let names: BTreeSet<IfName> = [("watched").parse().unwrap()].into();
        let links = Filter::links(&names, &[watched], &[]);
        let addressing = Filter::addressing(&[watched]);
        let events = Filter::device_events();
        let filters = [
            (NETLINK_ROUTE, &[1][..], links),
            (NETLINK_ROUTE, &[5, 7, 9, 11], addressing),
            (NETLINK_KOBJECT_UEVENT, &[1], events),
        ];
        let mut filtered: Vec<Watch> = filters
            .iter()
            .map(|(protocol, groups, filter)| {
                Watch::open(*protocol, groups, filter, 16 << 20).unwrap()
            })
            .collect();
        let batch: String = (0..200)
            .map(|number| {
                format!(
                    "link add v{number} type veth peer name w{number}\n\
                     link set v{number} up\nlink set w{number} up\n\
                     address add 10.0.{number}.1/24 dev v{number}\n\
                     route add 10.1.{number}.0/24 via 10.0.{number}.2\n\
                     link del v{number}\n"
                )
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        let mut unfiltered = [1, 5].map(|group| {
            Watch::open(NETLINK_ROUTE, &[group], &Filter::pass_all(), 16 << 20).unwrap()
        });
        ip(&format!("-batch {}", file.path().display()));
        // So much there was to hear.
        assert!(heard(&mut unfiltered[0]).await.1 >= 800);
        assert!(heard(&mut unfiltered[1]).await.1 >= 400);
        for watch in &mut filtered {
            assert_eq!(heard(watch).await, (0, 0));
        }

        ip("link set watched up");
        ip("address add 192.0.2.1/24 dev watched");
        assert!(heard(&mut filtered[0]).await.1 > 0);
        assert!(heard(&mut filtered[1]).await.1 > 0);
    });
}

/// Of links that are known; however many there are, once a second.
#[test]
fn changed_filters_are_told() {
    let tc = |words: &str| {
        let done = std::process::Command::new("tc")
            .args(words.split_whitespace())
            .status();
        assert!(done.unwrap().success(), "tc {words}");
    };
    in_namespace_async(move || async move {
        ip_all(
            "link add watched type veth peer name other
             link set watched up
             link set other up",
        );
        let watched = ifindex("watched");
        let mut sources = open(options());
        settled(&mut sources).await;
        tc("qdisc add dev other root pfifo limit 9");
        tc("qdisc add dev watched root pfifo limit 9");
        let is_told = |input: &Input| matches!(input, Input::ChainsChanged { .. });
        let told = |inputs: &[Input]| -> Vec<Input> {
            inputs.iter().filter(|one| is_told(one)).cloned().collect()
        };
        let news = [Input::ChainsChanged { link: watched }];
        let begun = tokio::time::Instant::now();
        assert_eq!(told(&until(&mut sources, is_told).await), news);
        for limit in 10..60 {
            tc(&format!(
                "qdisc change dev watched root pfifo limit {limit}"
            ));
        }
        assert_eq!(told(&until(&mut sources, is_told).await), news);
        assert!(begun.elapsed() >= sources::CHAINS_PAUSE);
    });
}

#[test]
fn the_kernels_device_events_arrive() {
    let Some(function) = std::fs::read_dir("/sys/bus/pci/devices")
        .ok()
        .and_then(|mut functions| functions.next())
    else {
        testing::skip("there is no PCI function to have an event of");
        return;
    };
    let path = function.unwrap().path().join("uevent");
    in_namespace_async(move || async move {
        let mut devices = udev::Devices::open("/nonexistent".as_ref(), 1 << 20);
        // An event without consequences: a change of nothing.
        std::fs::write(&path, "change").unwrap();
        devices.readable().await.unwrap();
        let mut heard = Vec::new();
        assert!(!devices.drain(|event| heard.push(event)).unwrap());
        let name = path.parent().unwrap().file_name().unwrap();
        let address = name.to_str().unwrap().parse().unwrap();
        assert_eq!(heard, [udev::UdevEvent::Pci(address)]);
    });
}

/// Both ways through sysfs, by bus and by interface name, agree on every link
/// that this machine has.
#[test]
fn sysfs_is_read_the_same_either_way() {
    let sysfs = sysfs::Sysfs::new("/sys".into());
    let mut requests = Requests::open().unwrap();
    for described in link::dump(&mut requests, link::decode).unwrap() {
        let mut without_parent = described.clone();
        without_parent.parent = None;
        assert_eq!(sysfs.complete(described), sysfs.complete(without_parent));
    }
}
