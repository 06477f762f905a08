//! What is said of a bond's network, and what is not.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::machine::Machine;
use crate::model::action::ActionKind;
use crate::model::input::{Input, Outcome};
use crate::model::link::{Address, Expiry, Route};
use crate::model::output::Output;
use crate::model::status::ProblemCode;
use crate::model::types::Time;

const MINUTE_MS: u64 = 60_000;
const IP: [u8; 4] = [192, 0, 2, 5];

fn at(ms: u64) -> Time {
    Time(0).plus_ms(ms)
}

fn default_route() -> Route {
    Route {
        destination: Address {
            ip: Ipv4Addr::UNSPECIFIED.into(),
            prefix: 0,
        },
        gateway: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        metric: None,
    }
}

fn with_route() -> Addressing {
    Addressing {
        routes: Vec::from([default_route()]),
        ..addressing(BOND, &[IP])
    }
}

/// Its executor does all at once; what it does changes nothing here.
fn feed(machine: &mut Machine, ms: u64, input: Input) {
    machine.handle(at(ms), input);
    while let Some(output) = machine.next_output() {
        if let Output::Act(action) = output {
            let outcome = Outcome::Accepted;
            machine.handle(
                at(ms),
                Input::Done {
                    action: action.id,
                    outcome,
                },
            );
        }
    }
}

fn started(addressing: Addressing) -> Machine {
    let mut machine = Machine::new(at(0));
    feed(&mut machine, 0, Input::Policy(policy()));
    feed(&mut machine, 0, Input::Links(healthy()));
    feed(&mut machine, 0, Input::Addressings(Vec::from([addressing])));
    machine
}

/// What is said at that moment, and whether the machine wants to be asked then.
fn codes(machine: &mut Machine, ms: u64) -> Vec<ProblemCode> {
    feed(machine, ms, Input::Tick);
    let problems = machine.status().bonds[0].problems.iter();
    problems.map(|problem| problem.code).collect()
}

#[test]
fn a_bond_without_an_address_is_told_after_a_minute() {
    let mut machine = started(addressing(BOND, &[]));
    assert_eq!(codes(&mut machine, MINUTE_MS - 1), []);
    assert!(
        machine
            .next_deadline()
            .is_some_and(|next| next <= at(MINUTE_MS))
    );
    assert_eq!(codes(&mut machine, MINUTE_MS), [ProblemCode::NoAddress]);
    let gets_one = Input::Addressing(addressing(BOND, &[IP]));
    feed(&mut machine, MINUTE_MS + 1, gets_one);
    assert_eq!(codes(&mut machine, 5 * MINUTE_MS), []);
}

#[test]
fn a_bond_that_came_later_is_told_once_its_addresses_were_read() {
    let mut machine = Machine::new(at(0));
    feed(&mut machine, 0, Input::Policy(policy()));
    feed(&mut machine, 0, Input::Links(Vec::new()));
    feed(&mut machine, 0, Input::Addressings(Vec::new()));
    for link in healthy() {
        feed(&mut machine, 1_000, Input::Link(link));
    }
    assert_eq!(codes(&mut machine, 2 * MINUTE_MS), []);
    feed(
        &mut machine,
        2 * MINUTE_MS,
        Input::Addressing(addressing(BOND, &[])),
    );
    assert_eq!(codes(&mut machine, 3 * MINUTE_MS), [ProblemCode::NoAddress]);
}

#[test]
fn a_bond_that_lost_its_ipv4_address_is_told_though_it_has_another() {
    let both = |ipv4: &[[u8; 4]]| {
        let mut one = addressing(BOND, ipv4);
        one.addresses.push(Address {
            ip: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5).into(),
            prefix: 64,
        });
        one
    };
    // A network without IPv4, unless the bond's configuration says otherwise.
    let mut machine = started(both(&[]));
    assert_eq!(codes(&mut machine, 2 * MINUTE_MS), []);
    let mut expecting = started(both(&[]));
    let mut policy = policy();
    policy.bonds[0].expects_ipv4 = true;
    feed(&mut expecting, 2 * MINUTE_MS, Input::Policy(policy));
    assert_eq!(
        codes(&mut expecting, 3 * MINUTE_MS),
        [ProblemCode::NoAddress]
    );
    feed(&mut machine, 2 * MINUTE_MS, Input::Addressing(both(&[IP])));
    feed(&mut machine, 2 * MINUTE_MS, Input::Addressing(both(&[])));
    assert_eq!(codes(&mut machine, 3 * MINUTE_MS), [ProblemCode::NoAddress]);
}

#[test]
fn a_bond_that_never_got_the_ipv4_address_of_its_standby_is_told_though_it_has_another() {
    let mut machine = Machine::new(at(0));
    feed(&mut machine, 0, Input::Policy(policy()));
    let mut links = healthy();
    links.retain(|link| link.kind != LinkKind::Bond);
    for link in &mut links {
        link.controller = None;
        link.port = None;
    }
    feed(&mut machine, 0, Input::Links(links));
    let on_standby = Vec::from([addressing(STANDBY, &[IP])]);
    feed(&mut machine, 0, Input::Addressings(on_standby));
    feed(&mut machine, 0, Input::Links(healthy()));
    let slaac = Address {
        ip: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 5).into(),
        prefix: 64,
    };
    let slaac_alone = Addressing {
        addresses: Vec::from([slaac]),
        ..addressing(BOND, &[])
    };
    feed(
        &mut machine,
        0,
        Input::Addressings(Vec::from([slaac_alone])),
    );
    assert_eq!(codes(&mut machine, MINUTE_MS), [ProblemCode::NoAddress]);
}

#[test]
fn what_lies_on_a_bond_may_have_the_addresses() {
    let mut machine = started(addressing(BOND, &[]));
    let fingerprint = 7;
    feed(
        &mut machine,
        1,
        Input::UpperDevices {
            bond: BOND,
            fingerprint,
        },
    );
    assert_eq!(codes(&mut machine, 2 * MINUTE_MS), []);
    // Unless the bond had some itself.
    feed(
        &mut machine,
        2 * MINUTE_MS,
        Input::Addressing(addressing(BOND, &[IP])),
    );
    feed(
        &mut machine,
        2 * MINUTE_MS,
        Input::Addressing(addressing(BOND, &[])),
    );
    assert_eq!(codes(&mut machine, 4 * MINUTE_MS), [ProblemCode::NoAddress]);

    let mut machine = started(addressing(BOND, &[IP]));
    let in_a_bridge = Link {
        controller: Some(Ifindex(9)),
        ..bond(Some(VF))
    };
    feed(&mut machine, 1, Input::Link(in_a_bridge));
    feed(&mut machine, 1, Input::Addressing(addressing(BOND, &[])));
    assert_eq!(codes(&mut machine, 4 * MINUTE_MS), []);
}

#[test]
fn a_default_route_that_is_lost_is_told_where_no_other_leads_out() {
    let lost = || Input::Addressing(addressing(BOND, &[IP]));
    let way_out = Input::WayOut;
    // A network without a gateway.
    let mut machine = started(addressing(BOND, &[IP]));
    feed(&mut machine, 0, way_out(false));
    assert_eq!(codes(&mut machine, 5 * MINUTE_MS), []);

    let mut machine = started(with_route());
    feed(&mut machine, 0, way_out(true));
    feed(&mut machine, 1, lost());
    // Another NIC or a VPN has it.
    assert_eq!(codes(&mut machine, 5 * MINUTE_MS), []);
    feed(&mut machine, 5 * MINUTE_MS, way_out(false));
    assert_eq!(codes(&mut machine, 6 * MINUTE_MS - 1), []);
    assert_eq!(
        codes(&mut machine, 6 * MINUTE_MS),
        [ProblemCode::NoDefaultRoute]
    );
    feed(&mut machine, 6 * MINUTE_MS, Input::Addressing(with_route()));
    assert_eq!(codes(&mut machine, 9 * MINUTE_MS), []);
}

#[test]
fn a_lease_that_nobody_renews_is_told_before_its_end() {
    let lease = |until_ms| {
        Input::Addressing(Addressing {
            expiries: Vec::from([Expiry {
                ip: IpAddr::from(IP),
                at: at(until_ms),
            }]),
            ..addressing(BOND, &[IP])
        })
    };
    let hour = 60 * MINUTE_MS;
    let mut machine = started(addressing(BOND, &[IP]));
    feed(&mut machine, 0, lease(8 * hour));
    // Read again, a little late.
    feed(&mut machine, hour, lease(8 * hour + 1_000));
    assert_eq!(codes(&mut machine, 7 * hour - 1_000), []);
    assert_eq!(
        codes(&mut machine, 7 * hour + 1_000),
        [ProblemCode::LeaseUnrenewed]
    );
    // Renewed, for a shorter time: that is no lease at its end.
    feed(&mut machine, 7 * hour + 2_000, lease(8 * hour - 10_000));
    assert_eq!(codes(&mut machine, 7 * hour + 3_000), []);
    feed(
        &mut machine,
        7 * hour + 4_000,
        Input::Addressing(addressing(BOND, &[IP])),
    );
    assert_eq!(codes(&mut machine, 9 * hour), []);
}

#[test]
fn who_puts_addresses_back_on_a_port_is_told() {
    let mut machine = started(addressing(BOND, &[IP]));
    let round = |machine: &mut Machine, ms| {
        machine.handle(at(ms), Input::Addressing(addressing(VF, &[[192, 0, 2, 9]])));
        while let Some(output) = machine.next_output() {
            let Output::Act(action) = output else {
                continue;
            };
            if matches!(action.kind, ActionKind::FlushAddressing { .. }) {
                machine.handle(at(ms), Input::Addressing(addressing(VF, &[])));
            }
            let outcome = Outcome::Accepted;
            machine.handle(
                at(ms),
                Input::Done {
                    action: action.id,
                    outcome,
                },
            );
        }
    };
    round(&mut machine, 1_000);
    round(&mut machine, 2_000);
    assert_eq!(codes(&mut machine, 2_500), []);
    round(&mut machine, 3_000);
    assert_eq!(codes(&mut machine, 3_500), [ProblemCode::PortContested]);
    assert_eq!(codes(&mut machine, 11 * MINUTE_MS), []);
}
