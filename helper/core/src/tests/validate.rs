use alloc::vec::Vec;

use super::*;
use crate::model::link::{Address, Route};
use crate::model::policy::AddressingPolicy;

/// The key at fault after a change of a good policy.
fn key_at_fault(change: impl FnOnce(&mut Policy)) -> &'static str {
    let mut policy = policy();
    change(&mut policy);
    let error = policy.validate().unwrap_err();
    assert!(!error.problem.is_empty());
    error.key
}

fn change_bond(change: impl FnOnce(&mut BondPolicy)) -> &'static str {
    key_at_fault(|policy| change(&mut policy.bonds[0]))
}

#[test]
fn good_policies_pass() {
    assert_eq!(policy().validate(), Ok(()));
    assert_eq!(Policy::default().validate(), Ok(()));
}

#[test]
fn nics_have_to_be_described_once_and_rightly() {
    assert_eq!(
        change_bond(|bond| bond.standby = PortMatch::default()),
        "standby"
    );
    assert_eq!(
        change_bond(|bond| bond.vfs[0] = PortMatch::default()),
        "vfs"
    );
    assert_eq!(change_bond(|bond| bond.vfs.clear()), "vfs");
    assert_eq!(change_bond(|bond| bond.vfs[0] = by_mac(STANDBY_MAC)), "vfs");
    assert_eq!(change_bond(|bond| bond.vfs.push(by_mac(VF_MAC))), "vfs");
    assert_eq!(
        change_bond(|bond| bond.standby = by_mac(Mac::ZERO)),
        "standby"
    );
    assert_eq!(change_bond(|bond| bond.vfs[0] = by_mac(Mac([1; 6]))), "vfs");
    assert_eq!(
        change_bond(|bond| bond.vfs[0].driver = Some("a b".into())),
        "vfs"
    );
    let many = |bond: &mut BondPolicy| {
        let macs = (0..=16).map(|last| by_mac(Mac([0x52, 0x54, 0, 0, 1, last])));
        bond.vfs = macs.collect();
    };
    assert_eq!(change_bond(many), "vfs");
}

#[test]
fn a_bonds_name_means_nothing_else() {
    for taken in [
        "b%d",
        "--refresh",
        "-x",
        "'a",
        "\"a\"",
        "all",
        "default",
        "lo",
        "bonding_masters",
    ] {
        assert_eq!(
            change_bond(|bond| bond.name = name(taken)),
            "name",
            "{taken}"
        );
    }
    for free in ["bond0", "b-0", "b'0", "lo0", "défaut"] {
        let mut policy = policy();
        policy.bonds[0].name = name(free);
        assert_eq!(policy.validate(), Ok(()), "{free}");
    }
}

#[test]
fn bonds_share_neither_name_nor_nic() {
    let second = |change: fn(&mut BondPolicy)| {
        key_at_fault(|policy| {
            let mut second = bond_policy();
            second.name = name("bond1");
            second.standby = by_mac(Mac([0x52, 0x54, 0, 0, 0, 7]));
            second.vfs = Vec::from([by_mac(Mac([0x52, 0x54, 0, 0, 0, 8]))]);
            change(&mut second);
            policy.bonds.push(second);
        })
    };
    assert_eq!(second(|bond| bond.name = name("bond0")), "name");
    assert_eq!(second(|bond| bond.standby = by_mac(VF_MAC)), "standby");
    assert_eq!(second(|bond| bond.vfs.push(by_mac(STANDBY_MAC))), "vfs");
    let many = key_at_fault(|policy| {
        for number in 1..=32u8 {
            let mut bond = bond_policy();
            bond.name = alloc::format!("bond{number}").parse().unwrap();
            bond.standby = by_mac(Mac([0x52, 0x54, 0, 1, 0, number]));
            bond.vfs = Vec::from([by_mac(Mac([0x52, 0x54, 0, 2, 0, number]))]);
            policy.bonds.push(bond);
        }
    });
    assert_eq!(many, "name");
}

#[test]
fn the_error_names_the_bond() {
    let mut policy = policy();
    policy.bonds[0].mtu = Some(67);
    let error = policy.validate().unwrap_err();
    let text = alloc::format!("{error}");
    assert_eq!((error.index, error.key), (0, "mtu"));
    assert!(text.starts_with("bond bond0: 67 is no MTU"), "{text}");
}

#[test]
fn numbers_have_bounds() {
    assert_eq!(change_bond(|bond| bond.mtu = Some(70_000)), "mtu");
    let timing = |change: fn(&mut Timing)| change_bond(|bond| change(&mut bond.timing));
    assert_eq!(timing(|t| t.miimon_ms = 0), "timing.miimon-ms");
    assert_eq!(timing(|t| t.miimon_ms = 60_000), "timing.miimon-ms");
    assert_eq!(timing(|t| t.hold_ms = 70_000), "timing.hold-ms");
    assert_eq!(timing(|t| t.hold_max_ms = u64::MAX), "timing.hold-max-ms");
    assert_eq!(
        timing(|t| t.command_timeout_ms = 0),
        "timing.command-timeout-ms"
    );
    assert_eq!(
        timing(|t| t.removal_timeout_ms = 0),
        "timing.removal-timeout-ms"
    );
    assert_eq!(timing(|t| t.health_ms = 499), "timing.health-ms");
    assert_eq!(timing(|t| t.announcements = 200), "timing.announcements");
    let interval = timing(|t| t.announcement_interval_ms = 0);
    assert_eq!(interval, "timing.announcement-interval-ms");
}

#[test]
fn addresses_have_to_be_addresses() {
    let with = |addresses: Vec<Address>, routes: Vec<Route>, mtu| {
        change_bond(|bond| {
            bond.mtu = mtu;
            bond.addressing = AddressingPolicy::Static { addresses, routes };
        })
    };
    let v4 = |ip: [u8; 4], prefix| Address {
        ip: ip.into(),
        prefix,
    };
    let v6 = Address {
        ip: core::net::Ipv6Addr::LOCALHOST.into(),
        prefix: 64,
    };
    let global = Address {
        ip: core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        prefix: 64,
    };
    let addresses = "addressing.static.addresses";
    assert_eq!(
        with(Vec::from([v4([192, 0, 2, 1], 33)]), Vec::new(), None),
        addresses
    );
    assert_eq!(
        with(Vec::from([v4([0; 4], 24)]), Vec::new(), None),
        addresses
    );
    assert_eq!(with(Vec::from([v6]), Vec::new(), None), addresses);
    assert_eq!(with(Vec::from([global]), Vec::new(), Some(1200)), "mtu");
    let route = Route {
        destination: v4([0; 4], 0),
        gateway: Some(global.ip),
        metric: None,
    };
    let routes = "addressing.static.routes";
    assert_eq!(with(Vec::new(), Vec::from([route]), None), routes);
}
