//! A recovery makes sure that nobody else drives the evacuation, and finds out where it stands.

use super::helpers::{is_gone, is_there};
use super::step::{Next, Step};
use super::{carry, plug};
use crate::evacuate::action::{ActionKey, ActionKind};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::{RecordFact, SideFacts};
use crate::evacuate::phase::Phase;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::evacuate::view::has_job;
use crate::hypervisor::DomainState;
use crate::words::printable;

pub(super) fn next(it: &Evacuation) -> Next {
    for side in Side::BOTH {
        if it.now_ms >= it.view(side).next_look_ms {
            return Ok(it.look(side));
        }
    }
    if it.notes.claimed.is_some() {
        return Ok(go_on(it));
    }
    let source = it.view(Side::Source).current(it.now_ms);
    if let Some(source) = source.filter(|source| has_job(source)) {
        if it.in_phase_ms() >= it.limits.migrate_ms + it.limits.unclear_ms {
            return Ok(Step::Fail(it.unclear()));
        }
        plug::resume_memory(it, source)?;
        // It goes on without its owner; nothing may be written before it has ended. An owner
        // that lived would have cancelled it by then.
        let late = it.in_phase_ms() >= it.limits.migrate_ms;
        if late && it.tries(ActionKey::Cancel).accepted_ms.is_none() {
            return Ok(it.attempt(ActionKind::Cancel));
        }
        return Ok(wait(it, it.limits.migrate_ms + it.limits.unclear_ms));
    }
    let Some((side, facts)) = residence(it) else {
        if is_stopped(it) {
            is_silent(it, Side::Source)?;
            let message = "the domain runs on neither host";
            return Ok(Step::Fail(Cause::new(CauseCode::Stopped, message)));
        }
        return Ok(wait(it, it.limits.unclear_ms));
    };
    is_free(it, side, facts)?;
    it.claim(side, facts)?;
    let tries = it.tries(ActionKey::Save(side));
    if let Some(failure) = tries.last.filter(|_| tries.failures > 2) {
        let code = CauseCode::RecordNotWritten;
        return Ok(Step::Fail(Cause::new(code, failure.message)));
    }
    let record = Box::new(it.record_at(it.record.progress.stage));
    Ok(it.attempt(ActionKind::Save { side, record }))
}

fn go_on(it: &Evacuation) -> Step {
    let runs_there = it
        .view(Side::Destination)
        .facts
        .as_ref()
        .is_some_and(|facts| facts.state == DomainState::Running);
    if runs_there {
        return Step::Go(Phase::Announce);
    }
    if it.notes.migration_begun {
        return Step::Go(Phase::Migrate);
    }
    let message = "it was interrupted before the migration began; undone now";
    Step::Fail(Cause::new(CauseCode::Interrupted, message))
}

/// The host that has the domain.
fn residence(it: &Evacuation) -> Option<(Side, &SideFacts)> {
    let seen = |side: Side| it.view(side).current(it.now_ms).map(|facts| (side, facts));
    let runs = |(_, facts): &(Side, &SideFacts)| facts.state == DomainState::Running;
    seen(Side::Destination)
        .filter(runs)
        .or_else(|| seen(Side::Source).filter(|(_, facts)| is_there(facts)))
        .or_else(|| {
            let source = it.view(Side::Source).current(it.now_ms);
            let destination = seen(Side::Destination);
            let facts = destination.map(|(_, facts)| facts);
            destination.filter(|_| carry::is_stopped_on_arrival(it, source, facts))
        })
}

fn is_stopped(it: &Evacuation) -> bool {
    let gone = |side: &Side| it.view(*side).current(it.now_ms).is_some_and(is_gone);
    let quiet = it.view(Side::Source).quiet_since_ms;
    let quiet = quiet.is_some_and(|since| it.now_ms >= since + it.limits.quiet_ms);
    quiet && Side::BOTH.iter().all(gone)
}

/// The record is the one that we were given, and nobody drives it.
fn is_free(it: &Evacuation, side: Side, facts: &SideFacts) -> Result<(), Step> {
    match &facts.record {
        RecordFact::Present(record) if record.evacuation != it.record.progress.evacuation => {
            return Err(Step::Fail(claimed(it)));
        }
        RecordFact::Unreadable(why) => {
            let cause = Cause::new(CauseCode::RecordUnreadable, why.clone());
            return Err(Step::Fail(cause));
        }
        // A record that was never seen here got lost, and another copy of it led here.
        RecordFact::Absent if was_seen(it, side) => {
            let message = "there is nothing to recover any more: another process ended it";
            return Err(Step::Fail(Cause::new(CauseCode::NothingToRecover, message)));
        }
        RecordFact::Present(_) | RecordFact::Absent => {}
    }
    is_silent(it, side)
}

fn was_seen(it: &Evacuation, side: Side) -> bool {
    let recovery = it.notes.recovery.as_ref();
    recovery.is_some_and(|recovery| recovery.beats.contains_key(&side))
}

/// Nobody shows a sign of life.
fn is_silent(it: &Evacuation, side: Side) -> Result<(), Step> {
    let Some(recovery) = &it.notes.recovery else {
        return Ok(());
    };
    if recovery.owner_lives {
        return Err(Step::Fail(claimed(it)));
    }
    // Another one than was known to be dead may have taken it over since.
    let Some(beat) = recovery.beats.get(&side).filter(|beat| !beat.is_left) else {
        return Ok(());
    };
    let watched_ms = it.now_ms - beat.since_ms;
    if watched_ms >= it.limits.stale_ms {
        return Ok(());
    }
    Err(it.wait(side, it.now_ms + it.limits.stale_ms - watched_ms))
}

fn claimed(it: &Evacuation) -> Cause {
    let message = format!(
        "another process drives the evacuation of domain {}; see `tandem-host status`",
        printable(&it.record.spec.domain)
    );
    Cause::new(CauseCode::Claimed, message)
}

fn wait(it: &Evacuation, patience_ms: u64) -> Step {
    if it.in_phase_ms() >= patience_ms {
        return Step::Fail(it.unclear());
    }
    let looks = Side::BOTH.map(|side| it.view(side).next_look_ms);
    Step::WaitUntil(looks.into_iter().min().unwrap_or(it.now_ms))
}
