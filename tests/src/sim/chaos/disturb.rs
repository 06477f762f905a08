//! What may happen to a guest: devices, cables, other managers, the host, the service.

use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::input::{Removal, RemovalStage, Request, Source};
use tandem_core::link::{Address, LinkKind, PrimaryReselect};
use tandem_core::policy::{Ownership, PathCheck};
use tandem_core::{Input, PciAddress};

use super::{Chaos, STANDBY_MAC, UNKNOWN_MAC, VF_MACS};
use crate::sim::fake::{NicSpec, name, standby_nic, vf_nic};
use crate::sim::oracle::is_lost;

impl Chaos {
    /// One disturbance by chance, or none.
    pub(super) fn disturb(&mut self) {
        match self.rng.below(100) {
            0..14 => self.plug_vf(),
            14..22 => self.unplug_vf(),
            22..30 => self.warn_and_unplug(),
            30..38 => self.toggle_cable(),
            38..40 => self.flap(),
            40..44 => self.rename(),
            44..60 => self.ask(),
            60..66 => self.restart(),
            66..70 => self.stranger(),
            70..74 => self.meddle(),
            74..77 => self.stray_address(),
            77..79 => self.standby_comes_or_goes(),
            79..81 => self.jump(),
            81..84 => self.lose(),
            84..86 => self.reload(),
            86..88 => self.bonding_driver(),
            88..90 => self.name_squatter(),
            90..92 => self.occupy(),
            92..94 => self.paths_come_or_go(),
            _ => {}
        }
    }

    /// The bonding driver is missing for a while, which only matters while there is no bond.
    fn bonding_driver(&mut self) {
        let present = self.rng.chance(700);
        self.stage.change(|kernel| kernel.has_bonding = present);
        let bond = self.stage.kernel.index_of(&name("bond0"));
        let ours = self.stage.policy().bonds[0].ownership == Ownership::Create;
        // Its addresses go with it, which is not ours to prevent.
        if let Some(bond) = bond.filter(|_| ours && !present) {
            self.stage.change(|kernel| kernel.delete_bond(bond));
            let stage = &self.stage;
            self.guarded.retain(|address| !is_lost(stage, address));
        }
    }

    /// Something on top of the standby keeps it out of bonds, if it is not in one.
    fn occupy(&mut self) {
        let busy = self.rng.chance(500);
        let Some(standby) = self.standby else { return };
        let link = self.stage.kernel.dump_link(standby);
        if !busy || link.is_some_and(|link| link.controller.is_none()) {
            self.stage.change(|kernel| kernel.set_busy(standby, busy));
        }
    }

    /// Something else takes the bond's name while there is no bond, or gives it back.
    fn name_squatter(&mut self) {
        let holder = self.stage.kernel.index_of(&name("bond0"));
        match holder {
            None => {
                self.stage
                    .change(|kernel| kernel.add_software(&name("bond0"), UNKNOWN_MAC));
            }
            Some(holder) => {
                let link = self.stage.kernel.dump_link(holder);
                if link.is_some_and(|link| link.kind == LinkKind::Software) {
                    self.stage.unplug(holder);
                }
            }
        }
    }

    pub(super) fn plug_standby(&mut self) {
        if self.standby.is_none() {
            let spec = standby_nic(STANDBY_MAC);
            self.standby = Some(self.stage.change(|kernel| kernel.plug(spec)));
        }
    }

    pub(super) fn plug_vf(&mut self) {
        if self.vf.is_some() {
            return;
        }
        let mac = self.rng.pick(&VF_MACS).copied().unwrap_or(STANDBY_MAC);
        let spec = NicSpec {
            name: if self.rng.chance(500) {
                name("enp2s0")
            } else {
                name("vf")
            },
            refuses_mac: self.rng.chance(150),
            is_cut_off: self.rng.chance(200),
            max_mtu: if self.rng.chance(100) { 1_400 } else { 9_216 },
            carrier_delay_ms: self.rng.below(300),
            ..vf_nic(mac)
        };
        self.vf = Some(self.stage.change(|kernel| kernel.plug(spec)));
    }

    fn unplug_vf(&mut self) {
        if let Some(vf) = self.vf.take() {
            self.stage.unplug(vf);
        }
    }

    /// The kernel warns; mostly it then means it.
    fn warn_and_unplug(&mut self) {
        // Where a standby leaves, a VF takes over unproved.
        let checks = self.stage.policy().bonds[0].path_check != PathCheck::None;
        let of_standby = self.rng.chance(50) && !checks;
        let nic = if of_standby { self.standby } else { self.vf };
        let Some(link) = nic.and_then(|nic| self.stage.kernel.dump_link(nic)) else {
            return;
        };
        let (Some(pci), Some(parent)) = (link.pci, link.pci_parent) else {
            return;
        };
        let button = self.rng.chance(500);
        let first = if button {
            (RemovalStage::ButtonPressed, parent)
        } else {
            (RemovalStage::EjectRequested, pci)
        };
        self.warn(first.0, first.1);
        let lead_ms = if button {
            self.rng.below(5_000)
        } else {
            self.rng.below(10)
        };
        self.stage.run_ms(lead_ms);
        if button && self.rng.chance(200) {
            self.warn(RemovalStage::ButtonCancelled, parent);
        } else if self.rng.chance(850) {
            if self.rng.chance(500) {
                self.warn(RemovalStage::DriverStopping, pci);
            }
            if of_standby {
                self.standby_comes_or_goes();
            } else {
                self.unplug_vf();
            }
        }
    }

    fn warn(&mut self, stage: RemovalStage, pci: PciAddress) {
        let at = self.stage.now;
        let removal = Removal { stage, pci, at };
        // The button leaves time for the machine; everything later sets off the reflex.
        if stage > RemovalStage::ButtonCancelled {
            self.stage.reflex(pci);
        }
        self.stage.feed_at(at.plus_ms(1), Input::Removal(removal));
    }

    fn toggle_cable(&mut self) {
        let of_vf = self.rng.chance(700);
        let nic = if of_vf { self.vf } else { self.standby };
        let plugged = self.rng.chance(if of_vf { 600 } else { 800 });
        if let Some(nic) = nic {
            self.stage.change(|kernel| kernel.set_cable(nic, plugged));
        }
    }

    /// A bad cable.
    fn flap(&mut self) {
        let Some(vf) = self.vf else { return };
        for plugged in [true, false, true, false, true, false, true] {
            self.stage.change(|kernel| kernel.set_cable(vf, plugged));
            let pause_ms = 500 + self.rng.below(1_500);
            self.stage.run_ms(pause_ms);
        }
    }

    fn rename(&mut self) {
        let nic = if self.rng.chance(700) {
            self.vf
        } else {
            self.standby
        };
        let names = ["eth0", "eth1", "enp2s0", "ens5"];
        let new = name(self.rng.pick(&names).copied().unwrap_or("eth7"));
        if let Some(nic) = nic {
            self.stage.change(|kernel| kernel.rename(nic, &new));
        }
    }

    fn ask(&mut self) {
        let bond = self.rng.chance(500).then(|| name("bond0"));
        let request = match self.rng.below(10) {
            0..2 => Request::Failover { bond },
            2..4 => Request::Failback { bond },
            4..7 => Request::PrepareUnplug {
                bond,
                vf: self.rng.chance(300).then_some(VF_MACS[1]),
            },
            7..9 => Request::Resume { bond },
            _ => Request::Announce { bond },
        };
        self.stage.command(request);
    }

    fn restart(&mut self) {
        self.stage.stop_service();
        let pause_ms = self.rng.below(3_000);
        self.stage.run_ms(pause_ms);
        self.stage.start_service();
    }

    /// A NIC that nobody described comes or goes.
    fn stranger(&mut self) {
        match self.stranger.take() {
            Some(nic) => self.stage.unplug(nic),
            None => {
                let spec = vf_nic(UNKNOWN_MAC);
                self.stranger = Some(self.stage.change(|kernel| kernel.plug(spec)));
            }
        }
    }

    /// Another manager interferes.
    fn meddle(&mut self) {
        let bond = self.stage.kernel.index_of(&name("bond0"));
        let (Some(bond), Some(standby), what) = (bond, self.standby, self.rng.below(8)) else {
            return;
        };
        let vf = self.vf;
        self.stage.change(|kernel| match (what, vf) {
            (0, Some(vf)) => kernel.steal(vf),
            (1, Some(vf)) => kernel.set_active(bond, vf),
            (2, Some(vf)) => kernel.change_primary(bond, vf),
            (3, _) => kernel.change_primary(bond, standby),
            (4, Some(vf)) => kernel.set_admin_up(vf, false),
            (5, _) => {
                let on = BondOptions {
                    all_ports_active: Some(true),
                    ..Default::default()
                };
                kernel.change_options(bond, &on);
            }
            (6, _) => {
                let other = BondOptions {
                    miimon_ms: Some(500),
                    primary_reselect: Some(PrimaryReselect::Always),
                    ..Default::default()
                };
                kernel.change_options(bond, &other);
            }
            (7, _) => {
                kernel.change_mtu(bond, 1_300);
            }
            _ => kernel.set_active(bond, standby),
        });
    }

    fn stray_address(&mut self) {
        let address = Address {
            ip: [198, 51, 100, 7].into(),
            prefix: 24,
        };
        if let Some(vf) = self.vf {
            self.stage.change(|kernel| kernel.give_address(vf, address));
        }
    }

    fn standby_comes_or_goes(&mut self) {
        let releasing = |kind: &ActionKind| matches!(kind, ActionKind::Release { .. });
        if self.stage.is_under_way(releasing) {
            return;
        }
        match self.standby {
            None => self.plug_standby(),
            Some(standby) => {
                self.standby = None;
                self.stage.unplug(standby);
                self.stage.standby_left_at = Some(self.stage.now);
                let stage = &self.stage;
                self.guarded.retain(|address| !is_lost(stage, address));
            }
        }
    }

    fn jump(&mut self) {
        let forward_ms = self.rng.below(100_000);
        self.stage.run_ms(0);
        self.stage.feed(Input::ClockJump { forward_ms });
    }

    fn lose(&mut self) {
        let sources = [
            Source::Links,
            Source::Addressing,
            Source::Udev,
            Source::Ebpf,
        ];
        if let Some(source) = self.rng.pick(&sources) {
            self.stage.feed(Input::Lost(*source));
        }
    }

    /// The hand-over programs are loaded late, or fail one day.
    fn paths_come_or_go(&mut self) {
        let supported = self.rng.chance(700);
        self.stage.support_paths(supported);
    }

    fn reload(&mut self) {
        let mut policy = self.stage.policy().clone();
        let timing = &mut policy.bonds[0].timing;
        timing.hold_ms = [100, 1_000, 3_000][usize::try_from(self.rng.below(3)).unwrap_or(0)];
        self.stage.set_policy(policy);
    }
}
