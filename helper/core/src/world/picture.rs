//! The picture itself. Level-triggered: whatever arrives replaces what was known of the same thing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::model::fast_path::{Blocked, FastPath};
use crate::model::input::KnownVf;
use crate::model::link::{Addressing, BondFacts, BondMode, Link, LinkKind};
use crate::model::policy::{BondPolicy, Policy};
use crate::model::removal::{Removal, RemovalStage};
use crate::model::source::{CheckItem, Source, SourceHealth, SourceStatus};
use crate::model::types::{IfName, Ifindex, Time};
use crate::world::identity::{Identity, shown_permanent_mac};

/// Interfaces that are remembered; those beyond are ignored.
pub(crate) const MAX_LINKS: usize = 16_384;
/// Programs that are named where they keep frames from the fast path's.
const MAX_PROGRAMS: usize = 4;
/// Parts of one source that the status lists.
const MAX_PARTS: usize = 64;
/// How long a VF waits for the fast-path programs to be loaded, in ms, while the standby carries the traffic. It
/// takes well below a second; this is for a machine that has hardly any time.
const LOADING_LIMIT_MS: u64 = 30_000;

/// What is known of the guest.
#[derive(Debug, Default)]
pub(crate) struct World {
    links: BTreeMap<Ifindex, Known>,
    links_known: bool,
    addressing: BTreeMap<Ifindex, Addressing>,
    /// When all addresses and routes were last read.
    addressing_read_at: Option<Time>,
    /// Whether there is an IPv4 route to everywhere, through whatever interface.
    way_out: Option<bool>,
    sources: BTreeMap<Source, SourceStatus>,
    fast_path_support: FastPathSupport,
    /// What the fast-path programs do, by bond; `None` where an attempt to change it failed. A bond
    /// that is gone stays here until they have let go of its ports, which live on.
    fast_paths: BTreeMap<Ifindex, Option<FastPath>>,
    /// Bonds whose armed fast path would not run, and where it is blocked.
    blocked: BTreeMap<Ifindex, Blocked>,
    /// Bonds with filters that would not see what an armed fast path redirects.
    passing_over: BTreeSet<Ifindex>,
    /// The upper devices of each bond, as one number.
    upper_devices: BTreeMap<Ifindex, u64>,
    /// VFs that were known before the service was restarted.
    recalled: Vec<KnownVf>,
}

/// Whether the kernel takes the fast-path programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum FastPathSupport {
    /// Nobody has said, and nobody is about to.
    #[default]
    Unknown,
    /// They are being loaded.
    Loading {
        /// What waits for them goes on without them then.
        until: Time,
    },
    /// It does.
    Supported,
    /// It does not.
    Missing,
}

/// One interface and what happened to it.
#[derive(Debug)]
struct Known {
    link: Link,
    /// What it is, whatever its driver makes of it.
    identity: Identity,
    /// When it was first seen; boot time for those that were there at the start.
    first_seen: Time,
    warning: Option<Warning>,
}

/// Announcement that a device is about to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) first: RemovalStage,
    pub(crate) first_at: Time,
    /// How far the removal is by now.
    pub(crate) last: RemovalStage,
    /// When anything was last heard of it.
    pub(crate) heard_at: Time,
    /// When the driver was told to stop: the link began to be unregistered. Where only its closing was
    /// seen, when the driver had stopped.
    pub(crate) stopping_at: Option<Time>,
}

impl Warning {
    /// The removal has begun; only milliseconds are left.
    pub(crate) fn is_close(&self) -> bool {
        self.last > RemovalStage::ButtonCancelled
    }

    /// When a removal that did not happen is forgotten.
    pub(crate) fn expires_at(&self, policy: &BondPolicy) -> Time {
        self.heard_at.plus_ms(policy.timing.removal_timeout_ms)
    }
}

/// The fast-path programs are known to do nothing.
fn is_idle(fast_path: Option<&FastPath>) -> bool {
    fast_path.is_some_and(FastPath::is_nothing)
}

impl World {
    /// Links were read at least once: absence means absence.
    pub(crate) fn links_known(&self) -> bool {
        self.links_known
    }

    /// Addresses and routes were read at least once.
    pub(crate) fn addressing_known(&self) -> bool {
        self.addressing_read_at.is_some()
    }

    /// Addresses and routes were read since this link appeared, so that none is overlooked.
    pub(crate) fn addressing_is_complete(&self, ifindex: Ifindex) -> bool {
        let first_seen = self.links.get(&ifindex).map(|known| known.first_seen);
        self.addressing_read_at >= first_seen && self.addressing_read_at.is_some()
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values().map(|known| &known.link)
    }

    /// All links, each with what it is recognised by.
    pub(crate) fn identified_links(&self) -> impl Iterator<Item = (&Link, &Identity)> {
        self.links
            .values()
            .map(|known| (&known.link, &known.identity))
    }

    /// PCI devices that a bond has or had, and whose permanent MAC is no longer their own. Not those that were seen
    /// first when it was not: what they have later may be their own again.
    pub(crate) fn rewritten(&self) -> impl Iterator<Item = KnownVf> {
        self.identified_links().filter_map(|(link, identity)| {
            let was_own = identity.has_joined() && !identity.has_the_bonds_mac();
            let mac = identity.mac().filter(|_| was_own)?;
            let is_other = shown_permanent_mac(link).is_some_and(|now| now != mac);
            let pci = link.pci.filter(|_| is_other)?;
            Some(KnownVf {
                ifindex: link.ifindex,
                mac,
                pci: Some(pci),
            })
        })
    }

    /// VFs of before a restart of the service; handed in before links are.
    pub(crate) fn recall(&mut self, vfs: Vec<KnownVf>) {
        self.recalled = vfs;
    }

    /// A VF was recognised by what it had before a bond took it. It stays that, whatever the policy says later, as it
    /// does over a restart.
    pub(crate) fn settle(&mut self, vf: &KnownVf) {
        let Some(known) = self.links.get_mut(&vf.ifindex) else {
            return;
        };
        if known.identity.mac() != Some(vf.mac) {
            let settled = Identity::recalled(vf, &known.link);
            known.identity = settled.unwrap_or(known.identity);
        }
    }

    /// What a link is that was not known before.
    fn identify(&self, link: &Link) -> Identity {
        let mut recalled = self.recalled.iter();
        let recalled = recalled.find_map(|vf| Identity::recalled(vf, link));
        recalled.unwrap_or_else(|| Identity::of(link))
    }

    pub(crate) fn link(&self, ifindex: Ifindex) -> Option<&Link> {
        self.links.get(&ifindex).map(|known| &known.link)
    }

    /// The link of that name. While a rename is half seen two may carry it: the newer one counts.
    pub(crate) fn link_named(&self, name: &IfName) -> Option<&Link> {
        self.links().filter(|link| link.name == *name).last()
    }

    pub(crate) fn ports(&self, controller: Ifindex) -> impl Iterator<Item = &Link> {
        self.links()
            .filter(move |link| link.controller == Some(controller))
    }

    pub(crate) fn warning(&self, ifindex: Ifindex) -> Option<&Warning> {
        self.links.get(&ifindex)?.warning.as_ref()
    }

    /// Addresses and routes of a link; `None` if there are none or they are not known.
    pub(crate) fn addressing(&self, ifindex: Ifindex) -> Option<&Addressing> {
        self.addressing.get(&ifindex)
    }

    /// How a source fares.
    pub(crate) fn source_status(&self, source: Source) -> Option<&SourceStatus> {
        self.sources.get(&source)
    }

    /// Whether the guest has an IPv4 route to everywhere; `None` if that is not known.
    pub(crate) fn has_way_out(&self) -> Option<bool> {
        self.way_out
    }

    pub(crate) fn put_way_out(&mut self, is_there: bool) {
        self.way_out = Some(is_there);
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = &SourceStatus> {
        self.sources.values()
    }

    /// Whether the kernel takes the fast-path programs.
    pub(crate) fn fast_path_support(&self) -> FastPathSupport {
        self.fast_path_support
    }

    /// Until when a VF waits for the fast-path programs, if they are being loaded.
    pub(crate) fn fast_paths_due_at(&self) -> Option<Time> {
        match self.fast_path_support {
            FastPathSupport::Loading { until } => Some(until),
            _ => None,
        }
    }

    /// What the fast-path programs do for a bond; `None` if that is not known.
    pub(crate) fn fast_path(&self, bond: Ifindex) -> Option<&FastPath> {
        self.fast_paths.get(&bond)?.as_ref()
    }

    /// Where the fast path that is armed for a bond would not run.
    pub(crate) fn blocked(&self, bond: Ifindex) -> Option<&Blocked> {
        self.fast_path(bond)?.armed_vf.as_ref()?;
        self.blocked.get(&bond)
    }

    /// The bond's fast path is armed, and its programs would run.
    pub(crate) fn is_armed_for(&self, bond: Ifindex, vf: Ifindex) -> bool {
        let fast_path = self.fast_path(bond);
        let armed_vf = fast_path.and_then(|fast_path| fast_path.armed_vf.as_ref());
        armed_vf.is_some_and(|armed_vf| armed_vf.vf == vf) && self.blocked(bond).is_none()
    }

    pub(crate) fn put_blocked(&mut self, bond: Ifindex, blocked: Option<Blocked>) {
        match blocked.filter(|_| self.links.contains_key(&bond)) {
            Some(mut blocked) => {
                blocked.programs.truncate(MAX_PROGRAMS);
                self.blocked.insert(bond, blocked);
            }
            None => {
                self.blocked.remove(&bond);
            }
        }
    }

    /// The fast path that is armed for a bond would go around filters.
    pub(crate) fn passes_over(&self, bond: Ifindex) -> bool {
        let armed = self.fast_path(bond).map(|one| one.armed_vf.is_some());
        armed == Some(true) && self.passing_over.contains(&bond)
    }

    pub(crate) fn put_passing_over(&mut self, bond: Ifindex, passed_over: bool) {
        if passed_over && self.links.contains_key(&bond) {
            self.passing_over.insert(bond);
        } else {
            self.passing_over.remove(&bond);
        }
    }

    /// The upper devices of a bond, as one number that changes with them.
    pub(crate) fn upper_devices(&self, bond: Ifindex) -> u64 {
        self.upper_devices.get(&bond).copied().unwrap_or(0)
    }

    pub(crate) fn put_upper_devices(&mut self, bond: Ifindex, fingerprint: u64) {
        if self.links.contains_key(&bond) {
            self.upper_devices.insert(bond, fingerprint);
        }
    }

    pub(crate) fn await_fast_paths(&mut self, now: Time) {
        let until = now.plus_ms(LOADING_LIMIT_MS);
        self.fast_path_support = FastPathSupport::Loading { until };
    }

    pub(crate) fn support_fast_path(&mut self, supported: bool) {
        self.fast_path_support = match supported {
            true => FastPathSupport::Supported,
            false => FastPathSupport::Missing,
        };
        if !supported {
            self.fast_paths.clear();
            self.blocked.clear();
            self.passing_over.clear();
        }
    }

    pub(crate) fn put_fast_path(&mut self, bond: Ifindex, fast_path: FastPath) {
        if fast_path.is_nothing() && !self.links.contains_key(&bond) {
            self.fast_paths.remove(&bond);
        } else if self.fast_paths.contains_key(&bond) || self.fast_paths.len() < MAX_LINKS {
            self.fast_paths.insert(bond, Some(fast_path));
        }
    }

    /// What the fast-path programs do for a bond is no longer known.
    pub(crate) fn doubt_fast_path(&mut self, bond: Ifindex) {
        if self.fast_paths.contains_key(&bond) || self.fast_paths.len() < MAX_LINKS {
            self.fast_paths.insert(bond, None);
        }
    }

    /// Bonds that the fast-path programs may do something for although there is no such bond, the
    /// policy does not name it, or its mode has become another one.
    pub(crate) fn stray_fast_paths(&self, policy: &Policy) -> Vec<Ifindex> {
        let named = |bond: &Ifindex| {
            let mut names = policy.bonds.iter().map(|bond| &bond.name);
            let other_mode = |facts: &BondFacts| facts.mode != BondMode::ActiveBackup;
            self.link(*bond).is_some_and(|link| {
                names.any(|name| *name == link.name) && !link.bond.as_ref().is_some_and(other_mode)
            })
        };
        let fast_paths = self.fast_paths.iter().filter(|_| self.links_known);
        let stray =
            fast_paths.filter(|(bond, fast_path)| !is_idle(fast_path.as_ref()) && !named(bond));
        stray.map(|(bond, _)| *bond).collect()
    }

    /// Replaces all links. What is known of their past stays with those that are still there.
    pub(crate) fn replace_links(&mut self, now: Time, links: Vec<Link>) {
        let first_seen = if self.links_known { now } else { Time(0) };
        let mut before = core::mem::take(&mut self.links);
        for link in links.into_iter().take(MAX_LINKS) {
            let before = before.remove(&link.ifindex);
            let known = Known {
                identity: match &before {
                    Some(known) if is_same(&known.link, &link) => known.identity.seen_again(&link),
                    _ => self.identify(&link),
                },
                first_seen: before.as_ref().map_or(first_seen, |known| known.first_seen),
                warning: before.and_then(|known| known.warning),
                link,
            };
            self.links.insert(known.link.ifindex, known);
        }
        self.links_known = true;
        let links = &self.links;
        self.fast_paths
            .retain(|bond, fast_path| links.contains_key(bond) || !is_idle(fast_path.as_ref()));
        self.blocked.retain(|bond, _| links.contains_key(bond));
        self.passing_over.retain(|bond| links.contains_key(bond));
        self.upper_devices
            .retain(|bond, _| links.contains_key(bond));
    }

    pub(crate) fn put_link(&mut self, now: Time, link: Link) {
        let identity = self.identify(&link);
        if let Some(known) = self.links.get_mut(&link.ifindex) {
            known.identity = match is_same(&known.link, &link) {
                true => known.identity.seen_again(&link),
                false => identity,
            };
            known.link = link;
        } else if self.links.len() < MAX_LINKS {
            let known = Known {
                identity,
                link,
                first_seen: now,
                warning: None,
            };
            self.links.insert(known.link.ifindex, known);
        }
    }

    pub(crate) fn remove_link(&mut self, ifindex: Ifindex) {
        self.links.remove(&ifindex);
        self.addressing.remove(&ifindex);
        if is_idle(self.fast_path(ifindex)) {
            self.fast_paths.remove(&ifindex);
        }
        self.blocked.remove(&ifindex);
        self.passing_over.remove(&ifindex);
        self.upper_devices.remove(&ifindex);
    }

    pub(crate) fn replace_addressings(&mut self, now: Time, all: Vec<Addressing>) {
        self.addressing = all
            .into_iter()
            .take(MAX_LINKS)
            .map(|one| (one.ifindex, one))
            .collect();
        self.addressing_read_at = Some(now);
    }

    pub(crate) fn put_addressing(&mut self, one: Addressing) {
        let known = self.addressing.contains_key(&one.ifindex);
        if known || self.addressing.len() < MAX_LINKS {
            self.addressing.insert(one.ifindex, one);
        }
    }

    /// Notes an announced removal at every device it concerns. One that is older
    /// than the device was meant for its predecessor in the same slot.
    pub(crate) fn warn(&mut self, now: Time, removal: Removal) {
        for known in self.links.values_mut() {
            if concerns(&removal, &known.link) && removal.at >= known.first_seen {
                known.warning = warned(known.warning, now, removal);
            }
        }
    }

    /// The announced removal did not happen.
    pub(crate) fn forget_warning(&mut self, ifindex: Ifindex) {
        if let Some(known) = self.links.get_mut(&ifindex) {
            known.warning = None;
        }
    }

    pub(crate) fn count_lost(&mut self, source: Source) {
        let status = self.source(source);
        status.lost = status.lost.saturating_add(1);
    }

    pub(crate) fn put_health(
        &mut self,
        source: Source,
        health: SourceHealth,
        mut parts: Vec<CheckItem>,
    ) {
        parts.truncate(MAX_PARTS);
        let status = self.source(source);
        status.health = health;
        status.parts = parts;
    }

    fn source(&mut self, source: Source) -> &mut SourceStatus {
        self.sources.entry(source).or_insert_with(|| SourceStatus {
            source,
            health: SourceHealth::Working,
            lost: 0,
            parts: Vec::new(),
        })
    }
}

/// Not another device that got the index of one whose end was missed.
fn is_same(before: &Link, now: &Link) -> bool {
    before.pci.is_none() || now.pci.is_none() || before.pci == now.pci
}

fn concerns(removal: &Removal, link: &Link) -> bool {
    let address = match removal.stage {
        RemovalStage::ButtonPressed | RemovalStage::ButtonCancelled => link.pci_parent,
        RemovalStage::EjectRequested
        | RemovalStage::RemovalStarted
        | RemovalStage::DriverStopping => link.pci,
        RemovalStage::Unknown => None,
    };
    link.kind == LinkKind::Physical && address == Some(removal.pci)
}

fn warned(before: Option<Warning>, now: Time, removal: Removal) -> Option<Warning> {
    let Removal { stage, at, .. } = removal;
    if stage == RemovalStage::ButtonCancelled {
        // Past the button there is no way back.
        return before.filter(Warning::is_close);
    }
    let stopping_at = (stage == RemovalStage::DriverStopping).then_some(at);
    Some(match before {
        Some(warning) => Warning {
            last: warning.last.max(stage),
            heard_at: now,
            // That a link is closed is told once its driver has stopped, which may take hundreds of ms.
            stopping_at: warning.stopping_at.or(stopping_at),
            ..warning
        },
        // A driver also stops when somebody merely takes the link down.
        None if stage == RemovalStage::DriverStopping => return None,
        None => Warning {
            first: stage,
            first_at: at,
            last: stage,
            heard_at: now,
            stopping_at,
        },
    })
}
