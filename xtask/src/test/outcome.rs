//! What came of a suite, counted.

use std::time::Duration;

/// Counts of tests, each check being one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Tests that passed.
    pub(super) passed: u32,
    /// Tests that failed.
    pub(super) failed: u32,
    /// Tests that were not run.
    pub(super) skipped: u32,
    /// Tests that another suite runs, where they have what they need.
    pub(super) deferred: Vec<Deferred>,
    /// How long the suite took.
    pub(super) elapsed: Duration,
    /// How much of the processors' time it took: unlike the other, the same on a busy machine.
    pub(super) cpu: Duration,
    /// Why it is not simply passed.
    pub(super) reason: Option<String>,
}

/// A test that its own suite leaves to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deferred {
    /// The test, as libtest names it.
    pub(super) test: String,
    /// The suite that runs it.
    pub(super) suite: String,
}

impl Outcome {
    /// A suite that was not run.
    pub(super) fn not_run(reason: String) -> Self {
        Self {
            skipped: 1,
            reason: Some(reason),
            ..Self::default()
        }
    }

    /// A suite that failed as a whole.
    pub(super) fn broken(reason: String) -> Self {
        Self {
            failed: 1,
            reason: Some(reason),
            ..Self::default()
        }
    }

    /// Adds another suite's counts.
    pub(super) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.deferred.extend(other.deferred.iter().cloned());
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
    }

    /// The suite's line in the summary.
    pub(super) fn line(&self, name: &str) -> String {
        let mark = match self {
            Self { failed: 1.., .. } => "FAIL",
            Self { passed: 0, .. } => "skip",
            _ => "ok",
        };
        let elsewhere = self.deferred.first().map(|first| {
            let count = self.deferred.len();
            format!("{count} more are run by {}", first.suite)
        });
        let reason: String = elsewhere
            .iter()
            .chain(&self.reason)
            .map(|text| format!("  {text}"))
            .collect();
        format!(
            "{mark:4}  {name:24} {:5} passed {:3} failed {:3} skipped {:7.1} s {:7.1} s CPU{reason}",
            self.passed,
            self.failed,
            self.skipped,
            self.elapsed.as_secs_f64(),
            self.cpu.as_secs_f64()
        )
    }

    /// The total's line, in the form that programs read.
    pub(super) fn closing_line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_the_three_cases_apart() {
        let passed = Outcome {
            passed: 3,
            elapsed: Duration::from_millis(1250),
            cpu: Duration::from_millis(2310),
            ..Outcome::default()
        };
        assert_eq!(
            passed.line("unit"),
            "ok    unit                         3 passed   0 failed   0 skipped     1.2 s     2.3 s CPU"
        );
        assert!(
            Outcome::broken("exit status: 1".into())
                .line("fmt")
                .starts_with("FAIL  fmt")
        );
        let skipped = Outcome::not_run("no room".into()).line("lab-x");
        assert!(
            skipped.starts_with("skip  lab-x") && skipped.ends_with("  no room"),
            "{skipped}"
        );
    }

    #[test]
    fn what_another_suite_runs_is_not_skipped() {
        let deferred = Deferred {
            test: "act::x".to_owned(),
            suite: "lab-executor".to_owned(),
        };
        let outcome = Outcome {
            passed: 1,
            deferred: vec![deferred.clone(), deferred],
            ..Outcome::default()
        };
        let line = outcome.line("unit");
        assert!(
            line.contains("0 skipped") && line.ends_with("  2 more are run by lab-executor"),
            "{line}"
        );
    }

    #[test]
    fn the_total_adds_up() {
        let mut total = Outcome {
            passed: 3,
            skipped: 1,
            ..Outcome::default()
        };
        total.add(&Outcome::broken("x".into()));
        assert_eq!(total.closing_line(), "3 passed, 1 failed, 1 skipped");
    }
}
