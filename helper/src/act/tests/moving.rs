//! Moving addresses and routes between two links: what `ip` shows of the one
//! afterwards is what it showed of the other before.

use std::net::Ipv6Addr;

use super::*;

/// Two links that can carry traffic, and a third whose routes must not change.
const LINKS: &str = "link add old type veth peer name old-peer
    link add new type veth peer name new-peer
    link add other type veth peer name other-peer
    link set old up
    link set new up
    link set other up
    link set old-peer up
    link set new-peer up
    link set other-peer up
    address add 10.9.0.5/24 dev other
    route add 10.77.0.0/16 via 10.9.0.1
    -6 address add 2001:db8:9::5/64 dev other nodad";

const ADDRESSING: &str = "address add 10.1.0.2/24 brd + dev old
    address add 10.1.0.3/24 dev old label old:1
    address add 10.1.0.4/24 dev old valid_lft 3600 preferred_lft 1800
    address add 10.9.0.6/24 dev old metric 40
    address add 192.0.2.1 peer 192.0.2.2/32 dev old
    address add 10.5.0.1/16 dev old noprefixroute
    route add 10.5.0.0/16 dev old proto kernel scope link src 10.5.0.1 metric 100
    route add default via 10.1.0.1 proto dhcp src 10.1.0.2 metric 100
    route add 10.2.0.0/16 via 10.1.0.9 proto static mtu lock 1400 advmss 1300
    route add 10.3.0.0/16 via 10.2.0.1 dev old onlink
    route add 10.4.0.0/16 via 10.1.0.1 table 123
    route add 10.6.0.0/16 nexthop via 10.1.0.1 weight 2 nexthop via 10.9.0.1 dev other weight 3
    route append 10.77.0.0/16 via 10.1.0.1 dev old
    nexthop add id 77 via 10.1.0.1 dev old proto static
    nexthop add id 78 via 10.1.0.7 dev old
    nexthop add id 79 group 77/78
    route add 10.7.0.0/16 nhid 77
    route add 10.8.0.0/16 nhid 79
    -6 address add 2001:db8:1::2/64 dev old nodad
    -6 address add 2001:db8:1::3/64 dev old nodad valid_lft 7200 preferred_lft 3600
    -6 address add 2001:db8:2::1 peer 2001:db8:2::2/128 dev old nodad
    -6 address add 2001:db8:3::1/64 dev old nodad mngtmpaddr noprefixroute valid_lft 7200 preferred_lft 3600
    -6 route add default via fe80::1 dev old proto ra metric 1024 expires 1800 pref high
    -6 route add 2001:db8:10::/48 via 2001:db8:1::1 proto static metric 50 mtu 1400
    -6 route add 2001:db8:11::/48 nexthop via 2001:db8:1::1 dev old nexthop via 2001:db8:9::1 dev other
    -6 route add 2001:db8:12::/48 dev old table 123
    -6 route add 2001:db8:13::/48 via 2001:db8:12::1 dev old onlink";

fn prepare() {
    ip_all(LINKS);
    ip_all(ADDRESSING);
    wait_until_local("old", &["1::2", "1::3", "2::1", "3::1"]);
    wait_until_local("other", &["9::5"]);
}

/// Waits until IPv6 addresses, of which the ends are given, are in effect.
fn wait_until_local(link: &str, ends: &[&str]) {
    let addresses: Vec<Ipv6Addr> = ends
        .iter()
        .map(|end| format!("2001:db8:{end}").parse().unwrap())
        .collect();
    let mut requests = Requests::open().unwrap();
    let listener = local::Listener::open().unwrap();
    listener
        .wait(&mut requests, ifindex(link), &addresses)
        .unwrap();
}

/// All that `ip` shows, with both links called the same, without what belongs to
/// a link by itself, and without the times that go by.
fn state(of: &str, called: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for words in [
        "-d -o -4 address show dev",
        "-d -o -6 address show dev",
        "-d -4 route show table all dev",
        "-d -6 route show table all dev",
    ] {
        let shown = ip(&format!("{words} {of}"));
        lines.extend(shown.lines().map(|line| cleaned(line, of, called)));
    }
    lines.retain(|line| !line.contains("fe80::/64") && !line.contains("ff00::/8"));
    lines.retain(|line| !line.contains("inet6 fe80") && !is_local_link_local(line));
    lines.sort();
    lines
}

fn is_local_link_local(line: &str) -> bool {
    line.contains("local fe80") || line.contains("anycast fe80")
}

/// Routes of the whole namespace: those with several next hops name no device.
fn all_routes() -> String {
    ip("-d -4 route show table all") + &ip("-d -6 route show table all") + &ip("-d nexthop show")
}

fn cleaned(line: &str, of: &str, called: &str) -> String {
    let mut words = Vec::new();
    let mut after_time = false;
    // `ip -o` begins with the index, and labels may name the link.
    for word in line
        .split_whitespace()
        .map(|word| word.trim_end_matches('\\'))
        .filter(|word| !word.is_empty())
        .skip_while(|word| word.ends_with(':'))
    {
        let shown = if after_time {
            "T"
        } else if word == of || word.starts_with(&format!("{of}:")) {
            called
        } else {
            word
        };
        after_time =
            matches!(word, "valid_lft" | "preferred_lft" | "expires") && !line.contains("forever");
        words.push(shown.to_owned());
    }
    words.join(" ")
}

async fn do_move() {
    let kind = ActionKind::MoveAddressing {
        from: ifindex("old"),
        to: ifindex("new"),
    };
    assert_eq!(run(kind).await, Outcome::Accepted);
}

/// Compares line by line, so that a failure can be read.
fn assert_same(found: &[String], expected: &[String]) {
    let missing: Vec<_> = expected
        .iter()
        .filter(|line| !found.contains(line))
        .collect();
    let added: Vec<_> = found
        .iter()
        .filter(|line| !expected.contains(line))
        .collect();
    assert!(
        found == expected,
        "missing: {missing:#?}\nadded: {added:#?}"
    );
}

/// What is left on a link after a move: nothing but its link-local addressing.
fn assert_empty(link: &str) {
    assert_same(&state(link, link), &[]);
}

#[test]
fn everything_arrives_as_it_was() {
    in_namespace_async(|| async {
        prepare();
        let before = state("old", "LINK");
        assert!(before.len() > 30, "{before:#?}");
        let other = state("other", "LINK");
        do_move().await;
        assert_same(&state("new", "LINK"), &before);
        assert_same(&state("other", "LINK"), &other);
        assert_empty("old");
        let routes = all_routes();
        assert!(!routes.contains("dev old proto"), "{routes}");
        assert!(!routes.contains("dev old weight"), "{routes}");
        for expected in [
            "nexthop via 10.1.0.1 dev new weight 2",
            "nexthop via 10.9.0.1 dev other weight 3",
            "nexthop via 2001:db8:1::1 dev new weight 1",
            "nexthop via 2001:db8:9::1 dev other weight 1",
            "id 77 via 10.1.0.1 dev new scope link proto static",
            "id 79 group 77/78",
        ] {
            assert!(routes.contains(expected), "{expected} in\n{routes}");
        }
    });
}

#[test]
fn routes_of_a_next_hop_object_move_to_a_link_that_can_have_none() {
    in_namespace_async(|| async {
        ip_all(
            "link set lo up
             link add old type veth peer name old-peer
             link add new type veth peer name new-peer
             link set old up
             link set old-peer up
             link set new up
             address add 10.1.0.2/24 dev old
             -6 address add 2001:db8:1::2/64 dev old nodad
             nexthop add id 77 via 10.1.0.1 dev old proto static
             nexthop add id 78 via 10.1.0.7 dev old
             nexthop add id 79 group 77/78
             nexthop add id 80 via 2001:db8:1::1 dev old proto ra
             route add 10.7.0.0/16 nhid 77 metric 5
             route add 10.8.0.0/16 nhid 79
             -6 route add default nhid 80 proto ra metric 1024 expires 1800",
        );
        wait_until_local("old", &["1::2"]);
        do_move().await;
        let routes = all_routes();
        for expected in [
            "10.7.0.0/16 via 10.1.0.1 dev new",
            "nexthop via 10.1.0.7 dev new weight 1",
            "default via 2001:db8:1::1 dev new",
        ] {
            assert!(routes.contains(expected), "{expected} in\n{routes}");
        }
        assert!(!routes.contains("nhid"), "{routes}");
        assert_empty("old");
    });
}

#[test]
fn a_move_cut_off_anywhere_is_finished_by_the_next() {
    in_namespace_async(|| async {
        prepare();
        let before = state("old", "LINK");
        let (from, to) = (ifindex("old"), ifindex("new"));
        let mut requests = Requests::open().unwrap();
        // As if killed after the additions, and after some of the removals.
        addressing::stop_after_copies(&mut requests, from, to);
        ip("route del 10.2.0.0/16 dev old");
        ip("address del 10.1.0.4/24 dev old");
        ip("-6 address del 2001:db8:1::3/64 dev old");
        do_move().await;
        assert_same(&state("new", "LINK"), &before);
        assert_empty("old");
        // And once more, with nothing left to do.
        do_move().await;
        assert_same(&state("new", "LINK"), &before);
    });
}

#[test]
fn an_open_connection_survives() {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    in_namespace_async(|| async {
        ip_all(
            "link set lo up
             link add old type veth peer name old-peer
             link add new type veth peer name new-peer
             link set old up
             link set new up
             link set old-peer up
             link set new-peer up
             address add 10.1.0.2/24 dev old
             -6 address add 2001:db8:1::2/64 dev old nodad",
        );
        wait_until_local("old", &["1::2"]);
        for own in ["10.1.0.2:0", "[2001:db8:1::2]:0"] {
            let listener = TcpListener::bind(own).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let kind = |from, to| ActionKind::MoveAddressing {
                from: ifindex(from),
                to: ifindex(to),
            };
            for (from, to) in [("old", "new"), ("new", "old")] {
                client.write_all(b"before").unwrap();
                assert_eq!(run(kind(from, to)).await, Outcome::Accepted);
                client.write_all(b"after!").unwrap();
                let mut received = [0; 12];
                server.read_exact(&mut received).unwrap();
                assert_eq!(&received, b"beforeafter!");
            }
        }
    });
}

/// Packets to the guest's own addresses, and the choice of a route to elsewhere,
/// work at every moment while addressing goes back and forth.
#[test]
fn there_is_no_moment_without_a_route() {
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, Ordering};
    in_namespace_async(|| async {
        ip_all(
            "link set lo up
             link add old type veth peer name old-peer
             link add new type veth peer name new-peer
             link set old up
             link set new up
             link set old-peer up
             link set new-peer up
             address add 10.1.0.2/24 dev old
             address add 10.1.0.3/24 dev old
             route add default via 10.1.0.1
             -6 address add 2001:db8:1::2/64 dev old nodad
             -6 route add default via 2001:db8:1::1",
        );
        wait_until_local("old", &["1::2"]);
        let (old, new) = (ifindex("old"), ifindex("new"));

        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let prober = std::thread::spawn(move || {
            let mut rounds = 0;
            while !stopped.load(Ordering::Relaxed) {
                for (own, elsewhere) in [
                    ("10.1.0.2:0", "192.0.2.1:9"),
                    ("10.1.0.3:0", "10.1.0.77:9"),
                    ("[2001:db8:1::2]:0", "[2001:db8:77::1]:9"),
                ] {
                    let socket = UdpSocket::bind(own).unwrap();
                    let timeout = Some(Duration::from_secs(5));
                    socket.set_read_timeout(timeout).unwrap();
                    let itself = socket.local_addr().unwrap();
                    socket.send_to(b"x", itself).unwrap();
                    let mut buffer = [0; 8];
                    assert_eq!(socket.recv_from(&mut buffer).unwrap(), (1, itself));
                    socket.connect(elsewhere).unwrap();
                }
                rounds += 1;
            }
            rounds
        });
        for (from, to) in [(old, new), (new, old)].into_iter().cycle().take(20) {
            let kind = ActionKind::MoveAddressing { from, to };
            assert_eq!(run(kind).await, Outcome::Accepted);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(prober.join().unwrap() > 0);
    });
}

#[test]
fn nothing_is_lost_if_the_new_link_refuses() {
    in_namespace_async(|| async {
        prepare();
        std::fs::write("/proc/sys/net/ipv6/conf/new/disable_ipv6", "1").unwrap();
        let before = state("old", "LINK");
        let kind = ActionKind::MoveAddressing {
            from: ifindex("old"),
            to: ifindex("new"),
        };
        let (errno, message) = failed(run(kind).await);
        assert_eq!(errno, libc::EACCES);
        assert!(
            message.contains("2001:db8:") && message.contains("to new"),
            "{message}"
        );
        assert_same(&state("old", "LINK"), &before);
    });
}

#[test]
fn an_address_in_doubt_stays_in_doubt() {
    in_namespace_async(|| async {
        ip_all(LINKS);
        std::fs::write("/proc/sys/net/ipv6/conf/old/dad_transmits", "100").unwrap();
        ip("-6 address add 2001:db8:1::2/64 dev old");
        assert!(ip("-6 address show dev old").contains("2001:db8:1::2/64 scope global tentative"));
        do_move().await;
        let new = ip("-6 address show dev new");
        assert!(
            new.contains("2001:db8:1::2/64 scope global tentative"),
            "{new}"
        );
    });
}

#[test]
fn a_flush_leaves_nothing_that_a_bond_could_trip_over() {
    in_namespace_async(|| async {
        prepare();
        let of_other = || {
            let mut lines = state("other", "LINK");
            // A hop of this IPv6 route that stays is now a route with one hop.
            lines.retain(|line| !line.contains("2001:db8:11::"));
            lines
        };
        let other = of_other();
        let link = ifindex("old");
        assert_eq!(
            run(ActionKind::FlushAddressing { link }).await,
            Outcome::Accepted
        );
        assert_empty("old");
        assert_same(&of_other(), &other);
        let routes = all_routes();
        assert!(!routes.contains("dev old scope"), "{routes}");
        assert!(!routes.contains("id 77"), "{routes}");
        assert!(
            routes.contains("10.77.0.0/16 via 10.9.0.1 dev other"),
            "{routes}"
        );
    });
}

/// What somebody wrote down by hand on a link that becomes a port would be gone with its closing.
#[test]
fn static_neighbours_and_link_local_addresses_set_by_hand_move_too() {
    in_namespace_async(|| async {
        ip_all(LINKS);
        ip_all(
            "address add 192.0.2.5/24 dev old
             -6 address add fe80::1/64 dev old nodad
             neigh add 192.0.2.200 lladdr 02:00:00:00:00:99 dev old nud permanent
             -6 neigh add fe80::99 lladdr 02:00:00:00:00:98 dev old nud permanent
             neigh add 192.0.2.201 lladdr 02:00:00:00:00:97 dev old nud stale
             neigh add 192.0.2.202 lladdr 02:00:00:00:00:96 dev old nud permanent
             neigh add 192.0.2.202 lladdr 02:00:00:00:00:95 dev new nud permanent",
        );
        let own = ip("-6 -o address show dev old scope link");
        let own = own
            .lines()
            .find(|line| !line.contains("fe80::1/64"))
            .map(str::to_owned);
        let (from, to) = (ifindex("old"), ifindex("new"));
        let moved = run(ActionKind::MoveAddressing { from, to }).await;
        assert_eq!(moved, Outcome::Accepted);
        let addresses = ["old", "new"].map(|link| ip(&format!("-6 -o address show dev {link}")));
        assert!(addresses[1].contains("fe80::1/64") && !addresses[0].contains("fe80::1/64"));
        // The kernel's own stays with its link.
        let own = own.and_then(|line| line.split_whitespace().nth(3).map(str::to_owned));
        assert!(own.is_none_or(|own| addresses[0].contains(&own) && !addresses[1].contains(&own)));
        let neighbours = ip("neigh show dev new") + &ip("-6 neigh show dev new");
        for wanted in [
            "192.0.2.200 lladdr 02:00:00:00:00:99 PERMANENT",
            "fe80::99 lladdr 02:00:00:00:00:98 PERMANENT",
            "192.0.2.202 lladdr 02:00:00:00:00:95 PERMANENT",
        ] {
            assert!(neighbours.contains(wanted), "no {wanted} in {neighbours}");
        }
        assert!(!neighbours.contains("192.0.2.201"), "{neighbours}");
    });
}
