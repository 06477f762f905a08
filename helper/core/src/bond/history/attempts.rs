//! What was tried, how it went, and when it may be tried again.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::backoff::Backoff;
use crate::bond::view::BondView;
use crate::model::action::ActionKind;
use crate::model::link::Link;
use crate::model::status::ProblemCode;
use crate::model::types::{IfName, Ifindex, Mac, Time};
use crate::world::World;

/// An effect that lasted this long was no fight with another manager, in ms.
const FORGIVEN_AFTER_MS: u64 = 60_000;
/// Upper bound of attempts remembered for one bond.
const MAX_ATTEMPTS: usize = 128;

/// What is tried. Actions of one topic about one device share a back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Create,
    Options,
    AdminUp,
    Mtu,
    Mac,
    Free,
    Membership,
    Primary,
    Addressing,
    Announce,
    FastPath,
    PathCheck,
}

/// A topic and the device it is about; index 0 for a device that is not there yet.
type Key = (Topic, Ifindex);

/// The key of an action that changes a bond; `None` for all others.
fn key(kind: &ActionKind) -> Option<Key> {
    match *kind {
        ActionKind::CreateBond { .. } => Some((Topic::Create, Ifindex(0))),
        ActionKind::SetBondOptions { bond, .. } => Some((Topic::Options, bond)),
        ActionKind::SetAdminUp { link, .. } => Some((Topic::AdminUp, link)),
        ActionKind::SetMtu { link, .. } => Some((Topic::Mtu, link)),
        ActionKind::SetMac { link, .. } => Some((Topic::Mac, link)),
        ActionKind::CheckFree { port, .. } => Some((Topic::Free, port)),
        ActionKind::Enslave { port, .. } | ActionKind::Release { port, .. } => {
            Some((Topic::Membership, port))
        }
        ActionKind::SetPrimary { bond, .. } => Some((Topic::Primary, bond)),
        // There and back share a key, so that neither counts as a repetition.
        ActionKind::MoveAddressing { from, to } => Some((Topic::Addressing, from.max(to))),
        ActionKind::AddAddressing { link, .. } | ActionKind::FlushAddressing { link } => {
            Some((Topic::Addressing, link))
        }
        ActionKind::Announce { bond, .. } => Some((Topic::Announce, bond)),
        ActionKind::SetFastPath { bond, .. } => Some((Topic::FastPath, bond)),
        ActionKind::CheckPath { from, .. } => Some((Topic::PathCheck, from)),
        ActionKind::ReadFrames { .. }
        | ActionKind::ReadTraffic { .. }
        | ActionKind::AskPath { .. }
        | ActionKind::Observe { .. } => None,
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ProblemCode,
    pub(crate) device: Option<IfName>,
    pub(crate) message: String,
}

/// Facts of the device that decide whether another try could end differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceMark {
    pub(crate) permanent_mac: Option<Mac>,
    pub(crate) max_mtu: u32,
    pub(crate) driver: Option<String>,
    pub(crate) bond_mac: Option<Mac>,
    pub(crate) bond_mtu: u32,
}

impl DeviceMark {
    fn of(nic: &Link, bond: &Link) -> Self {
        Self {
            permanent_mac: nic.permanent_mac,
            max_mtu: nic.max_mtu,
            driver: nic.driver.clone(),
            bond_mac: bond.mac,
            bond_mtu: bond.mtu,
        }
    }

    /// The mark of the NIC that an action takes in, if it does so.
    pub(crate) fn of_action(world: &World, kind: &ActionKind) -> Option<Self> {
        let ActionKind::Enslave { port, bond } = kind else {
            return None;
        };
        Some(Self::of(world.link(*port)?, world.link(*bond)?))
    }
}

/// An action that failed and may be wanted again.
#[derive(Debug)]
struct Failed {
    kind: ActionKind,
    ended_at: Time,
    next_at: Time,
    backoff: Backoff,
    failure: Option<Failure>,
    mark: Option<DeviceMark>,
    wanted: bool,
}

/// The last action of a topic that took effect.
#[derive(Debug)]
struct Done {
    kind: ActionKind,
    ended_at: Time,
    next_at: Time,
    backoff: Backoff,
}

#[derive(Debug, Default)]
pub(crate) struct Attempts {
    failed: Vec<Failed>,
    done: BTreeMap<Key, Done>,
}

impl Attempts {
    /// The moment from which the action may be tried.
    pub(crate) fn next_at(&self, kind: &ActionKind) -> Time {
        let done = key(kind).and_then(|key| self.done.get(&key));
        let after_failure = self.last_failed(kind).map_or(Time(0), |one| one.next_at);
        let after_success = done
            .filter(|one| one.kind == *kind)
            .map_or(Time(0), |one| one.next_at);
        after_failure.max(after_success)
    }

    /// The action took effect. The same one needed again soon means that somebody
    /// undoes it; then it is repeated ever more slowly.
    pub(crate) fn succeeded(&mut self, kind: &ActionKind, now: Time) {
        self.failed.retain(|one| one.kind != *kind);
        let Some(key) = key(kind) else { return };
        // Those are no state that somebody could undo.
        if matches!(key.0, Topic::Announce | Topic::Free | Topic::PathCheck) {
            return;
        }
        let undone = self.done.remove(&key).filter(|before| {
            before.kind == *kind && now.since_ms(before.ended_at) < FORGIVEN_AFTER_MS
        });
        let (backoff, next_at) = match undone {
            Some(mut before) => {
                let next_at = before.backoff.fail(now);
                (before.backoff, next_at)
            }
            None => (pace(kind), now),
        };
        if self.done.len() < MAX_ATTEMPTS {
            let done = Done {
                kind: kind.clone(),
                ended_at: now,
                next_at,
                backoff,
            };
            self.done.insert(key, done);
        }
    }

    /// The action failed; with `failure` it is a problem, without it only bad luck.
    pub(crate) fn failed(
        &mut self,
        kind: &ActionKind,
        failure: Option<Failure>,
        mark: Option<DeviceMark>,
        now: Time,
    ) {
        if let ActionKind::Enslave { port, .. } = kind {
            // The try itself took the link down; nobody else undid its being up.
            self.done.remove(&(Topic::AdminUp, *port));
        }
        let before = self.failed.iter().position(|one| one.kind == *kind);
        let mut backoff = before.map_or_else(
            || pace_after(kind, failure.as_ref()),
            |place| self.failed.swap_remove(place).backoff,
        );
        if self.failed.len() >= MAX_ATTEMPTS {
            self.drop_oldest_failure();
        }
        self.failed.push(Failed {
            kind: kind.clone(),
            ended_at: now,
            next_at: backoff.fail(now),
            backoff,
            failure,
            mark,
            wanted: true,
        });
    }

    fn drop_oldest_failure(&mut self) {
        let places = self.failed.iter().enumerate();
        let oldest = places.min_by_key(|(_, one)| one.ended_at);
        if let Some((place, _)) = oldest {
            self.failed.swap_remove(place);
        }
    }

    fn last_failed(&self, kind: &ActionKind) -> Option<&Failed> {
        self.failed.iter().find(|one| one.kind == *kind)
    }

    /// Failures in a row of an action; 0 if it was not tried or worked.
    pub(crate) fn failures(&self, kind: &ActionKind) -> u32 {
        self.last_failed(kind)
            .map_or(0, |one| one.backoff.failures())
    }

    /// Why the last attempt of an action failed, if it did.
    pub(crate) fn failure(&self, kind: &ActionKind) -> Option<&Failure> {
        self.last_failed(kind)?.failure.as_ref()
    }

    /// Failures of what is still wanted.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &Failure> {
        let wanted = self.failed.iter().filter(|one| one.wanted);
        wanted.filter_map(|one| one.failure.as_ref())
    }

    /// The first failure that keeps the bond from its state: none of the fast-path programs,
    /// without which everything goes on.
    pub(crate) fn obstacle(&self) -> Option<&Failure> {
        let optional = |kind: &ActionKind| {
            matches!(
                kind,
                ActionKind::SetFastPath { .. } | ActionKind::ReadFrames { .. }
            )
        };
        let mut needed = (self.failed.iter()).filter(|one| one.wanted && !optional(&one.kind));
        needed.find_map(|one| one.failure.as_ref())
    }

    /// Learns what is wanted by now. What is no longer wanted is no problem any
    /// more, and is forgotten after its wait.
    pub(crate) fn note_wanted(&mut self, actions: &[ActionKind], now: Time) {
        for one in &mut self.failed {
            one.wanted = actions.contains(&one.kind);
        }
        self.failed.retain(|one| one.wanted || one.next_at > now);
        self.done
            .retain(|_, one| one.next_at.plus_ms(FORGIVEN_AFTER_MS) > now);
    }

    /// Looks whether a refused NIC changed so that it may be taken now.
    pub(crate) fn note_marks(&mut self, view: &BondView<'_>, now: Time) {
        let Some(bond) = view.bond() else { return };
        for nic in view.nics() {
            let mark = DeviceMark::of(nic.link, bond.link);
            self.note_mark(&bond.enslave(nic), &mark, now);
        }
    }

    /// Tries earlier where the device or the bond changed so that the refusal may
    /// be history. The count stays: a device that changes with each try gains nothing.
    pub(crate) fn note_mark(&mut self, kind: &ActionKind, mark: &DeviceMark, now: Time) {
        for one in self.failed.iter_mut().filter(|one| one.kind == *kind) {
            if one.mark.as_ref().is_some_and(|before| before != mark) {
                one.mark = Some(mark.clone());
                one.next_at = one.next_at.min(now.plus_ms(FIRST_RETRY_MS));
            }
        }
    }
}

/// First wait after most failures, in ms.
const FIRST_RETRY_MS: u64 = 200;

/// First wait after a driver refused what was asked of it, in ms.
const FIRST_RETRY_REFUSED_MS: u64 = 2_000;

/// Waits after a failure. A driver that refuses works for it with the kernel's
/// RTNL held (iavf waits up to 2.5 s for its PF), so that is repeated rarely.
fn pace_after(kind: &ActionKind, failure: Option<&Failure>) -> Backoff {
    let refused = failure.is_some_and(|failure| {
        matches!(
            failure.code,
            ProblemCode::MacRefused | ProblemCode::MtuRefused
        )
    });
    if refused {
        Backoff::new(FIRST_RETRY_REFUSED_MS, MAX_RETRY_PORT_MS)
    } else {
        pace(kind)
    }
}

/// Longest wait before a port that could not be taken in is tried again, in ms.
const MAX_RETRY_PORT_MS: u64 = 300_000;

/// Waits by action.
fn pace(kind: &ActionKind) -> Backoff {
    match kind {
        ActionKind::Enslave { .. } => Backoff::new(FIRST_RETRY_MS, MAX_RETRY_PORT_MS),
        ActionKind::CreateBond { .. } => Backoff::new(1_000, 60_000),
        ActionKind::SetPrimary { .. } => Backoff::new(50, 5_000),
        ActionKind::SetFastPath { .. } => Backoff::new(1_000, MAX_RETRY_PORT_MS),
        ActionKind::CheckPath { .. } => Backoff::new(1_000, 60_000),
        _ => Backoff::new(FIRST_RETRY_MS, 30_000),
    }
}
