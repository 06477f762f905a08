//! The hypervisor moves the domain. How that ended, a look at both hosts decides.

use super::carry;
use super::helpers::is_gone;
use super::step::{Next, Step};
use crate::evacuate::action::{ActionKey, ActionKind};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::SideFacts;
use crate::evacuate::phase::Phase;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::evacuate::view::has_job;
use crate::hypervisor::DomainState;

/// Where the domain runs, or will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    /// On the destination: the point of no return has passed.
    Destination,
    /// On the source, and no migration is left that could change that.
    Source,
    /// On the source, paused by a migration that came to nothing.
    Stranded,
    /// On the destination, paused by the carry's stop.
    Arrived,
    /// On neither.
    Stopped,
    /// A migration is, or may be, under way.
    UnderWay,
    /// No migration is left, and it can't be seen where it runs.
    Unclear,
}

pub(super) fn next(it: &Evacuation) -> Next {
    if !it.notes.migration_begun {
        return begin(it);
    }
    match whereabouts(it)? {
        Whereabouts::Destination => Ok(Step::Go(Phase::Announce)),
        Whereabouts::Source => Ok(Step::Fail(why(it))),
        Whereabouts::Stranded => {
            let side = Side::Source;
            Ok(it.attempt(ActionKind::Unpause { side }))
        }
        Whereabouts::Arrived => Ok(carry::resume(it)),
        Whereabouts::Stopped => {
            let message = "the domain runs on neither host: it ended while it was migrated";
            Ok(Step::Fail(Cause::new(CauseCode::Stopped, message)))
        }
        Whereabouts::UnderWay => under_way(it),
        Whereabouts::Unclear => unclear(it),
    }
}

fn begin(it: &Evacuation) -> Next {
    let source = it.see(Side::Source, it.limits.unreachable_ms)?;
    if is_gone(source) {
        let message = "the domain ended on the source before it could be migrated";
        return Ok(Step::Fail(Cause::new(CauseCode::Stopped, message)));
    }
    let back = |device: &usize| it.vf_nic(Side::Source, *device).is_some();
    if let Some(device) = it.devices().find(back) {
        let name = it.name(Side::Source, device);
        let message = format!("{name} is back on the source: somebody plugged it in");
        return Ok(Step::Fail(Cause::new(CauseCode::MigrationFailed, message)));
    }
    carry::begin(it)?;
    it.save_first(Side::Source, Stage::Migrating)?;
    Ok(Step::Do(ActionKind::Migrate))
}

/// What both hosts show. Looks at both as far as they can be asked.
fn whereabouts(it: &Evacuation) -> Result<Whereabouts, Step> {
    for side in Side::BOTH {
        if it.now_ms >= it.view(side).next_look_ms {
            return Err(it.look(side));
        }
    }
    let source = it.view(Side::Source).current(it.now_ms);
    let destination = it.view(Side::Destination).current(it.now_ms);
    let state = |facts: Option<&SideFacts>| facts.map(|facts| facts.state);
    if state(destination) == Some(DomainState::Running) {
        return Ok(Whereabouts::Destination);
    }
    // The handle may end early, as a virsh that loses its connection does, and the job go on.
    if !is_over(it) || source.is_some_and(has_job) {
        return Ok(Whereabouts::UnderWay);
    }
    if carry::is_stopped_on_arrival(it, source, destination) {
        return Ok(Whereabouts::Arrived);
    }
    let destination_is_gone = destination.is_some_and(is_gone);
    Ok(match state(source) {
        Some(DomainState::Running) => Whereabouts::Source,
        Some(DomainState::Paused) if destination_is_gone => Whereabouts::Stranded,
        Some(DomainState::Absent | DomainState::ShutOff) if destination_is_gone => {
            Whereabouts::Stopped
        }
        _ => Whereabouts::Unclear,
    })
}

/// No migration is left: its handle says so, or none was seen for long and it was cancelled.
fn is_over(it: &Evacuation) -> bool {
    if it.notes.migration_end.is_some() {
        return true;
    }
    is_quiet(it) && it.tries(ActionKey::Cancel).accepted_ms.is_some()
}

fn is_quiet(it: &Evacuation) -> bool {
    let begun_ms = it
        .tries(ActionKey::Migrate)
        .accepted_ms
        .unwrap_or(it.entered_ms);
    // One whose start timed out may still begin.
    let begun_ms = begun_ms.max(it.notes.doubt_until_ms);
    let quiet_ms = it.view(Side::Source).quiet_since_ms;
    let since_ms = quiet_ms.map(|since| since.max(begun_ms));
    since_ms.is_some_and(|since| it.now_ms >= since + it.limits.quiet_ms)
}

fn under_way(it: &Evacuation) -> Next {
    let end_ms = it.entered_ms + it.limits.migrate_ms;
    let late = it.now_ms >= end_ms;
    let failing_ms = it.view(Side::Source).failing_for_ms();
    if failing_ms >= it.limits.unclear_ms {
        return Ok(Step::End);
    }
    let cancelled_ms = it.notes.cancel_ms;
    if cancelled_ms.is_some_and(|at| it.now_ms >= at + it.limits.unclear_ms) {
        return Ok(Step::End);
    }
    let tries = it.tries(ActionKey::Cancel);
    let wanted = it.notes.aborted || late || is_quiet(it);
    if wanted && tries.accepted_ms.is_none() {
        return Ok(it.attempt(ActionKind::Cancel));
    }
    let looks = Side::BOTH.map(|side| it.view(side).next_look_ms);
    let next_ms = looks.into_iter().min().unwrap_or(end_ms);
    Ok(Step::WaitUntil(next_ms))
}

/// Waits for a host to answer, for so long and no longer.
fn unclear(it: &Evacuation) -> Next {
    let ended_ms = it.notes.migration_end.as_ref().map(|(_, at)| *at);
    // It may be entered again, long after.
    let ended_ms = ended_ms
        .or(it.notes.cancel_ms)
        .unwrap_or(0)
        .max(it.entered_ms);
    if it.now_ms >= ended_ms + it.limits.unclear_ms {
        return Ok(Step::End);
    }
    let looks = Side::BOTH.map(|side| it.view(side).next_look_ms);
    Ok(Step::WaitUntil(
        looks.into_iter().min().unwrap_or(it.now_ms),
    ))
}

fn why(it: &Evacuation) -> Cause {
    let cause = match &it.notes.migration_end {
        _ if it.notes.aborted => {
            let message = "the operator stopped the migration";
            return Cause::new(CauseCode::Aborted, message);
        }
        Some((Err(failure), _)) => Cause::of_migration(failure),
        Some((Ok(()), _)) => {
            let message = "the migration is said to have worked, and the domain runs on the source";
            Cause::new(CauseCode::MigrationFailed, message)
        }
        None => {
            let message = "the migration ended unseen, and the domain runs on the source";
            Cause::new(CauseCode::MigrationFailed, message)
        }
    };
    if it.in_phase_ms() >= it.limits.migrate_ms {
        let message = format!(
            "the migration took longer than {} s and was cancelled; raise --migrate-timeout, or \
             try --auto-converge or --postcopy",
            it.limits.migrate_ms / 1000
        );
        return Cause::new(CauseCode::MigrationTimedOut, message);
    }
    cause
}
