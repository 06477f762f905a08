//! Which suite runs when: several at a time where they do not get in each other's way.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::suite::Suite;

/// How many suites run at a time: two that work, for a guest alone keeps less than two processors busy, and two
/// that mostly wait.
pub(super) const LANES: usize = 4;
const WORKING: usize = 2;

/// What else may run while a suite does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Anything, but only one of these: they build in the same folder.
    Cargo,
    /// Anything.
    Beside,
    /// Anything, and more than else: it waits for most of its time.
    Waiting,
    /// Nothing: it holds losses or times against a bound that a busy machine could exceed.
    Alone,
}

/// The suites that are still to be run.
#[derive(Debug)]
pub(super) struct Schedule<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<'a> {
    /// In the order they are wanted.
    left: Vec<&'a Suite>,
    running: Vec<&'a Suite>,
    /// Ended, or never to be run.
    settled: HashSet<&'a str>,
}

impl<'a> Schedule<'a> {
    /// These, in this order as far as they can; what one needs is among them.
    pub(super) fn new(suites: Vec<&'a Suite>) -> Self {
        Self {
            state: Mutex::new(State {
                left: suites,
                running: Vec::new(),
                settled: HashSet::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// The next suite that may begin; waits until one may. Nothing once none is left.
    pub(super) fn next(&self) -> Option<&'a Suite> {
        let mut state = self.lock();
        loop {
            if let Some(at) = state.left.iter().position(|suite| state.may_begin(suite)) {
                let suite = state.left.remove(at);
                state.running.push(suite);
                return Some(suite);
            }
            // Nothing runs and nothing may begin: a need that is not in the run.
            if state.left.is_empty() || state.running.is_empty() {
                return None;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A suite that [`Self::next`] gave has ended, or cannot run.
    pub(super) fn settle(&self, suite: &'a Suite) {
        let mut state = self.lock();
        state.running.retain(|one| one.name != suite.name);
        state.settled.insert(&suite.name);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State<'_> {
    fn may_begin(&self, suite: &Suite) -> bool {
        let is_running = |lane| self.running.iter().any(|one| one.lane == lane);
        let working = self.running.iter().filter(|one| one.lane != Lane::Waiting);
        let has_hands = working.count() < WORKING;
        let has_room = match suite.lane {
            _ if is_running(Lane::Alone) => false,
            Lane::Alone => self.running.is_empty(),
            Lane::Cargo => has_hands && !is_running(Lane::Cargo),
            Lane::Beside => has_hands,
            Lane::Waiting => true,
        };
        let mut needs = suite.needs.iter();
        has_room && needs.all(|need| self.settled.contains(need))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::super::suite::Work;
    use super::*;

    fn suite(name: &str, lane: Lane, needs: &'static [&'static str]) -> Suite {
        Suite {
            name: name.to_owned(),
            about: String::new(),
            limit: Duration::ZERO,
            needs,
            is_lab: false,
            lane,
            is_long: false,
            env: Vec::new(),
            work: Work::Check(Command::new("true")),
        }
    }

    #[test]
    fn needs_come_first_and_who_is_alone_is_alone() {
        let all = [
            suite("build", Lane::Cargo, &[]),
            suite("release", Lane::Cargo, &[]),
            suite("measured", Lane::Alone, &["build"]),
            suite("other", Lane::Beside, &["build"]),
            suite("check", Lane::Beside, &[]),
        ];
        let schedule = Schedule::new(all.iter().collect());
        let next = || schedule.next().unwrap();
        let build = next();
        assert_eq!(build.name, "build");
        let check = next();
        assert_eq!(
            check.name, "check",
            "one builds at a time, and needs come first"
        );
        schedule.settle(check);
        schedule.settle(build);
        let (release, other) = (next(), next());
        assert_eq!(
            (release.name.as_str(), other.name.as_str()),
            ("release", "other")
        );
        schedule.settle(release);
        schedule.settle(other);
        let measured = next();
        assert_eq!(measured.name, "measured");
        schedule.settle(measured);
        assert!(schedule.next().is_none());
    }

    #[test]
    fn those_that_wait_run_beside_two_that_work() {
        let names = ["a", "b", "c"].map(|name| suite(name, Lane::Beside, &[]));
        let waits = ["x", "y", "z"].map(|name| suite(name, Lane::Waiting, &[]));
        let schedule = Schedule::new(names.iter().chain(&waits).collect());
        let began = [0; LANES].map(|_| schedule.next().unwrap());
        assert_eq!(began.map(|suite| suite.name.as_str()), ["a", "b", "x", "y"]);
        schedule.settle(began[2]);
        assert_eq!(schedule.next().unwrap().name, "z");
        schedule.settle(began[0]);
        assert_eq!(schedule.next().unwrap().name, "c");
    }

    #[test]
    fn nobody_waits_for_what_never_comes() {
        let lost = suite("lost", Lane::Beside, &["absent"]);
        assert!(Schedule::new(vec![&lost]).next().is_none());
    }
}
