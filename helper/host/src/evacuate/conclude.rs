//! How an evacuation ended, by what is known.

use super::carry::{CarryNotes, CarryOutcome};
use super::cause::{Cause, CauseCode};
use super::input::{GuestStatus, RecordFact};
use super::outcome::{DeviceOutcome, GuestVerdict, Leftover, Outcome, Verdict};
use super::phase::Phase;
use super::spec::{AgentUse, Side};
use super::state::Evacuation;
use crate::hypervisor::DomainState;
use crate::words::{printable, quoted};

impl Evacuation {
    /// It has ended, and nothing of it is left for which a recovery would need this host's own record.
    pub fn is_over(&self) -> bool {
        let Some(outcome) = self.outcome() else {
            return false;
        };
        let records = [Leftover::RecordOnSource, Leftover::RecordOnDestination];
        let leaves_record = outcome.left.iter().any(|one| records.contains(one));
        let code = outcome.cause.as_ref().map(|cause| cause.code);
        // Another process, or a late write of one that was killed, has the same evacuation.
        let is_of_another = self.notes.recovery.is_some() && code == Some(CauseCode::Claimed);
        !outcome.recovery_needed && !leaves_record && !is_of_another
    }
}

pub(super) fn conclude(it: &Evacuation) -> Outcome {
    let verdict = verdict(it);
    let told = !matches!(verdict, Verdict::Interrupted | Verdict::Stopped);
    let home = it.notes.residence.filter(|side| is_there(it, *side));
    // The evacuation for whose sake this one was refused may have moved it.
    let moved = verdict == Verdict::Refused && runs(it, Side::Destination);
    let home = home.filter(|_| !moved);
    let home = home.or_else(|| seen_on(it));
    let runs_on = home.filter(|_| told);
    let devices = devices(it, home);
    let vf_attached = runs_on.is_some_and(|side| has_all(it, side));
    let keeps = verdict == Verdict::Degraded && it.keeps_record();
    Outcome {
        verdict,
        looked: true,
        runs_on,
        last_seen_on: home,
        vf_attached,
        unplug_may_follow: devices.iter().any(|one| one.unplug_may_follow),
        guest: guest_verdict(it),
        guest_status: first_words(it),
        devices,
        cause: cause(it, verdict),
        more_causes: it.notes.more_causes.clone(),
        warnings: Vec::new(),
        left: leftovers(it, verdict, keeps),
        recovery_needed: keeps || verdict == Verdict::Interrupted,
        phases: it.phase_times(),
        downtime_ms: it.notes.job.and_then(|job| job.downtime_ms),
        carry: carry(it),
    }
}

fn carry(it: &Evacuation) -> Option<CarryOutcome> {
    let not_known = |reason: &str| CarryOutcome {
        reason: Some(reason.to_owned()),
        ..CarryOutcome::default()
    };
    match &it.notes.carry {
        CarryNotes::NotWanted => None,
        CarryNotes::Wanted => Some(not_known("nothing was migrated")),
        CarryNotes::UnderWay => Some(not_known("it did not end in time")),
        CarryNotes::Over(outcome) => Some(outcome.as_ref().clone()),
    }
}

/// Each device where the domain is, or was seen last.
fn devices(it: &Evacuation, home: Option<Side>) -> Vec<DeviceOutcome> {
    let side = home.unwrap_or(Side::Source);
    let one = |device: usize| {
        let known = &it.record.spec.devices[device];
        let notes = &it.notes.devices[device];
        let attached = home.is_some_and(|side| it.vf_nic(side, device).is_some());
        let pending = may_follow(it, device) && home == Some(Side::Source);
        DeviceOutcome {
            device: printable(&known.describe(side)),
            bond: known.bond().map(str::to_owned),
            wanted: known.vf(side).is_some(),
            attached,
            unplug_may_follow: pending && attached,
            guest: guest_verdict_of(it, device),
            guest_status: notes.guest.clone(),
            plug_failure: notes.plug_failure.clone().filter(|_| !attached),
            plug_ms: notes.plug_ms.filter(|_| attached),
        }
    };
    it.devices().map(one).collect()
}

/// At least one device should be there, and each that should is. A bond that ends without a VF, as agreed, lacks it.
fn has_all(it: &Evacuation, side: Side) -> bool {
    let wanted = |device: usize| it.record.spec.devices[device].vf(side).is_some();
    let bonds_have = it.record.spec.of_bonds().all(wanted);
    it.devices().any(wanted) && bonds_have && it.missing(side).is_empty()
}

/// News of a refusal may be of an earlier request than the last one: a host may tell it by its answer and
/// by an event.
fn may_follow(it: &Evacuation, device: usize) -> bool {
    let looked_ms = it.view(Side::Source).asked_ms;
    let notes = &it.notes.devices[device];
    let settled_ms = notes
        .unplug_last_ms
        .map(|at| at + it.limits.unplug_settle_ms);
    notes.unplug_asked_ms.is_some() || settled_ms.is_some_and(|at_ms| looked_ms < at_ms)
}

/// Where the last looks showed the domain.
fn seen_on(it: &Evacuation) -> Option<Side> {
    [Side::Destination, Side::Source]
        .into_iter()
        .find(|side| is_there(it, *side))
}

fn runs(it: &Evacuation, side: Side) -> bool {
    let facts = it.view(side).facts.as_ref();
    facts.is_some_and(|facts| facts.state == DomainState::Running)
}

fn is_there(it: &Evacuation, side: Side) -> bool {
    let state = it.view(side).facts.as_ref().map(|facts| facts.state);
    matches!(state, Some(DomainState::Running | DomainState::Paused))
}

fn verdict(it: &Evacuation) -> Verdict {
    let code = it.notes.cause.as_ref().map(|cause| cause.code);
    match it.phase {
        _ if it.notes.superseded => Verdict::Interrupted,
        Phase::Check if it.notes.check_only && code.is_none() => Verdict::Ready,
        Phase::Check | Phase::Claim => Verdict::Refused,
        Phase::Takeover => match code {
            Some(CauseCode::Claimed | CauseCode::NothingToRecover) => Verdict::Refused,
            _ => Verdict::Interrupted,
        },
        Phase::Release => released(it),
        _ => Verdict::Interrupted,
    }
}

/// What the last look showed.
fn released(it: &Evacuation) -> Verdict {
    let Some(home) = it.notes.residence else {
        return Verdict::Stopped;
    };
    if !it.has_last_look(home) {
        return Verdict::Interrupted;
    }
    if !it.notes.touched {
        return Verdict::Refused;
    }
    if !is_there(it, home) {
        let nowhere = Side::BOTH
            .into_iter()
            .all(|side| it.has_last_look(side) && !is_there(it, side));
        return if nowhere {
            Verdict::Stopped
        } else {
            Verdict::Interrupted
        };
    }
    let complete = it.missing(home).is_empty();
    // Agreed to, and still not what a bond is for.
    let mut vfs = it.record.spec.devices.iter().filter(|one| one.is_of_bond());
    let without = vfs.any(|one| one.destination.is_none());
    match home {
        Side::Source if complete => Verdict::RolledBack,
        Side::Destination if complete && !without && !guest_objects(it) => Verdict::Done,
        _ => Verdict::Degraded,
    }
}

/// The VFs are plugged in, and the guest that should use them does not say so.
fn guest_objects(it: &Evacuation) -> bool {
    match guest_verdict(it) {
        GuestVerdict::UsesVf | GuestVerdict::NotAsked => false,
        GuestVerdict::Silent => it.record.spec.agent == AgentUse::Required,
        GuestVerdict::UsesStandby => true,
    }
}

/// The worst of all bonds.
fn guest_verdict(it: &Evacuation) -> GuestVerdict {
    let bonds = it.record.spec.of_bonds();
    let all: Vec<GuestVerdict> = bonds.map(|device| guest_verdict_of(it, device)).collect();
    let worst = [
        GuestVerdict::Silent,
        GuestVerdict::UsesStandby,
        GuestVerdict::UsesVf,
    ];
    let worst = worst.into_iter().find(|one| all.contains(one));
    worst.unwrap_or(GuestVerdict::NotAsked)
}

fn guest_verdict_of(it: &Evacuation, device: usize) -> GuestVerdict {
    let home = it.notes.residence.unwrap_or(Side::Source);
    let is_of_bond = it.record.spec.devices[device].is_of_bond();
    let asks = it.record.spec.asks_guest(home) && is_of_bond;
    match &it.notes.devices[device].guest {
        _ if !asks => GuestVerdict::NotAsked,
        None => GuestVerdict::Silent,
        Some(guest) if guest.vf_active => GuestVerdict::UsesVf,
        Some(_) => GuestVerdict::UsesStandby,
    }
}

/// The guest's words of the first bond whose VF it does not use, or else of the first.
fn first_words(it: &Evacuation) -> Option<GuestStatus> {
    let words = |device: usize| it.notes.devices[device].guest.clone();
    let unused = it.record.spec.of_bonds().filter_map(words);
    let unused = unused.filter(|guest| !guest.vf_active).take(1);
    let mut all = unused.chain(it.record.spec.of_bonds().filter_map(words));
    all.next()
}

fn cause(it: &Evacuation, verdict: Verdict) -> Option<Cause> {
    let domain = printable(&it.record.spec.domain);
    if it.notes.superseded {
        let message = format!(
            "another process took over, or ended, the evacuation of domain {domain}; see \
             `tandem-host status {}`",
            quoted(&it.record.spec.domain)
        );
        return Some(Cause::new(CauseCode::Superseded, message));
    }
    let known = it.notes.cause.clone();
    known.or_else(|| match verdict {
        Verdict::Interrupted => Some(it.unclear()),
        Verdict::Stopped => {
            let message = format!("domain {domain} runs on neither host any more");
            Some(Cause::new(CauseCode::Stopped, message))
        }
        Verdict::Degraded => Some(not_verified(it)),
        _ => None,
    })
}

/// Nothing failed, and yet it is not known that the guest uses its VFs.
fn not_verified(it: &Evacuation) -> Cause {
    let home = it.notes.residence.unwrap_or(Side::Source);
    let bonds = || it.record.spec.of_bonds();
    let without = bonds().find(|device| it.record.spec.devices[*device].vf(home).is_none());
    let missing = it.missing(home);
    if let Some(device) = without.filter(|_| missing.is_empty()) {
        let bond = it.record.spec.devices[device].bond();
        let of = bond.map(|bond| format!(" for {}", printable(bond)));
        let message = format!(
            "no VF is named for the destination{}, and it was agreed to go on without",
            of.unwrap_or_default()
        );
        return Cause::new(CauseCode::NoVfNamed, message);
    }
    if it.notes.aborted {
        let message = "the operator stopped it before the guest said that it uses the VF";
        return Cause::new(CauseCode::Aborted, message);
    }
    if !missing.is_empty() {
        let message = format!("{} is not plugged in", it.names(home, &missing));
        return Cause::new(CauseCode::PlugFailed, message);
    }
    let unused = bonds().filter_map(|device| {
        let guest = it.notes.devices[device].guest.as_ref()?;
        (!guest.vf_active).then(|| {
            let name = it.name(home, device);
            format!("the guest does not use {name}: {}", guest.reason)
        })
    });
    let unused: Vec<String> = unused.collect();
    let silent = bonds().any(|device| it.notes.devices[device].guest.is_none());
    let message = if silent || unused.is_empty() {
        let why = it.notes.guest_silence.as_ref();
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        format!(
            "the guest does not answer{why}, so it is not known whether it uses the VF; see `tandem status` in it"
        )
    } else {
        format!("{}; see `tandem status` in it", unused.join("; "))
    };
    Cause::new(CauseCode::NotVerified, message)
}

fn leftovers(it: &Evacuation, verdict: Verdict, keeps: bool) -> Vec<Leftover> {
    let mut left = Vec::new();
    if it.notes.claim.is_some() {
        left.push(Leftover::Claim);
    }
    if it.phase != Phase::Release || verdict == Verdict::Interrupted {
        // All of it is what a recovery needs.
        return left;
    }
    if it.notes.vf_claimed {
        left.push(Leftover::VfClaim);
    }
    let home = it.notes.residence;
    for (side, leftover) in [
        (Side::Source, Leftover::RecordOnSource),
        (Side::Destination, Leftover::RecordOnDestination),
    ] {
        let facts = it.view(side).facts.as_ref();
        let may_be_there = match facts.map(|facts| &facts.record) {
            Some(RecordFact::Present(record)) => {
                it.is_of_this_evacuation(record) || it.is_handed_on(record)
            }
            Some(_) => false,
            // A recovery has not seen that host, and what it goes on with may have written there.
            None => it.notes.recovery.is_some(),
        };
        let kept = keeps && home == Some(side);
        if may_be_there && !kept && !it.notes.cleared.contains(&side) {
            left.push(leftover);
        }
    }
    left
}
