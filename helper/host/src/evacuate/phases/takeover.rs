//! A recovery makes sure that nobody else drives the evacuation, and finds out where it stands.

use super::claim::too_slow;
use super::helpers::{is_gone, is_there};
use super::{Next, Phase, Step};
use crate::evacuate::action::{ActionKind, Task};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::{RecordFact, SideFacts};
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
    if has_ours_settled(it)? {
        return Ok(go_on(it));
    }
    let source = it.view(Side::Source).current(it.now_ms);
    if source.is_some_and(has_job) {
        // It goes on without its owner; nothing may be written before it has ended. An owner
        // that lived would have cancelled it by then.
        let late = it.in_phase_ms() >= it.limits.migrate_ms;
        if late && it.tries(Task::Cancel).accepted_ms.is_none() {
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
    let tries = it.tries(Task::Save(side));
    if tries.failures > 2 || tries.accepted_ms.is_some() {
        let message = tries
            .last
            .map_or_else(|| too_slow().message, |failure| failure.message);
        return Ok(Step::Fail(Cause::new(CauseCode::RecordNotWritten, message)));
    }
    if !it.is_fresh_for_claim(side) {
        if it.in_phase_ms() >= it.limits.stale_ms + it.limits.unclear_ms {
            return Ok(Step::Fail(too_slow()));
        }
        return Ok(Step::Do(ActionKind::Observe { side }));
    }
    let record = Box::new(it.record_at(it.record.progress.stage));
    Ok(it.attempt(ActionKind::Save { side, record }))
}

/// Our name was written, and is still there after the settling time.
fn has_ours_settled(it: &Evacuation) -> Result<bool, Step> {
    let Some((side, written_ms)) = it.notes.claimed else {
        return Ok(false);
    };
    let settled_ms = written_ms + it.limits.claim_settle_ms;
    if it.now_ms < settled_ms {
        return Err(Step::WaitUntil(settled_ms));
    }
    let view = it.view(side);
    if view.asked_ms < settled_ms {
        return Err(wait(it, it.limits.migrate_ms + it.limits.unclear_ms));
    }
    let record = view.facts.as_ref().map(|facts| &facts.record);
    if matches!(record, Some(RecordFact::Present(record)) if it.is_ours(record)) {
        return Ok(true);
    }
    Err(Step::Fail(claimed(it)))
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
    let beat = recovery.beats.get(&side);
    let watched_ms = beat.map_or(0, |(_, since_ms)| it.now_ms - since_ms);
    if recovery.owner_is_dead || watched_ms >= it.limits.stale_ms || beat.is_none() {
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
