//! What is known of all domains, and who is told when it changes.
//!
//! Level-triggered: a reader that is slow misses steps in between and never the last one, and
//! nothing is queued for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tandem_core::Policy;
use tandem_core::status::{BondStatus, Switchover, SwitchoverCause};
use tandem_core::types::IfName;
use tandem_wire::reply::StatusReport;
use tokio::sync::watch;
use tokio::time::Instant;

use super::carries::Carries;
use crate::control::{CarryFigures, ControlReply, Shown};
use crate::report::{ChannelUse, DomainReport, EvacuationReport};

/// All causes, in the order in which they are counted.
pub(super) const CAUSES: [SwitchoverCause; 7] = [
    SwitchoverCause::Planned,
    SwitchoverCause::Warned,
    SwitchoverCause::Abrupt,
    SwitchoverCause::Carrier,
    SwitchoverCause::PathLost,
    SwitchoverCause::Operator,
    SwitchoverCause::Arrival,
];
/// Most bytes of a guest's status, as JSON, that are kept.
const MAX_KEPT_BYTES: usize = 64 * 1024;
/// Switchovers of a bond that are kept of a status which is longer.
const FEW_SWITCHOVERS: usize = 2;
/// Versions of one guest that are labels of its metrics: it says another as often as it likes.
const MAX_VERSIONS: usize = 8;
/// Longest version that is a label, in bytes.
const MAX_VERSION_BYTES: usize = 20;
/// Domains that have gone and are remembered, so that who watches learns it.
const MAX_GONE: usize = 1024;

/// What is known of all domains.
#[derive(Debug)]
pub(super) struct Registry {
    inner: Mutex<Inner>,
    /// The last change's number.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    domains: BTreeMap<String, Entry>,
    /// Each domain by the number of its last change.
    order: BTreeMap<u64, String>,
    sequence: u64,
    gone: usize,
    carries: Carries,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    /// `None`: it has gone.
    known: Option<KnownDomain>,
}

/// What is known of one domain.
#[derive(Debug, Clone)]
pub(super) struct KnownDomain {
    pub(super) report: DomainReport,
    /// When hypervisor or guest last said so.
    pub(super) heard: Instant,
    /// Switchovers of each bond that were told while we listened.
    pub(super) switchovers: BTreeMap<IfName, Counted>,
    /// The first [`MAX_VERSIONS`] versions that its guest claimed and that read as versions.
    pub(super) versions: Vec<String>,
    /// Attempts to plug in its VF, of all evacuations.
    pub(super) attempts: u32,
}

/// Switchovers of one bond.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    last_number: u64,
    /// In the order of [`CAUSES`].
    pub(super) by_cause: [u64; CAUSES.len()],
}

/// What became of the record of an evacuation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReplugAttempts {
    pub(super) count: u32,
    pub(super) last: Option<String>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// A holder that panicked left at worst one domain's entry half written, and the next look or answer
    /// writes it anew: no reason to take the registry from all others.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the hypervisor shows of a domain; what its guest said is kept, unless it is another
    /// run of the domain.
    pub(super) fn show(&self, mut report: DomainReport, is_same_run: bool) {
        let name = report.domain.clone();
        let mut inner = self.inner();
        let old = inner.domains.get_mut(&name);
        let old = old.and_then(|entry| entry.known.as_mut());
        let mut old = old;
        let mut heard = Instant::now();
        let attempts = old.as_ref().map_or(0, |old| old.attempts);
        if let Some(old) = &mut old {
            if is_same_run {
                let before = &old.report;
                heard = old.heard;
                report.channel = before.channel;
                report.guest.clone_from(&before.guest);
                report.guest_error.clone_from(&before.guest_error);
                report.configure_error.clone_from(&before.configure_error);
            }
            keep_attempts(old.report.evacuation.as_ref(), &mut report);
            if old.report == report {
                if report.guest.is_none() {
                    old.heard = Instant::now();
                }
                return;
            }
        }
        let (switchovers, versions) = old.map_or_else(Default::default, |old| {
            let switchovers = std::mem::take(&mut old.switchovers);
            (switchovers, std::mem::take(&mut old.versions))
        });
        let known = KnownDomain {
            report,
            heard,
            switchovers,
            versions,
            attempts,
        };
        inner.set(&name, Some(known));
        self.changed.send_replace(inner.sequence);
    }

    /// It does not run here any more.
    pub(super) fn remove(&self, name: &str) {
        let mut inner = self.inner();
        if inner
            .domains
            .get(name)
            .is_some_and(|entry| entry.known.is_some())
        {
            inner.set(name, None);
            self.changed.send_replace(inner.sequence);
        }
    }

    /// The guest answered; `bytes` is the length of its answer.
    pub(super) fn guest(&self, name: &str, report: StatusReport, bytes: usize) {
        let report = match bounded(report, bytes) {
            Ok(report) => report,
            Err(reason) => return self.silent(name, ChannelUse::Subscribed, reason),
        };
        self.edit(name, |known| {
            known.heard = Instant::now();
            let old = &mut known.report;
            let same = old.channel == ChannelUse::Subscribed
                && old.guest_error.is_none()
                && old.guest.as_ref().is_some_and(|old| {
                    old.status == report.status && old.version == report.version
                });
            old.channel = ChannelUse::Subscribed;
            old.guest_error = None;
            count(&mut known.switchovers, &report.status.bonds);
            note_version(&mut known.versions, &report.version);
            old.guest = Some(report);
            !same
        });
    }

    /// The guest says nothing, and what it said before counts no more.
    pub(super) fn silent(&self, name: &str, channel: ChannelUse, reason: String) {
        self.edit(name, |known| {
            let old = &mut known.report;
            let same = old.channel == channel
                && old.guest.is_none()
                && old.guest_error.as_ref() == Some(&reason);
            if old.guest.is_some() {
                known.heard = Instant::now();
            }
            old.channel = channel;
            old.guest = None;
            old.guest_error = Some(reason);
            !same
        });
    }

    /// Another tool has the channel.
    pub(super) fn leased(&self, name: &str) {
        self.edit(name, |known| {
            let same = known.report.channel == ChannelUse::Leased;
            known.report.channel = ChannelUse::Leased;
            known.report.guest_error = Some("another tandem-host has the channel now".to_owned());
            !same
        });
    }

    /// The guest has its bonds, or why not.
    pub(super) fn configured(&self, name: &str, error: Option<String>) {
        self.edit(name, |known| {
            let same = known.report.configure_error == error;
            known.report.configure_error = error;
            !same
        });
    }

    /// How the attempts to plug in the VF go.
    pub(super) fn attempted(&self, name: &str, attempts: &ReplugAttempts) {
        self.edit(name, |known| {
            let Some(evacuation) = &mut known.report.evacuation else {
                return false;
            };
            let same = evacuation.attempts == attempts.count && evacuation.last == attempts.last;
            known.attempts += attempts.count.saturating_sub(evacuation.attempts);
            evacuation.attempts = attempts.count;
            evacuation.last.clone_from(&attempts.last);
            !same
        });
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut KnownDomain) -> bool) {
        let mut inner = self.inner();
        let Some(known) = inner.domains.get_mut(name) else {
            return;
        };
        let Some(known) = &mut known.known else {
            return;
        };
        if edit(known) {
            inner.touch(name);
            self.changed.send_replace(inner.sequence);
        }
    }

    /// A carry from this host is over. No domain's change: its guest is elsewhere by then.
    pub(super) fn carried(&self, figures: &CarryFigures) {
        let mut inner = self.inner();
        inner.carries.add(figures);
        // The file of metrics is written anew.
        self.changed.send_replace(inner.sequence);
    }

    /// All carries that are over.
    pub(super) fn carries(&self) -> Carries {
        self.inner().carries
    }

    /// Learns of each change from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The number of the last change.
    pub(super) fn sequence(&self) -> u64 {
        self.inner().sequence
    }

    /// The first change after that number, of one domain or of any, with its own number.
    pub(super) fn after(&self, sequence: u64, domain: Option<&str>) -> Option<(u64, ControlReply)> {
        let inner = self.inner();
        let mut later = inner.order.range(sequence.checked_add(1)?..);
        let (sequence, name) = later.find(|(_, name)| domain.is_none_or(|one| one == *name))?;
        let entry = inner.domains.get(name)?;
        Some((*sequence, reply(name, entry)))
    }

    /// All domains that run here.
    pub(super) fn names(&self) -> Vec<String> {
        let inner = self.inner();
        let known = inner.domains.iter();
        let known = known.filter(|(_, entry)| entry.known.is_some());
        known.map(|(name, _)| name.clone()).collect()
    }

    /// A domain that runs here.
    pub(super) fn one(&self, name: &str) -> Option<ControlReply> {
        let inner = self.inner();
        let entry = inner.domains.get(name)?;
        entry.known.as_ref()?;
        Some(reply(name, entry))
    }

    /// Calls `see` with everything known of each domain that runs here, by name.
    pub(super) fn each(&self, mut see: impl FnMut(&str, &KnownDomain)) {
        let inner = self.inner();
        for (name, entry) in &inner.domains {
            if let Some(known) = &entry.known {
                see(name, known);
            }
        }
    }
}

impl Inner {
    fn set(&mut self, name: &str, known: Option<KnownDomain>) {
        let was_gone = |entry: &Entry| entry.known.is_none();
        let before = self.domains.get(name);
        self.gone += usize::from(known.is_none());
        self.gone -= usize::from(before.is_some_and(was_gone));
        let sequence = before.map_or(0, |entry| entry.sequence);
        let entry = Entry { sequence, known };
        self.domains.insert(name.to_owned(), entry);
        self.touch(name);
        while self.gone > MAX_GONE {
            let mut oldest = self.order.iter();
            let oldest = oldest.find(|(_, name)| self.domains.get(*name).is_some_and(was_gone));
            let Some((sequence, name)) = oldest.map(|(at, name)| (*at, name.clone())) else {
                break;
            };
            self.order.remove(&sequence);
            self.domains.remove(&name);
            self.gone -= 1;
        }
    }

    fn touch(&mut self, name: &str) {
        let Some(entry) = self.domains.get_mut(name) else {
            return;
        };
        self.sequence += 1;
        self.order.remove(&entry.sequence);
        entry.sequence = self.sequence;
        self.order.insert(self.sequence, name.to_owned());
    }
}

fn reply(name: &str, entry: &Entry) -> ControlReply {
    match &entry.known {
        None => ControlReply::Gone {
            domain: name.to_owned(),
        },
        Some(known) => ControlReply::Domain(Box::new(Shown {
            age_ms: u64::try_from(known.heard.elapsed().as_millis()).unwrap_or(u64::MAX),
            report: known.report.clone(),
        })),
    }
}

/// Counts what is new. A number that goes back means that the guest's service began anew.
fn count(switchovers: &mut BTreeMap<IfName, Counted>, bonds: &[BondStatus]) {
    switchovers.retain(|name, _| bonds.iter().any(|bond| bond.name == *name));
    for bond in bonds {
        let newest = bond
            .switchovers
            .iter()
            .map(|switchover| switchover.number)
            .max();
        let newest = newest.unwrap_or(0);
        let Some(counted) = switchovers.get_mut(&bond.name) else {
            let counted = Counted {
                last_number: newest,
                ..Counted::default()
            };
            switchovers.insert(bond.name.clone(), counted);
            continue;
        };
        let known = counted.last_number;
        let new = |switchover: &&Switchover| newest < known || switchover.number > known;
        for switchover in bond.switchovers.iter().filter(new) {
            let place = CAUSES.iter().position(|cause| *cause == switchover.cause);
            if let Some(count) = place.and_then(|place| counted.by_cause.get_mut(place)) {
                *count += 1;
            }
        }
        counted.last_number = newest;
    }
}

/// A look does not know of attempts.
fn keep_attempts(before: Option<&EvacuationReport>, report: &mut DomainReport) {
    if let (Some(before), Some(after)) = (before, &mut report.evacuation)
        && before.evacuation == after.evacuation
    {
        after.attempts = before.attempts;
        after.last.clone_from(&before.last);
    }
}

fn note_version(versions: &mut Vec<String>, version: &str) {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
    let reads = (1..=MAX_VERSION_BYTES).contains(&version.len()) && version.bytes().all(usual);
    if reads && versions.len() < MAX_VERSIONS && !versions.iter().any(|known| known == version) {
        versions.push(version.to_owned());
    }
}

/// No more than a sane guest says. Of a long status the older switchovers and the parts of sources go.
fn bounded(mut report: StatusReport, bytes: usize) -> Result<StatusReport, String> {
    let status = &mut report.status;
    if bytes > MAX_KEPT_BYTES {
        for bond in &mut status.bonds {
            let many = bond.switchovers.len().saturating_sub(FEW_SWITCHOVERS);
            bond.switchovers.drain(..many);
        }
        status
            .sources
            .iter_mut()
            .for_each(|source| source.parts = Vec::new());
        let kept = serde_json::to_vec(&report).map_or(usize::MAX, |text| text.len());
        if kept > MAX_KEPT_BYTES {
            return Err(format!(
                "the guest's status is {bytes} bytes long; more than {MAX_KEPT_BYTES} are not kept"
            ));
        }
    }
    if report.status.bonds.len() > Policy::MAX_BONDS {
        return Err(format!(
            "the guest claims more than {} bonds",
            Policy::MAX_BONDS
        ));
    }
    report.status.bonds.shrink_to_fit();
    for bond in &mut report.status.bonds {
        bond.switchovers.shrink_to_fit();
    }
    Ok(report)
}
