//! What may happen to a guest: devices, cables, other managers, the host, the service.

use tandem_core::action::BondOptions;
use tandem_core::input::{Removal, RemovalStage, Request, Source};
use tandem_core::link::{Address, LinkKind, Occupant, PrimaryReselect};
use tandem_core::policy::{Ownership, PathCheck};
use tandem_core::{Ifindex, Input, PciAddress};

use super::{Chaos, SECOND_STANDBY_MAC, SECOND_VF_MAC, STANDBY_MAC, UNKNOWN_MAC, VF_MACS, setup};
use crate::sim::Stage;
use crate::sim::fake::{NicSpec, name, pci, pci_port, standby_nic, vf_nic};
use crate::sim::oracle::is_lost;

impl Chaos {
    /// One disturbance by chance, or none. Tells whether it did anything to the guest.
    pub(super) fn disturb(&mut self) -> bool {
        match self.rng.below(100) {
            0..14 => self.plug_vf(),
            14..22 => self.unplug_vf(),
            22..30 => self.warn_and_unplug(),
            30..37 => self.toggle_cable(),
            37..39 => self.flap(),
            39..43 => self.rename(),
            43..59 => self.ask(),
            59..65 => self.restart(),
            65..69 => self.stranger(),
            69..73 => self.meddle(),
            73..76 => self.stray_address(),
            76..78 => self.standby_comes_or_goes(),
            78..80 => self.jump(),
            80..83 => self.lose(),
            83..86 => self.reload(),
            86..88 => self.bonding_driver(),
            88..90 => self.name_squatter(),
            90..92 => self.occupy(),
            92..94 => self.paths_come_or_go(),
            94..96 => self.another_vf(),
            96..98 => self.second_bonds_nics(),
            98 => self.path_or_flow(),
            99 => self.others_program(),
            _ => false,
        }
    }

    /// The bonding driver is missing for a while, which only matters while there is no bond.
    fn bonding_driver(&mut self) -> bool {
        let present = self.rng.chance(700);
        let before = self.stage.kernel.has_bonding;
        self.stage.change(|kernel| kernel.has_bonding = present);
        let bond = self.stage.kernel.index_of(&name("bond0"));
        let ours = self.stage.policy().bonds[0].ownership == Ownership::Create;
        // Its addresses go with it, which is not ours to prevent.
        if let Some(bond) = bond.filter(|_| ours && !present) {
            self.stage.change(|kernel| kernel.delete_bond(bond));
            let stage = &self.stage;
            self.guarded.retain(|address| !is_lost(stage, address));
            self.arrived.clear();
            return true;
        }
        before != present
    }

    /// Something is put on top of a NIC, for all to see or not, or is taken away. The kernel lets nobody have
    /// the frames of a port.
    fn occupy(&mut self) -> bool {
        let of_standby = self.rng.chance(700);
        let nic = if of_standby { self.standby } else { self.vf };
        let Some(nic) = nic else { return false };
        let link = self.stage.kernel.dump_link(nic);
        let is_port = link.is_none_or(|link| link.controller.is_some());
        let busy = self.rng.chance(150) && !is_port;
        let device = |kind: &str| Occupant::Device {
            name: name("upper0"),
            kind: kind.into(),
        };
        let occupant = match self.rng.below(6) {
            0 if !is_port => Some(device("macvlan")),
            1 => Some(device("vlan")),
            2 => Some(Occupant::Xdp),
            _ => None,
        };
        if occupant.is_some() {
            self.note("Occupied");
        }
        let before = self.stage.kernel.dump_link(nic);
        let was_busy = self.stage.kernel.nic(nic).map(|(spec, _)| spec.is_busy);
        self.stage.change(|kernel| {
            kernel.set_busy(nic, busy);
            kernel.set_occupant(nic, occupant);
        });
        before != self.stage.kernel.dump_link(nic) || was_busy != Some(busy)
    }

    /// Something else takes the bond's name while there is no bond, or gives it back.
    fn name_squatter(&mut self) -> bool {
        let holder = self.stage.kernel.index_of(&name("bond0"));
        let Some(holder) = holder else {
            self.stage
                .change(|kernel| kernel.add_software(&name("bond0"), UNKNOWN_MAC));
            return true;
        };
        let link = self.stage.kernel.dump_link(holder);
        let is_squatter = link.is_some_and(|link| link.kind == LinkKind::Software);
        if is_squatter {
            self.stage.unplug(holder);
        }
        is_squatter
    }

    pub(super) fn plug_standby(&mut self) {
        if self.standby.is_none() {
            let spec = standby_nic(STANDBY_MAC);
            self.standby = Some(self.stage.change(|kernel| kernel.plug(spec)));
        }
    }

    pub(super) fn plug_vf(&mut self) -> bool {
        if self.vf.is_some() {
            return false;
        }
        let spec = self.some_vf();
        self.vf = Some(self.stage.change(|kernel| kernel.plug(spec)));
        true
    }

    /// A VF of the policy's list, by chance.
    fn some_vf(&mut self) -> NicSpec {
        // Two NICs that nothing tells apart are anybody's choice.
        let others = [self.vf, self.another_vf].into_iter().flatten();
        let taken: Vec<_> = others
            .filter_map(|nic| self.stage.kernel.nic(nic).map(|(spec, _)| spec.mac))
            .collect();
        let free: Vec<_> = VF_MACS
            .into_iter()
            .filter(|mac| !taken.contains(mac))
            .collect();
        let mac = self.rng.pick(&free).copied().unwrap_or(STANDBY_MAC);
        NicSpec {
            name: if self.rng.chance(500) {
                name("enp2s0")
            } else {
                name("vf")
            },
            refuses_mac: self.rng.chance(150),
            is_cut_off: self.rng.chance(200),
            max_mtu: if self.rng.chance(100) { 1_400 } else { 9_216 },
            carrier_delay_ms: self.rng.below(300),
            rewrites_mac: self.rng.chance(300),
            ..vf_nic(mac)
        }
    }

    fn unplug_vf(&mut self) -> bool {
        let vf = self.vf.take();
        if let Some(vf) = vf {
            self.stage.unplug(vf);
        }
        vf.is_some()
    }

    /// A second NIC that fits as the VF comes or goes.
    fn another_vf(&mut self) -> bool {
        if let Some(vf) = self.another_vf.take() {
            self.stage.unplug(vf);
            return true;
        }
        let spec = NicSpec {
            pci: pci(3),
            pci_parent: pci_port(3),
            ..self.some_vf()
        };
        let both = self.vf.is_some();
        self.another_vf = Some(self.stage.change(|kernel| kernel.plug(spec)));
        if both {
            self.note("TwoVfs");
        }
        true
    }

    /// The NICs of a second bond, whether or not the policy has one at the moment.
    fn second_bonds_nics(&mut self) -> bool {
        let is_vf = self.rng.chance(700);
        let plug = |stage: &mut Stage, spec: NicSpec| stage.change(|kernel| kernel.plug(spec));
        let slot = if is_vf {
            &mut self.second_vf
        } else {
            &mut self.second_standby
        };
        match slot.take() {
            // A cable, more often than the NIC itself.
            Some(nic) if self.rng.chance(500) => {
                *slot = Some(nic);
                let plugged = self.rng.chance(600);
                let before = self.stage.kernel.nic(nic).map(|(_, cable)| cable);
                self.stage.change(|kernel| kernel.set_cable(nic, plugged));
                before != Some(plugged)
            }
            Some(nic) => {
                self.stage.unplug(nic);
                true
            }
            None if is_vf => {
                let spec = NicSpec {
                    pci: pci(5),
                    pci_parent: pci_port(5),
                    ..vf_nic(SECOND_VF_MAC)
                };
                *slot = Some(plug(&mut self.stage, spec));
                true
            }
            None => {
                let spec = NicSpec {
                    pci: pci(4),
                    pci_parent: pci_port(4),
                    ..standby_nic(SECOND_STANDBY_MAC)
                };
                *slot = Some(plug(&mut self.stage, spec));
                true
            }
        }
    }

    /// The kernel warns; mostly it then means it.
    fn warn_and_unplug(&mut self) -> bool {
        // Where a standby leaves, a VF takes over unchecked.
        let checks = self.stage.policy().bonds[0].path_check != PathCheck::None;
        let of_standby = self.rng.chance(50) && !checks;
        let nic = if of_standby { self.standby } else { self.vf };
        let Some(link) = nic.and_then(|nic| self.stage.kernel.dump_link(nic)) else {
            return false;
        };
        let (Some(pci), Some(parent)) = (link.pci, link.pci_parent) else {
            return false;
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
        true
    }

    fn warn(&mut self, stage: RemovalStage, pci: PciAddress) {
        let at = self.stage.now;
        let removal = Removal { stage, pci, at };
        // The button leaves time for the machine; everything later starts the fast path.
        if stage > RemovalStage::ButtonCancelled {
            self.stage.run_fast_path(pci);
        }
        self.stage.feed_at(at.plus_ms(1), Input::Removal(removal));
    }

    fn toggle_cable(&mut self) -> bool {
        let of_vf = self.rng.chance(700);
        let nic = if of_vf { self.vf } else { self.standby };
        let plugged = self.rng.chance(if of_vf { 600 } else { 800 });
        let Some(nic) = nic else { return false };
        let before = self.stage.kernel.nic(nic).map(|(_, cable)| cable);
        self.stage.change(|kernel| kernel.set_cable(nic, plugged));
        if before == Some(true) && !plugged {
            self.tell_of_lost_carrier(nic);
        }
        before != Some(plugged)
    }

    /// The kernel's hook tells of it, before the machine hears of it otherwise or after.
    fn tell_of_lost_carrier(&mut self, ifindex: Ifindex) {
        self.note("CarrierLost");
        let at = self.stage.now;
        let delay_ms = self.rng.below(20);
        let lost = Input::CarrierLost { ifindex, at };
        self.stage.feed_at(at.plus_ms(delay_ms), lost);
    }

    /// A bad cable.
    fn flap(&mut self) -> bool {
        let Some(vf) = self.vf else { return false };
        for plugged in [true, false, true, false, true, false, true] {
            self.stage.change(|kernel| kernel.set_cable(vf, plugged));
            let pause_ms = 500 + self.rng.below(1_500);
            self.stage.run_ms(pause_ms);
        }
        true
    }

    fn rename(&mut self) -> bool {
        let nic = if self.rng.chance(700) {
            self.vf
        } else {
            self.standby
        };
        let names = ["eth0", "eth1", "enp2s0", "ens5"];
        let new = name(self.rng.pick(&names).copied().unwrap_or("eth7"));
        let Some(nic) = nic else { return false };
        let before = self.stage.kernel.dump_link(nic).map(|link| link.name);
        self.stage.change(|kernel| kernel.rename(nic, &new));
        before != self.stage.kernel.dump_link(nic).map(|link| link.name)
    }

    fn ask(&mut self) -> bool {
        let bond = if self.stage.policy().bonds.len() > 1 && self.rng.chance(200) {
            Some(name("bond1"))
        } else {
            self.rng.chance(500).then(|| name("bond0"))
        };
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
        let runs = self.stage.machine.is_some();
        self.stage.command(request);
        runs
    }

    fn restart(&mut self) -> bool {
        self.stage.stop_service();
        let pause_ms = self.rng.below(3_000);
        self.stage.run_ms(pause_ms);
        self.stage.start_service();
        if self.rng.chance(400) {
            self.load_programs();
        }
        true
    }

    /// A NIC that nobody described comes or goes.
    fn stranger(&mut self) -> bool {
        match self.stranger.take() {
            Some(nic) => self.stage.unplug(nic),
            None => {
                let spec = vf_nic(UNKNOWN_MAC);
                self.stranger = Some(self.stage.change(|kernel| kernel.plug(spec)));
            }
        }
        true
    }

    /// Another manager interferes.
    fn meddle(&mut self) -> bool {
        let bond = self.stage.kernel.index_of(&name("bond0"));
        let (Some(bond), Some(standby), what) = (bond, self.standby, self.rng.below(9)) else {
            return false;
        };
        let vf = self.vf;
        let before = self.stage.kernel.dump_links();
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
            (8, vf) => {
                kernel.change_mtu(vf.unwrap_or(standby), 1_280);
            }
            _ => kernel.set_active(bond, standby),
        });
        before != self.stage.kernel.dump_links()
    }

    fn stray_address(&mut self) -> bool {
        let address = Address {
            ip: [198, 51, 100, 7].into(),
            prefix: 24,
        };
        let Some(vf) = self.vf else { return false };
        let before = self.stage.kernel.dump_addressing(vf);
        self.stage.change(|kernel| kernel.give_address(vf, address));
        before != self.stage.kernel.dump_addressing(vf)
    }

    fn standby_comes_or_goes(&mut self) -> bool {
        match self.standby {
            None => self.plug_standby(),
            Some(standby) => {
                self.standby = None;
                self.stage.unplug(standby);
                let stage = &self.stage;
                self.guarded.retain(|address| !is_lost(stage, address));
            }
        }
        true
    }

    fn jump(&mut self) -> bool {
        let forward_ms = self.rng.below(100_000);
        self.stage.run_ms(0);
        self.stage.feed(Input::ClockJump { forward_ms });
        self.stage.machine.is_some()
    }

    fn lose(&mut self) -> bool {
        let sources = [
            Source::Links,
            Source::Addressing,
            Source::Udev,
            Source::Ebpf,
        ];
        if let Some(source) = self.rng.pick(&sources) {
            self.stage.feed(Input::Lost(*source));
        }
        self.stage.machine.is_some()
    }

    /// The administrator changes something; what a bond is to carry and who owns it stay.
    fn reload(&mut self) -> bool {
        let before = self.stage.policy().clone();
        let mut policy = before.clone();
        let bond = &mut policy.bonds[0];
        let timing = &mut bond.timing;
        match self.rng.below(8) {
            0 => timing.hold_ms = self.rng.pick(&[100, 1_000, 3_000]).copied().unwrap_or(100),
            1 => timing.miimon_ms = self.rng.pick(&[50, 100, 200]).copied().unwrap_or(100),
            2 => timing.announcements = self.rng.pick(&[1, 3, 5]).copied().unwrap_or(3),
            3 => {
                bond.mtu = self
                    .rng
                    .pick(&[None, Some(1_400), Some(1_450)])
                    .copied()
                    .flatten();
            }
            4 => {
                bond.path_check = match bond.path_check {
                    PathCheck::Auto => PathCheck::None,
                    PathCheck::None => PathCheck::Standby,
                    PathCheck::Standby => PathCheck::Auto,
                }
            }
            // Another order, or one that is not ours any more.
            5 => bond.vfs.rotate_left(1),
            6 if bond.vfs.len() > 1 => bond.vfs.truncate(2),
            _ if policy.bonds.len() > 1 => policy.bonds.truncate(1),
            _ => policy.bonds.push(setup::second_bond(&mut self.rng)),
        }
        let changed = before != policy;
        if policy.bonds.len() > 1 {
            self.note("TwoBonds");
        }
        self.note("Reloaded");
        self.stage.set_policy(policy);
        changed
    }

    pub(super) fn note(&mut self, what: &str) {
        *self.stage.seen.entry(what.to_owned()).or_default() += 1;
    }
}
