//! Reads what libtest prints: its closing lines and, where a test program died before one, the tests' own lines.

use super::outcome::{Deferred, Outcome};

/// What a test prints before it returns without having tested anything: the lab's (`tandem_lab::Lab::for_test`),
/// and those of the guest that need a network namespace of their own.
const SKIPS: [&str; 2] = ["lab: skip: ", "SKIPPED: "];

/// What the reason of an ignored test says if another suite runs it: `…; the suite NAME runs it`.
const DEFERRED: (&str, &str) = ("; the suite ", " runs it");

/// Adds up all test programs in a log. `Outcome::elapsed` is left at zero.
pub(super) fn count(log: &str) -> Outcome {
    let mut total = Outcome::default();
    let mut open = Outcome::default();
    for line in log.lines() {
        if let Some(closed) = closing_line(line) {
            total.add(&closed);
            open = Outcome::default();
        } else if line == "ok" || (line.starts_with("test ") && line.ends_with(" ... ok")) {
            open.passed += 1;
        } else if line == "FAILED" || (line.starts_with("test ") && line.ends_with(" ... FAILED")) {
            open.failed += 1;
        }
    }
    total.add(&open);
    // libtest has no word for a test that skips itself: it counts as passed there, but not here.
    let skips = log
        .lines()
        .filter(|line| SKIPS.iter().any(|mark| line.contains(mark)))
        .count();
    let skips = total.passed.min(u32::try_from(skips).unwrap_or(u32::MAX));
    total.passed -= skips;
    total.skipped += skips;
    total.deferred = log.lines().filter_map(deferred).collect();
    let deferred = u32::try_from(total.deferred.len()).unwrap_or(u32::MAX);
    total.skipped = total.skipped.saturating_sub(deferred);
    total
}

/// `test NAME ... ignored, REASON`, of a test that another suite runs.
fn deferred(line: &str) -> Option<Deferred> {
    let (test, reason) = line.strip_prefix("test ")?.split_once(" ... ignored, ")?;
    let (before, after) = DEFERRED;
    let suite = reason.split_once(before)?.1.strip_suffix(after)?;
    Some(Deferred {
        test: test.to_owned(),
        suite: suite.to_owned(),
    })
}

/// A test that passed, by this log.
pub(super) fn passed(log: &str, test: &str) -> bool {
    log.lines().any(|line| {
        let rest = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_prefix(test));
        rest == Some(" ... ok")
    })
}

/// The test that began last, if a test program is running.
pub(super) fn current(log: &str) -> Option<&str> {
    let line = log.lines().rev().find(|line| line.starts_with("test "))?;
    line.strip_prefix("test ")?.split(" ... ").next()
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
fn closing_line(line: &str) -> Option<Outcome> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |word: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse::<u32>().ok())
    };
    Some(Outcome {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_several_programs_add_up() {
        let log = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\n\
                   test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s\n\
                   running 3 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let outcome = count(log);
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (3, 1, 1));
    }

    #[test]
    fn a_test_that_skips_itself_did_not_pass() {
        let log = "running 3 tests\ntest one ... ok\ntest two ... lab: skip: two: no root\nok\ntest three ... ok\n\n\
                   successes:\n\n---- three stdout ----\nSKIPPED: no namespace\n\n\
                   test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let outcome = count(log);
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (1, 0, 2));
    }

    #[test]
    fn a_test_that_another_suite_runs_is_named_with_it() {
        let log = "running 3 tests\ntest a::one ... ignored, needs NICs; the suite lab-x runs it\n\
                   test a::two ... ignored, slow\ntest a::three ... ok\n\
                   test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n";
        let outcome = count(log);
        assert_eq!((outcome.passed, outcome.skipped), (1, 1));
        let [deferred] = &outcome.deferred[..] else {
            panic!("{:?}", outcome.deferred);
        };
        assert_eq!(deferred.test, "a::one");
        assert_eq!(deferred.suite, "lab-x");
        assert!(passed("x\ntest a::one ... ok\n", "a::one"));
        assert!(!passed(
            "test a::one ... FAILED\ntest a::on ... ok\n",
            "a::one"
        ));
    }

    #[test]
    fn a_program_that_died_counts_what_it_finished() {
        let log = "running 3 tests\ntest one ... ok\ntest two ... lab: booting\nok\ntest three ... lab: booting\n";
        let outcome = count(log);
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (2, 0, 0));
        assert_eq!(current(log), Some("three"));
    }
}
