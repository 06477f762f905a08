//! The programs on the paths of a hand-over: they count and stamp frames per port
//! and direction, keep duplicates away from the guest's stack, and rescue a bond's
//! frames while the bond itself has not followed yet. Once it has, frames that still
//! arrive at the VF reach the guest too, whatever the bond's `all_slaves_active` says.
//!
//! Nothing here decides which port carries the traffic, or when: the core does, and
//! arms it beforehand in a [`PathPlan`]. When the armed VF begins to leave, the
//! kernel programs and the reflex only carry out that plan; the core learns of it
//! by the same warning as ever, and by `Input::Reacted`.
//!
//! Kernel side: `helper-ebpf/src/programs/path.rs` and `rescue.rs`.

mod attach;
mod counters;
mod error;
mod maps;
mod orders;
mod plan;
mod ready;
mod realtime;
mod reflex;
mod repeat;
mod system;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use tandem_core::Input;
use tandem_ebpf::MAX_BONDS;
use tokio::sync::mpsc;

use super::{
    hooks::Program,
    load::{Programs, lock},
};
use attach::{Attached, Place};
pub use error::PathError;
pub(super) use maps::Maps;
use maps::Wanted;
use orders::Orders;
pub use plan::{Applied, ArmedRescue, Missing, PathPlan, PortTraffic};
use ready::Ready;
use reflex::Reflex;
pub use tandem_ebpf::Traffic;

/// Looks at the port that a bond sends through, which may change between them.
const MAX_LOOKS: usize = 3;
/// Reactions that wait to be read; further ones are only logged.
pub(super) const MAX_REACTIONS: usize = 64;

/// Where a plan is applied, and frames are read. Clones are the same.
#[derive(Clone)]
pub struct Paths {
    shared: Arc<Shared>,
}

struct Shared {
    programs: Programs,
    /// Held while programs are attached, which may wait for RTNL.
    bonds: Mutex<Bonds>,
    /// Only ever held for a moment.
    maps: Mutex<Maps>,
    reflex: Reflex,
    /// The kernel side learns which port of a bond transmits.
    ports_known: bool,
    netns_inum: u32,
}

/// What is attached, by bond.
#[derive(Default)]
struct Bonds {
    attached: BTreeMap<u32, Vec<Attached>>,
    orders: Orders,
}

/// The handle goes to the executor's threads.
const fn shared_by_threads<T: Clone + Send + Sync>() {}
const _: () = shared_by_threads::<Paths>();

impl Paths {
    /// Starts the reflex's threads.
    pub(super) fn start(
        programs: Programs,
        mut maps: Maps,
        ports_known: bool,
        reactions: mpsc::Sender<Input>,
    ) -> Result<Self, PathError> {
        let ring = maps.take_reflex_ring()?;
        Ok(Self {
            shared: Arc::new(Shared {
                programs,
                bonds: Mutex::default(),
                maps: Mutex::new(maps),
                reflex: Reflex::start(ring, reactions).map_err(PathError::Reflex)?,
                ports_known,
                netns_inum: system::netns_inum()?,
            }),
        })
    }

    /// Watches and arms what the plan says for its bond, and nothing else. Idempotent.
    /// Blocks while the kernel attaches programs (it takes RTNL): not for the main loop.
    /// `order` grows with each order about the bond.
    ///
    /// # Errors
    /// Nothing of the plan is in force. What merely can't be attached to some device
    /// is told in [`Applied::missing`].
    pub fn apply(&self, plan: &PathPlan, order: u64) -> Result<Applied, PathError> {
        let mut bonds = lock(&self.shared.bonds);
        let Bonds { attached, orders } = &mut *bonds;
        if !orders.admit(plan.bond, order) {
            return Err(PathError::Overtaken { bond: plan.bond });
        }
        if !attached.contains_key(&plan.bond) && attached.len() >= MAX_BONDS as usize {
            return Err(PathError::TooManyBonds { bond: plan.bond });
        }
        let mut links = attached.remove(&plan.bond).unwrap_or_default();
        // The kernel takes a program once for a device (bpf_mprog_attach, kernel/bpf/mprog.c, 6.6): what another
        // bond still has on a port is of the time when that was its port.
        let places = plan::places(plan);
        for others in attached.values_mut() {
            others.retain(|other| !places.contains(&other.place));
        }
        let applied = self.apply_to(plan, &places, &mut links);
        if applied.is_err() {
            self.withdraw(plan.bond, &mut links);
        }
        if !links.is_empty() {
            attached.insert(plan.bond, links);
        }
        applied
    }

    fn apply_to(
        &self,
        plan: &PathPlan,
        places: &BTreeSet<Place>,
        links: &mut Vec<Attached>,
    ) -> Result<Applied, PathError> {
        let shared = &*self.shared;
        let prepare = |rescue| Ready::prepare(plan.bond, rescue);
        let ready = plan.rescue.as_ref().map(prepare);
        // Whatever changes: not with a rescue of other ports under way.
        if !lock(&shared.maps).is_armed_as(plan) {
            lock(&shared.maps).disarm(plan.bond)?;
            shared.reflex.disarm(plan.bond);
        }
        let roles = plan::roles(plan);
        let wanted = Wanted {
            roles: &roles,
            period: plan.period,
            own_mac: plan.mac,
            netns_inum: shared.netns_inum,
        };
        lock(&shared.maps).set_ports(plan.bond, &wanted)?;
        if shared.ports_known && !roles.is_empty() {
            self.learn_transmitting(plan.bond)?;
        }

        let mut applied = Applied::default();
        self.attach(places, links, &mut applied.missing)?;
        let there = |ifindex, program| {
            links
                .iter()
                .any(|attached| attached.place == Place { ifindex, program })
        };
        let watched =
            plan.watch.iter().copied().filter(|port| {
                there(*port, Program::PathIngress) && there(*port, Program::PathEgress)
            });
        applied.watched = watched.collect();
        if let (Some(rescue), Some(ready)) = (&plan.rescue, ready)
            && there(rescue.standby, Program::PathIngress)
            && there(rescue.standby, Program::PathEgress)
            && there(plan.bond, Program::RescueEgress)
        {
            shared.reflex.arm(plan.bond, ready);
            let carrier = system::carrier(rescue.standby);
            lock(&shared.maps).arm(plan.bond, rescue, carrier)?;
            // It may have changed unseen since it was read.
            let carrier_now = system::carrier(rescue.standby);
            if carrier_now != carrier {
                lock(&shared.maps).set_carrier(rescue.standby, carrier_now)?;
            }
            applied.armed = true;
        }
        Ok(applied)
    }

    /// Attaches programs to these places and detaches them from all others.
    fn attach(
        &self,
        places: &BTreeSet<Place>,
        links: &mut Vec<Attached>,
        missing: &mut Vec<Missing>,
    ) -> Result<(), PathError> {
        links.retain(|attached| places.contains(&attached.place) && attached.is_alive());
        let mut programs = lock(&self.shared.programs);
        let ebpf = programs.as_mut().ok_or(PathError::Stopped)?;
        for place in places {
            if links.iter().any(|attached| attached.place == *place) {
                continue;
            }
            match Attached::new(ebpf, *place) {
                Ok(attached) => links.push(attached),
                Err(reason) => missing.push(Missing {
                    ifindex: place.ifindex,
                    program: place.program,
                    reason,
                }),
            }
        }
        Ok(())
    }

    /// Tells the kernel side which port transmits. What it has seen itself may be of a port that was none of its
    /// business then.
    fn learn_transmitting(&self, bond: u32) -> Result<(), PathError> {
        // Once more if it changes in the meantime: the programs may have been told first.
        for _ in 0..MAX_LOOKS {
            let port = system::active_port(bond);
            lock(&self.shared.maps).set_transmitting(bond, port)?;
            if system::active_port(bond) == port {
                break;
            }
        }
        Ok(())
    }

    fn withdraw(&self, bond: u32, links: &mut Vec<Attached>) {
        if let Err(error) = lock(&self.shared.maps).forget(bond) {
            tracing::warn!(bond, %error, "the eBPF programs could not be told to leave a bond alone");
        }
        self.shared.reflex.disarm(bond);
        links.clear();
    }

    /// Stops watching and rescuing a bond, unless a later order about it was there before.
    /// Gives whether it did. Blocks as [`Paths::apply`] does.
    pub fn forget(&self, bond: u32, order: u64) -> bool {
        let mut bonds = lock(&self.shared.bonds);
        if !bonds.orders.admit(bond, order) {
            return false;
        }
        let mut links = bonds.attached.remove(&bond).unwrap_or_default();
        self.withdraw(bond, &mut links);
        true
    }

    /// What a port carried since it is watched, or is the VF of a rescue, or since the last reset;
    /// of such a VF also after it is gone. `None` for other ports. Does not block.
    pub fn frames(&self, port: u32) -> Option<PortTraffic> {
        lock(&self.shared.maps).frames(port)
    }

    /// Starts the counters of a bond's watched ports anew. Does not block.
    ///
    /// # Errors
    /// The kernel refused the change of a map.
    pub fn reset(&self, bond: u32) -> Result<(), PathError> {
        lock(&self.shared.maps).reset(bond)
    }

    /// Keeps duplicates away from a bond's watched ports for as long as anew, because frames
    /// of all its ports are about to be delivered. Does not block.
    ///
    /// # Errors
    /// The kernel refused the change of a map.
    pub fn prolong(&self, bond: u32) -> Result<(), PathError> {
        lock(&self.shared.maps).prolong(bond)
    }

    /// Whether the bond's frames take the standby at this moment because its VF leaves.
    pub fn is_rescuing(&self, bond: u32) -> bool {
        lock(&self.shared.maps).is_rescuing(bond)
    }

    /// Detaches everything and ends the reflex, whoever still has a clone.
    pub(super) fn stop(&self) {
        let mut bonds = lock(&self.shared.bonds);
        for (bond, mut links) in std::mem::take(&mut bonds.attached) {
            self.withdraw(bond, &mut links);
        }
        self.shared.reflex.stop();
    }
}
