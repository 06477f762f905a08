//! The fast path: its programs count and stamp frames per port
//! and direction, keep duplicates away from the guest's stack, and redirect a bond's
//! frames while the bond itself has not followed yet. Once it has, frames that still
//! arrive at the VF reach the guest too, whatever the bond's `all_slaves_active` says.
//!
//! Nothing here decides which port carries the traffic, or when: the core does, and
//! arms it beforehand with a [`FastPath`]. When the armed VF begins to leave, the
//! kernel programs and the thread only carry that out; the core learns of it
//! by the same warning as ever, and by `Input::Reacted`.
//!
//! Kernel side: `helper-ebpf/src/programs/port_programs.rs` and `fast_path.rs`.

mod attach;
mod chain;
mod counters;
mod error;
mod maps;
mod orders;
mod ready;
mod realtime;
mod repeat;
mod setup;
mod system;
mod test_frame;
mod thread;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use tandem_core::{
    IfName, Ifindex, Input,
    fast_path::{ArmedVf, Blocked, FastPath},
};
use tandem_ebpf::MAX_BONDS;
use tokio::sync::mpsc;

use super::{
    hooks::Program,
    load::{Programs, lock},
};
use attach::{Attached, Place};
pub use error::FastPathError;
pub(super) use maps::Maps;
use maps::Wanted;
use orders::Orders;
use ready::Ready;
pub use setup::{Applied, Missing, PortCounts};
pub use tandem_ebpf::FrameCounts;
use test_frame::{Occasion, Ours, Testers};
use thread::Threads;

/// Looks at the port that a bond sends through, which may change between them.
const MAX_LOOKS: usize = 3;
/// Reactions that wait to be read; further ones are only logged.
pub(super) const MAX_REACTIONS: usize = 64;

/// Where a setup is applied, and frames are read. Clones are the same.
#[derive(Clone)]
pub struct FastPaths {
    shared: Arc<Shared>,
}

struct Shared {
    programs: Programs,
    /// Held while programs are attached, which may wait for RTNL.
    bonds: Mutex<Bonds>,
    /// Only ever held for a moment.
    maps: Mutex<Maps>,
    testers: Testers,
    threads: Threads,
    /// The kernel side learns which port of a bond transmits.
    ports_known: bool,
    netns_inum: u32,
}

impl Shared {
    fn ours(&self) -> Ours<'_> {
        Ours {
            programs: &self.programs,
            maps: &self.maps,
        }
    }
}

/// What is attached, by bond.
#[derive(Default)]
struct Bonds {
    attached: BTreeMap<u32, Vec<Attached>>,
    orders: Orders,
}

/// Prepares a link that is down, so that programs which are attached to it once it carries traffic cost no frames. Where
/// that fails they cost some ms: no reason to leave the link down.
pub(crate) fn make_room(link: &IfName) {
    if let Err(reason) = attach::make_room(link.as_str()) {
        tracing::warn!(%link, reason, "there is no room for filters yet");
    }
}

/// The programs have their say before filters of a `clsact`: those do not see what they redirect.
pub(crate) fn come_before_filters() -> bool {
    !attach::needs_clsact()
}

/// The handle goes to the executor's threads.
const fn shared_by_threads<T: Clone + Send + Sync>() {}
const _: () = shared_by_threads::<FastPaths>();

impl FastPaths {
    /// Starts the fast path's threads.
    pub(super) fn start(
        programs: Programs,
        mut maps: Maps,
        ports_known: bool,
        reactions: mpsc::Sender<Input>,
    ) -> Result<Self, FastPathError> {
        let ring = maps.take_wake_ring()?;
        Ok(Self {
            shared: Arc::new(Shared {
                programs,
                bonds: Mutex::default(),
                maps: Mutex::new(maps),
                testers: Testers::default(),
                threads: Threads::start(ring, reactions).map_err(FastPathError::Threads)?,
                ports_known,
                netns_inum: system::netns_inum()?,
            }),
        })
    }

    /// Counts and arms what is wanted for a bond, and nothing else. Idempotent. While a port is counted on (and for
    /// at most [`tandem_ebpf::DUPLICATES_HOLD_NS`] after the last call of this, [`FastPaths::reset`] or
    /// [`FastPaths::prolong`]), broadcast and multicast that it receives is dropped as long as another port of the
    /// bond transmits.
    ///
    /// `announcements` are frames that tell the fabric where the bond is once the armed VF leaves, the most important
    /// first. `order` grows with each order about the bond. Blocks while the kernel attaches programs (it takes
    /// RTNL): not for the main loop.
    ///
    /// # Errors
    /// Nothing of it is in force. What merely can't be attached to some device
    /// is told in [`Applied::missing`].
    pub fn apply(
        &self,
        bond: Ifindex,
        fast_path: &FastPath,
        announcements: &[Vec<u8>],
        order: u64,
    ) -> Result<Applied, FastPathError> {
        let mut bonds = lock(&self.shared.bonds);
        let Bonds { attached, orders } = &mut *bonds;
        if !orders.admit(bond.0, order) {
            return Err(FastPathError::Overtaken { bond: bond.0 });
        }
        if !attached.contains_key(&bond.0) && attached.len() >= MAX_BONDS as usize {
            return Err(FastPathError::TooManyBonds { bond: bond.0 });
        }
        let mut links = attached.remove(&bond.0).unwrap_or_default();
        // The kernel takes a program once for a device (bpf_mprog_attach, kernel/bpf/mprog.c, 6.6): what another
        // bond still has on a port is of the time when that was its port.
        let places = setup::places(bond, fast_path);
        for others in attached.values_mut() {
            others.retain(|other| !places.contains(&other.place));
        }
        let ready = fast_path.armed_vf.as_ref();
        let ready = ready.map(|armed_vf| (armed_vf, Ready::prepare(bond, armed_vf, announcements)));
        let applied = self.apply_to(bond.0, fast_path, ready, &places, &mut links);
        if applied.is_err() {
            self.withdraw(bond.0, &mut links);
        }
        if !links.is_empty() {
            attached.insert(bond.0, links);
        }
        applied
    }

    fn apply_to(
        &self,
        bond: u32,
        fast_path: &FastPath,
        ready: Option<(&ArmedVf, Ready)>,
        places: &BTreeSet<Place>,
        links: &mut Vec<Attached>,
    ) -> Result<Applied, FastPathError> {
        let shared = &*self.shared;
        // First, as it may wait for RTNL: until it is armed anew below, what is armed stays so.
        let mut applied = Applied::default();
        self.attach(places, links, &mut applied.missing)?;
        // Whatever changes: not while a fast path of other ports runs.
        if !lock(&shared.maps).is_armed_as(bond, fast_path.armed_vf.as_ref()) {
            lock(&shared.maps).disarm(bond)?;
            shared.threads.disarm(bond);
        }
        let roles = setup::roles(fast_path);
        let wanted = Wanted {
            roles: &roles,
            period: fast_path.period,
            own_mac: fast_path.mac.map(|mac| mac.0),
            netns_inum: shared.netns_inum,
        };
        lock(&shared.maps).set_ports(bond, &wanted)?;
        if shared.ports_known && !roles.is_empty() {
            self.learn_transmitting(bond)?;
        }

        let there = |ifindex, program| {
            links
                .iter()
                .any(|attached| attached.place == Place { ifindex, program })
        };
        let ports = fast_path.ports.iter().map(|port| port.0);
        let watched = ports
            .filter(|port| there(*port, Program::PortIngress) && there(*port, Program::PortEgress));
        applied.watched = watched.collect();
        if let Some((armed_vf, ready)) = ready
            && let standby = armed_vf.standby.0
            && there(standby, Program::PortIngress)
            && there(standby, Program::PortEgress)
            && there(bond, Program::BondEgress)
        {
            shared.threads.arm(bond, ready);
            let carrier = system::carrier(standby);
            lock(&shared.maps).arm(bond, armed_vf, carrier)?;
            // It may have changed unseen since it was read.
            let carrier_now = system::carrier(standby);
            if carrier_now != carrier {
                lock(&shared.maps).set_carrier(standby, carrier_now)?;
            }
            applied.armed = true;
            let tested = shared
                .testers
                .test_anew(bond, armed_vf, links, shared.ours());
            // As where nothing can be announced, for want of `CAP_NET_RAW`: an untested fast path is better than none.
            applied.blocked = tested.unwrap_or_else(|error| {
                tracing::warn!(bond, %error, "the fast path is not tested");
                None
            });
        } else {
            shared.testers.forget(bond);
        }
        links.retain(|attached| places.contains(&attached.place));
        Ok(applied)
    }

    /// Attaches programs to these places, where they are not attached yet.
    fn attach(
        &self,
        places: &BTreeSet<Place>,
        links: &mut Vec<Attached>,
        missing: &mut Vec<Missing>,
    ) -> Result<(), FastPathError> {
        links.retain(Attached::is_alive);
        let mut programs = lock(&self.shared.programs);
        let ebpf = programs.as_mut().ok_or(FastPathError::Stopped)?;
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
    fn learn_transmitting(&self, bond: u32) -> Result<(), FastPathError> {
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
        self.shared.threads.disarm(bond);
        self.shared.testers.forget(bond);
        links.clear();
    }

    /// Stops watching a bond and disarms its VF, unless a later order about it was there before.
    /// Gives whether it did. Blocks as [`FastPaths::apply`] does.
    pub fn forget(&self, bond: u32, order: u64) -> bool {
        let mut bonds = lock(&self.shared.bonds);
        if !bonds.orders.admit(bond, order) {
            return false;
        }
        let mut links = bonds.attached.remove(&bond).unwrap_or_default();
        self.withdraw(bond, &mut links);
        true
    }

    /// What a port carried since it is watched, or is armed, or since the last reset;
    /// of such a VF also after it is gone. `None` for other ports. Does not block.
    pub fn frames(&self, port: u32) -> Option<PortCounts> {
        lock(&self.shared.maps).frames(port)
    }

    /// Starts the counters of a bond's watched ports anew. Does not block.
    ///
    /// # Errors
    /// The kernel refused the change of a map.
    pub fn reset(&self, bond: u32) -> Result<(), FastPathError> {
        lock(&self.shared.maps).reset(bond)
    }

    /// Keeps duplicates away from a bond's watched ports for as long as anew, because frames
    /// of all its ports are about to be delivered. Does not block.
    ///
    /// # Errors
    /// The kernel refused the change of a map.
    pub fn prolong(&self, bond: u32) -> Result<(), FastPathError> {
        lock(&self.shared.maps).prolong(bond)
    }

    /// Whether a bond's armed fast path fares as it last did, as far as a test frame tells at once; also where there is
    /// nothing to test. Takes no lock of the kernel's and no time.
    pub fn fares_as_before(&self, bond: u32) -> bool {
        let Shared { testers, maps, .. } = &*self.shared;
        testers.fares_as_before(bond, maps)
    }

    /// Tests a bond's armed fast path, and puts its programs last in their chains, where they are not. `None`: there is
    /// nothing to test. `anew`: a chain has changed, and what came of the last test says nothing. Blocks as
    /// [`FastPaths::apply`] does.
    pub fn test(&self, bond: u32, anew: bool) -> Option<Option<Blocked>> {
        let mut bonds = lock(&self.shared.bonds);
        let links = bonds.attached.get_mut(&bond)?;
        let occasion = if anew {
            Occasion::ChainsChanged
        } else {
            Occasion::InTurn
        };
        let ours = self.shared.ours();
        self.shared.testers.test(bond, links, ours, occasion)
    }

    /// Whether the bond's frames take the standby at this moment because its VF leaves.
    pub fn is_running(&self, bond: u32) -> bool {
        lock(&self.shared.maps).is_running(bond)
    }

    /// Detaches everything and ends the threads, whoever still has a clone.
    pub(super) fn stop(&self) {
        let mut bonds = lock(&self.shared.bonds);
        for (bond, mut links) in std::mem::take(&mut bonds.attached) {
            self.withdraw(bond, &mut links);
        }
        self.shared.threads.stop();
    }
}
