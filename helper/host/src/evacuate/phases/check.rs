//! Everything that can be known before the start. Changes nothing.

use super::helpers::{VF_FAILURES, is_gone};
use super::{Next, Phase, Step, side_by_side};
use crate::evacuate::action::{ActionKind, GuestCall, Task};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::{FailureKind, RecordFact, SideFacts};
use crate::evacuate::spec::{AgentUse, Side, VfIdentity};
use crate::evacuate::state::Evacuation;
use crate::evacuate::view::has_job;
use crate::hypervisor::{DomainState, JobOperation};
use crate::words::{printable, quoted};

pub(super) fn next(it: &Evacuation) -> Next {
    let patience_ms = it.limits.unreachable_ms;
    let source = it.see(Side::Source, patience_ms)?;
    if let Some(cause) = source_refuses(it, source) {
        return Ok(Step::Fail(cause));
    }
    let destination = it.see(Side::Destination, patience_ms)?;
    // A plain QEMU waits for the domain from the start.
    if !is_gone(destination) && destination.state != DomainState::Incoming {
        let message = format!(
            "the destination has a domain {} already; if this one was migrated there, ask it on {}",
            printable(&it.record.spec.domain),
            printable(&it.record.spec.destination_uri)
        );
        return Ok(fail(CauseCode::OnDestination, message));
    }
    if let Some(cause) = no_vf_named(it) {
        return Ok(Step::Fail(cause));
    }
    guest(it)?;
    if it.notes.check_only {
        destination_vfs(it)?;
        return Ok(Step::End);
    }
    Ok(Step::Go(Phase::Claim))
}

fn no_vf_named(it: &Evacuation) -> Option<Cause> {
    let spec = &it.record.spec;
    let lacks = |device: &usize| spec.devices[*device].destination.is_none();
    let lacking: Vec<usize> = spec.of_bonds().filter(lacks).collect();
    if lacking.is_empty() || spec.yes_degraded {
        return None;
    }
    let bonds = lacking
        .iter()
        .filter_map(|device| spec.devices[*device].bond());
    let options = bonds
        .clone()
        .map(|bond| format!("--vf {}=FILE", quoted(bond)));
    let options: Vec<String> = options.collect();
    let bonds: Vec<String> = bonds.map(printable).collect();
    let (what, option) = match spec.of_bonds().count() {
        0 | 1 => (String::new(), "--vf FILE".to_owned()),
        _ => (format!(" for {}", bonds.join(", ")), options.join(" ")),
    };
    let message = format!(
        "no VF is named for the destination{what}; name one with {option}, or agree to go on without with \
         --yes-degraded"
    );
    Some(Cause::new(CauseCode::NoVfNamed, message))
}

/// What [`ActionKind::ClaimVf`] would find, for one who does not go that far.
fn destination_vfs(it: &Evacuation) -> Result<(), Step> {
    let room = |device: usize| {
        let tries = it.tries(Task::CheckVf(device));
        let wanted = it.record.spec.devices[device].destination.is_some();
        match tries.last {
            _ if tries.accepted_ms.is_some() || !wanted => Ok(()),
            Some(failure) if tries.failures >= VF_FAILURES || !failure.effect_unknown() => {
                Err(fail(CauseCode::VfTaken, failure.message))
            }
            _ => Err(it.attempt(ActionKind::CheckVf { device })),
        }
    };
    side_by_side(it.devices(), room, |_| 0)
}

/// Why nothing may be begun, as the source shows the domain.
pub(super) fn source_refuses(it: &Evacuation, source: &SideFacts) -> Option<Cause> {
    let domain = printable(&it.record.spec.domain);
    if source.state != DomainState::Running {
        let message = format!(
            "domain {domain} does not run on the source ({:?}); a VF can be unplugged only from a \
             guest that runs",
            source.state
        );
        return Some(Cause::new(CauseCode::NotRunning, message));
    }
    match &source.record {
        RecordFact::Absent => {}
        RecordFact::Unreadable(why) => {
            return Some(Cause::new(CauseCode::RecordUnreadable, why.clone()));
        }
        RecordFact::Present(record) => {
            let (code, what) = match record.owner {
                Some(_) => (
                    CauseCode::Claimed,
                    "is being evacuated, or was and was killed",
                ),
                None => (CauseCode::RecoveryNeeded, "was evacuated and lacks its VF"),
            };
            let owner = record.owner_in_words();
            let message = format!(
                "domain {domain} {what}: driven by {owner}; if that is over, run `tandem-host \
                 recover {}`",
                quoted(&it.record.spec.domain)
            );
            return Some(Cause::new(code, message));
        }
    }
    if has_job(source) {
        let job = source.job.operation;
        let message = format!(
            "{} of domain {domain} is under way; wait until it has ended, or end it (`virsh domjobinfo {name}` \
             shows it, `virsh domjobabort {name}` ends it)",
            job.describe(),
            name = quoted(&it.record.spec.domain)
        );
        let code = match job {
            JobOperation::Migration => CauseCode::MigrationUnderWay,
            _ => CauseCode::JobUnderWay,
        };
        return Some(Cause::new(code, message));
    }
    ambiguous(it, source)
}

/// A device that could be taken for another one would make every later look a guess.
fn ambiguous(it: &Evacuation, source: &SideFacts) -> Option<Cause> {
    let fits = |identity: &VfIdentity| {
        let fits = source.nics.iter().filter(|nic| identity.is(nic));
        fits.collect::<Vec<_>>()
    };
    for (device, one) in it.record.spec.devices.iter().enumerate() {
        let own = one.source.as_ref().map(|vf| &vf.identity);
        let other = one.destination.as_ref().map(|vf| &vf.identity);
        // Both hosts may give the device one and the same name; nothing else in the domain may have it.
        let strangers = other.map_or(0, |other| {
            let strangers = fits(other).into_iter();
            strangers
                .filter(|nic| own.is_none_or(|own| !own.is(nic)))
                .count()
        });
        let side = match (own.map_or(0, |own| fits(own).len()), strangers) {
            (0 | 1, 0) => continue,
            (0 | 1, _) => Side::Destination,
            _ => Side::Source,
        };
        let message = format!(
            "{} is meant on the {}, and another device of the domain would be taken for it; give it an alias of \
             its own (`<alias name='ua-vf'/>`)",
            it.name(side, device),
            side.as_str()
        );
        return Some(Cause::new(CauseCode::AmbiguousVf, message));
    }
    None
}

/// A guest that could not keep its traffic is not touched.
fn guest(it: &Evacuation) -> Result<(), Step> {
    if it.record.spec.agent == AgentUse::Never || !it.has_bonds() {
        return Ok(());
    }
    let mut calls = vec![GuestCall::Hello];
    if it.record.spec.configure && !it.notes.check_only {
        calls.push(GuestCall::Configure);
    }
    for call in calls {
        let tries = it.tries(Task::Guest(call));
        if tries.accepted_ms.is_some() {
            continue;
        }
        if let Some(failure) = &tries.last
            && (!it.asks_guest(call) || failure.kind == FailureKind::AgentHostile)
        {
            // To go on without it was agreed for a guest that does not answer, not for one that says no.
            if it.guest_is_optional() && failure.kind != FailureKind::AgentRefused {
                return Ok(());
            }
            return Err(Step::Fail(Cause::of_agent(failure)));
        }
        return Err(it.call(Side::Source, call));
    }
    let status = GuestCall::Status;
    let tries = it.tries(Task::Guest(status));
    let told = tries.accepted_ms.is_some();
    let lacking = it
        .record
        .spec
        .of_bonds()
        .find(|device| !is_ready(it, *device));
    if told && lacking.is_none() {
        return Ok(());
    }
    let late = it.in_phase_ms() >= it.limits.check_ms;
    if (late || !it.asks_guest(status)) && it.guest_is_optional() && !told {
        return Ok(());
    }
    if late || !it.asks_guest(status) {
        let lacking = lacking.map(|device| (device, it.notes.devices[device].guest.as_ref()));
        let why = match (&tries.last, lacking) {
            (Some(failure), _) => return Err(Step::Fail(Cause::of_agent(failure))),
            (None, Some((device, Some(guest)))) => {
                let bond = it.record.spec.devices[device].bond();
                let of = bond.map(|bond| format!(" for {}", printable(bond)));
                (of.unwrap_or_default(), guest.reason.clone())
            }
            (None, _) => (String::new(), "it told no status".to_owned()),
        };
        let message = format!(
            "the guest has no standby{} that could carry its traffic: {}; see `tandem status` in the guest",
            why.0, why.1
        );
        return Err(fail(CauseCode::GuestNotReady, message));
    }
    let again_ms = tries.accepted_ms.map(|at| at + it.limits.look_every_ms);
    match again_ms {
        Some(at_ms) if it.now_ms < at_ms => Err(Step::WaitUntil(at_ms)),
        _ => Err(it.call(Side::Source, status)),
    }
}

/// The bond of that device could do without it.
fn is_ready(it: &Evacuation, device: usize) -> bool {
    let Some(guest) = &it.notes.devices[device].guest else {
        return false;
    };
    // It would be given the bond first, which only checking does not do.
    let would_get_it = it.notes.check_only && it.record.spec.configure && !guest.bond_known;
    would_get_it || (guest.bond_known && guest.standby_usable)
}

fn fail(code: CauseCode, message: impl Into<String>) -> Step {
    Step::Fail(Cause::new(code, message))
}
