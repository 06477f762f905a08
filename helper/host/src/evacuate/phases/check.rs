//! Everything that can be known before the start. Changes nothing.

use super::helpers::{VF_FAILURES, is_gone};
use super::{Next, Phase, Step};
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
    if it.record.spec.destination_vf.is_none() && !it.record.spec.yes_degraded {
        let message = "no VF is named for the destination; name one with --vf FILE, or agree \
                       to go on without with --yes-degraded";
        return Ok(fail(CauseCode::NoVfNamed, message));
    }
    guest(it)?;
    if it.notes.check_only {
        destination_vf(it)?;
        return Ok(Step::End);
    }
    Ok(Step::Go(Phase::Claim))
}

/// What [`ActionKind::ClaimVf`] would find, for one who does not go that far.
fn destination_vf(it: &Evacuation) -> Result<(), Step> {
    let tries = it.tries(Task::CheckVf);
    match tries.last {
        _ if tries.accepted_ms.is_some() || it.record.spec.destination_vf.is_none() => Ok(()),
        Some(failure) if tries.failures >= VF_FAILURES || !failure.effect_unknown() => {
            Err(fail(CauseCode::VfTaken, failure.message))
        }
        _ => Err(it.attempt(ActionKind::CheckVf)),
    }
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

/// A VF that could be taken for another NIC would make every later look a guess.
fn ambiguous(it: &Evacuation, source: &SideFacts) -> Option<Cause> {
    let count = |identity: &VfIdentity| {
        let fits = source.nics.iter().filter(|nic| identity.is(nic));
        fits.count()
    };
    let spec = &it.record.spec;
    let own = spec.source_vf.as_ref().map(|vf| &vf.identity);
    let other = spec.destination_vf.as_ref().map(|vf| &vf.identity);
    let own_count = own.map_or(0, count);
    // Both hosts may give the VF one and the same name; no other NIC may have it.
    let strangers = other.map_or(0, |other| {
        let fits = source.nics.iter().filter(|nic| other.is(nic));
        fits.filter(|nic| own.is_none_or(|own| !own.is(nic)))
            .count()
    });
    let (side, identity) = match (own_count, strangers) {
        (0 | 1, 0) => return None,
        (0 | 1, _) => (Side::Destination, other),
        _ => (Side::Source, own),
    };
    let message = format!(
        "{} is meant as the {}'s VF, and another NIC of the domain would be taken for it; give \
         the VF an alias of its own (`<alias name='ua-vf'/>`)",
        identity.map(VfIdentity::describe).unwrap_or_default(),
        side.as_str()
    );
    Some(Cause::new(CauseCode::AmbiguousVf, message))
}

/// A guest that could not keep its traffic is not touched.
fn guest(it: &Evacuation) -> Result<(), Step> {
    if it.record.spec.agent == AgentUse::Never {
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
    let ready = it.notes.guest.as_ref();
    if ready.is_some_and(|guest| guest.bond_known && guest.standby_usable) {
        return Ok(());
    }
    // It would be given the bond first, which only checking does not do.
    let would_get_it = it.notes.check_only && it.record.spec.configure;
    if would_get_it && ready.is_some_and(|guest| !guest.bond_known) {
        return Ok(());
    }
    let late = it.in_phase_ms() >= it.limits.check_ms;
    if (late || !it.asks_guest(status)) && it.guest_is_optional() && ready.is_none() {
        return Ok(());
    }
    if late || !it.asks_guest(status) {
        let why = match (&tries.last, ready) {
            (Some(failure), _) => return Err(Step::Fail(Cause::of_agent(failure))),
            (None, Some(guest)) => guest.reason.clone(),
            (None, None) => "it told no status".to_owned(),
        };
        let message = format!(
            "the guest has no standby that could carry its traffic: {why}; see `tandem status` \
             in the guest"
        );
        return Err(fail(CauseCode::GuestNotReady, message));
    }
    let again_ms = tries.accepted_ms.map(|at| at + it.limits.look_every_ms);
    match again_ms {
        Some(at_ms) if it.now_ms < at_ms => Err(Step::WaitUntil(at_ms)),
        _ => Err(it.call(Side::Source, status)),
    }
}

fn fail(code: CauseCode, message: impl Into<String>) -> Step {
    Step::Fail(Cause::new(code, message))
}
