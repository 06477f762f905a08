//! The guest and the policy that a run starts with.

use tandem_core::Mac;
use tandem_core::action::BondOptions;
use tandem_core::link::{Address, BondMode, Route};
use tandem_core::policy::{
    AddressingPolicy, BondPolicy, MacPolicy, Origin, Ownership, PathCheck, Policy, PortMatch,
    Timing,
};

use super::{Chaos, SECOND_STANDBY_MAC, SECOND_VF_MAC, STANDBY_MAC, VF_MACS};
use crate::sim::fake::name;
use crate::sim::rng::Rng;

impl Chaos {
    /// The NICs that are there at first, and the service's start.
    pub(super) fn boot(&mut self) {
        if self.rng.chance(900) {
            self.plug_standby();
        }
        if let Some(standby) = self.standby {
            let address = Address {
                ip: [192, 0, 2, 10].into(),
                prefix: 24,
            };
            let address6 = Address {
                ip: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10).into(),
                prefix: 64,
            };
            self.stage.change(|kernel| {
                kernel.set_admin_up(standby, true);
                kernel.give_address(standby, address);
                kernel.give_address(standby, address6);
                kernel.give_route(standby, default_route());
            });
            if self.inherits() {
                self.guarded.extend([address, address6]);
            }
        }
        if self.rng.chance(500) {
            self.plug_vf();
        }
        if self.stage.policy().bonds[0].ownership == Ownership::Adopt {
            self.stage.change(|kernel| {
                let bond = kernel.add_foreign_bond(&name("bond0"), BondMode::ActiveBackup);
                if let Some(bond) = bond {
                    kernel.set_admin_up(bond, true);
                    let options = BondOptions {
                        miimon_ms: Some(100),
                        ..Default::default()
                    };
                    kernel.change_options(bond, &options);
                }
            });
        }
        self.stage.start_service();
    }
}

fn default_route() -> Route {
    Route {
        destination: Address {
            ip: [0, 0, 0, 0].into(),
            prefix: 0,
        },
        gateway: Some([192, 0, 2, 1].into()),
        metric: None,
    }
}

fn by_mac(mac: Mac) -> PortMatch {
    PortMatch {
        mac: Some(mac),
        ..PortMatch::default()
    }
}

/// A bond beside the first, which has to stay out of its way.
pub(super) fn second_bond(rng: &mut Rng) -> BondPolicy {
    BondPolicy {
        name: name("bond1"),
        standby: by_mac(SECOND_STANDBY_MAC),
        vfs: vec![by_mac(SECOND_VF_MAC)],
        mac: MacPolicy::Standby,
        ownership: Ownership::Create,
        addressing: if rng.chance(500) {
            AddressingPolicy::None
        } else {
            AddressingPolicy::Inherit
        },
        manager_takes_standby: false,
        undecided: false,
        expects_ipv4: false,
        mtu: None,
        path_check: PathCheck::None,
        timing: Timing {
            health_ms: 0,
            ..Timing::default()
        },
    }
}

/// A policy by chance.
pub(super) fn policy(rng: &mut Rng) -> Policy {
    let addressing = match rng.below(4) {
        0 => AddressingPolicy::None,
        1 => AddressingPolicy::Static {
            addresses: vec![Address {
                ip: [203, 0, 113, 5].into(),
                prefix: 24,
            }],
            routes: vec![default_route()],
        },
        _ => AddressingPolicy::Inherit,
    };
    let first = BondPolicy {
        name: name("bond0"),
        standby: PortMatch {
            mac: Some(STANDBY_MAC),
            driver: Some("virtio_net".into()),
            pci: None,
        },
        vfs: VF_MACS.into_iter().map(by_mac).collect(),
        mac: if rng.chance(250) {
            MacPolicy::Follow
        } else {
            MacPolicy::Standby
        },
        ownership: if rng.chance(150) {
            Ownership::Adopt
        } else {
            Ownership::Create
        },
        addressing,
        manager_takes_standby: false,
        undecided: false,
        expects_ipv4: false,
        mtu: rng.chance(200).then_some(1_450),
        path_check: match rng.below(3) {
            0 => PathCheck::Standby,
            1 => PathCheck::Auto,
            _ => PathCheck::None,
        },
        timing: Timing {
            hold_max_ms: 30_000,
            // Each look costs the test its time.
            health_ms: if rng.chance(400) { 2_000 } else { 0 },
            ..Timing::default()
        },
    };
    let second = rng.chance(300).then(|| second_bond(rng));
    Policy {
        origin: Origin::File,
        bonds: std::iter::once(first).chain(second).collect(),
    }
}
