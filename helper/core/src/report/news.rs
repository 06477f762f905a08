//! What is new about a status, for subscribers.

use alloc::vec::Vec;

use crate::model::output::Event;
use crate::model::status::{BondStatus, Problem, Status};

/// What changed about a bond since `before`; all of it if there was none.
pub(crate) fn of_bond(before: Option<&BondStatus>, after: &BondStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let stands = |bond: &BondStatus| (bond.state, bond.traffic);
    if before.map(stands) != Some(stands(after)) {
        events.push(Event::StateChanged {
            bond: after.name.clone(),
            state: after.state,
            traffic: after.traffic,
            reason: after.reason.clone(),
        });
    }
    let old: &[Problem] = before.map_or(&[], |before| &before.problems);
    for problem in after.problems.iter().filter(|one| !has(old, one)) {
        events.push(Event::ProblemRaised {
            bond: after.name.clone(),
            problem: problem.clone(),
        });
    }
    let mut over: Vec<_> = old.iter().map(|problem| problem.code).collect();
    over.dedup();
    over.retain(|code| !after.problems.iter().any(|one| one.code == *code));
    events.extend(over.into_iter().map(|code| Event::ProblemCleared {
        bond: after.name.clone(),
        code,
    }));
    events
}

/// What changed about problems beyond a single bond.
pub(crate) fn in_general(before: &[Problem], after: &[Problem]) -> Vec<Event> {
    let raised = after.iter().filter(|problem| !before.contains(problem));
    let raised = raised.map(|problem| Event::GeneralProblemRaised {
        problem: problem.clone(),
    });
    let stands = |code| after.iter().any(|problem| problem.code == code);
    let over = before.iter().filter(|problem| !stands(problem.code));
    let over = over.map(|problem| Event::GeneralProblemCleared { code: problem.code });
    raised.chain(over).collect()
}

fn has(problems: &[Problem], problem: &Problem) -> bool {
    let same = |one: &Problem| one.code == problem.code && one.device == problem.device;
    problems.iter().any(same)
}

/// True if anything but deadlines differs.
pub(crate) fn differs(mut before: Status, after: &Status) -> bool {
    for (old, new) in before.bonds.iter_mut().zip(&after.bonds) {
        old.next_deadline = new.next_deadline;
    }
    before != *after
}
